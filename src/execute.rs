//! Carries out one action and reports how it ended. Effects without policy: whether, when and what again is decided by
//! [`crate::plan`].

mod last_words;
mod ready;
mod remove;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use log::{debug, info};

use crate::config::{Class, Config, Registration};
use crate::github::{self, Deletion, GitHub, JitConfig};
use crate::identity::process_identity;
use crate::lxd::Lxd;
use crate::lxd::api::{ErrorKind, Source};
use crate::model::{JobId, Phase, RepoName, RunnerArch, RunnerId, RunnerLife, Scope, keys};
use crate::runner::cause::why_not_created;
use crate::runner::failures::Failures;
use crate::runner::package::{Package, Packages, life_of};
use crate::runner::provision::{Credentials, Failure, Provision, source};
use crate::steps::removal::Removal;
use crate::threads;
use crate::trace::Trace;
use crate::world::{Action, Blame, Origin, Outcome};

/// What executing needs; shared by the workers.
pub struct Executor {
    config: Arc<Config>,
    lxd: Arc<Lxd>,
    github: Arc<GitHub>,
    trace: Arc<Trace>,
    packages: Packages,
    failures: Failures,
    /// Ids of the runner groups that classes name, once they were asked for.
    groups: Mutex<BTreeMap<(Scope, String), u64>>,
}

/// Why a launch ended early.
enum Stop {
    Clash(String),
    /// `output` is what a script had to say, where one failed.
    Failed {
        blame: Blame,
        reason: String,
        output: String,
    },
}

impl Stop {
    fn failed(blame: Blame, reason: impl std::fmt::Display) -> Stop {
        Stop::Failed { blame, reason: reason.to_string(), output: String::new() }
    }
}

/// A failed step, laid at that door unless it is LXD's as a whole.
fn of_blame(blame: &Blame, failure: Failure) -> Stop {
    let blame = match &failure {
        Failure::Lxd(error) if error.kind == ErrorKind::Unreachable => Blame::Host,
        _ => blame.clone(),
    };
    Stop::Failed { blame, reason: failure.to_string(), output: failure.output().to_owned() }
}

