//! Folds events into the World; job events in full.

#[cfg(test)]
mod tests;

use super::doubts::Doubt;
use super::forks::joined;
use super::matching::{Refusal, place};
use super::{
    Action, Event, Flight, Hint, Instance, JobState, LISTING_LAG, MAX_JOBS, Note, RunnerState, UnknownJob, World,
};
use crate::model::{Job, JobId, JobStatus, Phase, Timestamp};

impl World {
    /// Folds an event into the World. The notes are for people; [`crate::plan::plan`] decides.
    pub fn fold(&mut self, event: Event, now: Timestamp) -> Vec<Note> {
        self.seq += 1;
        match event {
            Event::Hint(hint) => self.fold_hint(hint, now),
            Event::HintsLost => self.github_look.wanted = true,
            Event::InstanceEnded => self.lxd_look.wanted = true,
            Event::Listening(listening) => {
                // Events before this moment are only seen in a listing.
                self.listening = listening;
                self.lxd_look.wanted = true;
            }
            Event::Snapshot(snapshot) => self.fold_snapshot(*snapshot, now),
            Event::Targets(targets) => self.fold_targets(targets),
            Event::Queue(queue) => self.fold_queue(*queue, now),
            Event::Outcome(action, outcome) => {
                self.flights.remove(&action.flight());
                self.fold_outcome(action, outcome, now);
            }
        }
        std::mem::take(&mut self.notes)
    }

    pub(super) fn fold_hint(&mut self, hint: Hint, now: Timestamp) {
        if let Hint::Job(Job { repo, .. }) | Hint::CheckRun { repo, .. } | Hint::LookAt(repo) = &hint
            && self.repos_heard.len() < MAX_JOBS
        {
            self.repos_heard.insert(repo.clone());
        }
        match hint {
            // A job waits before it is queued, never after: where the job is known already, GitHub is asked for its state.
            Hint::Job(job) if job.status == JobStatus::Waiting && self.jobs.contains_key(&job.id) => {
                self.fold_hint(Hint::LookAt(job.repo), now);
            }
            Hint::Job(job) => self.fold_job(job, now),
            Hint::CheckRun { repo, public, job, completed: false } => {
                if !self.jobs.contains_key(&job)
                    && !self.finished_jobs.contains_key(&job)
                    && self.unknown_jobs.len() < MAX_JOBS
                {
                    self.unknown_jobs.insert(job, UnknownJob { repo, public, heard_at: now });
                }
            }
            Hint::CheckRun { job, completed: true, .. } => self.job_is_over(job, now),
            Hint::LookAt(repo) => {
                if self.repos_to_check.len() < MAX_JOBS {
                    self.repos_to_check.insert(repo, now);
                }
            }
            Hint::Ping => {}
        }
    }

    pub(super) fn fold_job(&mut self, job: Job, now: Timestamp) {
        self.unknown_jobs.remove(&job.id);
        match job.status {
            JobStatus::Queued => self.job_is_queued(job, now),
            JobStatus::Waiting => {
                // A job waits before it is queued: a listing that says so just after a delivery of the queueing lags behind.
                let heard = |j: &JobState| j.job.status == JobStatus::Queued && now.since(j.heard_at) <= LISTING_LAG;
                if !self.jobs.get(&job.id).is_some_and(heard) {
                    self.jobs.remove(&job.id);
                    self.questions.remove(&job.id);
                }
            }
            JobStatus::InProgress => {
                if !self.finished_jobs.contains_key(&job.id) {
                    self.job_is_taken(job, now);
                }
            }
            JobStatus::Completed => {
                // Runner names are reused. Unless this process saw the job start, the name may refer to an earlier runner.
                let known = self.jobs.get(&job.id).filter(|j| j.job.status == JobStatus::InProgress);
                let certain = known.is_some_and(|j| j.job.runner_name == job.runner_name);
                self.runner_had_its_job(&job, certain, now);
                self.report_missed_start(&job);
                self.job_is_over(job.id, now);
            }
        }
    }

    fn job_is_queued(&mut self, job: Job, now: Timestamp) {
        if self.finished_jobs.contains_key(&job.id) {
            return;
        }
        let seq = self.seq;
        if let Some(known) = self.jobs.get_mut(&job.id) {
            // A job never goes back from a runner to the queue: this delivery is late.
            if known.job.status == JobStatus::Queued {
                known.heard_at = now;
                known.touched = seq;
                if known.job.public.is_none() && job.public.is_some() {
                    known.job.public = job.public;
                    self.place_again(|known| known.id == job.id);
                }
            }
            return;
        }
        if self.jobs.len() >= MAX_JOBS {
            self.github_look.wanted = true;
            return;
        }
        let place = place(&job, self.targets.as_deref(), &self.runs, &self.config);
        if place == Err(Refusal::OriginUnknown) {
            self.ask_origin(&job);
        }
        // GitHub's clock and ours differ: a time in the future counts as now.
        let queued_at = job.created_at.unwrap_or(now).min(now);
        let state = JobState {
            job,
            place,
            queued_at,
            not_before: None,
            wasted: 0,
            heard_at: now,
            asked_at: None,
            touched: seq,
        };
        self.notes.extend(joined(&state, &self.config));
        self.jobs.insert(state.job.id, state);
    }

