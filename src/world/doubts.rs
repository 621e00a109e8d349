//! Jobs that GitHub is asked about: before another instance is launched for a job whose runner ended, and before a job that
//! is not listed any more counts as over.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use super::outcomes::LONGEST_WASTE_PAUSE;
use super::{Hold, Note, Outcome, RunnerState, World, pause_after};
use crate::model::{InstanceStatus, Job, JobId, JobStatus, RepoName, Timestamp};

/// Why GitHub is asked about a job. Nothing is launched for the job until the answer is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The instance that was launched for it ended, and GitHub has not said which job its runner had.
    RunnerEnded { instance: String },
    /// GitHub lists the runner that was launched for it as busy, and has not said with which job.
    RunnerBusy { instance: String },
    /// GitHub does not list it among the open jobs any more, and no delivery of its end came.
    Unlisted,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::RunnerEnded { instance } => write!(
                f,
                "instance {instance} was launched for it and ended, and GitHub did not tell which job its runner had; \
                 GitHub is asked whether this one still waits"
            ),
            Doubt::RunnerBusy { instance } => write!(
                f,
                "runner {instance} was launched for it and has a job, and GitHub did not tell which; GitHub is asked \
                 whether it is this one"
            ),
            Doubt::Unlisted => f.write_str(
                "GitHub does not list it among the open jobs any more, and no delivery told of its end; GitHub is asked \
                 what became of it",
            ),
        }
    }
}

/// A question about one job.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub doubt: Doubt,
    /// Not asked before this moment.
    pub not_before: Option<Timestamp>,
    /// The question is under way: it was asked after the doubt arose.
    asked: bool,
    failures: u32,
}

/// After so many questions without an answer a job whose runner ended is launched for again: a credential that may not read
/// jobs must not keep it waiting.
const GIVE_UP: u32 = 5;
/// The longest pause between two questions about the same job.
const LONGEST_QUESTION_PAUSE: Duration = Duration::from_secs(60);

impl World {
    fn raise(&mut self, job: JobId, doubt: Doubt) {
        self.questions.insert(job, Question { doubt, not_before: None, asked: false, failures: 0 });
    }

    /// Why nothing is launched for the job before GitHub has answered.
    pub(crate) fn doubt(&self, job: JobId) -> Option<&Doubt> {
        self.questions.get(&job).map(|question| &question.doubt)
    }

    /// A worker asks GitHub about the job.
    pub(super) fn job_is_asked_for(&mut self, job: JobId) {
        if let Some(question) = self.questions.get_mut(&job) {
            question.asked = true;
        }
    }

    /// The instance's runner ended. Where GitHub named no job of it, the job that it was launched for may be over.
    pub(super) fn runner_ended(&mut self, name: &str) {
        let Some(instance) = self.instances.get_mut(name).filter(|instance| instance.started_at.is_some()) else {
            return;
        };
        let noted = std::mem::replace(&mut instance.end_noted, true);
        if let Some(job) = instance.seen.job.filter(|_| !noted && !instance.named) {
            self.doubt_a_queued_job(job, Doubt::RunnerEnded { instance: name.to_owned() });
        }
    }

    /// It is not certain any more that the job still waits.
    pub(super) fn doubt_a_queued_job(&mut self, job: JobId, doubt: Doubt) {
        let waits = self.jobs.get(&job).is_some_and(|state| state.job.status == JobStatus::Queued);
        if waits {
            self.raise(job, doubt);
        }
    }

    /// The listing of its repository's open jobs lacks it, and no delivery of its end came.
    pub(super) fn job_is_not_listed(&mut self, job: JobId) {
        let Some(state) = self.jobs.get(&job) else { return };
        match state.place.as_ref().is_err_and(|refusal| !refusal.is_undecided()) {
            // The job is not served here; a later delivery still counts.
            true => drop(self.jobs.remove(&job)),
            false if self.questions.contains_key(&job) => {}
            false => self.raise(job, Doubt::Unlisted),
        }
    }

