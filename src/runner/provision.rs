//! Puts a runner into an instance: create, start, push, set up, arm, hand over. Effects only; [`crate::steps`] decides what
//! follows a failure.
//!
//! The secret (a JIT config or a registration token) goes through LXD's files API into `/run/lxdrunner`, a tmpfs, and
//! the start script empties the file before the runner runs, and removes it. It is never in an argument, in LXD's
//! operations or on a disk.

mod failure;
mod hand_over;
mod inside;
mod limits;
mod reach;
mod set_up;
mod stages;
mod waits;

use std::time::{Duration, Instant};

use log::info;

use crate::config::{Class, ImageRef, Origin};
use crate::lxd::{CALL_TIMEOUT, ErrorKind, Operation, Source};
use crate::lxd::{EndedExec, Exec, Lxd, NewInstance, Signs};
use crate::model::{ConfigMap, InstanceType, Product};
use crate::steps::default_config;
use crate::trace::Mark;
pub use failure::Failure;
pub use hand_over::{CREDENTIALS, Credentials};
pub use inside::look_inside;
use limits::{Clock, PROGRESS_EVERY};
pub use limits::{Limit, Limits};
pub use reach::why_not_online;
pub use stages::SEAL_SCRIPT;

/// The built-in set-up script.
pub const SETUP_SCRIPT: &str = include_str!("../../provision/setup-runner.sh");
/// The script that starts the runner and powers the instance off afterwards.
pub const START_SCRIPT: &str = include_str!("../../provision/start-runner.sh");

/// The part of it that reads the environment.
const ENVIRONMENT_SCRIPT: &str = include_str!("../../provision/environment.sh");

/// Digest of our embedded scripts; a change makes templates stale.
pub fn scripts_digest() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for script in [SETUP_SCRIPT, START_SCRIPT, ENVIRONMENT_SCRIPT, SEAL_SCRIPT] {
        hash.update(script.len().to_le_bytes());
        hash.update(script);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const DIRECTORY: &str = "/opt/lxdrunner";
/// The set-up's progress file in an instance.
pub(super) const SETUP_LOG: &str = "/var/log/lxdrunner-setup.log";
/// How often the wait for a virtual machine's agent is reported, after the first [`PROGRESS_EVERY`].
const AGENT_PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// Bytes read of LXD's log of a failed start.
const START_LOG: usize = 16 * 1024;

/// One instance while a runner is put into it.
pub struct Provision<'a> {
    lxd: &'a Lxd,
    class: &'a Class,
    name: &'a str,
    clock: Clock,
    mark: Mark<'a>,
    /// `SCHEME://HOST:PORT` that a runner must reach; empty: not checked.
    github: String,
}

