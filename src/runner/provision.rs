//! Puts a runner into an instance: create, start, push, set up, start the runner. Effects only; what to do when a step
//! fails is decided elsewhere.
//!
//! The secret (a JIT config or a registration token) goes through LXD's files API into `/run/lxdrunner`, a tmpfs, and
//! the start script removes it before the runner runs. It is never in an argument, in LXD's operations or on a disk.

use std::fs::File;
use std::time::{Duration, Instant};

use log::{debug, info};

use crate::config::{Class, ImageRef};
use crate::lxd::{self, Exec, Instance, Lxd, NewInstance, api::ErrorKind, api::Operation, api::Source};
use crate::model::{ConfigMap, InstanceType, JobId, Phase, RunnerId, Scope, Secret, keys};
use crate::runner::package::Package;

/// The set-up script that is used where a class names none.
pub const SETUP_SCRIPT: &str = include_str!("../../provision/setup-runner.sh");
/// The script that starts the runner and powers the instance off behind it.
pub const START_SCRIPT: &str = include_str!("../../provision/start-runner.sh");

const DIRECTORY: &str = "/opt/lxdrunner";
const SECRET_DIRECTORY: &str = "/run/lxdrunner";
/// Lines of a failed script's output that are kept.
const TAIL_LINES: usize = 40;
/// An operation that takes longer is reported every time that this has passed again.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A step that failed.
#[derive(Debug)]
pub enum Failure {
    /// LXD refused or did not answer.
    Lxd(lxd::Error),
    /// A script in the instance ended with this code; the end of its output.
    Script { what: &'static str, code: i64, output: String },
    /// A script in the instance did not end in time; the end of its log.
    Hung { what: &'static str, after: Duration, output: String },
    /// A file of this host could not be read.
    File { path: String, source: std::io::Error },
    /// The provisioning deadline passed.
    TooLate { step: &'static str, after: Duration },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Lxd(error) => error.fmt(f),
            Failure::Script { what, code, output } => {
                write!(f, "{what} ended with code {code}; the end of its output:\n{output}")
            }
            Failure::Hung { what, after, output } => write!(
                f,
                "{what} did not end within {} s (provision_timeout); the end of its log:\n{output}",
                after.as_secs()
            ),
            Failure::File { path, source } => write!(f, "read {path}: {source}"),
            Failure::TooLate { step, after } => {
                write!(f, "{step}: not done within {} s (provision_timeout)", after.as_secs())
            }
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Lxd(error) => Some(error),
            Failure::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<lxd::Error> for Failure {
    fn from(error: lxd::Error) -> Failure {
        Failure::Lxd(error)
    }
}

/// What a runner proves itself with.
#[derive(Debug)]
pub enum Credentials {
    /// Made by `generate-jitconfig`.
    Jit { runner: RunnerId, encoded: Secret },
    /// For `config.sh --ephemeral`.
    Token { token: Secret, url: String },
}

impl Credentials {
    /// GitHub's id of the runner, where it is known before the runner registers.
    pub fn runner(&self) -> Option<RunnerId> {
        match self {
            Credentials::Jit { runner, .. } => Some(*runner),
            Credentials::Token { .. } => None,
        }
    }
}

/// One instance while a runner is put into it.
pub struct Provision<'a> {
    lxd: &'a Lxd,
    class: &'a Class,
    name: &'a str,
    begun: Instant,
    limit: Duration,
}

impl<'a> Provision<'a> {
    /// Nothing is done yet; `limit` is for all steps together.
    pub fn new(lxd: &'a Lxd, class: &'a Class, name: &'a str, limit: Duration) -> Provision<'a> {
        Provision { lxd, class, name, begun: Instant::now(), limit }
    }

    /// What is left of the time for all steps.
    fn left(&self, step: &'static str) -> Result<Duration, Failure> {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() { Err(Failure::TooLate { step, after: self.limit }) } else { Ok(left) }
    }

    /// Waits for an operation, and says so every few seconds where it takes long.
    fn wait(&self, operation: &Operation, step: &'static str) -> Result<(), Failure> {
        loop {
            let slice = self.left(step)?.min(PROGRESS_EVERY);
            match self.lxd.wait(operation, slice) {
                Err(error) if error.kind == ErrorKind::Timeout => {
                    let took = self.begun.elapsed().as_secs();
                    info!("instance={} step={step:?} msg=\"still under way\" seconds={took}", self.name);
                }
                other => return Ok(other?),
            }
        }
    }

    /// Makes the instance, stopped.
    ///
    /// # Errors
    /// What LXD says; a name that is taken is found out by asking whose it is, not from the error.
    pub fn create(&self, owner: &str, scope: &Scope, job: JobId, daemon: &str) -> Result<(), Failure> {
        let ours = [
            (keys::OWNER, owner.to_owned()),
            (keys::CLASS, self.class.name.clone()),
            (keys::SCOPE, scope.to_string()),
            (keys::JOB, job.to_string()),
            (keys::PHASE, Phase::Provisioning.as_str().to_owned()),
            (keys::DAEMON, daemon.to_owned()),
        ];
        let mut config = self.class.config.clone();
        config.extend(ours.map(|(key, value)| (key.to_owned(), value)));
        let new = NewInstance {
            name: self.name.to_owned(),
            kind: self.class.kind,
            source: source(&self.class.image),
            profiles: self.class.profiles.clone(),
            config,
            devices: self.class.devices.clone(),
            ephemeral: true,
        };
        let operation = self.lxd.create(&self.class.project, &self.class.target, &new)?;
        self.wait(&operation, "create the instance")
    }

    /// Begins to start it; [`Provision::started`] waits for the end.
    pub fn start(&self) -> Result<Operation, Failure> {
        Ok(self.lxd.set_state(&self.class.project, self.name, "start", false)?)
    }

    /// Waits until it runs, for a virtual machine until its agent answers.
    pub fn started(&self, operation: &Operation) -> Result<(), Failure> {
        self.wait(operation, "start the instance")?;
        if self.class.kind == InstanceType::Container {
            return Ok(());
        }
        // The agent comes up, is restarted once by the guest's own set-up, and comes up again: twice in a row counts.
        // LXD has no event for it, hence the look every half second.
        let mut answers = 0;
        while answers < 2 {
            self.left("wait for the virtual machine's agent")?;
            match self.lxd.processes(&self.class.project, self.name)? {
                count if count >= 0 => answers += 1,
                _ => answers = 0,
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Pushes the package and the scripts, and sets the runner up.
    pub fn prepare(&self, package: &Package) -> Result<(), Failure> {
        self.lxd.make_directory(&self.class.project, self.name, DIRECTORY, 0o755)?;
        let path = &package.path;
        let file = |source| Failure::File { path: path.display().to_string(), source };
        let mut content = File::open(path).map_err(file)?;
        let length = content.metadata().map_err(file)?.len();
        let begun = Instant::now();
        let left = self.left("push the runner package")?;
        let package_path = format!("{DIRECTORY}/package.tar.gz");
        self.lxd.push_file(&self.class.project, self.name, &package_path, 0o644, &mut content, length, left)?;
        debug!("instance={} step=push bytes={length} took={:?}", self.name, begun.elapsed());
        let setup = self.class.setup_script.as_deref().unwrap_or(SETUP_SCRIPT);
        self.push("setup-runner.sh", setup)?;
        self.push("start-runner.sh", START_SCRIPT)?;
        let begun = Instant::now();
        // Its own waiting ends before ours does, so that it can say what it waited for.
        let patience = self.left("setup-runner.sh")?.as_secs() * 9 / 10;
        let environment = ConfigMap::from([
            ("LXDRUNNER_SETUP_TIMEOUT".to_owned(), patience.to_string()),
            ("LXDRUNNER_NAME".to_owned(), self.name.to_owned()),
            ("LXDRUNNER_CLASS".to_owned(), self.class.name.clone()),
        ]);
        self.script("setup-runner.sh", environment, "/var/log/lxdrunner-setup.log")?;
        debug!("instance={} step=setup took={:?}", self.name, begun.elapsed());
        Ok(())
    }

    /// Hands the secret over and starts the runner, detached.
    pub fn start_runner(&self, credentials: &Credentials) -> Result<(), Failure> {
        let (secret, kind) = match credentials {
            Credentials::Jit { encoded, .. } => (encoded, "jit"),
            Credentials::Token { token, .. } => (token, "token"),
        };
        let mut environment = ConfigMap::from([
            ("LXDRUNNER_REGISTRATION".to_owned(), kind.to_owned()),
            ("LXDRUNNER_NAME".to_owned(), self.name.to_owned()),
        ]);
        if let Credentials::Token { url, .. } = credentials {
            environment.insert("LXDRUNNER_URL".to_owned(), url.clone());
            environment.insert("LXDRUNNER_LABELS".to_owned(), self.class.labels.to_string());
            environment.insert("LXDRUNNER_GROUP".to_owned(), self.class.runner_group.clone());
        }
        self.push_secret(secret)?;
        self.script("start-runner.sh", environment, "/var/log/lxdrunner-runner.log")
    }

    fn push_secret(&self, secret: &Secret) -> Result<(), Failure> {
        let path = format!("{SECRET_DIRECTORY}/secret");
        let bytes = secret.expose().as_bytes();
        let push = || {
            let left = self.left("hand over the credentials")?;
            let length = bytes.len() as u64;
            Ok(self.lxd.push_file(&self.class.project, self.name, &path, 0o600, &mut &*bytes, length, left)?)
        };
        match push() {
            // A set-up script of the user's own need not make the directory.
            Err(Failure::Lxd(error)) if error.kind == ErrorKind::NotFound => {
                self.lxd.make_directory(&self.class.project, self.name, SECRET_DIRECTORY, 0o700)?;
                push()
            }
            other => other,
        }
    }

    fn push(&self, file: &str, text: &str) -> Result<(), Failure> {
        let left = self.left("push the scripts")?;
        let path = format!("{DIRECTORY}/{file}");
        let length = text.len() as u64;
        Ok(self.lxd.push_file(&self.class.project, self.name, &path, 0o755, &mut text.as_bytes(), length, left)?)
    }

    fn script(&self, file: &'static str, environment: ConfigMap, log: &str) -> Result<(), Failure> {
        let exec = Exec { command: vec![format!("{DIRECTORY}/{file}")], environment, record: true };
        let left = self.left(file)?;
        match self.lxd.exec(&self.class.project, self.name, &exec, left) {
            Ok(result) if result.code == 0 => Ok(()),
            Ok(result) => {
                let output = tail(&format!("{}{}", result.stdout, result.stderr));
                Err(Failure::Script { what: file, code: result.code, output })
            }
            Err(error) if error.kind == ErrorKind::Timeout => {
                let log = self.lxd.pull_file_tail(&self.class.project, self.name, log, 16 * 1024);
                let output = tail(&log.ok().flatten().unwrap_or_default());
                Err(Failure::Hung { what: file, after: self.limit, output })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Notes on the instance which registration is its own: whoever finds it half-made must be able to ask GitHub
    /// whether its runner came up after all.
    pub fn note_runner(&self, runner: RunnerId) -> Result<(), Failure> {
        let config = ConfigMap::from([(keys::RUNNER_ID.to_owned(), runner.to_string())]);
        Ok(self.lxd.patch_config(&self.class.project, self.name, &config, None)?)
    }

    /// Notes on the instance that it needs nobody any more.
    pub fn note_started(&self, runner: Option<RunnerId>) -> Result<(), lxd::Error> {
        let mut config = ConfigMap::from([(keys::PHASE.to_owned(), Phase::Started.as_str().to_owned())]);
        if let Some(runner) = runner {
            config.insert(keys::RUNNER_ID.to_owned(), runner.to_string());
        }
        self.lxd.patch_config(&self.class.project, self.name, &config, None)
    }
}

fn source(image: &ImageRef) -> Source {
    match image {
        ImageRef::Local(name) if is_fingerprint(name) => Source::Fingerprint(name.clone()),
        ImageRef::Local(name) => Source::Alias(name.clone()),
        ImageRef::Remote { server, protocol, alias, .. } => {
            Source::Remote { server: server.clone(), protocol: protocol.clone(), alias: alias.clone() }
        }
    }
}

/// True for what can only be meant as an image's fingerprint, whole or its first 12 digits and more.
pub fn is_fingerprint(name: &str) -> bool {
    (12..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The last lines of a script's output.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).copied().collect::<Vec<_>>().join("\n")
}

/// What a look into an instance found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A `Runner.Worker` process: a job runs.
    Working,
    /// None.
    Quiet,
    /// The look did not work.
    Unknown,
}

/// Looks for a worker process inside: GitHub is known to call a busy runner idle now and then, and the worker exists
/// exactly while a job runs.
pub fn look_inside(lxd: &Lxd, instance: &Instance) -> Inside {
    // The pattern does not match its own command line.
    let look = "grep -la 'Runner[.]Worker' /proc/[0-9]*/cmdline 2>/dev/null | grep -q .";
    let command = ["sh", "-c", look].map(str::to_owned).to_vec();
    let exec = Exec { command, environment: ConfigMap::new(), record: false };
    match lxd.exec(&instance.project, &instance.name, &exec, Duration::from_secs(10)) {
        Ok(result) if result.code == 0 => Inside::Working,
        Ok(result) if result.code == 1 => Inside::Quiet,
        _ => Inside::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_an_output_is_kept() {
        let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let kept = tail(&long);
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.starts_with("line 60") && kept.ends_with("line 99"));
        assert_eq!(tail(""), "");
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
