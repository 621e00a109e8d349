//! Idle runners that GitHub gives none of the jobs that wait for them.

use std::collections::BTreeMap;

use super::{JobState, RunnerState, Subject, World};
use crate::config::Config;
use crate::model::{JobId, JobStatus, Scope, Timestamp};

impl World {
    /// Records each scope and class with a runner that is idle, and a job that is queued, for longer than `idle_timeout`.
    /// The planner replaces such runners once; after that it is trouble.
    pub(super) fn find_unassigned(&mut self, now: Timestamp) {
        let oldest = oldest_queued(&self.jobs, &self.config);
        let mut found = BTreeMap::new();
        for instance in self.instances.values() {
            let (Some(scope), RunnerState::Idle(since)) = (&instance.seen.scope, instance.runner) else { continue };
            let Some(class) = self.config.classes.iter().find(|class| class.name == instance.seen.class) else {
                continue;
            };
            let Some(queued_at) = oldest.get(&(scope, class.name.as_str())) else { continue };
            if now.since(since.max(*queued_at)) > self.config.idle_timeout {
                let reason = format!(
                    "GitHub gives the idle runner {} no job although one with these labels waits: see whether the runner \
                     group {:?} of {scope} lets the job's repository and workflow in, and whether the runner at GitHub has \
                     all labels of runs-on",
                    instance.seen.name, class.runner_group
                );
                found.insert(Subject::Assignment(scope.clone(), class.name.clone()), reason);
            }
        }
        // The job that waited then was taken, or is over.
        let over = self.failures.iter().filter_map(|(subject, entry)| match subject {
            Subject::Assignment(scope, class) => {
                let waits = oldest.get(&(scope, class.as_str())).is_some_and(|queued_at| *queued_at <= entry.since);
                (!waits).then(|| subject.clone())
            }
            _ => None,
        });
        let over: Vec<Subject> = over.collect();
        self.all_recovered(over);
        for (subject, reason) in found {
            self.trouble(subject, &reason, now);
        }
    }
}

/// When the job that waits longest was queued, by scope and class.
fn oldest_queued<'a>(
    jobs: &'a BTreeMap<JobId, JobState>,
    config: &'a Config,
) -> BTreeMap<(&'a Scope, &'a str), Timestamp> {
    let mut oldest = BTreeMap::new();
    for state in jobs.values().filter(|state| state.job.status == JobStatus::Queued) {
        let Ok((scope, class)) = &state.place else { continue };
        let at = oldest.entry((scope, config.class(*class).name.as_str())).or_insert(state.queued_at);
        *at = state.queued_at.min(*at);
    }
    oldest
}