impl<'a> Provision<'a> {
    /// `mark` records the moments of the steps.
    pub fn new(lxd: &'a Lxd, class: &'a Class, name: &'a str, limits: Limits, mark: Mark<'a>) -> Provision<'a> {
        Provision { lxd, class, name, clock: Clock::start(limits), mark, github: String::new() }
    }

    /// The same with a check that GitHub's API can be reached from inside.
    pub fn reaching(self, api: &str) -> Provision<'a> {
        Provision { github: reach::endpoint(api).unwrap_or_default(), ..self }
    }

    /// Makes the instance, stopped, with `keys` in its config.
    ///
    /// # Errors
    /// LXD's errors; whether the name is taken is found out by a look, not from the error.
    pub fn create(&self, source: Source, keys: ConfigMap, ephemeral: bool) -> Result<(), Failure> {
        let operation =
            self.lxd.create(&self.class.project, &self.class.target, &self.order(source, keys, ephemeral))?;
        self.created(&operation)
    }

    /// The same, and starts it in the same call if the server can: true then, and only [`Provision::usable`] remains.
    ///
    /// # Errors
    /// The same. The instance may exist if it was made and could not be started.
    pub fn create_started(&self, source: Source, keys: ConfigMap, ephemeral: bool) -> Result<bool, Failure> {
        let new = self.order(source, keys, ephemeral);
        let (operation, starts) = self.lxd.create_started(&self.class.project, &self.class.target, &new)?;
        let created = self.created(&operation);
        if starts {
            created.map_err(|failure| self.with_log(failure))?;
        } else {
            created?;
        }
        Ok(starts)
    }

    fn order(&self, source: Source, keys: ConfigMap, ephemeral: bool) -> NewInstance {
        let mut config = default_config(self.lxd.evacuates());
        config.extend(self.class.config.clone());
        config.extend(keys);
        NewInstance {
            name: self.name.to_owned(),
            kind: self.class.kind,
            source,
            profiles: self.class.profiles.clone(),
            config,
            devices: self.class.devices.clone(),
            ephemeral,
        }
    }

    fn created(&self, operation: &Operation) -> Result<(), Failure> {
        self.wait_by(operation, "create the instance", Signs::Image)?;
        self.mark.at("created");
        Ok(())
    }

    /// Begins the start; [`Provision::started`] waits for the end.
    pub fn start(&self) -> Result<Operation, Failure> {
        Ok(self.lxd.set_state(&self.class.project, self.name, "start", false)?)
    }

    /// Waits until it runs, and until a virtual machine's agent answers.
    pub fn started(&self, operation: &Operation) -> Result<(), Failure> {
        self.wait(operation, "start the instance").map_err(|failure| self.with_log(failure))?;
        self.mark.at("started");
        self.usable()
    }

    /// A failed start with LXD's log of it: LXD's error often says only that one of its programs failed.
    fn with_log(&self, failure: Failure) -> Failure {
        let Failure::Lxd(error) = failure else { return failure };
        let file = match self.class.kind {
            InstanceType::Container => "lxc.log",
            InstanceType::VirtualMachine => "qemu.log",
        };
        let log = match error.kind {
            ErrorKind::OperationFailed => self.lxd.log_tail(&self.class.project, self.name, file, START_LOG),
            _ => Ok(String::new()),
        };
        match log {
            Ok(log) if !log.trim().is_empty() => Failure::NotStarted { error, log },
            _ => Failure::Lxd(error),
        }
    }

    /// Waits until a virtual machine's agent answers.
    pub fn usable(&self) -> Result<(), Failure> {
        if self.class.kind == InstanceType::Container {
            return Ok(());
        }
        // The agent comes up, is restarted once by the guest's own set-up, and comes up again: twice in a row counts.
        // LXD has no event for it.
        let (begun, mut answers, mut tell_at) = (Instant::now(), 0, PROGRESS_EVERY);
        let left = self.left("wait for the agent")?;
        while answers < 2 {
            if begun.elapsed() >= left {
                return Err(Failure::NoAgent { product: self.lxd.product(), after: left });
            }
            match self.lxd.processes(&self.class.project, self.name)? {
                count if count >= 0 => answers += 1,
                _ => answers = 0,
            }
            let waited = begun.elapsed();
            if waited >= tell_at && answers == 0 {
                let seconds = waited.as_secs();
                info!("instance={} msg=\"waiting for the virtual machine's agent\" seconds={seconds}", self.name);
                tell_at = waited + AGENT_PROGRESS_EVERY;
            }
            std::thread::sleep(agent_pause(waited));
        }
        Ok(())
    }

    fn push(&self, file: &str, text: &str) -> Result<(), Failure> {
        let left = self.left("push the scripts")?;
        let path = format!("{DIRECTORY}/{file}");
        let length = text.len() as u64;
        Ok(self.lxd.push_file(&self.class.project, self.name, &path, 0o755, &mut text.as_bytes(), length, left)?)
    }

    /// How long a script may wait, in seconds. Its wait ends before ours, so that it can report what it waited for.
    fn waiting_time(&self, step: &'static str) -> Result<String, Failure> {
        Ok((self.left(step)?.as_secs() * 9 / 10).to_string())
    }

    fn begin_script(&self, command: &[&str], environment: ConfigMap) -> Result<Operation, Failure> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let exec = Exec { command, environment, record: true };
        Ok(self.lxd.start_exec(&self.class.project, self.name, &exec)?)
    }

    fn end_of(&self, log: &str) -> String {
        let end = self.lxd.pull_file_tail(&self.class.project, self.name, log, 16 * 1024, CALL_TIMEOUT);
        end.ok().flatten().unwrap_or_default()
    }

    /// A command that succeeded, for its output.
    fn end_script(&self, file: &'static str, operation: &Operation, log: &str) -> Result<EndedExec, Failure> {
        match self.end_exec(operation, file) {
            Ok(ended) if ended.code == 0 => Ok(ended),
            Ok(ended) => {
                let result = self.lxd.exec_output(&self.class.project, ended);
                let output = format!("{}{}", result.stdout, result.stderr);
                if result.code == reach::NO_NETWORK {
                    return Err(self.no_network(output));
                }
                Err(Failure::Script { what: file, code: result.code, output })
            }
            Err(error) => {
                let Some(limit) = self.limit(&error) else { return Err(error.into()) };
                let output = self.lxd.printed_so_far((&self.class.project, self.name), operation);
                let output = if output.trim().is_empty() { self.end_of(log) } else { output };
                Err(Failure::Hung { what: file, limit, output })
            }
        }
    }
}

/// The source of an instance of this image, for `product`.
pub fn source(image: &ImageRef, product: Product) -> Source {
    if let Some(Origin { server, protocol, alias }) = image.origin(product) {
        return Source::Remote { server, protocol, alias };
    }
    let name = image.to_string();
    if is_fingerprint(&name) { Source::Fingerprint(name) } else { Source::Alias(name) }
}

/// The pause before the next look for a virtual machine's agent. Each look costs LXD and the machine time that a slow boot
/// needs.
fn agent_pause(waited: Duration) -> Duration {
    if waited < Duration::from_secs(10) { Duration::from_millis(500) } else { Duration::from_secs(2) }
}

/// True for an image's fingerprint, whole or at least its first 12 digits.
pub fn is_fingerprint(name: &str) -> bool {
    (12..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_machine_that_boots_slowly_is_looked_at_less_often() {
        assert_eq!(agent_pause(Duration::from_millis(9_999)), Duration::from_millis(500));
        assert_eq!(agent_pause(Duration::from_secs(10)), Duration::from_secs(2));
    }

    #[test]
    fn a_fingerprint_is_told_from_an_alias() {
        let check = |name: &str, is: bool| assert_eq!(is_fingerprint(name), is, "{name}");
        check("8fcee35ac7f5", true);
        check("8fcee35ac7f59228716cc24802860a947d9d0e198f7c44d7934ab2fee179cbe6", true);
        check("ubuntu/focal/cloud", false);
        check("decade", false);
        check("24.04", false);
    }
}
