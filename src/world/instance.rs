//! One of our instances: LXD's listing of it, and the state of its runner.

use super::LISTING_LAG;
use crate::identity::Maker;
use crate::model::{InstanceStatus, Job, JobId, Phase, Recipe, Runner, RunnerId, Scope, Timestamp};

/// One of our instances, as LXD lists it, or an image that is a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    /// An image's is its fingerprint, which is longer than any instance's name.
    pub name: String,
    /// An image's alias; `None` for an instance.
    pub alias: Option<String>,
    pub project: String,
    pub class: String,
    /// `None` where the key is missing or not a scope.
    pub scope: Option<Scope>,
    pub job: Option<JobId>,
    pub runner_id: Option<RunnerId>,
    pub phase: Phase,
    /// What it was baked of, or is a copy of.
    pub recipe: Option<Recipe>,
    pub status: InstanceStatus,
    pub created_at: Option<Timestamp>,
    pub maker: Maker,
    /// What its maker last noted of its progress, see [`crate::model::keys::PROGRESS`]; 0 where it noted none.
    pub progress: u64,
}

/// The state of an instance's runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerState {
    /// Not connected yet, as far as we know.
    Awaited,
    /// Connected, without a job, since this moment (as we saw it).
    Idle(Timestamp),
    /// Runs a job.
    Busy,
    /// Had its job, or its registration is gone; since this moment.
    Done(Timestamp),
}

impl RunnerState {
    /// The state after a listing of its scope's runners, which has `runner` or none for the instance. `took_job`: it was given
    /// its job; `registered`: its registration is old enough to be listed.
    fn listed(self, runner: Option<&Runner>, took_job: bool, registered: bool, now: Timestamp) -> RunnerState {
        use RunnerState::{Awaited, Busy, Done, Idle};

        match (runner, self) {
            (Some(runner), _) if runner.busy => Busy,
            (Some(_), Done(since)) if took_job => Done(since),
            // A runner takes one job in its life: GitHub is wrong to list it as idle after that.
            (Some(_), _) if took_job => Busy,
            (Some(runner), Idle(since)) if runner.online => Idle(since),
            (Some(runner), _) if runner.online => Idle(now),
            (Some(_), Idle(_)) => Awaited,
            (None, Idle(_) | Busy) => Done(now),
            // It was registered before it started, and is not listed any more: it had its job between two listings.
            (None, Awaited) if registered => Done(now),
            (_, before) => before,
        }
    }
}

/// One of our instances: the listing of it and the events about it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub seen: InstanceSeen,
    pub runner: RunnerState,
    /// When this process first knew of it.
    pub first_seen: Timestamp,
    /// True where it was made after this process's first look.
    pub appeared: bool,
    /// When it was made: LXD's date, within what this process saw itself. A clock that was corrected by years, as on a board
    /// without a battery, must not make it look old.
    pub made_at: Timestamp,
    /// When the process that provisions it began, or last noted progress. A standby is claimed long after it was made.
    pub begun_at: Timestamp,
    /// When it was first known to have its runner process started.
    pub started_at: Option<Timestamp>,
    /// Since when it is seen stopped.
    pub stopped_since: Option<Timestamp>,
    /// True once its runner was given a job.
    pub took_job: bool,
    /// True once GitHub named its runner with a job.
    pub(super) named: bool,
    /// The runner that GitHub named with that job before the id of the instance's runner was known: it may be an earlier one
    /// of the same name.
    pub(super) named_runner: Option<RunnerId>,
    /// True where the id of its runner comes from its registration; false where a listing of runners gave it, by name.
    pub(super) runner_is_noted: bool,
    /// True where this process removed it while its runner was idle.
    pub(super) removed_idle: bool,
    /// True once the end of its runner was noted.
    pub(super) end_noted: bool,
    /// True once GitHub said that its job is over.
    pub job_is_over: bool,
    /// True once GitHub listed it busy, or a look inside found it so: more than a delivery that names it.
    pub(super) seen_busy: bool,
    /// When GitHub first listed the runner as busy while its job was not known. Until then the job of this runner still counts as
    /// queued.
    pub handover_since: Option<Timestamp>,
    /// It is busy: no attempt to remove it before this moment.
    pub leave_until: Option<Timestamp>,
    /// A standby's ETag as it was prepared: with it a claim costs one call less.
    pub etag: Option<String>,
    pub(super) touched: u64,
}

impl Instance {
    /// An instance that was not known before.
    pub(super) fn new(seen: InstanceSeen, made_at: Timestamp, now: Timestamp, touched: u64) -> Instance {
        // Only a standby has a recipe: a runner's instance with one was a standby.
        let claimed = seen.phase == Phase::Provisioning && seen.recipe.is_some();
        Instance {
            runner: RunnerState::Awaited,
            first_seen: now,
            appeared: true,
            made_at,
            begun_at: if claimed || seen.progress > 0 { now } else { made_at },
            started_at: (seen.phase == Phase::Started).then_some(now),
            stopped_since: (seen.status == InstanceStatus::Stopped).then_some(now),
            took_job: false,
            named: false,
            named_runner: None,
            runner_is_noted: seen.runner_id.is_some(),
            removed_idle: false,
            end_noted: false,
            job_is_over: false,
            seen_busy: false,
            handover_since: None,
            leave_until: None,
            etag: None,
            touched,
            seen,
        }
    }

    /// True where a process that died left it half-made before it noted the runner's id: a runner of this name at GitHub may
    /// belong to an earlier instance.
    pub(super) fn perhaps_never_started(&self) -> bool {
        let half_made = self.seen.phase == Phase::Provisioning && self.seen.maker == Maker::Dead;
        half_made && self.seen.runner_id.is_none()
    }

