//! Operations: begun by a call, ended by a thread of their own, waited for by others.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::answer::{Answer, Ask};
use super::server::Shared;
use super::state::State;

/// How an operation's work went: its metadata, or LXD's words.
pub(super) type Outcome = Result<Value, String>;

/// Begins an operation and lets `work` do it on a thread of its own; the answer to the call that asked for it.
pub(super) fn run(
    shared: &Arc<Shared>,
    description: &'static str,
    project: &str,
    name: &str,
    work: impl FnOnce(&Arc<Shared>) -> Outcome + Send + 'static,
) -> Answer {
    let (id, json) = begin(&mut shared.lock(), description, project, name);
    spawn(shared, &id, move |shared, _| Some(work(shared)));
    Answer::operation(json)
}

/// Notes a new operation: its id, and itself as LXD shows it.
pub(super) fn begin(state: &mut State, description: &'static str, project: &str, name: &str) -> (String, Value) {
    let id = state.begin(description, project, name);
    let json = state.operations.get(&id).map(|operation| state.operation_json(&id, operation)).unwrap_or_default();
    (id, json)
}

/// Does an operation's work on a thread; `None` leaves its end to somebody else.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    id: &str,
    work: impl FnOnce(&Arc<Shared>, &str) -> Option<Outcome> + Send + 'static,
) {
    let (inside, own) = (Arc::clone(shared), id.to_owned());
    let started = thread::Builder::new().name("lxd-standin-op".to_owned()).spawn(move || {
        let outcome = work(&inside, &own);
        let mut state = inside.lock();
        match outcome {
            Some(Ok(metadata)) => state.end(&own, "", metadata),
            Some(Err(error)) => state.end(&own, &error, Value::Null),
            None => {}
        }
        drop(state);
        inside.changed.notify_all();
    });
    if let Err(error) = started {
        shared.lock().end(id, &error.to_string(), Value::Null);
    }
}

pub(super) fn list(state: &mut State) -> Answer {
    state.operations.keys().cloned().collect::<Vec<_>>().iter().for_each(|id| state.look_at(id));
    let mut groups: Map<String, Value> = Map::new();
    for (id, operation) in &state.operations {
        let json = state.operation_json(id, operation);
        let group = json.get("status").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        if let Value::Array(list) = groups.entry(group).or_insert_with(|| json!([])) {
            list.push(json);
        }
    }
    Answer::sync(Value::Object(groups))
}

pub(super) fn get(state: &mut State, id: &str) -> Result<Answer, Answer> {
    state.look_at(id);
    let operation = state.operations.get(id).ok_or_else(not_found)?;
    Ok(Answer::sync(state.operation_json(id, operation)))
}

/// Holds the answer back until the operation has ended, or for `timeout` seconds (without one: for ever).
pub(super) fn wait(shared: &Shared, ask: &Ask, id: &str) -> Result<Answer, Answer> {
    let timeout = ask.query("timeout").and_then(|t| t.parse::<i64>().ok()).and_then(|t| u64::try_from(t).ok());
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut state = shared.lock();
    loop {
        let ended = state.operations.get(id).ok_or_else(not_found)?.ended.is_some();
        let rest = deadline.map_or(Duration::from_secs(3600), |d| d.saturating_duration_since(Instant::now()));
        if ended || rest.is_zero() || shared.is_stopping() {
            state.look_at(id);
            let operation = state.operations.get(id).ok_or_else(not_found)?;
            return Ok(Answer::sync(state.operation_json(id, operation)));
        }
        state = shared.wait(state, rest);
    }
}

pub(super) fn cancel(state: &State, id: &str) -> Result<Answer, Answer> {
    match state.operations.get(id) {
        None => Err(not_found()),
        Some(_) => Err(Answer::error(400, "This operation can't be cancelled")),
    }
}

fn not_found() -> Answer {
    Answer::error(404, "Operation not found")
}
