//! What organisations, repositories and enterprises have in common: runners, their groups, tokens and packages.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::rest::{error, not_found, page};
use super::shapes;
use super::state::{RunnerState, State};
use super::timeline::Removal;
use super::wire::{Request, Response, locked};
use super::{Shared, random_word};
use lxdrunner::model::{RunnerId, Scope, Timestamp};

/// Answers what comes behind `…/actions/`.
pub(super) fn answer(shared: &Shared, request: &Request, parts: &[&str], rest: &[&str]) -> Response {
    let scope = match parts {
        ["orgs", org, ..] => format!("org:{org}").parse(),
        ["enterprises", slug, ..] => format!("enterprise:{slug}").parse(),
        ["repos", owner, name, ..] => format!("repo:{owner}/{name}").parse(),
        _ => return not_found(),
    };
    let Ok(scope) = scope else { return not_found() };
    if !locked(&shared.state).has_scope(&scope) {
        return not_found();
    }
    match (request.method.as_str(), rest) {
        ("GET", ["runners"]) => list(shared, request, &scope),
        ("GET", ["runners", "downloads"]) => downloads(shared),
        ("GET", ["runners", "deprecations", version]) => {
            let ends = locked(&shared.state).runner_ends.clone();
            let end = |at: Option<&Timestamp>| at.map(|at| at.to_rfc3339());
            ends.map_or_else(not_found, |ends| {
                let body = json!({"runner_version": version, "runtime_deprecates_at": end(ends.get(*version))});
                Response::json(200, &body)
            })
        }
        ("POST", ["runners", "generate-jitconfig"]) => jit(shared, request, &scope),
        ("POST", ["runners", "registration-token" | "remove-token"]) => token(shared, &scope),
        ("GET", ["runners", id]) => one(shared, &scope, id),
        ("DELETE", ["runners", id]) => delete(shared, &scope, id),
        ("GET", ["runner-groups"]) if !matches!(scope, Scope::Repo(_)) => {
            let state = locked(&shared.state);
            let shapes =
                state.groups.iter().map(|group| group_shape(&shared.origin(), &scope, &state, group)).collect();
            drop(state);
            page(shared, request, Some("runner_groups"), shapes)
        }
        ("GET", ["runner-groups", id, "organizations"]) if matches!(scope, Scope::Enterprise(_)) => {
            let state = locked(&shared.state);
            let rules = state.group_rules.get(&id.parse().unwrap_or(0));
            let Some(selected) = rules.and_then(|rules| rules.selected.as_ref()) else { return not_found() };
            let owners: std::collections::BTreeSet<&str> = selected.iter().map(|repo| repo.owner.as_str()).collect();
            let shapes = owners.iter().map(|org| shapes::organization(&shared.origin(), org)).collect();
            drop(state);
            page(shared, request, Some("organizations"), shapes)
        }
        ("GET", ["runner-groups", id, "repositories"]) if matches!(scope, Scope::Org(_)) => {
            let state = locked(&shared.state);
            let rules = state.group_rules.get(&id.parse().unwrap_or(0));
            let Some(selected) = rules.and_then(|rules| rules.selected.as_ref()) else { return not_found() };
            let repos = selected.iter().filter_map(|name| state.repo(name));
            let shapes = repos.map(|repo| shapes::repository(&shared.origin(), &state, repo)).collect();
            drop(state);
            page(shared, request, Some("repositories"), shapes)
        }
        _ => not_found(),
    }
}

fn group_shape(origin: &str, scope: &Scope, state: &State, (id, name): &(u64, String)) -> Value {
    let rules = state.group_rules.get(id);
    let selected = rules.is_some_and(|rules| rules.selected.is_some());
    let url = format!("{origin}/{}/actions/runner-groups/{id}", api_path(scope));
    let mut json = json!({
        "id": id, "name": name, "visibility": if selected { "selected" } else { "all" }, "default": *id == 1,
        "runners_url": format!("{url}/runners"), "allows_public_repositories": !rules.is_some_and(|rules| rules.private_only),
        "restricted_to_workflows": false, "selected_workflows": [], "workflow_restrictions_read_only": false
    });
    if let Value::Object(fields) = &mut json {
        match scope {
            Scope::Enterprise(_) => {
                fields.insert("selected_organizations_url".to_owned(), json!(format!("{url}/organizations")));
            }
            _ => {
                fields.insert("inherited".to_owned(), json!(false));
                fields.insert("selected_repositories_url".to_owned(), json!(format!("{url}/repositories")));
            }
        }
    }
    json
}

fn list(shared: &Shared, request: &Request, scope: &Scope) -> Response {
    let name = request.param("name");
    let state = locked(&shared.state);
    let wanted = |runner: &&RunnerState| {
        runner.scope == *scope && name.as_deref().is_none_or(|name| runner.name.eq_ignore_ascii_case(name))
    };
    page(
        shared,
        request,
        Some("runners"),
        state.runners.values().filter(wanted).map(|runner| shapes::runner(&state, runner)).collect(),
    )
}

fn number(id: &str) -> RunnerId {
    RunnerId(id.parse().unwrap_or(0))
}