impl Executor {
    /// Nothing is done yet.
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>, github: Arc<GitHub>, trace: Arc<Trace>) -> Executor {
        let packages = Packages::new(&config.cache_home);
        let failures = Failures::new(&config);
        Executor { config, lxd, github, trace, packages, failures, groups: Mutex::default() }
    }

    /// Does it.
    pub fn execute(&self, action: &Action) -> Outcome {
        match action {
            Action::Launch { job, class, scope, name, from } => match self.config.classes.get(*class) {
                Some(class) => nameless(self.launch(*job, class, scope, name, from), name),
                None => no_class(),
            },
            Action::Bake { class, name, fingerprint, recipe } => match self.config.classes.get(*class) {
                Some(class) => self.bake(class, name, fingerprint, recipe),
                None => no_class(),
            },
            Action::FetchImage { class } => match self.config.classes.get(*class) {
                Some(class) => self.fetch_image(class),
                None => no_class(),
            },
            Action::PrepareStandby { class, name, template, recipe } => match self.config.classes.get(*class) {
                Some(class) => self.prepare_standby(class, name, template, recipe),
                None => no_class(),
            },
            Action::Remove { name, project, judged } => {
                self.remove(project, name, Removal::new(judged.clone(), &self.config.prefix, self.config.registration))
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

    fn launch(&self, job: Option<JobId>, class: &Class, scope: &Scope, name: &str, from: &Origin) -> Outcome {
        if let Some(wait) = self.github.quiet_for(scope) {
            let reason = format!(
                "GitHub said to slow down; nothing is launched before it may be asked, in {} s",
                wait.as_secs() + 1
            );
            return Outcome::LaunchFailed { blame: Blame::Scope(scope.clone()), reason, made: false, runner: None };
        }
        let (source, blame) = match from {
            Origin::Standby { etag } => return self.claim(job, class, scope, name, etag.as_deref()),
            Origin::Template(template) => (Source::Copy(template.clone()), Blame::Template(class.name.clone())),
            Origin::Image => (source(&class.image), Blame::Class(class.name.clone())),
        };
        let steps = Provision::new(&self.lxd, class, name, self.config.provision_timeout, self.trace.of(job));
        let mut keys = self.keys(class, Phase::Provisioning, None);
        keys.insert(keys::SCOPE.to_owned(), scope.to_string());
        keys.extend(job.map(|job| (keys::JOB.to_owned(), job.to_string())));
        if let Err(failure) = steps.create(source, keys, true) {
            return self.not_created(class, name, blame, &failure);
        }
        let of_job = job.map(|job| format!("job={job} ")).unwrap_or_default();
        let (of, from_word) = (&class.name, from.as_str());
        info!("{of_job}class={of:?} instance={name} scope={scope} from={from_word} msg=\"instance made\"");
        let mut registered = None;
        match self.bring_up(&steps, class, scope, name, &blame, &mut registered) {
            Ok(()) => {
                self.trace.of(job).tell(name, from_word);
                if let Err(error) = steps.note_started(None) {
                    debug!("instance={name} msg=\"could not note that it is started\" error={error:?}");
                }
                Outcome::Launched { runner: registered }
            }
            Err(stop) => {
                let runner = self.take_back(scope, name, registered);
                self.stopped(class, name, stop, runner)
            }
        }
    }

    /// What becomes of an instance whose launch ended early.
    fn stopped(&self, class: &Class, name: &str, stop: Stop, runner: Option<RunnerId>) -> Outcome {
        match stop {
            Stop::Failed { blame, reason, output } => {
                self.keep_of_failed(&class.project, name, &blame, (&reason, &output));
                Outcome::LaunchFailed { blame, reason, made: true, runner }
            }
            // The name is somebody else's on GitHub: this instance must go before anybody takes the two for one.
            Stop::Clash(reason) => match self.remove(&class.project, name, Removal::of_our_own(&self.config.prefix)) {
                Outcome::RemoveFailed { reason: left } => {
                    let reason = format!("{reason}; and the instance could not be removed: {left}");
                    Outcome::LaunchFailed { blame: Blame::Host, reason, made: true, runner: None }
                }
                _ => Outcome::Clash { reason },
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
        blame: &Blame,
        registered: &mut Option<RunnerId>,
    ) -> Result<(), Stop> {
        let failed = |failure| of_blame(blame, failure);
        let copied = matches!(blame, Blame::Template(_));
        let starting = steps.start().map_err(failed)?;
        // GitHub answers while the instance boots.
        let (started, credentials) = threads::beside(
            "register",
            || self.register(class, scope, name).inspect(|_| steps.mark("credentials")),
            // LXD refuses to stop or delete what it is about to start: it is waited for whatever GitHub says.
            || {
                steps.started(&starting)?;
                // A copy has its runner inside, and nothing to do that would be in vain without credentials.
                if copied { steps.arm().map(Some) } else { Ok(None) }
            },
        );
        let credentials = credentials?;
        *registered = credentials.runner();
        let arming = started.map_err(failed)?;
        if let Some(runner) = *registered {
            // While a copy boots.
            steps.note_runner(runner).map_err(failed)?;
        }
        if arming.is_some() {
            steps.open_files();
        }
        let arming = match arming {
            Some(arming) => arming,
            None => {
                steps.prepare(&self.package(class)?, false).map_err(failed)?;
                steps.mark("set_up");
                steps.arm().map_err(failed)?
            }
        };
        steps.armed(&arming).map_err(failed)?;
        steps.hand_over(&credentials).map_err(failed)
    }

    /// The runner package for an instance that is made from an image.
    fn package(&self, class: &Class) -> Result<Package, Stop> {
        let wanted = self.config.runner_version.as_deref();
        self.packages.cached(class.arch, wanted).ok_or_else(|| {
            let place = self.config.cache_home.display();
            let reason = format!("the runner package is not in {place} any more; it is fetched again");
            Stop::failed(Blame::Package(class.arch), reason)
        })
    }

    fn register(&self, class: &Class, scope: &Scope, name: &str) -> Result<Credentials, Stop> {
        let of_scope = |error: github::Error| Stop::failed(Blame::Scope(scope.clone()), error);
        if self.config.registration == Registration::Jit {
            let group = self.group(scope, &class.runner_group).map_err(of_scope)?;
            let labels: Vec<String> = class.labels.iter().map(str::to_owned).collect();
            match self.generate(class, scope, name, group, &labels) {
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

    /// A JIT config. A group that somebody removed, and may have made anew, is looked for again.
    fn generate(
        &self,
        class: &Class,
        scope: &Scope,
        name: &str,
        group: u64,
        labels: &[String],
    ) -> Result<JitConfig, github::Error> {
        match self.github.generate_jit_config(scope, name, group, labels) {
            Err(error) if error.kind == github::ErrorKind::NotFound => {
                let key = (scope.clone(), class.runner_group.clone());
                self.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                match self.group(scope, &class.runner_group)? {
                    fresh if fresh != group => self.github.generate_jit_config(scope, name, fresh, labels),
                    _ => Err(error),
                }
            }
            other => other,
        }
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

    fn fetch_package(&self, arch: RunnerArch, scope: &Scope) -> Outcome {
        let wanted = self.config.runner_version.as_deref();
        match self.packages.ensure(&self.github, scope, arch, wanted) {
            Ok(package) => {
                let life = life_of(&self.github, scope, arch, &package.version);
                Outcome::PackageReady { version: package.version, life }
            }
            Err(error) => match self.packages.cached(arch, wanted) {
                Some(package) => {
                    info!(
                        "package={} msg=\"could not be looked up again, going on with it\" error=\"{error}\"",
                        package.version
                    );
                    Outcome::PackageReady { version: package.version, life: RunnerLife::default() }
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

fn no_class() -> Outcome {
    Outcome::Clash { reason: "its class is not in the config".to_owned() }
}

/// A reason that does not name the instance: the same failure of the next instance is no news.
fn nameless(outcome: Outcome, name: &str) -> Outcome {
    match outcome {
        Outcome::LaunchFailed { blame, reason, made, runner } => {
            Outcome::LaunchFailed { blame, reason: ready::nameless(&reason, name), made, runner }
        }
        other => other,
    }
}
