//! The daemon's knowledge, and how events change it. **Pure**: no I/O, no clock (`now` is an argument), no logging;
//! changes that people should be told are returned as [`Note`]s.
//!
//! One thread owns a [`World`]. Nothing in it needs to survive the process: all of it is read again from LXD, GitHub
//! and the config. Every event has a number (`seq`). A snapshot carries the number at which it was begun: objects that were
//! touched since are left as they are, because the snapshot may be older.

mod action;
mod doubts;
mod event;
mod failures;
mod forks;
mod instance;
mod jobs;
mod listings;
mod matching;
mod names;
mod note;
mod outcomes;
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
use crate::model::{
    ClassId, Hint, Job, JobId, PerClass, Phase, RepoName, Runner, RunnerArch, RunnerId, Scope, Timestamp,
};
pub use action::{Action, Flight, Judged, Launch, LaunchSource, RemoveReason, Template, TemplateKind};
pub use doubts::Doubt;
pub use event::{Event, GitHubSeen, ImageSeen, Interest, Outcome, Queue, Snapshot};
pub(crate) use failures::pause_after;
pub use failures::{Entry, Failures, Subject};
pub use instance::{Instance, InstanceSeen, RunnerState};
pub use matching::{Refusal, class_for, scope_for};
pub use names::{NameKind, instance_name, parse_name, template_name};
pub(crate) use names::{nth_random, random_name};
pub use note::{Note, TookJob};
pub use templates::{recipe_of, template_kind};

/// A job that is not over.
#[derive(Clone, Debug)]
pub struct JobState {
    pub job: Job,
    /// The scope and class that serve it, or why none does.
    pub place: Result<(Scope, ClassId), Refusal>,
    /// When GitHub made it, else when it became known: its place in the queue.
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
    /// How long GitHub has said nothing about it.
    pub fn unheard(&self, now: Timestamp) -> Duration {
        now.since(self.asked_at.map_or(self.heard_at, |at| at.max(self.heard_at)))
    }
}

/// Why nothing is launched for a job for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The name of its instance or runner is taken: another process launched it.
    NameTaken,
    /// GitHub says that it still waits, although runners that were launched for it ended.
    RunnersEnded,
}

/// The runners of a scope.
#[derive(Clone, Debug, Default)]
pub struct ScopeView {
    /// The last good listing; `None` before the first and after a failed one.
    pub runners: Option<Vec<Runner>>,
    /// When it came.
    pub listed_at: Option<Timestamp>,
    /// Since when each runner that is offline now was seen offline without a break.
    pub offline_since: BTreeMap<RunnerId, Timestamp>,
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

/// The daemon's knowledge.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) seq: u64,
    pub(crate) jobs: BTreeMap<JobId, JobState>,
    /// Jobs that are over, and since when that is known: a late or repeated `queued` must not revive them.
    finished_jobs: BTreeMap<JobId, Timestamp>,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Deleted instances, with the number of the event that said so: an older listing must not bring them back.
    deleted_instances: BTreeMap<String, u64>,
    /// The latest good listing of LXD: the number at which it was begun, and when it came.
    listed: (u64, Option<Timestamp>),
    /// `None` until LXD was listed once with success.
    pub(crate) lxd: Option<Result<Timestamp, String>>,
    /// The scopes that we serve; `None` until known.
    pub(crate) targets: Option<Vec<Scope>>,
    pub(crate) scopes: BTreeMap<Scope, ScopeView>,
    pub(crate) packages: BTreeMap<RunnerArch, PackageState>,
    /// Failures and their pauses.
    pub(crate) failures: Failures,
    /// Actions under way.
    pub(crate) flights: BTreeMap<Flight, Action>,
    /// Runner and instance names that turned out to be taken, and when.
    pub(crate) names_taken: BTreeMap<String, Timestamp>,
    /// Jobs known by their check run only.
    pub(crate) unknown_jobs: BTreeMap<JobId, UnknownJob>,
    /// Jobs that GitHub is asked about before a decision.
    pub(crate) questions: BTreeMap<JobId, doubts::Question>,
    /// Runs whose origin matters.
    pub(crate) runs: matching::Runs,
    /// Repositories whose queue should be asked for.
    pub(crate) repos_to_check: BTreeMap<RepoName, Timestamp>,
    /// Repositories that were heard of since the last look at GitHub.
    repos_heard: BTreeSet<RepoName>,
    pub(crate) lxd_look: Look,
    /// True while LXD's event stream is open.
    pub(crate) listening: bool,
    pub(crate) github_look: Look,
    github_answered_at: Option<Timestamp>,
    /// Scopes that may have a registration of ours whose answer was lost, with the number of the event: their runners are
    /// listed at each look.
    scopes_to_recheck: BTreeMap<Scope, u64>,
    /// What each class's templates are baked of.
    pub(crate) templates: PerClass<templates::TemplateState>,
    /// Names that are not for a job follow from `seed` and their number.
    pub(crate) seed: u64,
    pub(crate) names_given: u64,
    /// Notes of the event that is being folded; [`World::fold`] returns them.
    notes: Vec<Note>,
    pub(crate) config: Arc<Config>,
}

