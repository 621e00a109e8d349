//! The REST API's side of the stand-in: who asks, for what, and pages.

use std::fs::File;

use serde_json::{Value, json};

use super::apps::{self, Who};
use super::hook_api;
use super::scopes;
use super::shapes;
use super::state::State;
use super::wire::{self, Payload, Request, Response, locked};
use super::{Shared, random_word};
use lxdrunner::model::{JobId, RepoName};

const DOCUMENTATION: &str = "https://docs.github.com/rest";

/// Answers one request of the API, or for a package.
pub(super) fn answer(shared: &Shared, request: &Request, path: &str) -> Response {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let ["_download", filename] = parts.as_slice() {
        return download(shared, request, filename);
    }
    let resource = resource(request, &parts);
    let (who, scopes, left, now) = {
        let mut state = locked(&shared.state);
        let who = request.bearer().map(|token| state.who(token));
        (who, state.token_scopes.clone(), state.limits.of(resource).left, state.now())
    };
    let response = match who {
        Some(Ok(_)) if left == 0 => limit_exceeded(),
        Some(Ok(Who::User)) => route(shared, request, &parts),
        Some(Ok(Who::App(app))) => apps::answer(shared, request, app, &parts),
        Some(Ok(Who::Installation(id))) => {
            let allowed = locked(&shared.state).allows(id, &parts);
            match (allowed, parts.as_slice()) {
                (Err(refusal), _) => refusal,
                (Ok(()), ["installation", "repositories"]) => apps::repositories(shared, request, id),
                (Ok(()), _) => route(shared, request, &parts),
            }
        }
        Some(Err(message)) => error(401, message),
        None => error(401, "Requires authentication"),
    };
    let response = match scopes {
        Some(scopes) if who == Some(Ok(Who::User)) => response.with("X-OAuth-Scopes", scopes),
        _ => response,
    };
    let response = match locked(&shared.state).token_ends.clone() {
        Some(ends) => response.with("github-authentication-token-expiration", ends),
        None => response,
    };
    if let Payload::Bytes(body) = &response.body
        && locked(&shared.state).keep_answers
    {
        let answer = (request.clone(), response.status, body.clone());
        locked(&shared.state).answers.push(answer);
    }
    let response = conditional(request, response);
    let limit = {
        let mut state = locked(&shared.state);
        let limit = state.limits.of(resource);
        // What has not changed costs nothing.
        if response.status != 304 {
            limit.left = limit.left.saturating_sub(1);
        }
        *limit
    };
    response
        .with("Date", wire::date(now))
        .with("X-GitHub-Media-Type", "github.v3; format=json")
        .with("X-GitHub-Request-Id", random_word())
        .with("X-RateLimit-Limit", limit.limit.to_string())
        .with("X-RateLimit-Remaining", limit.left.to_string())
        .with("X-RateLimit-Used", limit.limit.saturating_sub(limit.left).to_string())
        .with("X-RateLimit-Reset", (limit.reset_at.0 / 1000).to_string())
        .with("X-RateLimit-Resource", resource)
}

/// Which of GitHub's limits a request counts against.
fn resource(request: &Request, parts: &[&str]) -> &'static str {
    match parts {
        [.., "generate-jitconfig" | "registration-token" | "remove-token"] if request.method == "POST" => {
            "actions_runner_registration"
        }
        _ => "core",
    }
}

fn limit_exceeded() -> Response {
    let about = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api";
    let body = json!({"message": "API rate limit exceeded for user ID 319655.", "documentation_url": about});
    Response::json(403, &body)
}

