//! What is done with an instance beyond a job's own steps: sealing a template, freezing a standby, claiming one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::debug;

use super::{DIRECTORY, Failure, Provision};
use crate::lxd::{self, Exec, InstanceStatus, api::ErrorKind};
use crate::model::{ConfigMap, InstanceType, Phase, keys};

/// The script that takes from a template what its copies must not share.
pub const SEAL_SCRIPT: &str = include_str!("../../../provision/seal-template.sh");
/// How long a virtual machine gets to shut down by itself.
const SHUT_DOWN: Duration = Duration::from_secs(60);

/// How a claim of a standby ended.
#[derive(Debug)]
pub enum Claim {
    /// It is ours, and was before anything else was done to it.
    Ours,
    /// It is somebody else's, or gone, or it is not certain whose it is.
    Lost(String),
}

impl Provision<'_> {
    /// Takes from the instance what its copies must not share, and stops it.
    ///
    /// # Errors
    /// The script's own words where it fails; what LXD says.
    pub fn seal(&self) -> Result<(), Failure> {
        self.push("seal-template.sh", SEAL_SCRIPT)?;
        let environment = ConfigMap::from([("LXDRUNNER_NAME".to_owned(), self.name.to_owned())]);
        let sealing = self.begin_script(&[&format!("{DIRECTORY}/seal-template.sh")], environment)?;
        self.end_script("seal-template.sh", &sealing, "/var/log/lxdrunner-setup.log")?;
        let project = &self.class.project;
        if self.class.kind == InstanceType::VirtualMachine {
            // What it holds in memory must get to its disk.
            let stopping = self.lxd.set_state(project, self.name, "stop", false)?;
            match self.lxd.wait(&stopping, SHUT_DOWN.min(self.left("stop the template")?)) {
                Ok(()) => return Ok(()),
                Err(error) => debug!("instance={} msg=\"does not shut down by itself\" error=\"{error}\"", self.name),
            }
        }
        // Quick, and nothing in it writes anything any more.
        let stopping = self.lxd.set_state(project, self.name, "stop", true)?;
        self.wait(&stopping, "stop the template")
    }

    /// Makes what is being made known as made, by its phase. Nothing must have changed since it was begun.
    ///
    /// # Errors
    /// What LXD says; `Stolen` where it is not ours any more.
    pub fn finish(&self, from: Phase, to: Phase, daemon: &str) -> Result<Option<String>, Failure> {
        let project = &self.class.project;
        let stolen = || Failure::Stolen { name: self.name.to_owned() };
        let (instance, etag) = self.lxd.instance(project, self.name)?.ok_or_else(stolen)?;
        let has = |key: &str, value: &str| instance.config.get(key).is_some_and(|v| v == value);
        if !has(keys::PHASE, from.as_str()) || !has(keys::DAEMON, daemon) {
            return Err(stolen());
        }
        let made = [(keys::PHASE, to.as_str()), (keys::DAEMON, "")];
        let config = made.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        self.lxd.patch_config(project, self.name, &config, Some(&etag))?;
        if to != Phase::Standby {
            return Ok(None);
        }
        // With it a claim needs no look of its own.
        Ok(self.lxd.instance(project, self.name)?.map(|(_, etag)| etag).filter(|etag| !etag.is_empty()))
    }

    /// Freezes the instance: it keeps its memory and uses no processor.
    ///
    /// # Errors
    /// What LXD says.
    pub fn freeze(&self) -> Result<(), Failure> {
        let freezing = self.lxd.set_state(&self.class.project, self.name, "freeze", false)?;
        self.wait(&freezing, "freeze the instance")
    }

    /// Sets these keys on a standby, if nobody else did so before. `etag` is its state's as it was prepared, where that is
    /// known.
    ///
    /// # Errors
    /// What LXD says, where nothing was done.
    pub fn claim(&self, owner: &str, config: &ConfigMap, etag: Option<&str>) -> Result<Claim, Failure> {
        let project = &self.class.project;
        if let Some(etag) = etag {
            match self.lxd.patch_config(project, self.name, config, Some(etag)) {
                Ok(()) => return Ok(Claim::Ours),
                // It changed since, perhaps only in what does not matter here.
                Err(error) if error.kind == ErrorKind::PreconditionFailed => {}
                Err(error) => return Self::not_claimed(error),
            }
        }
        let Some((standby, etag)) = self.lxd.instance(project, self.name)? else {
            return Ok(Claim::Lost("it is gone".to_owned()));
        };
        let has = |key: &str, value: &str| standby.config.get(key).is_some_and(|v| v == value);
        if !has(keys::OWNER, owner) || !has(keys::PHASE, Phase::Standby.as_str()) {
            return Ok(Claim::Lost("somebody else claimed it".to_owned()));
        }
        if standby.status != InstanceStatus::Frozen {
            return Ok(Claim::Lost("it is not frozen any more".to_owned()));
        }
        match self.lxd.patch_config(project, self.name, config, Some(&etag)) {
            Ok(()) => Ok(Claim::Ours),
            Err(error) => Self::not_claimed(error),
        }
    }

    fn not_claimed(error: lxd::Error) -> Result<Claim, Failure> {
        match error.kind {
            ErrorKind::NotFound => Ok(Claim::Lost("it is gone".to_owned())),
            ErrorKind::PreconditionFailed => Ok(Claim::Lost("somebody else claimed it".to_owned())),
            // It may have been done, and the answer lost: a listing will tell.
            ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Malformed => {
                Ok(Claim::Lost(format!("it is not certain whose it is: {error}")))
            }
            _ => Err(error.into()),
        }
    }

    /// Lets a frozen instance go on, with the right time: a virtual machine's clock stood still meanwhile.
    ///
    /// # Errors
    /// What LXD says.
    pub fn thaw(&self) -> Result<(), Failure> {
        let thawing = self.lxd.set_state(&self.class.project, self.name, "unfreeze", false)?;
        self.wait(&thawing, "unfreeze the standby")?;
        if self.class.kind == InstanceType::VirtualMachine {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let command = ["date", "-s", &format!("@{seconds}")].map(str::to_owned).to_vec();
            let exec = Exec { command, environment: ConfigMap::new(), record: false };
            let set = self.lxd.exec(&self.class.project, self.name, &exec, self.left("set the clock")?)?;
            debug!("instance={} step=clock code={}", self.name, set.code);
        }
        Ok(())
    }
}
