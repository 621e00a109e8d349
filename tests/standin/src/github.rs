//! A GitHub on one's own machine: the REST API that the daemon uses, signed webhooks, and the other end of the runner
//! stand-in's conversation. Real HTTP on any address; everything is in memory and is lost with it.
//!
//! It does what GitHub does where the daemon can tell: it gives jobs to whichever runner fits, removes an ephemeral
//! runner's registration after its one job, answers 409 to a name that is taken and 422 to the removal of a busy
//! runner, pages its listings, and fails on order (see [`Fault`]).

pub mod apps;
pub mod faults;
pub mod hook_api;
mod hooks;
mod protocol;
mod rest;
mod scopes;
mod shapes;
pub mod simulate;
pub mod state;
pub mod timeline;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub use faults::{Fault, Mischief};
pub use hooks::Delivery;
use hooks::Order;
pub use simulate::{Orders, SimulatedRunner};
pub use state::{JobSpec, JobState, Offer, PullSpec, RepoState, RunnerState, Stage, State};
pub use timeline::{Event, Moment, Removal};
pub use wire::Request;
use wire::{Reply, Server, locked};

use lxdrunner::model::{JobId, RepoName, RunnerId, Secret};

/// The running stand-in; it ends when this is dropped.
pub struct GitHubStandin {
    // Dropped first, so that no request comes while the rest goes.
    server: Server,
    hooks: hooks::Hooks,
    shared: Arc<Shared>,
}

/// What the server's threads share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    faults: Mutex<Vec<Fault>>,
    origin: Mutex<String>,
    outbox: hooks::Outbox,
    stopping: AtomicBool,
}

impl Shared {
    /// Changes the state, gives out jobs, sends the hooks that are due and wakes whoever waits.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = locked(&self.state);
        let outcome = change(&mut state);
        self.settle(&mut state);
        outcome
    }

    fn settle(&self, state: &mut State) {
        state.assign();
        for (job, action) in std::mem::take(&mut state.due) {
            if let Some(job) = state.jobs.get(&job) {
                let payload = shapes::workflow_job(&self.origin(), state, job, action);
                self.outbox.post(job.id, action, &payload);
                for target in state.hook_targets(&job.repo, "workflow_job") {
                    self.outbox.send(Order::of_job(job.id, action, &payload, target));
                }
            }
        }
        self.changed.notify_all();
    }

    fn origin(&self) -> String {
        locked(&self.origin).clone()
    }
}

