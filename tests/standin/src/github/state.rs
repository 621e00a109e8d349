//! What the GitHub stand-in knows, and how it changes. Plain data behind one lock; nothing here waits or talks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::apps::{AppState, AppToken, InstallationState};
use super::hook_api::HookState;
use super::timeline::{Event, Moment, Removal};
use lxdrunner::model::{JobId, Labels, RepoName, RunnerId, Scope, Timestamp};

/// A job that was given to a runner which never acquired it goes back to the queue after this.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(20);
/// A runner that did not ask for work for so long is offline.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// How many requests and moments are remembered.
const MEMORY: usize = 100_000;

/// A job as a test or the demo wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Its title.
    pub name: String,
    /// As written in `runs-on`.
    pub labels: Vec<String>,
    /// A POSIX shell script: the job's one step.
    pub script: String,
    /// True for a job that waits for an approval.
    pub waiting: bool,
    /// The pull request that its run is of, where there is one.
    pub pull: Option<PullSpec>,
}

/// A pull request as a test wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSpec {
    /// Where its branch is.
    pub from: RepoName,
    /// Who opened it.
    pub author: String,
    /// What that user is to the repository, in GitHub's word.
    pub association: &'static str,
    /// Who pushed last.
    pub pusher: String,
}

impl JobSpec {
    /// A short job with these labels.
    pub fn new(labels: &[&str]) -> JobSpec {
        JobSpec {
            name: "build".to_owned(),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            script: "echo \"Hello from $(hostname)\"\n".to_owned(),
            waiting: false,
            pull: None,
        }
    }

    /// The same job in a run of a pull request from `from`, opened and pushed to by the owner of it.
    pub fn pulled(mut self, from: &RepoName, association: &'static str) -> JobSpec {
        let author = from.owner.clone();
        self.pull = Some(PullSpec { from: from.clone(), pusher: author.clone(), author, association });
        self
    }

    /// The same job with another script.
    pub fn script(mut self, script: impl Into<String>) -> JobSpec {
        self.script = script.into();
        self
    }
}

/// How far a job is, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    Queued,
    InProgress,
    Completed,
}

impl Stage {
    /// GitHub's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Waiting => "waiting",
            Stage::Queued => "queued",
            Stage::InProgress => "in_progress",
            Stage::Completed => "completed",
        }
    }
}

/// A workflow job.
#[derive(Clone, Debug)]
pub struct JobState {
    pub id: JobId,
    pub run: u64,
    pub repo: RepoName,
    pub spec: JobSpec,
    pub stage: Stage,
    pub conclusion: Option<&'static str>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    /// Who has it, or had it.
    pub runner: Option<RunnerId>,
    pub runner_name: Option<String>,
    /// Given to its runner at this time and not acquired yet.
    pub(super) given: Option<Instant>,
    /// Its runner said that the message arrived, and is not told again.
    pub(super) acknowledged: bool,
    /// What its step printed.
    pub log: String,
    pub exit_code: Option<i32>,
}

impl JobState {
    /// The branch that its run is of.
    pub(super) fn branch(&self) -> String {
        if self.spec.pull.is_some() { format!("patch-{}", self.run) } else { "main".to_owned() }
    }
}

/// A registration.
#[derive(Clone, Debug)]
pub struct RunnerState {
    pub id: RunnerId,
    pub scope: Scope,
    pub name: String,
    pub labels: Vec<String>,
    pub group: u64,
    pub ephemeral: bool,
    /// What the runner itself shows.
    pub(super) credential: String,
    /// The id of its open session.
    pub(super) session: Option<String>,
    /// GitHub refuses its version: it has a session and gets no message.
    pub(super) refused: bool,
    pub(super) seen: Option<Instant>,
    pub job: Option<JobId>,
}

impl RunnerState {
    /// True while its listener is connected.
    pub fn online(&self) -> bool {
        let heard = self.seen.is_some_and(|seen| seen.elapsed() < SILENT_FOR);
        self.session.is_some() && (heard || self.job.is_some())
    }
}

/// A repository.
#[derive(Clone, Debug)]
pub struct RepoState {
    pub id: u64,
    pub name: RepoName,
    pub public: bool,
    pub archived: bool,
}

/// Whose jobs a group's runners take.
#[derive(Clone, Debug, Default)]
pub struct GroupRules {
    /// Only of these repositories.
    pub selected: Option<Vec<RepoName>>,
    /// Not of public ones.
    pub private_only: bool,
}

impl GroupRules {
    fn allow(&self, repo: &RepoName, public: bool) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.contains(repo)) && !(self.private_only && public)
    }
}

