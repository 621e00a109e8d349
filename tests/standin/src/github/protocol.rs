//! The conversation with the runner stand-in. The real runner's is long and undocumented; this one is ours, small
//! enough for a shell script: a bearer token, plain text, empty where there is nothing to say.
//!
//! ```text
//! POST register    token=… name=… labels=a,b ephemeral=true (a line each)   → the runner's own token
//! POST sessions?began=&version=  → the session's id; 409 where there is one, 401 where the registration is gone
//! GET  message     (waits up to `wait` seconds) → "JOB-ID\n", again until it is acknowledged, or 202 where there is none;
//!                  403 where the version is refused (a simulated runner tells none)
//! POST acknowledge?job=  the message arrived
//! POST acquire?job=      → the job's script; 409 where the job is somebody else's or over. From here on it is this runner's
//! POST begin?job=  (the worker)  · POST log?job= (text) · POST finish?job=&code=
//! POST close       → the session ends
//! POST lost        → the process was killed (only a simulated runner can say so)
//! ```

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::state::{State, serves_name};
use super::timeline::Event;
use super::wire::{Request, Response, locked};
use lxdrunner::model::{JobId, Timestamp};

/// The longest that a request for work waits.
const POLL: Duration = Duration::from_secs(25);
/// How much of a job's output is kept, in bytes.
const LOG_KEPT: usize = 1 << 20;

/// Answers what comes behind `/_runner/`.
pub(super) fn answer(shared: &Shared, request: &Request, path: &str) -> Response {
    if (request.method.as_str(), path) == ("POST", "register") {
        return register(shared, request);
    }
    let Some(credential) = request.bearer() else { return plain(401, "who is it?") };
    if locked(&shared.state).runner_of(credential).is_none() {
        return plain(401, "the registration is gone");
    }
    match (request.method.as_str(), path) {
        ("POST", "sessions") => open(shared, request, credential),
        ("GET", "message") => message(shared, request, credential),
        ("POST", "acknowledge" | "acquire" | "begin" | "log" | "finish") => job(shared, request, credential, path),
        ("POST", "close") => shared.update(|state| {
            if let Some(runner) = state.runner_of(credential) {
                runner.session = None;
            }
            plain(200, "")
        }),
        ("POST", "lost") => shared.update(|state| {
            if let Some(id) = state.runner_of(credential).map(|runner| runner.id) {
                state.lose(id);
            }
            plain(200, "")
        }),
        _ => plain(404, "no such call"),
    }
}

fn plain(status: u16, text: &str) -> Response {
    Response::text(status, "text/plain", text)
}

fn register(shared: &Shared, request: &Request) -> Response {
    let body = String::from_utf8_lossy(&request.body);
    let field = |name: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or("").trim().to_owned()
    };
    let labels: Vec<String> = field("labels").split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
    let (name, token) = (field("name"), field("token"));
    let ephemeral = field("ephemeral") == "true";
    shared.update(|state| {
        let Some(scope) = state.registration_tokens.get(&token).cloned() else {
            return plain(401, "the registration token is not valid");
        };
        if !serves_name(&scope, &field("url")) {
            return plain(404, "the registration token is for another place");
        }
        match state.register(&scope, &name, labels, 1, ephemeral, false) {
            Some(runner) => plain(200, &format!("{}\n{}\n", runner.credential, runner.id)),
            None => plain(409, "a runner of that name is there"),
        }
    })
}

fn open(shared: &Shared, request: &Request, credential: &str) -> Response {
    // In nanoseconds since 1970, as `date +%s%N` prints it where it can.
    let began = request.param("began").and_then(|nanos| nanos.parse::<u64>().ok()).map(|n| Timestamp(n / 1_000_000));
    shared.update(|state| {
        let version = request.param("version");
        let refuses = |refused: &String| version.as_ref().is_none_or(|own| own == refused);
        let refused = state.refused_version.as_ref().is_some_and(refuses);
        let Some(runner) = state.runner_of(credential) else { return plain(401, "the registration is gone") };
        if runner.session.is_some() {
            return plain(409, "it has a session");
        }
        let session = super::random_word();
        runner.session = Some(session.clone());
        runner.refused = refused;
        runner.seen = Some(Instant::now());
        let event = Event::SessionOpened { runner: runner.id, name: runner.name.clone(), began };
        state.note(event);
        plain(200, &session)
    })
}

fn message(shared: &Shared, request: &Request, credential: &str) -> Response {
    let wait = request.param("wait").and_then(|wait| wait.parse().ok()).map_or(POLL, Duration::from_secs);
    let deadline = Instant::now() + wait.min(POLL);
    let mut state = locked(&shared.state);
    loop {
        let Some(runner) = state.runner_of(credential) else { return plain(401, "the registration is gone") };
        if runner.session.is_none() {
            return plain(401, "the session is over");
        }
        if runner.refused {
            return plain(403, "its version is deprecated and cannot receive messages");
        }
        runner.seen = Some(Instant::now());
        if runner.job.is_none() {
            shared.settle(&mut state);
        }
        if let Some(text) = given(&mut state, credential) {
            return plain(200, &text);
        }
        if shared.stopping.load(Ordering::SeqCst) {
            return Response::empty(202);
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Response::empty(202) };
        let waited = shared.changed.wait_timeout(state, left);
        state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}

/// The job that this runner was given and has not acknowledged, as it is told to the runner.
fn given(state: &mut State, credential: &str) -> Option<String> {
    let job = state.runner_of(credential)?.job?;
    let job = state.jobs.get(&job).filter(|job| job.given.is_some() && !job.acknowledged)?;
    Some(format!("{}\n", job.id))
}

fn job(shared: &Shared, request: &Request, credential: &str, what: &str) -> Response {
    let job = request.param("job").and_then(|id| id.parse().ok()).map(JobId);
    shared.update(|state| {
        let own = state.runner_of(credential).and_then(|runner| runner.job);
        let Some(job) = own.filter(|own| job == Some(*own)) else { return plain(404, "no such job of this runner") };
        match what {
            "acknowledge" => state.jobs.get_mut(&job).into_iter().for_each(|job| job.acknowledged = true),
            "acquire" => match state.acquire(job) {
                Some(script) => return plain(200, &script),
                None => return plain(409, "the job is not to be had any more"),
            },
            "begin" if state.begin(job) => (),
            "log" => {
                if let Some(job) = state.jobs.get_mut(&job).filter(|job| job.log.len() < LOG_KEPT) {
                    job.log.push_str(&String::from_utf8_lossy(&request.body));
                }
            }
            "finish" => {
                let code = request.param("code").and_then(|code| code.parse().ok()).unwrap_or(1);
                state.finish(job, Some(code), if code == 0 { "success" } else { "failure" });
            }
            _ => return plain(409, "the job is not to be had any more"),
        }
        plain(200, "")
    })
}
