//! Carries out one action and reports how it ended. Effects without policy: whether, when and what again is decided by
//! [`crate::plan`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{debug, info};

use crate::config::{Class, Config, Registration};
use crate::github::{self, Deletion, GitHub};
use crate::identity::process_identity;
use crate::lxd::api::ErrorKind;
use crate::lxd::{self, InstanceStatus, Lxd};
use crate::model::{JobId, RepoName, RunnerArch, RunnerId, Scope, keys};
use crate::runner::cause::why_not_created;
use crate::runner::package::Packages;
use crate::runner::provision::{Credentials, Failure, Inside, Provision, look_inside};
use crate::threads;
use crate::world::{Action, Blame, Outcome, RemoveReason};

/// How long LXD gets to stop or delete an instance.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// What executing needs; shared by the workers.
pub struct Executor {
    config: Arc<Config>,
    lxd: Arc<Lxd>,
    github: Arc<GitHub>,
    packages: Packages,
    /// Ids of the runner groups that classes name, once they were asked for.
    groups: Mutex<BTreeMap<(Scope, String), u64>>,
}

/// Why a launch ended early.
enum Stop {
    Clash(String),
    Failed { blame: Blame, reason: String },
}

fn of_class(class: &Class, failure: Failure) -> Stop {
    let blame = match &failure {
        Failure::Lxd(error) if error.kind == ErrorKind::Unreachable => Blame::Host,
        _ => Blame::Class(class.name.clone()),
    };
    Stop::Failed { blame, reason: failure.to_string() }
}