fn one(shared: &Shared, scope: &Scope, id: &str) -> Response {
    let state = locked(&shared.state);
    let found = state.runners.get(&number(id)).filter(|runner| runner.scope == *scope);
    found.map_or_else(not_found, |runner| Response::json(200, &shapes::runner(&state, runner)))
}

fn delete(shared: &Shared, scope: &Scope, id: &str) -> Response {
    let id = number(id);
    shared.update(|state| {
        let Some(runner) = state.runners.get(&id).filter(|runner| runner.scope == *scope) else { return not_found() };
        let busy =
            format!("Bad request - Runner \"{}\" is currently running a job and cannot be deleted.", runner.name);
        if state.remove(id, Removal::Deleted) { Response::empty(204) } else { error(422, &busy) }
    })
}

fn token(shared: &Shared, scope: &Scope) -> Response {
    let token = format!("A{}", random_word().to_uppercase());
    let expires = Timestamp::now().after(std::time::Duration::from_secs(3600));
    let body = json!({"token": token, "expires_at": expires.to_rfc3339()});
    shared.update(|state| state.registration_tokens.insert(token, scope.clone()));
    Response::json(201, &body)
}

fn downloads(shared: &Shared) -> Response {
    let origin = shared.origin();
    let state = locked(&shared.state);
    let shape = |offer: &super::Offer| {
        let mut json = json!({
            "os": "linux", "architecture": offer.architecture, "filename": offer.filename,
            "download_url": format!("{origin}/_download/{}", offer.filename)
        });
        if let (Value::Object(fields), Some(sum)) = (&mut json, &offer.sha256) {
            fields.insert("sha256_checksum".to_owned(), Value::String(sum.clone()));
        }
        json
    };
    Response::json(200, &Value::Array(state.offers.iter().map(shape).collect()))
}

fn jit(shared: &Shared, request: &Request, scope: &Scope) -> Response {
    if !locked(&shared.state).jit {
        return not_found();
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return error(400, "Problems parsing JSON");
    };
    let name = body.get("name").and_then(Value::as_str).filter(|name| !name.is_empty() && name.len() <= 64);
    let labels: Option<Vec<String>> = body.get("labels").and_then(Value::as_array).and_then(|labels| {
        let labels: Option<Vec<String>> = labels.iter().map(|label| label.as_str().map(str::to_owned)).collect();
        labels.filter(|labels| (1..=100).contains(&labels.len()))
    });
    let group = body.get("runner_group_id").and_then(Value::as_u64);
    let (Some(name), Some(labels), Some(group)) = (name, labels, group) else {
        return error(422, "Invalid request.\n\nname, runner_group_id and 1 to 100 labels are needed.");
    };
    if !locked(&shared.state).groups.iter().any(|(id, _)| *id == group) {
        return not_found();
    }
    let work = body.get("work_folder").and_then(Value::as_str).unwrap_or("_work").to_owned();
    let runner = shared.update(|state| state.register(scope, name, labels, group, true, true));
    let Some(runner) = runner else {
        return error(409, &format!("Already exists - A runner with the name {name} already exists."));
    };
    let encoded = blob(&shared.origin(), scope, &runner, &work);
    let shown = shapes::runner(&locked(&shared.state), &runner);
    Response::json(201, &json!({"runner": shown, "encoded_jit_config": encoded}))
}

/// What the runner is handed: the files that `config.sh` would write, each in base64, in JSON, in base64.
fn blob(origin: &str, scope: &Scope, runner: &RunnerState, work: &str) -> String {
    let web = match scope {
        Scope::Org(org) => format!("{origin}/{org}"),
        Scope::Repo(repo) => format!("{origin}/{repo}"),
        Scope::Enterprise(slug) => format!("{origin}/enterprises/{slug}"),
    };
    let settings = json!({
        "AgentId": runner.id.0.to_string(), "AgentName": runner.name, "DisableUpdate": "False", "Ephemeral": "True",
        "PoolId": runner.group.to_string(), "PoolName": "Default", "ServerUrl": format!("{origin}/"),
        "ServerUrlV2": format!("{origin}/"), "UseV2Flow": "True", "GitHubUrl": web, "WorkFolder": work
    });
    let credentials = json!({
        "Scheme": "OAuth",
        "Data": {"ClientId": random_word(), "AuthorizationUrl": format!("{origin}/_runner/token"),
                 "Token": runner.credential}
    });
    let key = json!({"d": random_word(), "exponent": "AQAB", "modulus": random_word()});
    let files = json!({
        ".runner": BASE64_STANDARD.encode(settings.to_string()),
        ".credentials": BASE64_STANDARD.encode(credentials.to_string()),
        ".credentials_rsaparams": BASE64_STANDARD.encode(key.to_string())
    });
    BASE64_STANDARD.encode(files.to_string())
}

/// The start of a scope's API paths: `orgs/acme`.
pub(super) fn api_path(scope: &Scope) -> String {
    match scope {
        Scope::Org(org) => format!("orgs/{org}"),
        Scope::Repo(repo) => format!("repos/{repo}"),
        Scope::Enterprise(slug) => format!("enterprises/{slug}"),
    }
}