/// A job of which only the repository is known.
#[derive(Clone, Debug)]
pub(crate) struct UnknownJob {
    pub repo: RepoName,
    /// Whether everybody can see the repository.
    pub public: Option<bool>,
    heard_at: Timestamp,
}

/// The looks of one kind.
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
/// The most jobs, of any kind, that are remembered; the periodic look finds others again.
const MAX_JOBS: usize = 50_000;

impl World {
    /// A World that knows only its config. Where that names no targets, GitHub is asked. Names of standbys and idle runners
    /// follow from `seed`, which should differ in each process. Templates are stale when `scripts`, a digest, changes.
    pub fn new(config: Arc<Config>, seed: u64, scripts: &str) -> World {
        let targets = &config.targets;
        World {
            seq: 1,
            jobs: BTreeMap::new(),
            finished_jobs: BTreeMap::new(),
            instances: BTreeMap::new(),
            deleted_instances: BTreeMap::new(),
            listed: (0, None),
            lxd: None,
            targets: (!targets.is_empty()).then(|| targets.to_vec()),
            scopes: BTreeMap::new(),
            packages: BTreeMap::new(),
            failures: Failures::default(),
            flights: BTreeMap::new(),
            names_taken: BTreeMap::new(),
            unknown_jobs: BTreeMap::new(),
            questions: BTreeMap::new(),
            runs: BTreeMap::new(),
            repos_to_check: BTreeMap::new(),
            repos_heard: BTreeSet::new(),
            lxd_look: Look::default(),
            listening: false,
            github_look: Look::default(),
            github_answered_at: None,
            scopes_to_recheck: BTreeMap::new(),
            templates: config.classes.iter().map(|class| templates::TemplateState::new(class, scripts)).collect(),
            seed,
            names_given: 0,
            notes: Vec::new(),
            config,
        }
    }

    /// The config that class ids in this World refer to.
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
            // Deliveries from here on ask for another look.
            self.repos_to_check.remove(repo);
        }
        if let Action::LookUpJob { job, .. } = action {
            self.job_is_asked_for(*job);
        }
        let unnamed = matches!(action, Action::Launch(Launch { job: None, .. }) | Action::PrepareStandby { .. });
        self.names_given += u64::from(unnamed);
        self.flights.insert(action.flight(), action.clone());
    }

    /// The repositories and scopes for the next look at GitHub.
    pub fn interest(&self) -> Interest {
        let jobs = self.jobs.values().map(|state| &state.job.repo);
        let repos = jobs.chain(&self.repos_heard).cloned().collect();
        let mut scopes: BTreeSet<Scope> = self.instances.values().filter_map(|i| i.seen.scope.clone()).collect();
        scopes.extend(self.flights.values().filter_map(|action| match action {
            Action::Launch(Launch { scope, .. }) => Some(scope.clone()),
            _ => None,
        }));
        scopes.extend(self.failures.iter().filter_map(|(subject, _)| match subject {
            Subject::Scope(scope) => Some(scope.clone()),
            _ => None,
        }));
        scopes.extend(self.scopes_to_recheck.keys().cloned());
        let ours = |runner: &Runner| parse_name(&self.config.prefix, &runner.name).is_some();
        for (scope, view) in &self.scopes {
            let dead = |r: &Runner| ours(r) && !self.instances.contains_key(&r.name);
            // A registration of ours without an instance is listed until it is gone.
            if view.runners.as_ref().is_none_or(|runners| runners.iter().any(dead)) {
                scopes.insert(scope.clone());
            }
        }
        Interest { begun: self.seq, repos, scopes }
    }

    /// A look at LXD (`github` = false) or at both was asked for.
    pub fn look_begun(&mut self, github: bool) {
        if github {
            self.repos_heard.clear();
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
        self.finished_jobs.contains_key(&job)
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
