//! What the daemon knows, and how an event changes it. **Pure**: no I/O, no clock (`now` is an argument), no logging;
//! what people should hear of a change is returned as [`Note`]s.
//!
//! One thread owns a [`World`]. Nothing in it needs to survive the process: all of it is read again from LXD, GitHub
//! and the config. Every event has a number (`seq`); a snapshot carries the number at which it was begun, and what was
//! touched since is left alone, since the snapshot may be older than what we know.

mod action;
mod doubts;
mod failures;
mod fold;
mod guard;
mod matching;
mod names;
mod note;
mod outcome;
mod snapshot;
mod templates;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
mod unassigned;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::identity::Maker;
use crate::lxd::InstanceStatus;
use crate::model::{
    Hint, Job, JobId, Phase, Recipe, RepoName, RunOrigin, Runner, RunnerArch, RunnerId, RunnerLife, Scope, Timestamp,
};
pub use action::{Action, Flight, Form, Judged, Origin, RemoveReason, Template};
pub use doubts::Doubt;
pub(crate) use failures::pause_after;
pub use failures::{Entry, Failures, Subject};
pub use matching::{Refusal, class_for, scope_for};
pub use names::{Named, instance_name, parse_name, template_name};
pub(crate) use names::{nth_random, random_name};
pub use note::{Note, TookJob};
pub use templates::{ImageSeen, form_of, recipe_of};

/// Everything that can happen to the main thread.
#[derive(Debug)]
pub enum Event {
    /// A verified delivery, or what came of asking GitHub for one job.
    Hint(Hint),
    /// A delivery could not be queued: GitHub knows better, look there.
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
    /// LXD's event stream is open now, or is not any more.
    Listening(bool),
}

/// What a look found. `Err` is "unknown", never "empty": nothing is taken away on it.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// [`World::seq`] when the look was asked for.
    pub begun: u64,
    /// Our instances, of all projects, and images that are templates. Listed before anything of GitHub's in the same snapshot.
    pub instances: Option<Result<Vec<InstanceSeen>, String>>,
    /// What each class (in the config's order) would be made from, and what its templates are; present where that was
    /// looked at.
    pub images: Option<Vec<(ImageSeen, Form)>>,
    /// Present where GitHub was looked at.
    pub github: Option<GitHubSeen>,
}

/// What a look should ask for, by what is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// [`World::seq`] when the look was asked for.
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
    /// Repositories that were there and are not any more, or are not served any more.
    pub gone: Vec<RepoName>,
}

/// The jobs of a repository that are not completed, as a look at GitHub found them.
#[derive(Debug)]
pub struct Queue {
    pub repo: RepoName,
    /// [`World::seq`] when the look was asked for.
    pub begun: u64,
    /// When this repository was asked, by the clock of decisions: a look asks one after the other, and takes long.
    pub asked_at: Timestamp,
    pub jobs: Result<Vec<Job>, String>,
    /// Open runs that were not asked for their jobs: nothing is said of these.
    pub unasked: BTreeSet<u64>,
}

/// An instance's status, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Stopped,
    Frozen,
    /// On its way between states.
    Other,
}

impl From<InstanceStatus> for Status {
    fn from(status: InstanceStatus) -> Status {
        match status {
            InstanceStatus::Running => Status::Running,
            InstanceStatus::Stopped => Status::Stopped,
            InstanceStatus::Frozen => Status::Frozen,
            InstanceStatus::Other => Status::Other,
        }
    }
}

/// One of our instances, as LXD lists it, or an image that is a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    /// An image's is its fingerprint, which is longer than any instance's name.
    pub name: String,
    /// What an image is called; `None` for an instance.
    pub alias: Option<String>,
    pub project: String,
    pub class: String,
    /// `None` where the key is missing or not a scope.
    pub scope: Option<Scope>,
    pub job: Option<JobId>,
    pub runner_id: Option<RunnerId>,
    pub phase: Phase,
    /// What it was baked of, or is a copy of.
    pub recipe: Option<Recipe>,
    pub status: Status,
    pub created_at: Option<Timestamp>,
    pub maker: Maker,
}