/// The runner package on offer.
#[derive(Clone, Debug)]
pub struct Offer {
    pub path: std::path::PathBuf,
    pub filename: String,
    pub architecture: String,
    pub size: u64,
    /// As told in the listing; `None` tells none.
    pub sha256: Option<String>,
    pub etag: String,
}

/// Everything.
#[derive(Debug)]
pub struct State {
    pub token: String,
    pub login: String,
    /// The X-OAuth-Scopes of a classic token.
    pub token_scopes: Option<String>,
    /// When it says that the token ends, in its own words; `None`: never.
    pub token_ends: Option<String>,
    /// Where it says that its webhooks come from.
    pub hook_networks: Vec<String>,
    /// False: as on a server that has no such call.
    pub jit: bool,
    pub orgs: Vec<String>,
    /// Members of organisations, by organisation and login.
    pub members: Vec<(String, String)>,
    /// False: the credential may not read members.
    pub reads_members: bool,
    pub repos: Vec<RepoState>,
    pub groups: Vec<(u64, String)>,
    pub jobs: BTreeMap<JobId, JobState>,
    pub runners: BTreeMap<RunnerId, RunnerState>,
    pub(super) registration_tokens: BTreeMap<String, Scope>,
    pub offers: Vec<Offer>,
    /// When versions of the runner end; `None`: as on a server that does not tell.
    pub runner_ends: Option<BTreeMap<String, Timestamp>>,
    /// Runners of this version get a session and no message.
    pub refused_version: Option<String>,
    /// Runners are listed as busy only once their job has begun, which GitHub is known to do at times.
    pub busy_is_late: bool,
    pub timeline: Vec<Moment>,
    pub requests: Vec<super::wire::Request>,
    pub(super) next: u64,
    /// Hooks that are to be sent for what happened: job and action.
    pub(super) due: Vec<(JobId, &'static str)>,
    pub limits: Limits,
    pub apps: Vec<AppState>,
    pub installations: Vec<InstallationState>,
    pub app_tokens: Vec<AppToken>,
    pub hooks: Vec<HookState>,
    /// What is not usual about a group of runners.
    pub group_rules: BTreeMap<u64, GroupRules>,
    /// Whether the API's answers are kept, for whoever compares them with GitHub's description.
    pub keep_answers: bool,
    /// Requests of the API, each with the status and the body of its answer.
    pub answers: Vec<(super::wire::Request, u16, Vec<u8>)>,
    /// How far GitHub's clock is ahead of this machine's, in milliseconds.
    pub clock_ahead: i64,
}

/// What an hour allows, for each of GitHub's resources that we use.
#[derive(Clone, Debug)]
pub struct Limits(BTreeMap<&'static str, Limit>);

/// One hourly limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub limit: u64,
    pub left: u64,
    pub reset_at: Timestamp,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Limits {
    /// The limit of this resource now.
    pub fn of(&mut self, resource: &'static str) -> &mut Limit {
        let now = Timestamp::now();
        let usual = if resource == "core" { 5000 } else { 10_000 };
        let fresh = |limit| Limit { limit, left: limit, reset_at: now.after(HOUR) };
        let limit = self.0.entry(resource).or_insert_with(|| fresh(usual));
        if limit.reset_at <= now {
            *limit = fresh(limit.limit);
        }
        limit
    }

    /// Every resource allows so much from now on.
    pub fn raise(&mut self, limit: u64) {
        for resource in ["core", "graphql"] {
            *self.of(resource) = Limit { limit, left: limit, reset_at: Timestamp::now().after(HOUR) };
        }
    }
}

impl State {
    pub(super) fn new() -> State {
        State {
            token: "standin-token".to_owned(),
            login: "octocat".to_owned(),
            token_scopes: Some("repo, admin:org".to_owned()),
            token_ends: None,
            hook_networks: ["192.30.252.0/22", "140.82.112.0/20", "2a0a:a440::/29"].map(str::to_owned).to_vec(),
            jit: true,
            orgs: Vec::new(),
            members: Vec::new(),
            reads_members: true,
            repos: Vec::new(),
            groups: vec![(1, "Default".to_owned())],
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            registration_tokens: BTreeMap::new(),
            offers: Vec::new(),
            runner_ends: None,
            refused_version: None,
            busy_is_late: false,
            timeline: Vec::new(),
            requests: Vec::new(),
            next: 1000,
            due: Vec::new(),
            limits: Limits(BTreeMap::new()),
            apps: Vec::new(),
            installations: Vec::new(),
            app_tokens: Vec::new(),
            hooks: Vec::new(),
            group_rules: BTreeMap::new(),
            keep_answers: false,
            answers: Vec::new(),
            clock_ahead: 0,
        }
    }

    pub(super) fn note(&mut self, event: Event) {
        if self.timeline.len() < MEMORY {
            self.timeline.push(Moment { at: Timestamp::now(), instant: Instant::now(), event });
        }
    }

    pub(super) fn record(&mut self, request: &super::wire::Request) {
        if self.requests.len() < MEMORY {
            self.requests.push(request.clone());
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The repository of this name.
    pub fn repo(&self, name: &RepoName) -> Option<&RepoState> {
        self.repos.iter().find(|repo| repo.name == *name)
    }

    /// True where the scope is there.
    pub(super) fn has_scope(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Org(org) => self.orgs.iter().any(|known| known.eq_ignore_ascii_case(org)),
            Scope::Repo(repo) => self.repo(repo).is_some(),
            Scope::Enterprise(_) => true,
        }
    }

    /// A new job; in a run of its own unless `run` names one.
    pub(super) fn add_job(&mut self, repo: &RepoName, run: Option<u64>, spec: JobSpec) -> JobId {
        if self.repo(repo).is_none() {
            let id = self.fresh_id();
            self.repos.push(RepoState { id, name: repo.clone(), public: false, archived: false });
        }
        let run = run.unwrap_or_else(|| self.fresh_id());
        let id = JobId(self.fresh_id());
        let stage = if spec.waiting { Stage::Waiting } else { Stage::Queued };
        let job = JobState {
            id,
            run,
            repo: repo.clone(),
            spec,
            stage,
            conclusion: None,
            created_at: Timestamp::now(),
            started_at: None,
            completed_at: None,
            runner: None,
            runner_name: None,
            given: None,
            acknowledged: false,
            log: String::new(),
            exit_code: None,
        };
        self.jobs.insert(id, job);
        self.note(Event::JobQueued { job: id });
        self.due.push((id, if stage == Stage::Waiting { "waiting" } else { "queued" }));
        id
    }

    /// A run's status: that of its jobs together. While one waits for an approval the run waits, whatever the others do.
    pub(super) fn run_status(&self, run: u64) -> Stage {
        let stages: Vec<Stage> = self.jobs.values().filter(|job| job.run == run).map(|job| job.stage).collect();
        let has = |stage: Stage| stages.contains(&stage);
        if stages.iter().all(|stage| *stage == Stage::Completed) {
            Stage::Completed
        } else if has(Stage::Waiting) {
            Stage::Waiting
        } else if has(Stage::InProgress) || has(Stage::Completed) {
            Stage::InProgress
        } else {
            Stage::Queued
        }
    }

    /// A new registration, or `None` where the name is taken in this scope.
    pub(super) fn register(
        &mut self,
        scope: &Scope,
        name: &str,
        labels: Vec<String>,
        group: u64,
        ephemeral: bool,
        jit: bool,
    ) -> Option<RunnerState> {
        if self.runners.values().any(|r| r.scope == *scope && r.name.eq_ignore_ascii_case(name)) {
            return None;
        }
        let id = RunnerId(self.fresh_id());
        let credential = format!("runner-{id}-{}", super::random_word());
        let runner = RunnerState {
            id,
            scope: scope.clone(),
            name: name.to_owned(),
            labels,
            group,
            ephemeral,
            credential,
            session: None,
            refused: false,
            seen: None,
            job: None,
        };
        self.runners.insert(id, runner.clone());
        self.note(Event::Registered { runner: id, name: name.to_owned(), jit });
        Some(runner)
    }

    /// Takes a registration away; false where it is busy.
    pub(super) fn remove(&mut self, id: RunnerId, by: Removal) -> bool {
        match self.runners.get(&id) {
            Some(runner) if runner.job.is_some() && by == Removal::Deleted => false,
            Some(runner) => {
                let name = runner.name.clone();
                self.runners.remove(&id);
                self.note(Event::Removed { runner: id, name, by });
                true
            }
            None => true,
        }
    }

    /// Whether listings say that the runner is busy.
    pub(super) fn lists_as_busy(&self, runner: &RunnerState) -> bool {
        let job = runner.job.and_then(|job| self.jobs.get(&job));
        job.is_some_and(|job| !self.busy_is_late || job.stage == Stage::InProgress)
    }

    pub(super) fn runner_of(&mut self, credential: &str) -> Option<&mut RunnerState> {
        self.runners.values_mut().find(|runner| runner.credential == credential)
    }

    /// Gives queued jobs to idle runners that are online: the oldest job first, to the longest registered runner.
    pub(super) fn assign(&mut self) {
        self.take_back();
        let queued: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| job.stage == Stage::Queued && job.runner.is_none())
            .map(|job| job.id)
            .collect();
        for id in queued {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let wanted: Labels = job.spec.labels.iter().collect();
            let public = self.repos.iter().any(|repo| repo.name == job.repo && repo.public);
            let rules = &self.group_rules;
            let fits = |runner: &RunnerState| {
                let labels: Labels = runner.labels.iter().collect();
                let allowed = rules.get(&runner.group).is_none_or(|rules| rules.allow(&job.repo, public));
                allowed
                    && runner.job.is_none()
                    && runner.online()
                    && !runner.refused
                    && serves(&runner.scope, &job.repo)
                    && labels.can_serve(&wanted)
            };
            let Some(runner) = self.runners.values_mut().find(|runner| fits(runner)) else { continue };
            runner.job = Some(id);
            job.runner = Some(runner.id);
            job.runner_name = Some(runner.name.clone());
            (job.given, job.acknowledged) = (Some(Instant::now()), false);
            let event = Event::JobAssigned { job: id, runner: runner.id, name: runner.name.clone() };
            self.note(event);
        }
    }

    /// Jobs whose runner never acquired them are queued again.
    fn take_back(&mut self) {
        let late = |job: &&mut JobState| job.given.is_some_and(|given| given.elapsed() > ACQUIRE_WITHIN);
        for job in self.jobs.values_mut().filter(late) {
            if let Some(runner) = job.runner.and_then(|id| self.runners.get_mut(&id)) {
                runner.job = None;
                runner.session = None;
            }
            (job.given, job.runner, job.runner_name) = (None, None, None);
        }
    }

    /// The runner's process is gone without a word, as after a power cut.
    pub(super) fn lose(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.session = None;
        let (job, name) = (runner.job.take(), runner.name.clone());
        self.note(Event::SessionLost { runner: id, name });
        let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) else { return };
        if job.given.is_some() {
            (job.given, job.runner, job.runner_name) = (None, None, None);
        } else {
            // GitHub gives what was acquired to nobody else.
            let id = job.id;
            self.finish(id, None, "failure");
        }
    }

    /// The runner makes the job its own: nobody else is given it any more. Asked again, it gets it again.
    pub(super) fn acquire(&mut self, id: JobId) -> Option<String> {
        let job = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::Queued && job.runner.is_some())?;
        let (script, name) = (job.spec.script.clone(), job.runner_name.clone().unwrap_or_default());
        if job.given.take().is_some() {
            self.note(Event::JobAcquired { job: id, name });
        }
        Some(script)
    }

