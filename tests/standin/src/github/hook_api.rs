//! The hooks of organisations and repositories: made, changed and asked about through the API.

use serde_json::{Value, json};

use super::Shared;
use super::hooks::{Delivery, Order, Target};
use super::rest::{error, not_found, page};
use super::scopes::api_path;
use super::shapes;
use super::state::State;
use super::wire::{Request, Response, locked};
use lxdrunner::model::{RepoName, Scope, Timestamp};

/// A hook.
#[derive(Clone, Debug)]
pub struct HookState {
    pub id: u64,
    pub scope: Scope,
    pub url: String,
    pub secret: String,
    pub content_type: String,
    pub insecure_ssl: String,
    pub events: Vec<String>,
    pub active: bool,
    /// Newest first.
    pub deliveries: Vec<Recorded>,
}

/// One delivery, as the API tells it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub id: u64,
    pub sent: Delivery,
}

impl HookState {
    fn target(&self) -> Target {
        Target { hook: Some(self.id), url: self.url.clone(), secret: self.secret.clone(), muted: false }
    }

    fn covers(&self, repo: &RepoName) -> bool {
        match &self.scope {
            Scope::Org(org) => org.eq_ignore_ascii_case(&repo.owner),
            Scope::Repo(own) => own == repo,
            Scope::Enterprise(_) => false,
        }
    }
}

impl State {
    /// Where something about this repository is sent.
    pub(super) fn hook_targets(&self, repo: &RepoName, event: &str) -> Vec<Target> {
        let wanted = |hook: &&HookState| {
            hook.active && hook.covers(repo) && hook.events.iter().any(|own| own == event || own == "*")
        };
        self.hooks.iter().filter(wanted).map(HookState::target).collect()
    }

    /// A delivery was answered, or not.
    pub(super) fn record_delivery(&mut self, sent: &Delivery) {
        let id = self.fresh_id();
        if let Some(hook) = self.hooks.iter_mut().find(|hook| Some(hook.id) == sent.hook) {
            hook.deliveries.insert(0, Recorded { id, sent: sent.clone() });
        }
    }
}

/// Answers what comes behind `…/hooks`.
pub(super) fn answer(shared: &Shared, request: &Request, parts: &[&str], rest: &[&str]) -> Response {
    let scope = match parts {
        ["orgs", org, ..] => format!("org:{org}").parse(),
        ["repos", owner, name, ..] => format!("repo:{owner}/{name}").parse(),
        _ => return not_found(),
    };
    let Ok(scope) = scope else { return not_found() };
    if !locked(&shared.state).has_scope(&scope) {
        return not_found();
    }
    let origin = shared.origin();
    let id = rest.first().and_then(|id| id.parse::<u64>().ok());
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let state = locked(&shared.state);
            let shapes =
                state.hooks.iter().filter(|hook| hook.scope == scope).map(|hook| shape(&origin, hook)).collect();
            drop(state);
            page(shared, request, None, shapes)
        }
        ("POST", []) => create(shared, request, &scope),
        _ if !locked(&shared.state).hooks.iter().any(|hook| hook.scope == scope && Some(hook.id) == id) => not_found(),
        ("GET", [_]) => with(shared, id, |hook| Response::json(200, &shape(&origin, hook))),
        ("PATCH", [_]) => change(shared, request, id),
        ("DELETE", [_]) => {
            shared.update(|state| state.hooks.retain(|hook| Some(hook.id) != id));
            Response::empty(204)
        }
        ("POST", [_, "pings"]) => {
            ping(shared, id);
            Response::empty(204)
        }
        ("GET", [_, "deliveries"]) => deliveries(shared, request, id),
        ("POST", [_, "deliveries", delivery, "attempts"]) => {
            let delivery = delivery.parse().unwrap_or(0);
            with(shared, id, |hook| {
                let Some(old) = hook.deliveries.iter().find(|one| one.id == delivery) else { return not_found() };
                let Delivery { event, action, job, payload, guid, .. } = old.sent.clone();
                let (to, guid) = (hook.target(), Some(guid));
                shared.outbox.send(Order { event, action, job, payload, to, guid });
                Response::json(202, &json!({}))
            })
        }
        _ => not_found(),
    }
}

fn with(shared: &Shared, id: Option<u64>, look: impl FnOnce(&HookState) -> Response) -> Response {
    let state = locked(&shared.state);
    state.hooks.iter().find(|hook| Some(hook.id) == id).map_or_else(not_found, look)
}

fn ping(shared: &Shared, id: Option<u64>) {
    let state = locked(&shared.state);
    let Some(hook) = state.hooks.iter().find(|hook| Some(hook.id) == id) else { return };
    let payload = json!({
        "zen": "Design for failure.", "hook_id": hook.id, "hook": shape(&shared.origin(), hook),
        "sender": shapes::account(&shared.origin(), "octocat", 319_655, "User")
    });
    let order = Order { event: "ping".to_owned(), payload: payload.to_string(), to: hook.target(), ..Order::default() };
    shared.outbox.send(order);
}

/// The fields of a hook that a request names.
struct Wanted {
    url: Option<String>,
    secret: Option<String>,
    content_type: Option<String>,
    insecure_ssl: Option<String>,
    events: Option<Vec<String>>,
    active: Option<bool>,
}