    /// GitHub was asked about one job.
    pub(super) fn fold_lookup(&mut self, (repo, job): (RepoName, JobId), outcome: Outcome, now: Timestamp) {
        self.unknown_jobs.remove(&job);
        if let Some(state) = self.jobs.get_mut(&job) {
            state.asked_at = Some(now);
        }
        let question = self.questions.get(&job).filter(|question| question.asked).cloned();
        match outcome {
            Outcome::JobFound(Some(found)) => self.job_was_found(*found, question, now),
            Outcome::JobFound(None) => match question.map(|question| question.doubt) {
                Some(Doubt::RunnerEnded { instance }) => self.runner_was_wasted(job, &instance, now),
                Some(Doubt::Unlisted) => self.job_is_over(job, now),
                // Its run was deleted. A later delivery still counts.
                _ => {
                    self.questions.remove(&job);
                    self.jobs.remove(&job);
                }
            },
            Outcome::LookFailed { reason } => self.question_failed((repo, job), question, reason, now),
            _ => {}
        }
    }

    fn job_was_found(&mut self, found: Job, question: Option<Question>, now: Timestamp) {
        let (job, runner) = (found.id, found.runner_name.clone());
        match (found.status, question.map(|question| question.doubt)) {
            (JobStatus::Queued, Some(Doubt::RunnerEnded { instance })) => self.runner_was_wasted(job, &instance, now),
            (JobStatus::Queued, Some(_)) => drop(self.questions.remove(&job)),
            (JobStatus::Completed, Some(Doubt::RunnerEnded { instance })) if Some(&instance) == runner.as_ref() => {
                if let Some(known) = self.jobs.get_mut(&job) {
                    known.job.runner_name = Some(instance.clone());
                }
                self.notes.push(Note::JobTaken { job, runner: instance, ours: true });
            }
            _ => {}
        }
        self.fold_job(found, now);
    }

    /// A runner that was launched for the job is gone, and the job still waits.
    fn runner_was_wasted(&mut self, job: JobId, instance: &str, now: Timestamp) {
        self.questions.remove(&job);
        let may_still_take_one = |i: &super::Instance| {
            i.seen.status != InstanceStatus::Stopped && matches!(i.runner, RunnerState::Idle(_) | RunnerState::Awaited)
        };
        // The listing that lacked its runner was wrong.
        if self.instances.get(instance).is_some_and(may_still_take_one) {
            return;
        }
        let Some(state) = self.jobs.get_mut(&job) else { return };
        state.wasted += 1;
        let until = now.after(pause_after(state.wasted, LONGEST_WASTE_PAUSE));
        state.not_before = Some((until, Hold::RunnersEnded));
        // Runners of a version that GitHub refuses end like this.
        for package in self.packages.values_mut() {
            package.suspect_since.get_or_insert(now);
        }
        // It may have had another job, which another listing shows.
        self.github_look.wanted = true;
    }

    fn question_failed(
        &mut self,
        (repo, job): (RepoName, JobId),
        question: Option<Question>,
        reason: String,
        now: Timestamp,
    ) {
        let failures = question.as_ref().map_or(1, |question| question.failures + 1);
        if failures == 1 {
            self.notes.push(Note::LookFailed { what: format!("job {job} of {repo}"), reason });
        }
        match question {
            None => self.github_look.wanted = true,
            Some(Question { doubt: Doubt::RunnerEnded { instance }, .. }) if failures >= GIVE_UP => {
                self.runner_was_wasted(job, &instance, now);
            }
            Some(Question { doubt: Doubt::RunnerBusy { .. }, .. }) if failures >= GIVE_UP => {
                self.questions.remove(&job);
            }
            Some(question) => {
                let not_before = Some(now.after(pause_after(failures, LONGEST_QUESTION_PAUSE)));
                self.questions.insert(job, Question { not_before, asked: false, failures, ..question });
            }
        }
    }
}
