//! Waits for the operations of a making within its limits, logs those that take long, and notes their progress.

use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{debug, info};

use super::Provision;
use super::failure::Failure;
use super::limits::{Clock, Limit, PROGRESS_EVERY};
use crate::lxd::{self, ErrorKind, Operation, Patience, Progress, Signs};
use crate::model::{ConfigMap, keys};
use crate::runner::masks::masked;

impl Provision<'_> {
    /// How long the next step may take without progress.
    pub(super) fn left(&self, step: &'static str) -> Result<Duration, Failure> {
        if let Some(after) = self.clock.over() {
            return Err(Failure::TooLate { step, after });
        }
        // The end of the last step is progress.
        self.note_progress();
        let Clock { begun, limits, .. } = &self.clock;
        Ok(limits.whole.saturating_sub(begun.elapsed()).min(limits.step))
    }

    fn patience<'p>(&self, seen: &'p dyn Fn(&Progress)) -> Patience<'p> {
        let Clock { begun, limits, .. } = self.clock;
        Patience { quiet: limits.step, until: begun + limits.whole, seen }
    }

    /// Waits for an operation, and logs now and then that it continues.
    pub(super) fn wait(&self, operation: &Operation, step: &'static str) -> Result<(), Failure> {
        self.wait_by(operation, step, Signs::Own)
    }

    /// The same with these signs of progress.
    pub(super) fn wait_by(&self, operation: &Operation, step: &'static str, signs: Signs<'_>) -> Result<(), Failure> {
        let seen = |progress: &Progress| self.tell(step, progress);
        let waited = self.lxd.wait_patiently(operation, &self.patience(&seen), signs);
        waited.map_err(|error| self.not_done(error, step))
    }

    /// Makes an image of the instance.
    pub(super) fn publish_as(&self, alias: &str, properties: &ConfigMap, compression: &str) -> Result<String, Failure> {
        let step = "publish the template";
        let seen = |progress: &Progress| self.tell_and_note(step, progress);
        let (project, patience) = (&self.class.project, self.patience(&seen));
        let published = self.lxd.publish(project, self.name, alias, properties, compression, &patience);
        published.map_err(|error| self.not_done(error, step))
    }

    /// Waits for the end of a command whose output is recorded.
    pub(super) fn end_exec(&self, running: &Operation, step: &'static str) -> Result<lxd::EndedExec, lxd::Error> {
        let seen = |progress: &Progress| self.tell_and_note(step, progress);
        self.lxd.end_exec((&self.class.project, self.name), running, &self.patience(&seen))
    }

    /// The limit that was reached, if the wait failed for that.
    pub(super) fn limit(&self, error: &lxd::Error) -> Option<Limit> {
        match error.kind {
            ErrorKind::Stalled => Some(Limit::Step(self.clock.limits.step)),
            ErrorKind::Timeout => self.clock.over().map(Limit::Whole),
            _ => None,
        }
    }

    fn not_done(&self, error: lxd::Error, step: &'static str) -> Failure {
        match self.limit(&error) {
            Some(Limit::Whole(after)) => Failure::TooLate { step, after },
            _ => error.into(),
        }
    }

    fn tell_and_note(&self, step: &str, progress: &Progress) {
        self.tell(step, progress);
        if progress.made {
            self.note_progress();
        }
    }

    fn tell(&self, step: &str, progress: &Progress) {
        let took = self.clock.begun.elapsed();
        if took < PROGRESS_EVERY {
            return;
        }
        let (name, status, seconds) = (self.name, masked(&progress.status), took.as_secs());
        let status = if status.is_empty() { status } else { format!(" status={status:?}") };
        info!("instance={name} step={step:?}{status} msg=\"still under way\" seconds={seconds}");
    }

    /// Notes on the instance that a long making continues: daemons on other machines would otherwise remove it as abandoned.
    fn note_progress(&self) {
        let Clock { begun, limits, noted } = &self.clock;
        let seconds = begun.elapsed().as_secs();
        if seconds == 0 || seconds < noted.load(Ordering::Relaxed) + limits.step.as_secs() / 3 {
            return;
        }
        noted.store(seconds, Ordering::Relaxed);
        let config = ConfigMap::from([(keys::PROGRESS.to_owned(), seconds.to_string())]);
        if let Err(error) = self.lxd.patch_config(&self.class.project, self.name, &config, None) {
            debug!("instance={} msg=\"could not note its progress\" error=\"{error}\"", self.name);
        }
    }
}