/// What is known of an instance's runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerState {
    /// Not connected yet, as far as we know.
    Awaited,
    /// Connected, without a job, since this moment (as we saw it).
    Idle(Timestamp),
    /// Runs a job.
    Busy,
    /// Had its job, or its registration is gone; since this moment.
    Done(Timestamp),
}

/// One of our instances, with what we learnt of it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub seen: InstanceSeen,
    pub runner: RunnerState,
    /// When this process first knew of it.
    pub first_seen: Timestamp,
    /// True where it was not there yet when this process first looked.
    pub appeared: bool,
    /// When it was made, as far as we can tell: what LXD says, within what we saw ourselves. A clock that was set right
    /// meanwhile, by years on a board without a battery, must not make it look old.
    pub made_at: Timestamp,
    /// When the process that is at it now began, as far as we can tell: a standby is claimed long after it was made.
    pub begun_at: Timestamp,
    /// When it was first known to have its runner process started.
    pub started_at: Option<Timestamp>,
    /// Since when it is seen stopped.
    pub stopped_since: Option<Timestamp>,
    /// True once its runner was given a job.
    pub took_job: bool,
    /// True once GitHub told which job its runner has.
    named: bool,
    /// The runner that GitHub named with that job before the id of the instance's runner was known: it may be an earlier one
    /// of the same name.
    named_runner: Option<RunnerId>,
    /// True where we removed it while its runner was idle.
    removed_idle: bool,
    /// True once the end of its runner was noted.
    end_noted: bool,
    /// True once GitHub told that the job that it took is over.
    pub job_is_over: bool,
    /// True once GitHub listed it busy, or a look inside found it so: more than a delivery that names it.
    seen_busy: bool,
    /// Since when GitHub lists its runner as busy without having told of the job: the two are not told at once, and for a
    /// moment the job that the runner has is still queued.
    pub handover_since: Option<Timestamp>,
    /// It is busy: no attempt to remove it before this moment.
    pub leave_until: Option<Timestamp>,
    /// A standby's ETag as it was prepared: with it a claim costs one call less.
    pub etag: Option<String>,
    touched: u64,
}

impl Instance {
    /// One that is heard of for the first time.
    fn new(seen: InstanceSeen, made_at: Timestamp, now: Timestamp, touched: u64) -> Instance {
        // What a runner's is a copy of is noted on a standby only.
        let claimed = seen.phase == Phase::Provisioning && seen.recipe.is_some();
        Instance {
            runner: RunnerState::Awaited,
            first_seen: now,
            appeared: true,
            made_at,
            begun_at: if claimed { now } else { made_at },
            started_at: (seen.phase == Phase::Started).then_some(now),
            stopped_since: (seen.status == Status::Stopped).then_some(now),
            took_job: false,
            named: false,
            named_runner: None,
            removed_idle: false,
            end_noted: false,
            job_is_over: false,
            seen_busy: false,
            handover_since: None,
            leave_until: None,
            etag: None,
            touched,
            seen,
        }
    }

    /// True for what a dead process left half-made before its runner's id was noted: whatever GitHub tells of a runner of
    /// its name may be about one before it.
    fn perhaps_never_started(&self) -> bool {
        let half_made = self.seen.phase == Phase::Provisioning && self.seen.maker == Maker::Dead;
        half_made && self.seen.runner_id.is_none()
    }

    /// True where its runner has had a registration of its own for longer than listings lag.
    fn was_registered(&self, now: Timestamp) -> bool {
        let started = self.started_at.filter(|_| self.seen.phase == Phase::Started && self.seen.runner_id.is_some());
        started.is_some_and(|at| now.since(at) > LISTING_LAG)
    }

    /// True where it is not certain that the runner which GitHub named with a job is the instance's.
    pub fn may_be_misnamed(&self) -> bool {
        self.named_runner.is_some()
    }

    /// The id of its runner is known: what was told of an earlier runner of its name is not its own.
    fn has_runner(&mut self, id: RunnerId) {
        self.seen.runner_id = Some(id);
        let earlier = self.named_runner.take().is_some_and(|named| named != id);
        if earlier && !self.seen_busy {
            (self.took_job, self.named, self.job_is_over, self.end_noted) = (false, false, false, false);
            self.runner = RunnerState::Awaited;
        }
    }