impl Executor {
    /// Nothing is done yet.
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>, github: Arc<GitHub>) -> Executor {
        let packages = Packages::new(&config.cache_home);
        Executor { config, lxd, github, packages, groups: Mutex::default() }
    }

    /// Does it.
    pub fn execute(&self, action: &Action) -> Outcome {
        match action {
            Action::Launch { job, class, scope, name, from: _ } => match self.config.classes.get(*class) {
                Some(class) => nameless(self.launch(*job, class, scope, name), name),
                None => Outcome::Clash { reason: "its class is not in the config".to_owned() },
            },
            Action::Bake { class, .. } | Action::FetchImage { class } | Action::PrepareStandby { class, .. } => {
                let class = self.config.classes.get(*class).map(|c| c.name.clone()).unwrap_or_default();
                Outcome::NotMade { blame: Blame::Bake(class), reason: "not yet".to_owned() }
            }
            Action::Remove { name, project, scope, runner, reason } => {
                self.remove(name, project, scope.as_ref(), *runner, *reason)
            }
            Action::Deregister { scope, runner, .. } => match self.github.delete_runner(scope, *runner) {
                Ok(Deletion::Deleted | Deletion::Gone) => Outcome::Deregistered,
                Ok(Deletion::Busy) => Outcome::Kept { why: "GitHub says that it runs a job".to_owned() },
                Err(error) => Outcome::RemoveFailed { reason: error.to_string() },
            },
            Action::FetchPackage { arch, scope } => self.fetch_package(*arch, scope),
            Action::LookUpJob { repo, job, public } => self.look_up_job(repo, *job, *public),
            Action::LookUpRun { repo, run, trust } => match self.github.run_origin(repo, *run, *trust) {
                Ok(origin) => Outcome::RunFound(origin),
                Err(error) => Outcome::LookFailed { reason: error.to_string() },
            },
            Action::LookAtRepo { repo } => self.look_at_repo(repo),
        }
    }

    fn launch(&self, job: Option<JobId>, class: &Class, scope: &Scope, name: &str) -> Outcome {
        if let Some(wait) = self.github.quiet_for(scope) {
            let reason = format!(
                "GitHub said to slow down; nothing is launched before it may be asked, in {} s",
                wait.as_secs() + 1
            );
            return Outcome::LaunchFailed { blame: Blame::Scope(scope.clone()), reason, made: false, runner: None };
        }
        let steps = Provision::new(&self.lxd, class, name, self.config.provision_timeout);
        let blame = Blame::Class(class.name.clone());
        if let Err(failure) = steps.create_from_image(&self.config.prefix, scope, job, &process_identity()) {
            return self.not_created(class, name, blame, &failure);
        }
        let job = job.map(|job| format!("job={job} ")).unwrap_or_default();
        info!("{job}class={:?} instance={name} scope={scope} msg=\"instance made\"", class.name);
        let mut registered = None;
        let result = self.bring_up(&steps, class, scope, name, &mut registered);
        let Err(stop) = result else {
            if let Err(error) = steps.note_started() {
                debug!("instance={name} msg=\"could not note that it is started\" error={error:?}");
            }
            return Outcome::Launched { runner: registered };
        };
        // Most likely no runner will come for it. It may be there all the same, even busy, where only the answer to its
        // start was lost: then whoever removes the instance must ask once more.
        let runner = registered.filter(|runner| match self.github.delete_runner(scope, *runner) {
            Ok(Deletion::Deleted | Deletion::Gone) => false,
            Ok(Deletion::Busy) => true,
            Err(error) => {
                debug!(
                    "instance={name} runner={runner} msg=\"could not take the registration back\" error=\"{error}\""
                );
                true
            }
        });
        match stop {
            Stop::Failed { blame, reason } => Outcome::LaunchFailed { blame, reason, made: true, runner },
            // The name is somebody else's on GitHub: this instance must go before anybody takes the two for one.
            Stop::Clash(reason) => match self.delete(&class.project, name, true) {
                Ok(()) => Outcome::Clash { reason },
                Err(error) => {
                    let reason = format!("{reason}; and the instance could not be removed: {error}");
                    Outcome::LaunchFailed { blame: Blame::Host, reason, made: true, runner: None }
                }
            },
        }
    }

    /// Whose name is it? Never read out of an error's text: look, and compare the keys.
    fn not_created(&self, class: &Class, name: &str, blame: Blame, failure: &Failure) -> Outcome {
        if let Failure::Lxd(error) = failure
            && error.kind == ErrorKind::Unreachable
        {
            // It may have been made, and the answer lost.
            let reason = failure.to_string();
            return Outcome::LaunchFailed { blame: Blame::Host, reason, made: true, runner: None };
        }
        match self.lxd.instance(&class.project, name) {
            Ok(None) => {
                let reason = match why_not_created(&self.lxd, class) {
                    Some(cause) => format!("{failure}; {cause}"),
                    None => failure.to_string(),
                };
                Outcome::LaunchFailed { blame, reason, made: false, runner: None }
            }
            Ok(Some((there, _))) => {
                let key = |key: &str| there.config.get(key).map(String::as_str);
                if key(keys::DAEMON) == Some(&process_identity()) {
                    return Outcome::LaunchFailed { blame, reason: failure.to_string(), made: true, runner: None };
                }
                let reason = match key(keys::OWNER) {
                    Some(owner) if owner == self.config.prefix => "another daemon launched it".to_owned(),
                    _ => format!("an instance {name} that is not ours exists"),
                };
                Outcome::Clash { reason }
            }
            Err(error) => {
                let reason = format!("{failure}; and then: {error}");
                Outcome::LaunchFailed { blame, reason, made: true, runner: None }
            }
        }
    }

    fn bring_up(
        &self,
        steps: &Provision<'_>,
        class: &Class,
        scope: &Scope,
        name: &str,
        registered: &mut Option<RunnerId>,
    ) -> Result<(), Stop> {
        let of_class = |failure| of_class(class, failure);
        let starting = steps.start().map_err(of_class)?;
        // GitHub answers while the instance boots.
        let (started, credentials) = threads::beside(
            "register",
            || self.register(class, scope, name),
            // LXD refuses to stop or delete what it is about to start: it is waited for whatever GitHub says.
            || steps.started(&starting),
        );
        let credentials = credentials?;
        *registered = credentials.runner();
        started.map_err(of_class)?;
        if let Some(runner) = *registered {
            steps.note_runner(runner).map_err(of_class)?;
        }
        self.set_up(steps, class)?;
        let arming = steps.arm().map_err(of_class)?;
        steps.armed(&arming).map_err(of_class)?;
        steps.hand_over(&credentials).map_err(of_class)
    }

    /// Puts the runner into an instance that was made from an image.
    fn set_up(&self, steps: &Provision<'_>, class: &Class) -> Result<(), Stop> {
        let wanted = self.config.runner_version.as_deref();
        let package = self.packages.cached(class.arch, wanted).ok_or_else(|| Stop::Failed {
            blame: Blame::Package(class.arch),
            reason: format!(
                "the runner package is not in {} any more; it is fetched again",
                self.config.cache_home.display()
            ),
        })?;
        steps.prepare(&package).map_err(|failure| of_class(class, failure))
    }

    fn register(&self, class: &Class, scope: &Scope, name: &str) -> Result<Credentials, Stop> {
        let of_scope =
            |error: github::Error| Stop::Failed { blame: Blame::Scope(scope.clone()), reason: error.to_string() };
        if self.config.registration == Registration::Jit {
            let group = self.group(scope, &class.runner_group).map_err(of_scope)?;
            let labels: Vec<String> = class.labels.iter().map(str::to_owned).collect();
            match self.github.generate_jit_config(scope, name, group, &labels) {
                Ok(jit) => return Ok(Credentials::Jit { runner: jit.runner, encoded: jit.encoded }),
                Err(error) if error.kind == github::ErrorKind::Conflict => {
                    return Err(Stop::Clash("GitHub has a runner of this name already".to_owned()));
                }
                // An older GHES has no such endpoint; where the credential lacks the right, the next call says so.
                Err(error) if error.kind == github::ErrorKind::NotFound => {
                    debug!("scope={scope} msg=\"no JIT config, asking for a registration token\" error=\"{error}\"");
                }
                Err(error) => return Err(of_scope(error)),
            }
        }
        let token = self.github.registration_token(scope).map_err(of_scope)?;
        Ok(Credentials::Token { token, url: self.github.web_url(scope) })
    }

    fn group(&self, scope: &Scope, name: &str) -> Result<u64, github::Error> {
        let key = (scope.clone(), name.to_owned());
        let known = || self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known().get(&key) {
            return Ok(*id);
        }
        let id = self.github.runner_group(scope, name)?;
        known().insert(key, id);
        Ok(id)
    }

    fn remove(
        &self,
        name: &str,
        project: &str,
        scope: Option<&Scope>,
        runner: Option<RunnerId>,
        reason: RemoveReason,
    ) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Outcome::RemoveFailed { reason: error.to_string() };
        let instance = match self.lxd.instance(project, name) {
            Ok(Some((instance, _))) => instance,
            Ok(None) => return Outcome::Removed,
            Err(error) => return failed(&error),
        };
        if instance.config.get(keys::OWNER) != Some(&self.config.prefix) {
            debug!("instance={name} msg=\"not ours any more, left alone\"");
            return Outcome::Removed;
        }
        let forced = reason == RemoveReason::TooOld;
        // Only what is stopped surely runs nothing; a frozen one holds its job.
        let stopped = instance.status == InstanceStatus::Stopped;
        let mut quiet = false;
        if instance.status == InstanceStatus::Running && !forced {
            match look_inside(&self.lxd, &instance) {
                Inside::Working => return Outcome::Kept { why: "a worker process runs in it".to_owned() },
                // Its runner is online, so GitHub is the only one to say that it has no job, and GitHub has been wrong.
                Inside::Unknown if reason == RemoveReason::Idle => {
                    return failed(&"it is not certain that its runner is idle: the look inside did not work");
                }
                Inside::Quiet => quiet = true,
                Inside::Unknown => {}
            }
        }
        if let Some(scope) = scope {
            let noted = instance.config.get(keys::RUNNER_ID).and_then(|id| id.parse().ok()).map(RunnerId);
            let deletion = match runner.or(noted) {
                Some(runner) => self.github.delete_runner(scope, runner),
                None => match self.delete_unknown_runner(scope, name) {
                    Ok(None) if forced || stopped => Ok(Deletion::Busy),
                    Ok(None) => return failed(&"its runner came up meanwhile, it is looked at again"),
                    Ok(Some(deletion)) => Ok(deletion),
                    Err(error) => Err(error),
                },
            };
            match deletion {
                Ok(Deletion::Deleted | Deletion::Gone) => {}
                Ok(Deletion::Busy) if forced || stopped => {}
                Ok(Deletion::Busy) => return Outcome::Kept { why: "GitHub says that it runs a job".to_owned() },
                // Nothing runs in it any more, or may: GitHub's word is not needed. That its runner is finished we have from
                // a listing, which may have been late: one of the two must say so now.
                Err(_) if forced || stopped || (reason == RemoveReason::Finished && quiet) => {}
                Err(error) => return failed(&error),
            }
        }
        match self.delete(project, name, !stopped) {
            Ok(()) => {
                info!("instance={name} reason=\"{reason}\" msg=removed");
                Outcome::Removed
            }
            Err(error) => failed(&error),
        }
    }

    /// The runner of an instance whose registration we were never told. `None`: it is
    /// connected by now, and may be given a job at any moment. One that is not stays where JIT is used: without our
    /// knowing its id it was never started, and the name may be that of another host's, which is just being made.
    fn delete_unknown_runner(&self, scope: &Scope, name: &str) -> Result<Option<Deletion>, github::Error> {
        Ok(match self.github.runner_by_name(scope, name)? {
            Some(runner) if runner.online || runner.busy => None,
            Some(runner) if self.config.registration == Registration::Token => {
                Some(self.github.delete_runner(scope, runner.id)?)
            }
            _ => Some(Deletion::Gone),
        })
    }

    /// Stops and deletes. An ephemeral instance may be gone at any point of it.
    fn delete(&self, project: &str, name: &str, stop: bool) -> Result<(), lxd::Error> {
        if stop {
            let stopped = self
                .lxd
                .set_state(project, name, "stop", true)
                .and_then(|operation| self.lxd.wait(&operation, REMOVAL_TIMEOUT));
            match stopped {
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
                // It may have stopped by itself meanwhile; the deletion tells.
                Err(error) => debug!("instance={name} msg=\"could not stop it\" error=\"{error}\""),
                Ok(()) => {}
            }
        }
        let deleted = self.lxd.delete(project, name).and_then(|operation| self.lxd.wait(&operation, REMOVAL_TIMEOUT));
        match deleted {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            // LXD deletes an ephemeral instance by itself: whoever comes second fails, and that is fine.
            Err(error) => match self.lxd.instance(project, name) {
                Ok(None) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn fetch_package(&self, arch: RunnerArch, scope: &Scope) -> Outcome {
        let wanted = self.config.runner_version.as_deref();
        match self.packages.ensure(&self.github, scope, arch, wanted) {
            Ok(package) => Outcome::PackageReady { version: package.version },
            Err(error) => match self.packages.cached(arch, wanted) {
                Some(package) => {
                    info!(
                        "package={} msg=\"could not be looked up again, going on with it\" error=\"{error}\"",
                        package.version
                    );
                    Outcome::PackageReady { version: package.version }
                }
                None => Outcome::PackageFailed { reason: error.to_string() },
            },
        }
    }

    fn look_up_job(&self, repo: &RepoName, job: JobId, public: Option<bool>) -> Outcome {
        let found = self.github.job(repo, job).and_then(|found| match found {
            Some(mut job) => {
                job.public = if public.is_some() { public } else { self.visibility(repo)? };
                Ok(Some(Box::new(job)))
            }
            None => Ok(None),
        });
        match found {
            Ok(found) => Outcome::JobFound(found),
            Err(error) => Outcome::LookFailed { reason: error.to_string() },
        }
    }

    fn look_at_repo(&self, repo: &RepoName) -> Outcome {
        let found = self.github.open_jobs(repo).and_then(|mut jobs| {
            if !jobs.is_empty() {
                let public = self.visibility(repo)?;
                jobs.iter_mut().for_each(|job| job.public = job.public.or(public));
            }
            Ok(jobs)
        });
        match found {
            Ok(jobs) => Outcome::JobsFound(jobs),
            Err(error) => Outcome::LookFailed { reason: error.to_string() },
        }
    }

    /// Whether the repository is public, where the config makes it matter.
    fn visibility(&self, repo: &RepoName) -> Result<Option<bool>, github::Error> {
        if self.config.allow_public_repos && self.config.fork_policy.is_some() {
            return Ok(None);
        }
        Ok(Some(self.github.repo(repo)?.public))
    }
}

/// A reason that does not name the instance: the same failure of the next instance is no news.
fn nameless(outcome: Outcome, name: &str) -> Outcome {
    match outcome {
        Outcome::LaunchFailed { blame, reason, made, runner } => {
            let reason = reason.replace(&format!("instance {name}"), "the instance").replace(name, "the instance");
            Outcome::LaunchFailed { blame, reason, made, runner }
        }
        other => other,
    }
}
