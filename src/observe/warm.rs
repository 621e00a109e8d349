//! Keeps LXD's file connections to standbys open: opening one takes longer than the rest of a claim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use crate::config::Config;
use crate::lxd::Lxd;
use crate::model::{InstanceStatus, InstanceType, Phase};
use crate::world::InstanceSeen;

/// LXD ends the process that serves an instance's files after 15 idle seconds.
const EVERY: Duration = Duration::from_secs(8);
/// A container whose file connection takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The standbys whose files are kept open.
pub(super) struct Warm {
    lxd: Arc<Lxd>,
    config: Arc<Config>,
    last: Option<Instant>,
    standbys: Vec<(String, String)>,
}

impl Warm {
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>) -> Warm {
        Warm { lxd, config, last: None, standbys: Vec::new() }
    }

    /// The instances of the last look. The agent of a frozen virtual machine does not answer, so only containers count.
    pub fn see(&mut self, instances: &[InstanceSeen]) {
        let of_containers =
            |class: &str| self.config.classes.iter().any(|c| c.name == class && c.kind == InstanceType::Container);
        let waits = |i: &&InstanceSeen| {
            i.phase == Phase::Standby && i.status == InstanceStatus::Frozen && of_containers(&i.class)
        };
        self.standbys = instances.iter().filter(waits).map(|i| (i.project.clone(), i.name.clone())).collect();
    }

    /// Reopens the connections that are due.
    pub fn keep(&mut self) {
        if self.standbys.is_empty() || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        for (project, name) in &self.standbys {
            if let Err(error) = self.lxd.open_files(project, name, PATIENCE) {
                debug!("instance={name} msg=\"not kept warm\" error=\"{error}\"");
                return;
            }
        }
    }
}
