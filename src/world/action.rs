//! The actions that the planner asks for. An action holds all data that its execution needs.

use std::fmt;

use crate::identity::Maker;
use crate::model::{ClassId, JobId, Recipe, RepoName, RunnerArch, RunnerId, Scope, Timestamp};

/// A task for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Launch a runner in an instance.
    Launch(Launch),
    /// Make a template of a class.
    Bake { class: ClassId, name: String, fingerprint: String, recipe: Recipe, form: TemplateKind },
    /// Have LXD fetch a class's image from its image server, so that its fingerprint is known.
    FetchImage { class: ClassId },
    /// Make a standby: a copy of `template`, booted and frozen.
    PrepareStandby { class: ClassId, name: String, template: Template, recipe: Recipe },
    /// Remove an instance: unless it is busy, deregister its runner, then stop and delete it. One without a scope has no
    /// runner; it stays where it has got one meanwhile.
    Remove { name: String, project: String, judged: Judged },
    /// Remove an image that is a template, if it still is the one that is called `alias` and ours.
    RemoveImage { fingerprint: String, project: String, alias: String, reason: RemoveReason },
    /// Remove a registration whose instance does not exist.
    Deregister { scope: Scope, runner: RunnerId, name: String },
    /// Fetch the newest (or the pinned) runner package into the cache.
    FetchPackage { arch: RunnerArch, scope: Scope },
    /// Ask GitHub for a job of which only id and repository are known, and perhaps whether that is public.
    LookUpJob { repo: RepoName, job: JobId, public: Option<bool> },
    /// Ask GitHub where a run's commits come from, and, `trust`, whether members made them.
    LookUpRun { repo: RepoName, run: u64, trust: bool },
    /// Ask GitHub for the queue of one repository.
    LookAtRepo { repo: RepoName },
}

/// The launch of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The job that was the reason; GitHub may give the runner another one. `None`: it is kept idle.
    pub job: Option<JobId>,
    pub class: ClassId,
    pub scope: Scope,
    /// The instance's and the runner's name.
    pub name: String,
    pub from: LaunchSource,
}

/// The kind of a class's templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateKind {
    /// A stopped instance.
    Instance,
    /// An image, where a copy of an instance would have to cross the network.
    Image,
}

/// What copies are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// A stopped instance, by name.
    Instance(String),
    /// An image, by fingerprint.
    Image(String),
}

impl Template {
    /// A name, or a fingerprint, which is longer than any name.
    pub fn id(&self) -> &str {
        let (Template::Instance(id) | Template::Image(id)) = self;
        id
    }
}

/// Where a runner's instance comes from, cheapest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchSource {
    /// It is made from the class's image.
    Image,
    /// It is a copy of this template.
    Template(Template),
    /// It is there, booted and frozen, under the name of the launch, and is claimed. `etag` is its state's as it was
    /// prepared, where that is known.
    Standby { etag: Option<String> },
}

impl LaunchSource {
    /// One word for the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            LaunchSource::Image => "image",
            LaunchSource::Template(_) => "template",
            LaunchSource::Standby { .. } => "standby",
        }
    }
}

/// The object of an action. At most one action on it is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flight {
    Instance(String),
    Image(ClassId),
    Runner(Scope, RunnerId),
    Package(RunnerArch),
    Job(JobId),
    Run(RepoName, u64),
    Repo(RepoName),
}

impl Action {
    /// The object of the action: no other action on it starts meanwhile.
    pub fn flight(&self) -> Flight {
        match self {
            Action::Launch(Launch { name, .. })
            | Action::Remove { name, .. }
            | Action::Bake { name, .. }
            | Action::PrepareStandby { name, .. } => Flight::Instance(name.clone()),
            Action::RemoveImage { fingerprint, .. } => Flight::Instance(fingerprint.clone()),
            Action::FetchImage { class } => Flight::Image(*class),
            Action::Deregister { scope, runner, .. } => Flight::Runner(scope.clone(), *runner),
            Action::FetchPackage { arch, .. } => Flight::Package(*arch),
            Action::LookUpJob { job, .. } => Flight::Job(*job),
            Action::LookUpRun { repo, run, .. } => Flight::Run(repo.clone(), *run),
            Action::LookAtRepo { repo } => Flight::Repo(repo.clone()),
        }
    }

    /// The instance that it is about, or the image that is a template.
    pub fn instance(&self) -> Option<&str> {
        match self {
            Action::Launch(Launch { name, .. })
            | Action::Remove { name, .. }
            | Action::Bake { name, .. }
            | Action::PrepareStandby { name, .. } => Some(name),
            Action::RemoveImage { fingerprint, .. } => Some(fingerprint),
            _ => None,
        }
    }

    /// The template that it copies, by [`Template::id`].
    pub fn copies(&self) -> Option<&str> {
        match self {
            Action::Launch(Launch { from: LaunchSource::Template(template), .. })
            | Action::PrepareStandby { template, .. } => Some(template.id()),
            _ => None,
        }
    }
}

/// The facts about an instance on which its removal was decided. An instance that differs is not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub reason: RemoveReason,
    /// The scope of its runner; `None` if it has no runner.
    pub scope: Option<Scope>,
    /// Its runner's registration, where that is known.
    pub runner: Option<RunnerId>,
    /// When LXD made it, where it was listed.
    pub made_at: Option<Timestamp>,
    pub maker: Maker,
    /// It is, or was, a standby: a runner of its name is its own.
    pub standby: bool,
    /// GitHub said that its job is over.
    pub over: bool,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.maker) {
            (RemoveReason::Abandoned, Maker::Us) => f.write_str("its making failed"),
            (reason, _) => reason.fmt(f),
        }
    }
}

/// Why an instance is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    /// Its runner had its one job, or it stopped.
    Finished,
    /// Its making failed, or the process that made it has ended.
    Abandoned,
    /// GitHub refused to register its runner.
    NotRegistered,
    /// Its runner was not online by the deadline.
    NeverOnline,
    /// Nobody needs its runner, and has not for the idle timeout.
    Idle,
    /// It is older than `max_lifetime`: the only reason for which a busy runner is removed.
    TooOld,
    /// It was published as an image, which was its purpose.
    Published,
    /// A template or standby that another one has replaced, or that the config does not ask for any more.
    Superseded,
    /// A standby or idle runner that waited for too long.
    Stale,
    /// Its runner is idle although a job waits for it.
    Unassigned,
    /// A standby or idle runner whose place a job needs.
    MakesRoom,
    /// Copies of it do not work, or it is not frozen any more.
    Broken,
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoveReason::Finished => "finished",
            RemoveReason::Abandoned => "abandoned while it was provisioned",
            RemoveReason::NotRegistered => "GitHub refused to register its runner",
            RemoveReason::NeverOnline => "its runner did not come online within provision_timeout",
            RemoveReason::Idle => "idle for longer than idle_timeout and not needed",
            RemoveReason::TooOld => "older than max_lifetime",
            RemoveReason::Published => "it is an image now",
            RemoveReason::Superseded => "replaced by another, or not asked for by the config any more",
            RemoveReason::Stale => "it waited for longer than ready_max_age; another takes its place",
            RemoveReason::Unassigned => "GitHub gives it no job although one waits; another takes its place",
            RemoveReason::MakesRoom => "it makes room for a job of another kind",
            RemoveReason::Broken => "it does not work; another takes its place",
        })
    }
}
