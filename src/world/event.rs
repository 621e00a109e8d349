//! Events for the main thread: deliveries, looks at LXD and GitHub, outcomes of actions.

use std::collections::BTreeSet;

use super::action::{Action, TemplateKind};
use super::failures::Subject;
use super::instance::InstanceSeen;
use crate::model::{Hint, Job, RepoName, RunOrigin, Runner, RunnerId, RunnerLife, Scope, Timestamp};

/// Everything that can happen to the main thread.
#[derive(Debug)]
pub enum Event {
    /// A verified delivery.
    Hint(Hint),
    /// A delivery was dropped because the channel was full: GitHub must be listed.
    HintsLost,
    /// A look at LXD, or at LXD and the runners at GitHub.
    Snapshot(Box<Snapshot>),
    /// The scopes that we serve, as a look at GitHub begins.
    Targets(Vec<Scope>),
    /// The open jobs of one repository.
    Queue(Box<Queue>),
    /// A worker is done with an action.
    Outcome(Action, Outcome),
    /// LXD says that an instance with a name like ours stopped or was deleted.
    InstanceEnded,
    /// LXD's event stream was opened (true) or has closed (false).
    Listening(bool),
}

/// The result of a look. `Err` means unknown, never empty: nothing is removed on it.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// [`super::World::seq`] when the look was asked for.
    pub begun: u64,
    /// Our instances, of all projects, and images that are templates. Listed before anything of GitHub's in the same snapshot.
    pub instances: Option<Result<Vec<InstanceSeen>, String>>,
    /// What each class (in the config's order) would be made from, and what its templates are; present where that was
    /// looked at.
    pub images: Option<Vec<(ImageSeen, TemplateKind)>>,
    /// Present where GitHub was looked at.
    pub github: Option<GitHubSeen>,
}

/// The repositories and scopes that a look at GitHub should ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// [`super::World::seq`] when the look was asked for.
    pub begun: u64,
    /// Repositories that have jobs, or were heard of since the last look.
    pub repos: BTreeSet<RepoName>,
    /// Scopes whose runners matter now; the others' can wait.
    pub scopes: BTreeSet<Scope>,
}

/// The GitHub side of a snapshot.
#[derive(Debug, Default)]
pub struct GitHubSeen {
    /// The scopes that we serve.
    pub targets: Option<Result<Vec<Scope>, String>>,
    /// The registered runners, for each scope that was asked.
    pub runners: Vec<(Scope, Result<Vec<Runner>, String>)>,
    /// Repositories that were deleted, or left the scopes that we serve.
    pub gone: Vec<RepoName>,
}

/// The jobs of a repository that are not completed, as a look at GitHub found them.
#[derive(Debug)]
pub struct Queue {
    pub repo: RepoName,
    /// [`super::World::seq`] when the look was asked for.
    pub begun: u64,
    /// When this repository was asked, by the clock of decisions: a look asks one after the other, and takes long.
    pub asked_at: Timestamp,
    pub jobs: Result<Vec<Job>, String>,
    /// Open runs that were not asked for their jobs: nothing is said of these.
    pub unasked: BTreeSet<u64>,
}

/// How an action ended.
#[derive(Debug)]
pub enum Outcome {
    /// The runner process is started.
    Launched { runner: Option<RunnerId> },
    /// The name is taken: somebody else launched it.
    Clash { reason: String },
    /// The launch failed. `made` tells whether an instance may exist now, `runner` a registration that may.
    LaunchFailed { blame: Subject, reason: String, made: bool, runner: Option<RunnerId> },
    /// The standby that was to be claimed is somebody else's.
    StandbyLost { reason: String },
    /// The template is ready.
    Baked,
    /// The template is published as this image. `left`: the instance that it was made of may still exist.
    Published { image: String, left: bool },
    /// The standby is ready; its ETag.
    Prepared { etag: Option<String> },
    /// The class's image is on this server, with this fingerprint.
    ImageFetched { fingerprint: String },
    /// The template, standby or image did not come to be. `made` tells whether an instance may exist now.
    NotMade { blame: Subject, reason: String, made: bool },
    /// The instance is gone, or is not ours.
    Removed,
    /// The instance is busy and was left alone.
    Kept { why: String },
    /// The instance differs from the one that was judged. It was left alone and is listed again.
    Changed { why: String },
    /// It could not be removed, or it is not certain that it may be.
    RemoveFailed { reason: String },
    /// The registration is gone.
    Deregistered,
    /// The package is in the cache.
    PackageReady { version: String, life: RunnerLife },
    /// The lookup or download failed. `cached` is the version in the cache.
    PackageFailed { reason: String, cached: Option<String> },
    /// A job was asked for; `None`: GitHub does not have it (or hides it).
    JobFound(Option<Box<Job>>),
    /// Where a run's commits come from; `None`: GitHub does not have it (or hides it).
    RunFound(Option<RunOrigin>),
    /// A repository's jobs that are not completed.
    JobsFound(Vec<Job>),
    /// GitHub did not answer the question.
    LookFailed { reason: String },
}

/// The image of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSeen {
    /// The image on this server.
    Known(String),
    /// An image server's, which was not fetched yet.
    Unfetched,
    /// It could not be asked for, or is not there.
    Unknown,
}