    /// True where another daemon keeps it, most likely: whether it is of use is that one's to say. What was there before us
    /// and was made on another machine, or in another boot, may be nobody's by now.
    pub fn is_anothers(&self) -> bool {
        self.seen.maker == Maker::Other || self.seen.maker == Maker::Unknown && self.appeared
    }

    /// What people know it by.
    pub fn label(&self) -> &str {
        self.seen.alias.as_ref().unwrap_or(&self.seen.name)
    }
}

/// A job that is not over.
#[derive(Clone, Debug)]
pub struct JobState {
    pub job: Job,
    /// The scope and class (by its place in the config) that serve it, or why none does.
    pub place: Result<(Scope, usize), Refusal>,
    /// When GitHub made it, else when we heard of it: its place in the line.
    pub queued_at: Timestamp,
    /// No launch for it before this moment, and why.
    pub not_before: Option<(Timestamp, Hold)>,
    /// Runners launched for it that ended without taking any job.
    pub wasted: u32,
    heard_at: Timestamp,
    /// When GitHub was last asked about this one job.
    asked_at: Option<Timestamp>,
    touched: u64,
}

impl JobState {
    /// How long GitHub has not told of it.
    pub fn unheard(&self, now: Timestamp) -> Duration {
        now.since(self.asked_at.map_or(self.heard_at, |at| at.max(self.heard_at)))
    }
}

/// Why nothing is launched for a job for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The name of its instance or runner is taken: another process launched it.
    NameTaken,
    /// GitHub says that it still waits, though runners that were launched for it ended.
    RunnersEnded,
}

/// What is known of the runners of a scope.
#[derive(Clone, Debug, Default)]
pub struct ScopeView {
    /// The last good listing; `None` before the first and after a failed one.
    pub runners: Option<Vec<Runner>>,
    /// When it came.
    pub listed_at: Option<Timestamp>,
    /// Since when each runner that is offline now was seen offline without a break.
    pub offline_since: BTreeMap<RunnerId, Timestamp>,
}