    /// True where its runner has had a registration of its own for longer than listings lag.
    pub(super) fn was_registered(&self, now: Timestamp) -> bool {
        let started = self.started_at.filter(|_| self.seen.phase == Phase::Started && self.seen.runner_id.is_some());
        started.is_some_and(|at| now.since(at) > LISTING_LAG)
    }

    /// True where it is not certain that the runner which GitHub named with a job is the instance's.
    pub fn may_be_misnamed(&self) -> bool {
        self.named_runner.is_some()
    }

    /// Records the id of its runner: statements about an earlier runner of its name do not count for it.
    pub(super) fn has_runner(&mut self, id: RunnerId) {
        self.seen.runner_id = Some(id);
        let earlier = self.named_runner.take().is_some_and(|named| named != id);
        if earlier && !self.seen_busy {
            (self.took_job, self.named, self.job_is_over, self.end_noted) = (false, false, false, false);
            self.runner = RunnerState::Awaited;
        }
    }

    /// It runs, though a listing may be from before its start.
    pub(super) fn has_started(&mut self, now: Timestamp) {
        self.seen.phase = Phase::Started;
        self.seen.status = InstanceStatus::Running;
        self.stopped_since = None;
        self.started_at.get_or_insert(now);
    }

    /// A listing of LXD shows it as `seen`.
    pub(super) fn is_listed(&mut self, seen: InstanceSeen, now: Timestamp) {
        if seen.phase == Phase::Started {
            self.started_at.get_or_insert(now);
        }
        if seen.phase != self.seen.phase || seen.progress != self.seen.progress {
            self.begun_at = now;
        }
        self.runner_is_noted |= seen.runner_id.is_some();
        let runner_id = seen.runner_id.or(self.seen.runner_id);
        // Never go back from Started: writing the phase key may have failed.
        let phase = if self.seen.phase == Phase::Started { Phase::Started } else { seen.phase };
        self.seen = InstanceSeen { phase, ..seen };
        if let Some(id) = runner_id {
            self.has_runner(id);
        }
        self.stopped_since = match self.seen.status {
            InstanceStatus::Stopped => self.stopped_since.or(Some(now)),
            _ => None,
        };
    }

    /// Whether the listed runner, which has the instance's name, is its own. Another host with our prefix may use the name of
    /// an instance that is being made or was left half-made: such a runner is told by its id, which is noted before it starts.
    pub(super) fn owns(&self, runner: &Runner) -> bool {
        let making = self.seen.phase == Phase::Provisioning;
        let ours_to_name = making && self.seen.maker == Maker::Us;
        // Once a runner id is noted, only that registration is the instance's. A listing may lag, and have the runner that had
        // the name before.
        let noted = self.runner_is_noted || making && self.seen.runner_id.is_some();
        // A stopped instance has no online runner: the runner is a namesake on another host.
        let stopped = self.seen.status == InstanceStatus::Stopped;
        let never_started = making && self.seen.runner_id.is_none() && (stopped || !runner.online && !runner.busy);
        self.seen.runner_id == Some(runner.id) || !(ours_to_name || noted || never_started)
    }

    /// A listing of its scope's runners has its own `runner`, or none; `job` is known to run on a runner of its name. Returns
    /// true if the listing shows that GitHub gave the runner a job which no delivery has named yet.
    pub(super) fn runner_is_listed(&mut self, runner: Option<&Runner>, job: Option<&Job>, now: Timestamp) -> bool {
        if let Some(runner) = runner {
            self.has_runner(runner.id);
            if runner.online || runner.busy {
                self.started_at.get_or_insert(now);
                self.seen.phase = Phase::Started;
            }
            if runner.busy {
                (self.took_job, self.seen_busy) = (true, true);
            }
        }
        let named = job.is_some_and(|job| self.runs(job));
        let was_busy = self.runner == RunnerState::Busy;
        // Another host with our prefix may have had a runner of this name, and the job was that runner's.
        if was_busy && runner.is_some_and(|r| r.online && !r.busy) && !self.seen_busy && !named {
            (self.took_job, self.named) = (false, false);
        }
        let handed_over = !was_busy && runner.is_some_and(|r| r.busy) && !named;
        if handed_over {
            self.handover_since = Some(now);
        }
        self.runner = self.runner.listed(runner, self.took_job, self.was_registered(now), now);
        handed_over
    }

    /// GitHub named its runner with the job.
    pub(super) fn is_named_with(&mut self, job: &Job) {
        (self.took_job, self.named) = (true, true);
        if self.seen.runner_id.is_none() {
            self.named_runner = job.runner_id;
        }
    }

    /// Whether the job's runner is the instance's. Names are reused, so ids are compared where both are known. An instance that
    /// this process failed to finish never has an id that is unknown here.
    pub(super) fn runs(&self, job: &Job) -> bool {
        let half_made = self.seen.phase == Phase::Provisioning && self.seen.maker == Maker::Us;
        let same_id = match (self.seen.runner_id, job.runner_id) {
            (Some(own), Some(told)) => own == told,
            (None, Some(_)) => !half_made,
            _ => true,
        };
        same_id && job.runner_name.as_deref() == Some(self.seen.name.as_str())
    }

    /// True where another living daemon probably owns it, which alone decides whether the instance is still needed. One of an
    /// unknown maker that was there before this process started may have no owner left.
    pub fn is_anothers(&self) -> bool {
        self.seen.maker == Maker::Other || self.seen.maker == Maker::Unknown && self.appeared
    }

    /// The name for people: an image's alias, an instance's name.
    pub fn label(&self) -> &str {
        self.seen.alias.as_ref().unwrap_or(&self.seen.name)
    }
}