fn wanted(request: &Request) -> Option<Wanted> {
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    let config = |name: &str| body.pointer(&format!("/config/{name}")).and_then(Value::as_str).map(str::to_owned);
    let events = body.get("events").and_then(Value::as_array);
    Some(Wanted {
        url: config("url"),
        secret: config("secret"),
        content_type: config("content_type"),
        insecure_ssl: config("insecure_ssl"),
        events: events.map(|events| events.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        active: body.get("active").and_then(Value::as_bool),
    })
}

fn create(shared: &Shared, request: &Request, scope: &Scope) -> Response {
    let Some(wanted) = wanted(request) else { return error(400, "Problems parsing JSON") };
    let Some(url) = wanted.url.filter(|url| url.starts_with("http")) else {
        return error(422, "Validation Failed");
    };
    let id = {
        let mut state = locked(&shared.state);
        if state.hooks.iter().any(|hook| hook.scope == *scope && hook.url == url) {
            return error(422, "Hook already exists on this organization");
        }
        let id = state.fresh_id();
        state.hooks.push(HookState {
            id,
            scope: scope.clone(),
            url,
            secret: wanted.secret.unwrap_or_default(),
            content_type: wanted.content_type.unwrap_or_else(|| "form".to_owned()),
            insecure_ssl: wanted.insecure_ssl.unwrap_or_else(|| "0".to_owned()),
            events: wanted.events.unwrap_or_else(|| vec!["push".to_owned()]),
            active: wanted.active.unwrap_or(true),
            deliveries: Vec::new(),
        });
        id
    };
    // GitHub pings a new hook by itself.
    ping(shared, Some(id));
    with(shared, Some(id), |hook| Response::json(201, &shape(&shared.origin(), hook)))
}

fn change(shared: &Shared, request: &Request, id: Option<u64>) -> Response {
    let Some(wanted) = wanted(request) else { return error(400, "Problems parsing JSON") };
    shared.update(|state| {
        let Some(hook) = state.hooks.iter_mut().find(|hook| Some(hook.id) == id) else { return };
        hook.url = wanted.url.unwrap_or_else(|| hook.url.clone());
        hook.secret = wanted.secret.unwrap_or_else(|| hook.secret.clone());
        hook.content_type = wanted.content_type.unwrap_or_else(|| hook.content_type.clone());
        hook.insecure_ssl = wanted.insecure_ssl.unwrap_or_else(|| hook.insecure_ssl.clone());
        hook.events = wanted.events.unwrap_or_else(|| hook.events.clone());
        hook.active = wanted.active.unwrap_or(hook.active);
    });
    with(shared, id, |hook| Response::json(200, &shape(&shared.origin(), hook)))
}

fn deliveries(shared: &Shared, request: &Request, id: Option<u64>) -> Response {
    let per_page = request.param("per_page").and_then(|n| n.parse::<usize>().ok()).unwrap_or(30).clamp(1, 100);
    let cursor = request.param("cursor").and_then(|text| text.strip_prefix("v1_")?.parse::<u64>().ok());
    with(shared, id, |hook| {
        let older = |one: &&Recorded| cursor.is_none_or(|cursor| one.id < cursor);
        let mut rest = hook.deliveries.iter().filter(older);
        let listed: Vec<&Recorded> = rest.by_ref().take(per_page).collect();
        let more = rest.next().is_some();
        let body = Value::Array(listed.iter().map(|one| delivery_shape(one)).collect());
        let response = Response::json(200, &body);
        match listed.last().filter(|_| more) {
            Some(last) => {
                let next = format!("{}{}?per_page={per_page}&cursor=v1_{}", shared.origin(), request.path, last.id);
                response.with("Link", format!("<{next}>; rel=\"next\""))
            }
            None => response,
        }
    })
}

fn delivery_shape(one: &Recorded) -> Value {
    let Delivery { guid, event, action, at, status, failure, redelivery, .. } = &one.sent;
    let told = match (status, failure) {
        (Some(200..300), _) => "OK".to_owned(),
        (Some(status), _) => format!("Invalid HTTP Response: {status}"),
        (None, failure) => failure.clone().unwrap_or_default(),
    };
    json!({
        "id": one.id, "guid": guid, "delivered_at": at.to_rfc3339(), "redelivery": redelivery, "duration": 0.03,
        "status": told, "status_code": status.unwrap_or(0), "event": event,
        "action": if action.is_empty() { Value::Null } else { json!(action) },
        "installation_id": null, "repository_id": null, "throttled_at": null
    })
}

fn shape(origin: &str, hook: &HookState) -> Value {
    let (kind, place) = match &hook.scope {
        Scope::Repo(repo) => ("Repository", format!("{origin}/repos/{repo}")),
        other => ("Organization", format!("{origin}/{}", api_path(other))),
    };
    let url = format!("{place}/hooks/{}", hook.id);
    let mut json = json!({
        "type": kind, "id": hook.id, "name": "web", "active": hook.active, "events": hook.events,
        "config": {
            "content_type": hook.content_type, "insecure_ssl": hook.insecure_ssl, "url": hook.url,
            "secret": "********"
        },
        "created_at": Timestamp(1_623_418_153_000).to_rfc3339(), "updated_at": Timestamp(1_623_418_153_000).to_rfc3339(),
        "url": url, "ping_url": format!("{url}/pings"), "deliveries_url": format!("{url}/deliveries")
    });
    if let (Value::Object(fields), Scope::Repo(_)) = (&mut json, &hook.scope) {
        fields.insert("test_url".to_owned(), json!(format!("{url}/test")));
        fields.insert("last_response".to_owned(), json!({"code": null, "status": "unused", "message": null}));
    }
    json
}
