//! What one life of a daemon was told by deliveries: it must not act against it, whatever lags or lies.

use std::collections::{BTreeMap, BTreeSet};

use lxdrunner::model::{Hint, JobId, JobStatus, RunnerId};
use lxdrunner::plan::Plan;
use lxdrunner::world::{Action, Launch, RemoveReason, World};

#[derive(Default)]
pub struct Told {
    over: BTreeSet<JobId>,
    /// Which runner has which job.
    busy: BTreeMap<RunnerId, JobId>,
}

impl Told {
    /// A delivery arrived.
    pub fn hear(&mut self, hint: &Hint) {
        let Hint::Job(job) = hint else { return };
        match (job.status, job.runner_id) {
            (JobStatus::Completed, _) => self.is_over(job.id),
            // One that comes late says nothing any more.
            (JobStatus::InProgress, Some(runner)) if !self.over.contains(&job.id) => {
                self.busy.insert(runner, job.id);
            }
            _ => {}
        }
    }

    /// The job is over, as a delivery said, or as the daemon takes it from a listing.
    pub fn is_over(&mut self, job: JobId) {
        self.over.insert(job);
        self.busy.retain(|_, busy_with| *busy_with != job);
    }

    /// The job is queued again, which nobody may have been told.
    pub fn forget(&mut self, job: u64) {
        self.busy.retain(|_, busy_with| busy_with.0 != job);
    }

    /// What of the plan goes against what was told.
    pub fn objection(&self, world: &World, plan: &Plan) -> Option<String> {
        use RemoveReason::{Idle, MakesRoom, NeverOnline, Stale, Unassigned};

        plan.actions.iter().find_map(|action| match action {
            Action::Launch(Launch { job: Some(job), .. }) if self.over.contains(job) => {
                Some(format!("{action:?}: it was told that the job is over"))
            }
            // Of its end a delivery may have been lost; then a listing tells, and nobody hears of it where the job was
            // never placed.
            Action::Remove { judged, .. }
                if matches!(judged.reason, Idle | NeverOnline | Stale | Unassigned | MakesRoom) =>
            {
                let job = self.busy.get(&judged.runner?).filter(|job| !world.is_over(**job))?;
                Some(format!("{action:?}: it was told that it runs job {job}"))
            }
            _ => None,
        })
    }
}
