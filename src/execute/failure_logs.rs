//! Keeps the logs of failed instances before their removal.

use log::{debug, info};

use super::Executor;
use crate::lxd::Instance;
use crate::model::Timestamp;
use crate::runner::failure_logs::Kept;

impl Executor {
    /// Keeps the logs of an instance that is to be removed for `reason`; a failure does not stop the removal.
    /// Returns a suffix for the removal's log line.
    pub(super) fn save_failure_logs(&self, instance: &Instance, reason: &str) -> String {
        match self.keep(instance, (reason, "")) {
            Some(Kept::New | Kept::Before) => format!(" see=\"lxdrunner failures {}\"", instance.name),
            _ => String::new(),
        }
    }

    /// The same for an instance whose making failed, with the reason and the output of the failed script.
    pub(super) fn keep_of_failed(&self, project: &str, name: &str, why: (&str, &str)) {
        if self.config.failures_kept == 0 {
            return;
        }
        match self.lxd.instance(project, name) {
            Ok(Some((instance, _))) => drop(self.keep(&instance, why)),
            Ok(None) => debug!("instance={name} msg=\"gone before its logs could be kept\""),
            Err(error) => debug!("instance={name} msg=\"its logs are not kept\" error=\"{error}\""),
        }
    }

    fn keep(&self, instance: &Instance, why: (&str, &str)) -> Option<Kept> {
        let name = &instance.name;
        match self.failures.keep(&self.lxd, instance, why, Timestamp::now()) {
            Ok(kept) => Some(kept),
            Err(error) => {
                let place = self.failures.directory().display();
                info!("instance={name} msg=\"its logs could not be kept in {place}\" error=\"{error}\"");
                None
            }
        }
    }
}