/// How an action ended.
#[derive(Debug)]
pub enum Outcome {
    /// The runner process is started.
    Launched { runner: Option<RunnerId> },
    /// The name is taken: somebody else launched it.
    Clash { reason: String },
    /// It did not work out. `made` tells whether an instance may exist now, `runner` a registration that may.
    LaunchFailed { blame: Subject, reason: String, made: bool, runner: Option<RunnerId> },
    /// The standby that was to be claimed is somebody else's.
    StandbyLost { reason: String },
    /// The template is ready.
    Baked,
    /// It is, as this image. `left` tells whether the instance that it was made of may exist still.
    Published { image: String, left: bool },
    /// The standby is; its ETag.
    Prepared { etag: Option<String> },
    /// The class's image is on this server, with this fingerprint.
    ImageFetched { fingerprint: String },
    /// The template, standby or image did not come to be. `made` tells whether an instance may exist now.
    NotMade { blame: Subject, reason: String, made: bool },
    /// The instance is gone, or was not ours (any more).
    Removed,
    /// It is busy: left alone.
    Kept { why: String },
    /// It is not what was judged, or not any more: left alone, to be looked at again.
    Changed { why: String },
    /// It could not be removed, or it is not certain that it may be.
    RemoveFailed { reason: String },
    /// The registration is gone.
    Deregistered,
    /// The package is in the cache.
    PackageReady { version: String, life: RunnerLife },
    /// It could not be looked up or fetched. `cached` is the version that is there all the same.
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

/// A runner package's state.
#[derive(Clone, Debug, Default)]
pub struct PackageState {
    /// The version in the cache.
    pub version: Option<String>,
    /// When it was last looked up with success.
    pub checked_at: Option<Timestamp>,
    /// A runner ended without a job while its job waited: perhaps GitHub refuses the version. Since when.
    pub suspect_since: Option<Timestamp>,
    /// When it was last looked up for that.
    pub suspected_at: Option<Timestamp>,
}

/// What the daemon knows.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) seq: u64,
    pub(crate) jobs: BTreeMap<JobId, JobState>,
    /// Jobs that are over, and when we learnt of it: a late or repeated `queued` must not revive them.
    over: BTreeMap<JobId, Timestamp>,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Instances that went, and the number of the event that told: an older listing must not bring them back.
    gone: BTreeMap<String, u64>,
    /// The latest good listing of LXD: the number at which it was begun, and when it came.
    listed: (u64, Option<Timestamp>),
    /// `None` until LXD was listed once with success.
    pub(crate) lxd: Option<Result<Timestamp, String>>,
    /// The scopes that we serve; `None` until known.
    pub(crate) targets: Option<Vec<Scope>>,
    pub(crate) scopes: BTreeMap<Scope, ScopeView>,
    pub(crate) packages: BTreeMap<RunnerArch, PackageState>,
    /// What fails, and what is tried again when.
    pub(crate) failures: Failures,
    /// What is being done now.
    pub(crate) flights: BTreeMap<Flight, Action>,
    /// Runner and instance names that turned out to be taken, and when.
    pub(crate) taken: BTreeMap<String, Timestamp>,
    /// Jobs known by their check run only.
    pub(crate) unknown_jobs: BTreeMap<JobId, UnknownJob>,
    /// Jobs that GitHub is asked about before anything is concluded.
    pub(crate) questions: BTreeMap<JobId, doubts::Question>,
    /// Runs whose origin matters.
    pub(crate) runs: guard::Runs,
    /// Repositories whose queue is worth a look.
    pub(crate) look_at: BTreeMap<RepoName, Timestamp>,
    /// Repositories that were heard of since the last look at GitHub.
    heard: BTreeSet<RepoName>,
    pub(crate) lxd_look: Look,
    /// True while LXD tells of instances that end by itself.
    pub(crate) listening: bool,
    pub(crate) github_look: Look,
    github_answered_at: Option<Timestamp>,
    /// Scopes that may have a registration of ours whose making we did not hear of, and the number of the event that left us
    /// in doubt: their runners are listed whatever else there is.
    doubtful: BTreeMap<Scope, u64>,
    /// What each class's templates are baked of.
    pub(crate) templates: Vec<templates::TemplateState>,
    /// Names that are not for a job follow from `seed` and their number.
    pub(crate) seed: u64,
    pub(crate) names_given: u64,
    /// What people should hear of the event that is being folded.
    notes: Vec<Note>,
    /// Classes are named by their place in it.
    pub(crate) config: Arc<Config>,
}

/// A job of which no more is known than where it is.
#[derive(Clone, Debug)]
pub(crate) struct UnknownJob {
    pub repo: RepoName,
    /// Whether everybody can see the repository.
    pub public: Option<bool>,
    heard_at: Timestamp,
}

/// One kind of look: when it last ended, and whether the next should not wait for its turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub under_way: bool,
    pub ended_at: Option<Timestamp>,
    pub wanted: bool,
}

/// How long a job's end is remembered against late deliveries.
const REMEMBER_OVER: Duration = Duration::from_secs(2 * 3600);
/// GitHub cancels a job that waited this long.
const JOB_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// GitHub's listings lag behind its webhooks by no more than this.
const LISTING_LAG: Duration = Duration::from_secs(30);
/// How many jobs, of any kind, are kept in mind at most; beyond that the periodic look finds them again.
const MAX_JOBS: usize = 50_000;

impl World {
    /// Knows nothing yet but its config. Where that names no targets, GitHub must be asked. The names of standbys and
    /// idle runners follow from `seed`, which should be another one in each process; `scripts` is what, beside the
    /// config, makes templates stale when it changes.
    pub fn new(config: Arc<Config>, seed: u64, scripts: &str) -> World {
        let targets = &config.targets;
        World {
            seq: 1,
            jobs: BTreeMap::new(),
            over: BTreeMap::new(),
            instances: BTreeMap::new(),
            gone: BTreeMap::new(),
            listed: (0, None),
            lxd: None,
            targets: (!targets.is_empty()).then(|| targets.to_vec()),
            scopes: BTreeMap::new(),
            packages: BTreeMap::new(),
            failures: Failures::default(),
            flights: BTreeMap::new(),
            taken: BTreeMap::new(),
            unknown_jobs: BTreeMap::new(),
            questions: BTreeMap::new(),
            runs: BTreeMap::new(),
            look_at: BTreeMap::new(),
            heard: BTreeSet::new(),
            lxd_look: Look::default(),
            listening: false,
            github_look: Look::default(),
            github_answered_at: None,
            doubtful: BTreeMap::new(),
            templates: config.classes.iter().map(|class| templates::TemplateState::new(class, scripts)).collect(),
            seed,
            names_given: 0,
            notes: Vec::new(),
            config,
        }
    }

