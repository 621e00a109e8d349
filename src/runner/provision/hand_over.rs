//! The last steps before a runner runs: arm, hand over, note.
//!
//! `start-runner.sh arm` leaves a process in the instance that has everything ready but the credentials. These are one small
//! file, pushed to the tmpfs that the process watches. A missing directory is an error: the credentials must not be written to
//! a disk.

use std::time::Instant;

use log::debug;

use super::{DIRECTORY, Failure, Provision};
use crate::config::Class;
use crate::lxd;
use crate::lxd::{CALL_TIMEOUT, ErrorKind, Operation};
use crate::model::{ConfigMap, Phase, RunnerId, Secret, keys};

/// The file that the waiting process takes; its directory is a tmpfs made by `start-runner.sh arm`.
pub const CREDENTIALS: &str = "/run/lxdrunner/credentials";
pub(super) const RUNNER_LOG: &str = "/var/log/lxdrunner-runner.log";

/// The credentials of a runner.
#[derive(Debug)]
pub enum Credentials {
    /// Made by `generate-jitconfig`.
    Jit { runner: RunnerId, encoded: Secret },
    /// For `config.sh --ephemeral`.
    Token { token: Secret, url: String },
}

impl Credentials {
    /// GitHub's id of the runner, if it is known before the runner registers.
    pub fn runner(&self) -> Option<RunnerId> {
        match self {
            Credentials::Jit { runner, .. } => Some(*runner),
            Credentials::Token { .. } => None,
        }
    }

    /// The file's text, see `provision/start-runner.sh`.
    fn document(&self, class: &Class, name: &str) -> Secret {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // One line for each value.
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.extend([key, " ", &value, "\n"]);
        };
        match self {
            Credentials::Jit { encoded, .. } => {
                line("kind", "jit");
                line("name", name);
                line("secret", encoded.expose());
            }
            Credentials::Token { token, url } => {
                line("kind", "token");
                line("name", name);
                line("url", url);
                line("labels", &class.labels.to_string());
                line("group", &class.runner_group);
                line("secret", token.expose());
            }
        }
        text.push_str("end\n");
        Secret::new(text)
    }
}

impl Provision<'_> {
    /// Begins to prepare everything but the credentials; [`Provision::armed`] waits for it. The instance must run and have a
    /// runner in it.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn arm(&self) -> Result<Operation, Failure> {
        self.start_script("arm")
    }

    /// Begins `start-runner.sh WHAT`.
    pub(super) fn start_script(&self, what: &str) -> Result<Operation, Failure> {
        let patience = self.waiting_time("start-runner.sh")?;
        let mut environment = ConfigMap::from([
            ("LXDRUNNER_SETUP_TIMEOUT".to_owned(), patience),
            ("LXDRUNNER_GITHUB".to_owned(), self.github.clone()),
        ]);
        if !self.class.wait_for.is_empty() {
            environment.insert("LXDRUNNER_WAIT_FOR".to_owned(), self.class.wait_for.join(" "));
        }
        self.begin_script(&[&format!("{DIRECTORY}/start-runner.sh"), what], environment)
    }

    /// Waits until the instance waits for credentials. From then on it may be frozen and thawed before they come.
    ///
    /// # Errors
    /// The script's message if it fails; LXD's errors.
    pub fn armed(&self, arming: &Operation) -> Result<(), Failure> {
        let begun = Instant::now();
        self.end_script("start-runner.sh", arming, RUNNER_LOG)?;
        debug!("instance={} step=arm waited={:?}", self.name, begun.elapsed());
        self.mark.at("armed");
        Ok(())
    }

    /// Prepares LXD for the push of the credentials. Failures do not matter.
    pub fn open_files(&self) {
        if let Err(error) = self.lxd.open_files(&self.class.project, self.name, CALL_TIMEOUT) {
            debug!("instance={} step=open_files error=\"{error}\"", self.name);
        }
        self.mark.at("files_open");
    }

    /// Hands the credentials over, after which the runner starts. The instance's name is the runner's.
    ///
    /// # Errors
    /// LXD's errors; `NotFound` also if the instance is not armed.
    pub fn hand_over(&self, credentials: &Credentials) -> Result<(), Failure> {
        let document = credentials.document(self.class, self.name);
        let mut bytes = document.expose().as_bytes();
        let left = self.left("hand over the credentials")?;
        let length = bytes.len() as u64;
        let pushed = self.lxd.push_file(&self.class.project, self.name, CREDENTIALS, 0o600, &mut bytes, length, left);
        match pushed {
            Err(error) if error.kind == ErrorKind::NotFound => Err(Failure::NotArmed(error)),
            other => {
                self.mark.at("handed_over");
                Ok(other?)
            }
        }
    }

    /// Notes its registration on the instance, before the credentials are handed over: a process that finds it half-made must be
    /// able to ask GitHub whether its runner came up.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn note_runner(&self, runner: RunnerId) -> Result<(), Failure> {
        let config = ConfigMap::from([(keys::RUNNER_ID.to_owned(), runner.to_string())]);
        Ok(self.lxd.patch_config(&self.class.project, self.name, &config, None)?)
    }

    /// Writes the phase "started", only after the hand-over: an instance that never got credentials would be waited for in vain.
    /// `runner` is its registration if that is not noted yet (a standby's).
    ///
    /// # Errors
    /// LXD's errors.
    pub fn note_started(&self, runner: Option<RunnerId>) -> Result<(), lxd::Error> {
        let mut config = ConfigMap::from([(keys::PHASE.to_owned(), Phase::Started.as_str().to_owned())]);
        config.extend(runner.map(|runner| (keys::RUNNER_ID.to_owned(), runner.to_string())));
        self.lxd.patch_config(&self.class.project, self.name, &config, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_one_line_a_value_and_ends_with_its_end() {
        let mut class = crate::world::testkit::config().classes.remove(0);
        class.runner_group = "a\nsecret stolen".to_owned();
        let encoded = Secret::new("Zm9v");
        let jit = Credentials::Jit { runner: RunnerId(7), encoded };
        assert_eq!(jit.document(&class, "x-1-1").expose(), "kind jit\nname x-1-1\nsecret Zm9v\nend\n");
        let token = Credentials::Token { token: Secret::new("T"), url: "https://github.com/acme".to_owned() };
        let document = token.document(&class, "x-1-1");
        let lines: Vec<&str> = document.expose().lines().collect();
        let labels = format!("labels {}", class.labels);
        let expected = [
            "kind token",
            "name x-1-1",
            "url https://github.com/acme",
            &labels,
            "group a secret stolen",
            "secret T",
            "end",
        ];
        assert_eq!(lines, expected);
    }
}
