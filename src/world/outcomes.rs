//! Folds the outcomes of actions into the World.

use std::sync::Arc;
use std::time::Duration;

use super::failures::Recorded;
use super::{Action, Hold, Instance, Launch, LaunchSource, Note, Outcome, RemoveReason, RunnerState, Subject, World};
use crate::config::Class;
use crate::identity::Maker;
use crate::model::{Phase, RunnerArch, RunnerId, Scope, Timestamp};

/// How long a busy instance is left alone before its removal is tried again.
const BUSY_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause before another runner is launched for a job whose runners ended without a job.
pub(super) const LONGEST_WASTE_PAUSE: Duration = Duration::from_secs(600);
/// After a clash another process has this long to bring the instance up.
const STAND_BACK: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn fold_outcome(&mut self, action: Action, outcome: Outcome, now: Timestamp) {
        match action {
            Action::Launch(launch) => self.fold_launch(launch, outcome, now),
            Action::Bake { class, name, recipe, .. } => self.fold_bake(class, name, recipe, outcome, now),
            Action::PrepareStandby { class, name, recipe, .. } => {
                self.fold_standby(class, name, recipe, outcome, now);
            }
            Action::FetchImage { class } => self.fold_image(class, outcome, now),
            Action::Remove { name, judged, .. } => {
                if judged.reason == RemoveReason::NeverOnline && matches!(outcome, Outcome::Removed) {
                    self.never_came_online(&name, now);
                }
                self.fold_removal(&name, outcome, now);
            }
            Action::RemoveImage { fingerprint: name, .. } => self.fold_removal(&name, outcome, now),
            Action::Deregister { scope, runner, name } => self.fold_deregistration(scope, runner, name, outcome, now),
            Action::FetchPackage { arch, .. } => self.fold_package(arch, outcome, now),
            Action::LookUpJob { repo, job, .. } => self.fold_lookup((repo, job), outcome, now),
            Action::LookUpRun { repo, run, .. } => match outcome {
                Outcome::RunFound(origin) => self.fold_origin((repo, run), Ok(origin), now),
                Outcome::LookFailed { reason } => self.fold_origin((repo, run), Err(reason), now),
                _ => {}
            },
            Action::LookAtRepo { repo } => match outcome {
                Outcome::JobsFound(jobs) => {
                    jobs.into_iter().for_each(|job| self.fold_job(job, now));
                }
                Outcome::LookFailed { reason } => {
                    self.github_look.wanted = true;
                    self.notes.push(Note::LookFailed { what: format!("queue of {repo}"), reason });
                }
                _ => {}
            },
        }
    }

    fn fold_deregistration(&mut self, scope: Scope, runner: RunnerId, name: String, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Deregistered => {
                self.recovered(&Subject::Deregistration(scope.clone(), name.clone()));
                if let Some(view) = self.scopes.get_mut(&scope) {
                    view.offline_since.remove(&runner);
                    view.runners.iter_mut().for_each(|list| list.retain(|r| r.id != runner));
                }
                self.notes.push(Note::Deregistered { runner: name, scope });
            }
            Outcome::Kept { why } => {
                self.scopes.entry(scope).or_default().offline_since.remove(&runner);
                self.notes.push(Note::Kept { instance: name, why });
            }
            other => {
                // Tried again after the time that it took to call it dead.
                self.scopes.entry(scope.clone()).or_default().offline_since.insert(runner, now);
                if let Outcome::LookFailed { reason } | Outcome::RemoveFailed { reason } = other {
                    self.trouble(Subject::Deregistration(scope, name), &reason, now);
                }
            }
        }
    }

    fn fold_package(&mut self, arch: RunnerArch, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::PackageReady { version, life } => {
                self.recovered(&Subject::Package(arch));
                let state = self.packages.entry(arch).or_default();
                let news = state.version.as_deref() != Some(&version);
                state.version = Some(version.clone());
                state.checked_at = Some(now);
                state.suspected_at = state.suspect_since.take().map(|_| now).or(state.suspected_at);
                if news {
                    self.find_recipes();
                }
                if let Some((trouble, refused)) = life.trouble(&version, now) {
                    self.notes.push(Note::VersionEnds { arch: arch.as_str(), trouble, refused });
                }
                self.notes.push(Note::PackageReady { version, arch: arch.as_str(), news });
            }
            Outcome::PackageFailed { reason, cached } => {
                let state = self.packages.entry(arch).or_default();
                if cached.is_some() && state.version != cached {
                    state.version = cached;
                    self.find_recipes();
                }
                self.trouble(Subject::Package(arch), &reason, now);
            }
            _ => {}
        }
    }

    fn fold_launch(&mut self, launch: Launch, outcome: Outcome, now: Timestamp) {
        let config = Arc::clone(&self.config);
        let class = config.class(launch.class);
        let Launch { job, scope, name, from, .. } = &launch;
        let class_name = class.name.clone();
        match outcome {
            Outcome::Launched { runner } => {
                let stranger = |i: &super::Instance| i.seen.maker != Maker::Us;
                if !matches!(from, LaunchSource::Standby { .. }) && self.instances.get(name).is_some_and(stranger) {
                    // The listing saw the previous instance of this name: start from scratch.
                    self.instances.remove(name);
                }
                self.remember(&launch, class, Phase::Started, runner, now);
                self.may_have_a_job(name);
                self.launch_worked(&launch, &class_name, now);
                self.notes.push(Note::Launched { instance: name.clone(), job: *job });
            }
            Outcome::StandbyLost { reason } => {
                self.standby_is_lost(name, now);
                self.notes.push(Note::StandbyLost { instance: name.clone(), job: *job, reason });
            }
            Outcome::Clash { reason } => {
                // Another process has the name: the next look shows what it made.
                if let Some(state) = job.and_then(|job| self.jobs.get_mut(&job)) {
                    state.not_before = Some((now.after(STAND_BACK), Hold::NameTaken));
                }
                self.names_taken.insert(name.clone(), now);
                self.lxd_look.wanted = true;
                self.github_look.wanted = true;
                self.notes.push(Note::Clash { instance: name.clone(), job: *job, reason });
            }
            Outcome::LaunchFailed { blame, reason, made, runner } => {
                if made || matches!(from, LaunchSource::Standby { .. }) {
                    // A standby is never used after a failed claim.
                    self.remember(&launch, class, Phase::Provisioning, runner, now);
                }
                if runner.is_some() || matches!(blame, Subject::Scope(_)) {
                    // GitHub may have a runner of this name although its answer was lost.
                    self.names_taken.insert(name.clone(), now);
                    self.scopes_to_recheck.insert(scope.clone(), self.seq);
                    self.github_look.wanted = true;
                }
                self.lxd_look.wanted = true;
                let Recorded { until, news, .. } = self.could_not_make(&blame, &reason, now);
                let logs_kept = made && blame != Subject::Host && config.failures_kept > 0;
                let instance = name.clone();
                self.notes.push(Note::LaunchFailed { instance, job: *job, blame, reason, until, news, logs_kept });
            }
            _ => {}
        }
    }

    /// Records a launched instance, which may not be in a listing yet.
    fn remember(&mut self, launch: &Launch, class: &Class, phase: Phase, runner: Option<RunnerId>, now: Timestamp) {
        let instance = self.known_or_new(&launch.name, class, phase, now);
        instance.seen.scope = Some(launch.scope.clone());
        instance.seen.job = launch.job.or(instance.seen.job);
        if let Some(runner) = runner {
            instance.has_runner(runner);
            instance.runner_is_noted = true;
        }
        instance.etag = None;
        if instance.seen.phase != Phase::Started {
            instance.seen.phase = phase;
            instance.seen.maker = Maker::Us;
        }
        if phase == Phase::Started {
            instance.has_started(now);
        }
    }

    /// Ends the failures of everything that the launch used.
    fn launch_worked(&mut self, launch: &Launch, class: &str, now: Timestamp) {
        let class = || class.to_owned();
        self.recovered(&Subject::Scope(launch.scope.clone()));
        self.recovered(&Subject::Host);
        // Launches of the class work, from whatever source.
        self.recovered(&Subject::Class(class()));
        match launch.from {
            LaunchSource::Standby { .. } => {
                self.recovered(&Subject::Standby(class()));
                return;
            }
            LaunchSource::Template(_) => drop(self.recovered(&Subject::Template(class()))),
            LaunchSource::Image => {
                // Only copies get no network: the template is the cause.
                if let Some(entry) = self.failures.get(&Subject::Network(class())) {
                    let reason = entry.reason.clone();
                    self.failures.failed(Subject::Template(class()), &reason, now);
                }
                self.failures.fails_alone(&Subject::Template(class()));
            }
        }
        self.recovered(&Subject::Network(class()));
        self.recovered(&Subject::Storage(class()));
    }

    /// Records why an instance could not be made.
    pub(super) fn could_not_make(&mut self, blame: &Subject, reason: &str, now: Timestamp) -> Recorded {
        if let Subject::Package(arch) = blame {
            // The package is not in the cache any more: nothing is made before it is fetched again.
            self.packages.remove(arch);
            self.find_recipes();
        }
        let mut recorded = self.failures.failed(blame.clone(), reason, now);
        if let Some((until, _)) = self.paused(blame, now) {
            recorded.until = until;
        }
        recorded
    }

    /// The runner of a removed instance never came online: several in a row have a common cause.
    fn never_came_online(&mut self, name: &str, now: Timestamp) {
        let Some(instance) = self.instances.get(name) else { return };
        let reason = "its runner did not come online within provision_timeout. If instances have no network, see whether \
                      Docker or ufw on this host drops the packets that it forwards for LXD's bridge: iptables -I \
                      DOCKER-USER -i lxdbr0 -j ACCEPT, or ufw route allow in on lxdbr0";
        self.trouble(Subject::Online(instance.seen.class.clone()), reason, now);
    }

    fn fold_removal(&mut self, name: &str, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Removed => {
                if let Some(instance) = self.instances.get_mut(name) {
                    // Its registration was deleted first, so it got no job after it was seen idle.
                    instance.removed_idle = matches!(instance.runner, RunnerState::Idle(_));
                }
                self.instance_is_gone(name, now);
            }
            Outcome::Changed { why } => {
                self.lxd_look.wanted = true;
                match self.instances.get(name) {
                    Some(instance) if instance.seen.phase.has_runner() => {
                        // This may last, for example where a key cannot be read.
                        self.failures.failed(Subject::Removal(name.to_owned()), &why, now);
                    }
                    // Most likely it was claimed before it could be removed.
                    _ => self.standby_is_lost(name, now),
                }
                self.notes.push(Note::Kept { instance: name.to_owned(), why });
            }
            Outcome::Kept { why } => {
                self.failures.worked(&Subject::Removal(name.to_owned()));
                if let Some(instance) = self.instances.get_mut(name) {
                    instance.leave_until = Some(now.after(BUSY_PAUSE));
                    instance.touched = self.seq;
                    // No waiting job will get this runner, whatever GitHub lists.
                    instance.seen.phase = Phase::Started;
                    instance.took_job = true;
                    instance.seen_busy = true;
                    instance.runner = RunnerState::Busy;
                }
                self.notes.push(Note::Kept { instance: name.to_owned(), why });
            }
            Outcome::RemoveFailed { reason } if self.instances.contains_key(name) => {
                let failed = self.failures.failed(Subject::Removal(name.to_owned()), &reason, now);
                let Recorded { failures, until, news, trouble: stuck } = failed;
                let hint = self.instances.get(name).and_then(Instance::removal_hint);
                let reason = match hint.filter(|_| stuck) {
                    Some(hint) => format!("{reason}; {hint}"),
                    None => reason,
                };
                self.notes.push(Note::RemoveFailed { instance: name.to_owned(), reason, failures, until, news, stuck });
            }
            _ => {}
        }
    }
}