    /// What its classes are named in.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of the latest event.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// An action was handed to a worker.
    pub fn dispatched(&mut self, action: &Action) {
        if let Action::LookAtRepo { repo } = action {
            // What is heard of it from here on asks for another look.
            self.look_at.remove(repo);
        }
        if let Action::LookUpJob { job, .. } = action {
            self.job_is_asked_for(*job);
        }
        let unnamed = matches!(action, Action::Launch { job: None, .. } | Action::PrepareStandby { .. });
        self.names_given += u64::from(unnamed);
        self.flights.insert(action.flight(), action.clone());
    }

    /// What the next look at GitHub should ask for.
    pub fn interest(&self) -> Interest {
        let jobs = self.jobs.values().map(|state| &state.job.repo);
        let repos = jobs.chain(&self.heard).cloned().collect();
        let mut scopes: BTreeSet<Scope> = self.instances.values().filter_map(|i| i.seen.scope.clone()).collect();
        scopes.extend(self.flights.values().filter_map(|action| match action {
            Action::Launch { scope, .. } => Some(scope.clone()),
            _ => None,
        }));
        scopes.extend(self.failures.iter().filter_map(|(subject, _)| match subject {
            Subject::Scope(scope) => Some(scope.clone()),
            _ => None,
        }));
        scopes.extend(self.doubtful.keys().cloned());
        let ours = |runner: &Runner| parse_name(&self.config.prefix, &runner.name).is_some();
        for (scope, view) in &self.scopes {
            let dead = |r: &Runner| ours(r) && !self.instances.contains_key(&r.name);
            // A registration of ours without an instance is watched until it is gone.
            if view.runners.as_ref().is_none_or(|runners| runners.iter().any(dead)) {
                scopes.insert(scope.clone());
            }
        }
        Interest { begun: self.seq, repos, scopes }
    }

    /// A look at LXD (`github` = false) or at both was asked for.
    pub fn look_begun(&mut self, github: bool) {
        if github {
            self.heard.clear();
        }
        let look = if github { &mut self.github_look } else { &mut self.lxd_look };
        look.under_way = true;
        look.wanted = false;
    }

    /// Whether LXD answered lately; `Err` says why not.
    pub fn lxd_health(&self, now: Timestamp) -> Result<(), String> {
        match &self.lxd {
            None => Err("LXD was not listed yet".to_owned()),
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(at)) if now.since(*at) > Duration::from_secs(60) => {
                Err(format!("LXD was last listed {} s ago", now.since(*at).as_secs()))
            }
            Some(Ok(_)) => Ok(()),
        }
    }

    /// When LXD last answered a look.
    pub fn lxd_answered_at(&self) -> Option<Timestamp> {
        self.listed.1
    }

    /// When GitHub last answered a question of a look.
    pub fn github_answered_at(&self) -> Option<Timestamp> {
        self.github_answered_at
    }

    /// True where the job is known to be over.
    pub fn is_over(&self, job: JobId) -> bool {
        self.over.contains_key(&job)
    }

    /// The instances of ours, in order of name.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// How many instances wait as standbys, are idle runners, and are templates.
    pub fn ready(&self) -> (usize, usize, usize) {
        let count = |test: &dyn Fn(&Instance) -> bool| self.instances.values().filter(|i| test(i)).count();
        let idle = |i: &Instance| i.seen.phase == Phase::Started && matches!(i.runner, RunnerState::Idle(_));
        let phase = |phase: Phase| count(&|i| i.seen.phase == phase);
        (phase(Phase::Standby), count(&idle), phase(Phase::Template))
    }

    /// The job of this id, unless it is over.
    pub fn job(&self, id: JobId) -> Option<&JobState> {
        self.jobs.get(&id)
    }

    /// The jobs that are not over.
    pub fn jobs(&self) -> impl Iterator<Item = &JobState> {
        self.jobs.values()
    }
}
