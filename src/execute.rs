//! Carries out actions. Effects without policy: [`crate::plan`] decides the actions, [`crate::steps`] their steps.

mod failure_logs;
mod fetch;
mod make;
mod register;
mod remove;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::github::{self, Deletion, GitHub};
use crate::lxd::Lxd;
use crate::model::{JobId, RepoName, Scope};
use crate::runner::failure_logs::FailureLogs;
use crate::runner::package::Packages;
use crate::steps::removal::Removal;
use crate::trace::Trace;
use crate::world::{Action, Launch, Outcome};

/// Carries out actions; shared by the workers.
pub struct Executor {
    config: Arc<Config>,
    lxd: Arc<Lxd>,
    github: Arc<GitHub>,
    trace: Arc<Trace>,
    packages: Packages,
    failures: FailureLogs,
    /// Ids of the runner groups that classes name, once they were asked for.
    groups: Mutex<BTreeMap<(Scope, String), u64>>,
}

impl Executor {
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>, github: Arc<GitHub>, trace: Arc<Trace>) -> Executor {
        let packages = Packages::new(&config.cache_home);
        let failures = FailureLogs::new(&config);
        Executor { config, lxd, github, trace, packages, failures, groups: Mutex::default() }
    }

    pub fn execute(&self, action: &Action) -> Outcome {
        match action {
            Action::Launch(Launch { class, .. })
            | Action::Bake { class, .. }
            | Action::PrepareStandby { class, .. }
            | Action::FetchImage { class } => self.make(action, self.config.class(*class)),
            Action::Remove { name, project, judged } => {
                self.remove(project, name, Removal::new(judged.clone(), &self.config.prefix, self.config.registration))
            }
            Action::RemoveImage { fingerprint, project, alias, reason } => {
                self.remove_image(project, fingerprint, alias, *reason)
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