    /// The runner's worker begins the job that was acquired.
    pub(super) fn begin(&mut self, id: JobId) -> bool {
        let acquired = |job: &&mut JobState| job.stage == Stage::Queued && job.runner.is_some() && job.given.is_none();
        let Some(job) = self.jobs.get_mut(&id).filter(acquired) else { return false };
        job.stage = Stage::InProgress;
        job.started_at = Some(Timestamp::now());
        let name = job.runner_name.clone().unwrap_or_default();
        self.note(Event::JobStarted { job: id, name });
        self.due.push((id, "in_progress"));
        true
    }

    /// The job is over; an ephemeral runner's registration goes with it.
    pub(super) fn finish(&mut self, id: JobId, exit_code: Option<i32>, conclusion: &'static str) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage != Stage::Completed) else { return };
        job.stage = Stage::Completed;
        job.conclusion = Some(conclusion);
        job.completed_at = Some(Timestamp::now());
        job.exit_code = exit_code;
        job.given = None;
        let runner = job.runner;
        self.note(Event::JobFinished { job: id, conclusion, exit_code });
        self.due.push((id, "completed"));
        if let Some(runner) = runner.and_then(|id| self.runners.get_mut(&id)) {
            runner.job = None;
            if runner.ephemeral {
                let id = runner.id;
                self.remove(id, Removal::Ephemeral);
            }
        }
    }
}

/// True where a runner of this scope may take jobs of this repository.
fn serves(scope: &Scope, repo: &RepoName) -> bool {
    match scope {
        Scope::Org(org) => repo.owner.eq_ignore_ascii_case(org),
        Scope::Repo(own) => own == repo,
        Scope::Enterprise(_) => true,
    }
}

/// True where `url` is the web address of the scope.
pub(super) fn serves_name(scope: &Scope, url: &str) -> bool {
    let place = match scope {
        Scope::Org(org) => format!("/{org}"),
        Scope::Repo(repo) => format!("/{repo}"),
        Scope::Enterprise(slug) => format!("/enterprises/{slug}"),
    };
    url.trim_end_matches('/').to_lowercase().ends_with(&place.to_lowercase())
}