/// The name of the state that a GET shows, and 304 to who has just that.
fn conditional(request: &Request, response: Response) -> Response {
    let Payload::Bytes(body) = &response.body else { return response };
    if request.method != "GET" || response.status != 200 {
        return response;
    }
    let sum = <sha2::Sha256 as sha2::Digest>::digest(body);
    let etag = format!("W/\"{}\"", sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let same = request.header("if-none-match").is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let response = if same { Response::empty(304) } else { response };
    response.with("ETag", etag).with("Cache-Control", "private, max-age=60, s-maxage=60")
}

/// GitHub's way to say no.
pub(super) fn error(status: u16, message: &str) -> Response {
    let body = json!({"message": message, "documentation_url": DOCUMENTATION, "status": status.to_string()});
    Response::json(status, &body)
}

pub(super) fn not_found() -> Response {
    error(404, "Not Found")
}

fn route(shared: &Shared, request: &Request, parts: &[&str]) -> Response {
    let get = request.method == "GET";
    match parts {
        ["user"] if get => {
            let login = locked(&shared.state).login.clone();
            Response::json(200, &shapes::user(&shared.origin(), &login, 319_655))
        }
        ["meta"] if get => Response::json(200, &shapes::meta(&locked(&shared.state).hook_networks)),
        ["user", "orgs"] if get => {
            let state = locked(&shared.state);
            let orgs = state.orgs.iter().map(|org| shapes::organization(&shared.origin(), org)).collect();
            page(shared, request, None, orgs)
        }
        ["user", "repos"] if get => {
            let owned =
                |state: &State, name: &RepoName| !state.orgs.iter().any(|o| o.eq_ignore_ascii_case(&name.owner));
            repos(shared, request, owned)
        }
        ["orgs", org, "repos"] if get => {
            if !locked(&shared.state).orgs.iter().any(|known| known.eq_ignore_ascii_case(org)) {
                return not_found();
            }
            repos(shared, request, |_, name| name.owner.eq_ignore_ascii_case(org))
        }
        ["orgs", org, "members", user] if get => member(&locked(&shared.state), org, user),
        ["orgs", _, "hooks", rest @ ..] => hook_api::answer(shared, request, parts, rest),
        ["orgs" | "enterprises", _, "actions", rest @ ..] => scopes::answer(shared, request, parts, rest),
        ["repos", owner, name, rest @ ..] => {
            let Ok(repo) = format!("{owner}/{name}").parse::<RepoName>() else { return not_found() };
            if locked(&shared.state).repo(&repo).is_none() {
                return not_found();
            }
            match rest {
                ["actions", rest @ ..] if get && matches!(rest, ["runs" | "jobs", ..]) => {
                    jobs(shared, request, &repo, rest)
                }
                ["actions", rest @ ..] => scopes::answer(shared, request, parts, rest),
                ["hooks", rest @ ..] => hook_api::answer(shared, request, parts, rest),
                ["pulls"] if get => pulls(shared, request, &repo),
                [] if get => {
                    let state = locked(&shared.state);
                    let found = state.repo(&repo).map(|repo| shapes::full_repository(&shared.origin(), &state, repo));
                    found.map_or_else(not_found, |json| Response::json(200, &json))
                }
                _ => not_found(),
            }
        }
        _ => not_found(),
    }
}

fn repos(shared: &Shared, request: &Request, wanted: impl Fn(&State, &RepoName) -> bool) -> Response {
    let state = locked(&shared.state);
    let found = state.repos.iter().filter(|repo| wanted(&state, &repo.name));
    let found = found.map(|repo| shapes::repository(&shared.origin(), &state, repo)).collect();
    page(shared, request, None, found)
}

fn jobs(shared: &Shared, request: &Request, repo: &RepoName, rest: &[&str]) -> Response {
    let state = locked(&shared.state);
    let origin = shared.origin();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let own = || state.jobs.values().rev().filter(|job| job.repo == *repo);
    match rest {
        ["runs"] => {
            let status = request.param("status");
            let mut runs: Vec<u64> = own().map(|job| job.run).collect();
            runs.sort_unstable_by(|a, b| b.cmp(a));
            runs.dedup();
            runs.retain(|run| status.as_deref().is_none_or(|status| state.run_status(*run).as_str() == status));
            let first = |run: u64| state.jobs.values().find(|job| job.run == run);
            let items = runs.iter().filter_map(|&run| Some(shapes::run(&origin, &state, run, first(run)?))).collect();
            page(shared, request, Some("workflow_runs"), items)
        }
        ["runs", run] => {
            let run = number(run);
            let of = own().find(|job| job.run == run);
            of.map_or_else(not_found, |of| Response::json(200, &shapes::run(&origin, &state, run, of)))
        }
        ["runs", run, "jobs"] => {
            let run = number(run);
            let items: Vec<Value> =
                own().filter(|job| job.run == run).map(|job| shapes::job(&origin, &state, job)).collect();
            if items.is_empty() { not_found() } else { page(shared, request, Some("jobs"), items) }
        }
        ["jobs", id] => {
            let job = state.jobs.get(&JobId(number(id))).filter(|job| job.repo == *repo);
            job.map_or_else(not_found, |job| Response::json(200, &shapes::job(&origin, &state, job)))
        }
        _ => not_found(),
    }
}

/// Whether somebody is a member of an organisation; the same answer where the organisation is not there.
fn member(state: &State, org: &str, user: &str) -> Response {
    if !state.reads_members {
        return Response::json(403, &json!({"message": "Resource not accessible by integration"}));
    }
    let known = |(o, u): &(String, String)| o.eq_ignore_ascii_case(org) && u.eq_ignore_ascii_case(user);
    if state.members.iter().any(known) { Response::empty(204) } else { not_found() }
}

/// The pull requests of the repository's runs, each in a branch of its own.
fn pulls(shared: &Shared, request: &Request, repo: &RepoName) -> Response {
    let state = locked(&shared.state);
    let head = request.param("head");
    let pulls = state.jobs.values().filter(|job| job.repo == *repo).filter_map(|job| {
        let pull = job.spec.pull.as_ref()?;
        let label = format!("{}:{}", pull.from.owner, job.branch());
        let wanted = head.as_deref().is_none_or(|head| head.eq_ignore_ascii_case(&label));
        wanted.then(|| shapes::pull(&shared.origin(), &state, job, pull))
    });
    page(shared, request, None, pulls.collect())
}

/// One page of a listing, with the links to the others; `name` is the array's where the listing is an object.
pub(super) fn page(shared: &Shared, request: &Request, name: Option<&str>, items: Vec<Value>) -> Response {
    let number = |name: &str| request.param(name).and_then(|text| text.parse::<usize>().ok());
    let per_page = number("per_page").unwrap_or(30).clamp(1, 100);
    let page = number("page").unwrap_or(1).max(1);
    let total = items.len();
    let last = total.div_ceil(per_page).max(1);
    let items: Vec<Value> = items.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let body = match name {
        Some(name) => json!({"total_count": total, name: items}),
        None => Value::Array(items),
    };
    let kept: Vec<&str> = request.query.split('&').filter(|p| !p.is_empty() && !p.starts_with("page=")).collect();
    let link = |page: usize, rel: &str| {
        let query: Vec<String> = kept.iter().map(|&p| p.to_owned()).chain([format!("page={page}")]).collect();
        format!("<{}{}?{}>; rel=\"{rel}\"", shared.origin(), request.path, query.join("&"))
    };
    let mut links = Vec::new();
    if page > 1 {
        links.push(link(page - 1, "prev"));
    }
    if page < last {
        links.push(link(page + 1, "next"));
        links.push(link(last, "last"));
    }
    if page > 1 {
        links.push(link(1, "first"));
    }
    let response = Response::json(200, &body);
    if links.is_empty() { response } else { response.with("Link", links.join(", ")) }
}

fn download(shared: &Shared, request: &Request, filename: &str) -> Response {
    let offer = {
        let state = locked(&shared.state);
        state.offers.iter().find(|offer| offer.filename == filename).cloned()
    };
    let Some(offer) = offer else { return Response::text(404, "text/plain", "no such package") };
    let Ok(file) = File::open(&offer.path) else { return Response::text(500, "text/plain", "the package is gone") };
    let same = request.header("if-range").is_none_or(|etag| etag == offer.etag);
    let range = request.header("range").filter(|_| same).and_then(|range| range.strip_prefix("bytes="));
    let from = range.and_then(|range| range.strip_suffix('-')?.parse::<u64>().ok());
    let response = match from {
        Some(from) if from >= offer.size => {
            return Response::empty(416).with("Content-Range", format!("bytes */{}", offer.size));
        }
        Some(from) => {
            let span = format!("bytes {from}-{}/{}", offer.size - 1, offer.size);
            Response { status: 206, headers: Vec::new(), body: Payload::File { file, from, length: offer.size - from } }
                .with("Content-Range", span)
        }
        None => {
            Response { status: 200, headers: Vec::new(), body: Payload::File { file, from: 0, length: offer.size } }
        }
    };
    response.with("Content-Type", "application/octet-stream").with("Accept-Ranges", "bytes").with("ETag", offer.etag)
}