impl GitHubStandin {
    /// Starts on `bind`; port 0 takes a free one.
    pub fn start(bind: SocketAddr) -> io::Result<GitHubStandin> {
        let hooks = hooks::Hooks::start()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            faults: Mutex::new(Vec::new()),
            origin: Mutex::new(String::new()),
            outbox: hooks.outbox(),
            stopping: AtomicBool::new(false),
        });
        let for_server = Arc::clone(&shared);
        let server = Server::start(bind, move |request| answer(&for_server, request))?;
        *locked(&shared.origin) = format!("http://{}", server.address());
        let for_hooks = Arc::downgrade(&shared);
        hooks.when_answered(move |delivery: &Delivery| {
            let Some(shared) = for_hooks.upgrade() else { return };
            let mut state = locked(&shared.state);
            state.record_delivery(delivery);
            if let Some(job) = delivery.job {
                state.note(Event::HookAnswered { job, action: delivery.action.clone(), status: delivery.status });
            }
            drop(state);
            shared.changed.notify_all();
        });
        Ok(GitHubStandin { server, hooks, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The base address for the daemon's `github_api`. With `/api/v3` behind it, it is an Enterprise Server's.
    pub fn api(&self) -> String {
        self.shared.origin()
    }

    /// The address that it calls itself in links and JIT configs, where that is not the one it listens on.
    pub fn set_origin(&self, origin: &str) {
        *locked(&self.shared.origin) = origin.trim_end_matches('/').to_owned();
    }

    /// The credential that it accepts.
    pub fn token(&self) -> Secret {
        Secret::new(locked(&self.shared.state).token.clone())
    }

    /// Looks at the state, and changes what a test wants otherwise.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.shared.update(look)
    }

    /// A new organisation.
    pub fn add_org(&self, org: &str) {
        self.with(|state| state.orgs.push(org.to_owned()));
    }

    /// A new repository.
    pub fn add_repo(&self, name: &RepoName, public: bool) {
        self.with(|state| {
            let id = state.fresh_id();
            state.repos.push(RepoState { id, name: name.clone(), public, archived: false });
        });
    }

    /// Offers the package at `path` for download under its own file name.
    pub fn offer(&self, path: &Path, architecture: &str, sha256: Option<String>) -> io::Result<()> {
        let size = path.metadata()?.len();
        let filename = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let etag = format!("\"{}\"", sha256.clone().unwrap_or_else(|| format!("{size:x}")));
        let architecture = architecture.to_owned();
        let offer = Offer { path: path.to_owned(), filename, architecture, size, sha256, etag };
        self.with(|state| {
            state.offers.retain(|old| old.architecture != offer.architecture);
            state.offers.push(offer);
        });
        Ok(())
    }

    /// Queues a job in a run of its own; the repository is made, private, where it is not there yet.
    pub fn queue(&self, repo: &RepoName, spec: JobSpec) -> JobId {
        self.with(|state| state.add_job(repo, None, spec))
    }

    /// Queues a job in a run that is there.
    pub fn queue_in_run(&self, repo: &RepoName, run: u64, spec: JobSpec) -> JobId {
        self.with(|state| state.add_job(repo, Some(run), spec))
    }

    /// Cancels a job, as a user does.
    pub fn cancel(&self, job: JobId) {
        self.with(|state| state.finish(job, None, "cancelled"));
    }

    /// The runner's process is gone without a word: its session ends, the job that it ran fails.
    pub fn lose_runner(&self, runner: RunnerId) {
        self.with(|state| state.lose(runner));
    }

    /// Sends a hook for every change of a job to `url` from now on, signed with `secret`.
    pub fn set_hook(&self, url: &str, secret: &str) {
        self.hooks.set(url, secret);
    }

    /// Whether changes of jobs send hooks by themselves (they do, once there is one).
    pub fn hook_by_itself(&self, by_itself: bool) {
        self.hooks.by_itself(by_itself);
    }

    /// Sends a `workflow_job` hook now and waits for its answer.
    pub fn deliver(&self, job: JobId, action: &str) -> Delivery {
        let payload = {
            let state = locked(&self.shared.state);
            let job = state.jobs.get(&job);
            job.map(|job| shapes::workflow_job(&self.shared.origin(), &state, job, action)).unwrap_or_default()
        };
        self.hooks.deliver("workflow_job", Some(job), action, &payload)
    }

    /// Sends any hook now and waits for its answer.
    pub fn deliver_event(&self, event: &str, payload: &serde_json::Value) -> Delivery {
        let action = payload.get("action").and_then(|action| action.as_str()).unwrap_or("");
        self.hooks.deliver(event, None, action, payload)
    }

    /// All hooks that were sent, in order of their answers.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.hooks.deliveries()
    }

    /// Orders a failure.
    pub fn inject(&self, fault: Fault) {
        locked(&self.shared.faults).push(fault);
    }

    /// Takes back all failures that were ordered and did not happen yet.
    pub fn clear_faults(&self) {
        locked(&self.shared.faults).clear();
    }

    /// Closes every connection that is open now.
    pub fn cut_connections(&self) {
        self.server.cut_connections();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.shared.state).requests.clone()
    }

    /// What happened so far.
    pub fn timeline(&self) -> Vec<Moment> {
        locked(&self.shared.state).timeline.clone()
    }

    /// Waits until `look` finds something in the state; `None` after `timeout`.
    pub fn wait_for<T>(&self, timeout: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = locked(&self.shared.state);
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Waits for the first moment, at or after the `from`th, whose event is `wanted`; with its place.
    pub fn wait_event(
        &self,
        timeout: Duration,
        from: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Option<(usize, Moment)> {
        let found = |state: &State| {
            let mut later = state.timeline.iter().enumerate().skip(from);
            later.find(|(_, moment)| wanted(&moment.event)).map(|(place, moment)| (place, moment.clone()))
        };
        self.wait_for(timeout, found)
    }

    /// Runs the runner's side of the conversation in a thread here, for tests without containers.
    pub fn simulate_runner(&self, jit: &Secret) -> io::Result<SimulatedRunner> {
        SimulatedRunner::start(jit.expose())
    }
}

impl Drop for GitHubStandin {
    /// Sends home who waits for work; then the fields go, the server first.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _state = locked(&self.shared.state);
        self.shared.changed.notify_all();
    }
}

fn answer(shared: &Shared, request: &Request) -> Reply {
    let path = request.path.strip_prefix("/api/v3").unwrap_or(&request.path);
    shared.update(|state| state.record(request));
    let fault = faults::due(&mut locked(&shared.faults), request, path);
    let act = || {
        if let Some(path) = path.strip_prefix(faults::RUNNERS) {
            protocol::answer(shared, request, path)
        } else {
            rest::answer(shared, request, path)
        }
    };
    match fault {
        Some(what) => faults::reply(what, act),
        None => Reply::Answer(act()),
    }
}

/// Sixteen random hexadecimal digits.
fn random_word() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}