    /// Records the job of an instance's runner that took it before the instance was known.
    pub(super) fn may_have_a_job(&mut self, name: &str) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let mut jobs = self.jobs.values().map(|state| &state.job);
        if let Some(job) = jobs.find(|job| job.status == JobStatus::InProgress && instance.runs(job)) {
            instance.is_named_with(job);
            instance.runner = RunnerState::Busy;
        }
    }

    /// The instance whose runner has or had the job.
    fn instance_of(&mut self, job: &Job) -> Option<&mut Instance> {
        self.instances.get_mut(job.runner_name.as_ref()?).filter(|instance| instance.runs(job))
    }

    /// Whether the job's runner may be in an instance whose launch is not reported yet: a runner can take a job and finish it
    /// before the worker reports the launch.
    fn is_being_launched(&self, job: &Job) -> bool {
        let flight = job.runner_name.clone().map(Flight::Instance);
        flight.is_some_and(|flight| matches!(self.flights.get(&flight), Some(Action::Launch(_))))
    }

    fn job_is_taken(&mut self, job: Job, now: Timestamp) {
        let runner = job.runner_name.clone().unwrap_or_default();
        let seq = self.seq;
        let ours = match self.instance_of(&job) {
            Some(instance) => {
                instance.touched = seq;
                instance.is_named_with(&job);
                instance.handover_since = None;
                instance.started_at.get_or_insert(now);
                if !instance.perhaps_never_started() && instance.seen.phase != Phase::Started {
                    instance.has_started(now);
                }
                if !matches!(instance.runner, RunnerState::Done(_)) {
                    instance.runner = RunnerState::Busy;
                }
                true
            }
            None => self.is_being_launched(&job),
        };
        self.questions.remove(&job.id);
        let was = self.jobs.remove(&job.id);
        if was.as_ref().is_some_and(|w| w.job.status == JobStatus::Queued && w.place.is_ok()) || (was.is_none() && ours)
        {
            self.notes.push(Note::JobTaken { job: job.id, runner, ours });
        }
        let state = JobState {
            place: place(&job, self.targets.as_deref(), &self.runs, &self.config),
            queued_at: was.as_ref().map_or(now, |w| w.queued_at),
            not_before: None,
            wasted: 0,
            heard_at: now,
            asked_at: None,
            touched: self.seq,
            job,
        };
        if self.jobs.len() < MAX_JOBS {
            self.jobs.insert(state.job.id, state);
        }
    }

    fn runner_had_its_job(&mut self, job: &Job, certain: bool, now: Timestamp) {
        let seq = self.seq;
        if let Some(instance) = self.instance_of(job) {
            instance.touched = seq;
            instance.is_named_with(job);
            // Nor can it be an earlier instance of this name.
            instance.job_is_over |= certain && !instance.perhaps_never_started();
            instance.handover_since = None;
            if !matches!(instance.runner, RunnerState::Done(_)) {
                instance.runner = RunnerState::Done(now);
            }
            self.lxd_look.wanted = true;
        }
    }

    /// Where the in_progress delivery of a finished job was lost, reports which runner had the job.
    fn report_missed_start(&mut self, job: &Job) {
        let ours = self.instance_of(job).is_some() || self.is_being_launched(job);
        let known = self.jobs.get_mut(&job.id).filter(|known| known.job.status == JobStatus::Queued && ours);
        if let Some(known) = known.filter(|known| known.place.is_ok()) {
            known.job = job.clone();
            self.notes.push(Note::JobTaken { job: job.id, runner: job.runner_name.clone().unwrap_or_default(), ours });
        }
    }

    pub(super) fn job_is_over(&mut self, job: JobId, now: Timestamp) {
        self.unknown_jobs.remove(&job);
        let question = self.questions.remove(&job);
        let was = self.jobs.remove(&job);
        if let Some(was) = was.filter(|was| was.place.is_ok()) {
            let ended = match question.map(|question| question.doubt) {
                Some(Doubt::RunnerEnded { instance }) => Some(instance),
                _ => None,
            };
            let ours = ended.is_some() && ended == was.job.runner_name
                || self.instances.values().any(|instance| instance.runs(&was.job))
                || self.is_being_launched(&was.job);
            self.notes.push(Note::JobOver { job, ours });
        }
        if self.finished_jobs.len() < MAX_JOBS {
            self.finished_jobs.insert(job, now);
        }
    }
}
