//! How the end of an action changes what we know.

use std::time::Duration;

use super::{Action, Blame, Instance, InstanceSeen, Note, Outcome, Pause, RunnerState, Status, World, pause_after};
use crate::config::Config;
use crate::model::{JobId, Phase, Scope, Timestamp};

/// The longest pause between two tries of what failed.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause before another runner is launched for a job whose runners ended without a job.
pub(super) const LONGEST_WASTE_PAUSE: Duration = Duration::from_secs(600);
/// A clash means that somebody else is at it; he is given this long.
const STAND_BACK: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn fold_outcome(
        &mut self,
        action: Action,
        outcome: Outcome,
        config: &Config,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) {
        match action {
            Action::Launch { job, class, scope, name } => {
                self.fold_launch(Launched { job, class, scope, name }, outcome, config, now, notes);
            }
            Action::Remove { name, .. } => self.fold_removal(&name, outcome, now, notes),
            Action::Deregister { scope, runner, name } => match outcome {
                Outcome::Deregistered => {
                    if let Some(view) = self.scopes.get_mut(&scope) {
                        view.offline_since.remove(&runner);
                        view.runners.iter_mut().for_each(|list| list.retain(|r| r.id != runner));
                    }
                    notes.push(Note::Deregistered { runner: name, scope });
                }
                Outcome::Kept { why } => {
                    self.scopes.entry(scope).or_default().offline_since.remove(&runner);
                    notes.push(Note::Kept { instance: name, why });
                }
                other => {
                    // Looked at again after as long as it took to call it dead.
                    self.scopes.entry(scope.clone()).or_default().offline_since.insert(runner, now);
                    if let Outcome::LookFailed { reason } | Outcome::RemoveFailed { reason } = other {
                        self.trouble(&format!("github runners of {scope}"), &reason, now, notes);
                    }
                }
            },
            Action::FetchPackage { arch, .. } => match outcome {
                Outcome::PackageReady { version } => {
                    self.pauses.remove(&Blame::Package(arch));
                    let state = self.packages.entry(arch).or_default();
                    let news = state.version.as_deref() != Some(&version);
                    state.version = Some(version.clone());
                    state.checked_at = Some(now);
                    notes.push(Note::PackageReady { version, arch: arch.as_str(), news });
                }
                Outcome::PackageFailed { reason } => {
                    let what = format!("runner package linux-{arch}");
                    if self.pause(Blame::Package(arch), &reason, now).1 {
                        notes.push(Note::Trouble { what, reason });
                    }
                }
                _ => {}
            },
            Action::LookUpJob { repo, job, .. } => {
                self.unknown_jobs.remove(&job);
                match outcome {
                    Outcome::JobFound(Some(found)) => self.fold_job(*found, config, now, notes),
                    Outcome::JobFound(None) => {}
                    Outcome::LookFailed { reason } => {
                        self.github_look.wanted = true;
                        notes.push(Note::LookFailed { what: format!("job {job} of {repo}"), reason });
                    }
                    _ => {}
                }
            }
            Action::LookUpRun { repo, run, .. } => match outcome {
                Outcome::RunFound(origin) => self.fold_origin((repo, run), Ok(origin), config, now, notes),
                Outcome::LookFailed { reason } => self.fold_origin((repo, run), Err(reason), config, now, notes),
                _ => {}
            },
            Action::LookAtRepo { repo } => match outcome {
                Outcome::JobsFound(jobs) => {
                    jobs.into_iter().for_each(|job| self.fold_job(job, config, now, notes));
                }
                Outcome::LookFailed { reason } => {
                    self.github_look.wanted = true;
                    notes.push(Note::LookFailed { what: format!("queue of {repo}"), reason });
                }
                _ => {}
            },
        }
    }

    fn fold_launch(
        &mut self,
        launch: Launched,
        outcome: Outcome,
        config: &Config,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) {
        let Launched { job, class, scope, name } = launch;
        let class = config.classes.get(class);
        let class_name = class.map(|c| c.name.clone()).unwrap_or_default();
        let remember = |world: &mut World, phase: Phase, runner_id| {
            let seq = world.seq;
            let instance = world.instances.entry(name.clone()).or_insert_with(|| Instance {
                seen: InstanceSeen {
                    name: name.clone(),
                    project: class.map(|c| c.project.clone()).unwrap_or_default(),
                    class: class_name.clone(),
                    scope: Some(scope.clone()),
                    job: Some(job),
                    runner_id,
                    phase,
                    status: Status::Running,
                    created_at: None,
                    maker: crate::identity::Maker::Us,
                },
                runner: RunnerState::Awaited,
                first_seen: now,
                made_at: now,
                started_at: None,
                stopped_since: None,
                took_job: false,
                seen_busy: false,
                handover_since: None,
                leave_until: None,
                failures: 0,
                touched: seq,
            });
            instance.seen.phase = phase.max(instance.seen.phase);
            instance.seen.runner_id = runner_id.or(instance.seen.runner_id);
            instance.touched = seq;
            if phase == Phase::Started {
                // It was listed while it was made, perhaps before it was started.
                instance.seen.status = Status::Running;
                instance.stopped_since = None;
                instance.started_at.get_or_insert(now);
            }
        };
        match outcome {
            Outcome::Launched { runner } => {
                remember(self, Phase::Started, runner);
                self.may_have_a_job(&name);
                self.pauses.remove(&Blame::Class(class_name));
                self.pauses.remove(&Blame::Scope(scope.clone()));
                self.pauses.remove(&Blame::Host);
                notes.push(Note::Launched { instance: name, job });
            }
            Outcome::Clash { reason } => {
                // Whoever has it gets time to bring it up; what he made shows in the next look.
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.not_before = Some(now.after(STAND_BACK));
                }
                self.taken.insert(name.clone(), now);
                self.lxd_look.wanted = true;
                self.github_look.wanted = true;
                notes.push(Note::Clash { instance: name, job, reason });
            }
            Outcome::LaunchFailed { blame, reason, made, runner } => {
                if made {
                    remember(self, Phase::Provisioning, runner);
                }
                if runner.is_some() || matches!(blame, Blame::Scope(_)) {
                    // GitHub may have a runner of this name, perhaps without our having heard so.
                    self.taken.insert(name.clone(), now);
                    self.github_look.wanted = true;
                }
                if let Blame::Package(arch) = blame {
                    // It is not where it was: nothing is launched until it is there again.
                    self.packages.remove(&arch);
                }
                self.lxd_look.wanted = true;
                let (until, news) = self.pause(blame.clone(), &reason, now);
                notes.push(Note::LaunchFailed { instance: name, job, blame, reason, until, news });
            }
            _ => {}
        }
    }

    /// One more failure of this kind: until when to pause, and whether the reason is news.
    fn pause(&mut self, blame: Blame, reason: &str, now: Timestamp) -> (Timestamp, bool) {
        let before = self.pauses.get(&blame);
        let news = before.is_none_or(|p| p.reason != reason);
        // Several launches that were under way together and failed together are one failure.
        let failures = match before {
            Some(p) if p.until > now => p.failures,
            Some(p) => p.failures + 1,
            None => 1,
        };
        let until = now.after(pause_after(failures, LONGEST_PAUSE));
        self.pauses.insert(blame, Pause { until, failures, reason: reason.to_owned() });
        (until, news)
    }

    fn fold_removal(&mut self, name: &str, outcome: Outcome, now: Timestamp, notes: &mut Vec<Note>) {
        match outcome {
            Outcome::Removed => self.instance_is_gone(name, now, notes),
            Outcome::Kept { why } => {
                if let Some(instance) = self.instances.get_mut(name) {
                    instance.leave_until = Some(now.after(LONGEST_PAUSE));
                    instance.touched = self.seq;
                    // Whatever GitHub lists: no job that waits will get this runner.
                    instance.seen.phase = Phase::Started;
                    instance.took_job = true;
                    instance.seen_busy = true;
                    instance.runner = RunnerState::Busy;
                }
                notes.push(Note::Kept { instance: name.to_owned(), why });
            }
            Outcome::RemoveFailed { reason } => {
                if let Some(instance) = self.instances.get_mut(name) {
                    instance.failures += 1;
                    let until = now.after(pause_after(instance.failures, LONGEST_WASTE_PAUSE));
                    instance.leave_until = Some(until);
                    let failures = instance.failures;
                    notes.push(Note::RemoveFailed { instance: name.to_owned(), reason, failures, until });
                }
            }
            _ => {}
        }
    }
}

/// A launch whose outcome came.
struct Launched {
    job: JobId,
    class: usize,
    scope: Scope,
    name: String,
}
