//! Keeps standbys warm: what LXD needs for pushing a file into one is made ready before a job comes, and kept ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use crate::config::Config;
use crate::lxd::Lxd;
use crate::model::{InstanceType, Phase};
use crate::world::{InstanceSeen, Status};

/// LXD lets go after 15 seconds.
const EVERY: Duration = Duration::from_secs(8);
/// A container whose files take longer is no help, and neither is whatever LXD is busy with.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to keep warm.
pub(super) struct Warm {
    lxd: Arc<Lxd>,
    config: Arc<Config>,
    last: Option<Instant>,
    standbys: Vec<(String, String)>,
}

impl Warm {
    /// Nobody yet.
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>) -> Warm {
        Warm { lxd, config, last: None, standbys: Vec::new() }
    }

    /// These are there. A frozen virtual machine answers nobody, so only containers count.
    pub fn see(&mut self, instances: &[InstanceSeen]) {
        let of_containers =
            |class: &str| self.config.classes.iter().any(|c| c.name == class && c.kind == InstanceType::Container);
        let waits =
            |i: &&InstanceSeen| i.phase == Phase::Standby && i.status == Status::Frozen && of_containers(&i.class);
        self.standbys = instances.iter().filter(waits).map(|i| (i.project.clone(), i.name.clone())).collect();
    }

    /// Does it, where it is time again.
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
