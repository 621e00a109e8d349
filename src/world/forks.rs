//! Jobs from forks: GitHub is asked once for each run where its commits come from, and only where the policy depends on it.
//! Until the answer comes the job waits, with that reason.

use std::collections::BTreeSet;

use super::matching::{Refusal, RunKey, place};
use super::{JobState, Note, Subject, World};
use crate::config::Config;
use crate::model::{Job, JobStatus, RepoName, RunOrigin, Timestamp};

impl World {
    /// Notes that the origin of the job's run must be asked for.
    pub(super) fn ask_origin(&mut self, job: &Job) {
        self.runs.entry((job.repo.clone(), job.run_id)).or_default();
    }

    pub(super) fn fold_origin(&mut self, key: RunKey, found: Result<Option<RunOrigin>, String>, now: Timestamp) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        match found {
            Ok(origin) => {
                run.origin = Some(origin.unwrap_or(RunOrigin::Hidden));
                self.recovered(&Subject::ForkOrigin(key.0.clone()));
                self.place_again(|job| job.repo == key.0 && job.run_id == key.1);
            }
            Err(reason) => {
                let what = format!("run {} of {}", key.1, key.0);
                if self.failures.failed(Subject::ForkOrigin(key.0), &reason, now).news {
                    self.notes.push(Note::LookFailed { what, reason });
                }
            }
        }
    }

    /// Computes scope and class of these jobs again.
    pub(super) fn place_again(&mut self, which: impl Fn(&Job) -> bool) {
        let mut unasked = Vec::new();
        for state in self.jobs.values_mut().filter(|state| which(&state.job)) {
            let before = state.place.is_ok();
            state.place = place(&state.job, self.targets.as_deref(), &self.runs, &self.config);
            if state.job.status == JobStatus::Queued {
                if state.place == Err(Refusal::OriginUnknown) {
                    unasked.push(state.job.clone());
                }
                if !before {
                    self.notes.extend(joined(state, &self.config));
                }
            }
        }
        unasked.iter().for_each(|job| self.ask_origin(job));
    }

    /// Forgets runs without a known job.
    pub(super) fn forget_runs(&mut self) {
        if !self.runs.is_empty() {
            let wanted: BTreeSet<(&RepoName, u64)> =
                self.jobs.values().map(|state| (&state.job.repo, state.job.run_id)).collect();
            self.runs.retain(|(repo, run), _| wanted.contains(&(repo, *run)));
        }
    }
}

/// The note that the job is queued, if it is served here.
pub(super) fn joined(state: &JobState, config: &Config) -> Option<Note> {
    let (scope, class) = state.place.as_ref().ok()?;
    Some(Note::JobQueued {
        job: state.job.id,
        repo: state.job.repo.to_string(),
        class: config.class(*class).name.clone(),
        scope: scope.clone(),
        name: state.job.name.clone(),
    })
}
