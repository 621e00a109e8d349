//! Steps of templates and standbys: seal, publish, freeze, claim, thaw.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{debug, warn};

use super::hand_over::RUNNER_LOG;
use super::{DIRECTORY, Failure, Provision, SETUP_LOG};
use crate::lxd::{self, ErrorKind, Exec};
use crate::model::{ConfigMap, InstanceType, Phase, keys};

/// The script that removes from a template what its copies must not share.
pub const SEAL_SCRIPT: &str = include_str!("../../../provision/seal-template.sh");
/// The compression of a template that is an image: a third of the size, and faster than writing it uncompressed.
const COMPRESSION: &str = "zstd";
/// How long a virtual machine may take to shut down.
const SHUT_DOWN: Duration = Duration::from_secs(60);

impl Provision<'_> {
    /// Removes from the instance what its copies must not share, and stops it.
    ///
    /// # Errors
    /// The script's message if it fails; LXD's errors.
    pub fn seal(&self) -> Result<(), Failure> {
        self.push("seal-template.sh", SEAL_SCRIPT)?;
        let environment = ConfigMap::from([("LXDRUNNER_NAME".to_owned(), self.name.to_owned())]);
        let sealing = self.begin_script(&[&format!("{DIRECTORY}/seal-template.sh")], environment)?;
        let sealed = self.end_script("seal-template.sh", &sealing, SETUP_LOG)?;
        let said = self.lxd.exec_output(&self.class.project, sealed).stdout;
        for (_, warning) in said.lines().take(100).filter_map(|line| line.split_once("WARNING: ")) {
            warn!("class={:?} template={} msg={warning:?}", self.class.name, self.name);
        }
        let project = &self.class.project;
        if self.class.kind == InstanceType::VirtualMachine {
            // Its memory must be flushed to its disk.
            let stopping = self.lxd.set_state(project, self.name, "stop", false)?;
            match self.lxd.wait(&stopping, SHUT_DOWN.min(self.left("stop the template")?)) {
                Ok(()) => return Ok(()),
                Err(error) => debug!("instance={} msg=\"does not shut down by itself\" error=\"{error}\"", self.name),
            }
        }
        // Fast; nothing in it writes any more.
        let stopping = self.lxd.set_state(project, self.name, "stop", true)?;
        self.wait(&stopping, "stop the template")
    }

    /// Marks it finished by writing its phase key, if its ETag is still this one. The key of the process that made it stays.
    ///
    /// # Errors
    /// LXD's errors; `PreconditionFailed` if it changed since.
    pub fn finish(&self, to: Phase, etag: &str) -> Result<(), lxd::Error> {
        let config = ConfigMap::from([(keys::PHASE.to_owned(), to.as_str().to_owned())]);
        self.lxd.patch_config(&self.class.project, self.name, &config, Some(etag))
    }

    /// Publishes the stopped instance as an image with the same name; returns its fingerprint.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn publish(&self, alias: &str, properties: &ConfigMap) -> Result<String, Failure> {
        let publish = |compression: &str| self.publish_as(alias, properties, compression);
        publish(COMPRESSION).or_else(|failure: Failure| match &failure {
            // Without the compression program LXD refuses at once, Incus fails later.
            Failure::Lxd(error) if matches!(error.kind, ErrorKind::Refused(_) | ErrorKind::OperationFailed) => {
                publish("none")
            }
            _ => Err(failure),
        })
    }

    /// Waits until the armed instance's boot has ended, and prepares it for a long freeze.
    ///
    /// # Errors
    /// The script's message if the boot does not end; LXD's errors.
    pub fn settle(&self) -> Result<(), Failure> {
        let settling = self.start_script("settle")?;
        self.end_script("start-runner.sh", &settling, RUNNER_LOG).map(drop)
    }

    /// Freezes the instance: it keeps its memory and uses no processor.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn freeze(&self) -> Result<(), Failure> {
        let freezing = self.lxd.set_state(&self.class.project, self.name, "freeze", false)?;
        self.wait(&freezing, "freeze the instance")
    }

    /// Sets these keys on a standby, if its ETag is still this one.
    ///
    /// # Errors
    /// LXD's errors; `PreconditionFailed` if it changed since.
    pub fn claim(&self, config: &ConfigMap, etag: &str) -> Result<(), lxd::Error> {
        self.lxd.patch_config(&self.class.project, self.name, config, Some(etag))
    }

    /// Thaws a frozen instance.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn thaw(&self) -> Result<(), Failure> {
        let thawing = self.lxd.set_state(&self.class.project, self.name, "unfreeze", false)?;
        self.wait(&thawing, "unfreeze the standby")
    }

    /// Sets the clock of a virtual machine, which stood still while it was frozen.
    ///
    /// # Errors
    /// LXD's errors.
    pub fn set_clock(&self) -> Result<(), Failure> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let command = ["date", "-s", &format!("@{seconds}")].map(str::to_owned).to_vec();
        let exec = Exec { command, environment: ConfigMap::new(), record: false };
        let set = self.lxd.exec(&self.class.project, self.name, &exec, self.left("set the clock")?)?;
        debug!("instance={} step=clock code={}", self.name, set.code);
        Ok(())
    }
}
