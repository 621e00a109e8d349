//! What the planner can ask for. An action is data: whoever executes it needs nothing else to know what to do.

use std::fmt;

use crate::model::{JobId, RepoName, RunnerArch, RunnerId, Scope};

/// One thing to be done by a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make an instance and start a runner in it.
    Launch {
        /// The job that was the reason; GitHub may give the runner another one.
        job: JobId,
        /// The class's place in the config.
        class: usize,
        scope: Scope,
        /// The instance's and the runner's name.
        name: String,
    },
    /// Remove an instance: unless it is busy, deregister its runner, then stop and delete it.
    Remove { name: String, project: String, scope: Option<Scope>, runner: Option<RunnerId>, reason: RemoveReason },
    /// Remove a registration whose instance does not exist.
    Deregister { scope: Scope, runner: RunnerId, name: String },
    /// See to it that the newest (or the pinned) runner package is in the cache.
    FetchPackage { arch: RunnerArch, scope: Scope },
    /// Ask GitHub for a job of which only the id is known, and where it is, and perhaps whether everybody sees that.
    LookUpJob { repo: RepoName, job: JobId, public: Option<bool> },
    /// Ask GitHub where a run's commits come from, and, `trust`, whether members made them.
    LookUpRun { repo: RepoName, run: u64, trust: bool },
    /// Ask GitHub for the queue of one repository.
    LookAtRepo { repo: RepoName },
}

/// What is under way at most once at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flight {
    Instance(String),
    Runner(Scope, RunnerId),
    Package(RunnerArch),
    Job(JobId),
    Run(RepoName, u64),
    Repo(RepoName),
}

impl Action {
    /// The thing that the action is about: nothing else is begun on it meanwhile.
    pub fn flight(&self) -> Flight {
        match self {
            Action::Launch { name, .. } | Action::Remove { name, .. } => Flight::Instance(name.clone()),
            Action::Deregister { scope, runner, .. } => Flight::Runner(scope.clone(), *runner),
            Action::FetchPackage { arch, .. } => Flight::Package(*arch),
            Action::LookUpJob { job, .. } => Flight::Job(*job),
            Action::LookUpRun { repo, run, .. } => Flight::Run(repo.clone(), *run),
            Action::LookAtRepo { repo } => Flight::Repo(repo.clone()),
        }
    }
}

/// Why an instance is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    /// Its runner had its one job, or it stopped.
    Finished,
    /// Its provisioning failed, or the process that provisioned it is no more.
    Abandoned,
    /// Its runner was not online by the deadline.
    NeverOnline,
    /// Nobody needs its runner, and has not for the idle timeout.
    Idle,
    /// It is older than any instance may be. The one reason that a busy runner does not outlive.
    TooOld,
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoveReason::Finished => "finished",
            RemoveReason::Abandoned => "abandoned while it was provisioned",
            RemoveReason::NeverOnline => "its runner did not come online within provision_timeout",
            RemoveReason::Idle => "idle for longer than idle_timeout and not needed",
            RemoveReason::TooOld => "older than max_lifetime",
        })
    }
}
