//! Every kind of request that we make of GitHub, and every answer of the stand-in's, against GitHub's own description of its
//! API. With `--nocapture` the kinds come out as a list.
//!
//! The description is that of the npm package `@octokit/openapi`, in the folder that `LXDRUNNER_TEST_GITHUB_DESCRIPTIONS`
//! names, as `openapi/`; `provision/test.sh` sees to that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use lxdrunner::config::{AppKey, Credential, CredentialKind, GitHubConfig};
use lxdrunner::github::{GitHub, HookWanted, Purpose};
use lxdrunner::model::{JobId, RepoName, Scope, Secret};
use schema::{complaints, resolved};
use serde_json::Value;
use standin::github::state::GroupRules;
use standin::github::wire::Request;
use standin::github::{GitHubStandin, JobSpec};

/// How many kinds of requests there are. A new one is added to [`make_all`], and counted here.
const KINDS: usize = 54;

/// GitHub's descriptions: that of github.com, and that of the Enterprise Cloud, which alone knows enterprises.
fn descriptions() -> Option<[Value; 2]> {
    let folder = match std::env::var_os("LXDRUNNER_TEST_GITHUB_DESCRIPTIONS").filter(|v| !v.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("openapi/generated"),
        None => {
            let required = std::env::var("LXDRUNNER_TEST_REQUIRE_GITHUB_DESCRIPTIONS").is_ok_and(|v| v == "1");
            assert!(!required, "GitHub's description is required here: set LXDRUNNER_TEST_GITHUB_DESCRIPTIONS");
            eprintln!("skipped: no LXDRUNNER_TEST_GITHUB_DESCRIPTIONS; provision/test.sh runs this");
            return None;
        }
    };
    let read = |name: &str| serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap();
    Some([read("api.github.com.json"), read("ghec.json")])
}

/// Every call that the client can make, and what leads to the rarer ones.
fn make_all(standin: &GitHubStandin) {
    let key = AppKey::from_pem(&std::fs::read("tests/fixtures/keys/app.pem").unwrap()).unwrap();
    let repo: RepoName = "acme/app".parse().unwrap();
    standin.add_org("acme");
    standin.add_repo(&repo, false);
    standin.add_repo(&"octocat/open".parse().unwrap(), true);
    standin.with(|state| {
        state.keep_answers = true;
        state.add_app(7, key.pair().unwrap().public().as_ref());
        for account in ["org:acme", "repo:octocat/open", "enterprise:big"] {
            state.install_app(7, account);
        }
        state.groups.push((9, "Big".to_owned()));
        state.group_rules.insert(9, GroupRules { selected: Some(vec![repo.clone()]), private_only: true });
    });
    let package = std::env::temp_dir().join(format!("lxdrunner-openapi-{}.tar.gz", std::process::id()));
    std::fs::write(&package, b"not looked into").unwrap();
    standin.offer(&package, "x64", Some("00".repeat(32))).unwrap();
    std::fs::remove_file(&package).unwrap();
    let of = |kind| {
        GitHub::of_config(&GitHubConfig {
            api: standin.api(),
            api_budget: 20,
            credentials: vec![Credential { name: "one".to_owned(), kind }],
            assigned: BTreeMap::new(),
            authorities: Vec::new(),
        })
    };
    let user = of(CredentialKind::Token(standin.token()));
    user.identity(0).unwrap();
    user.discover().unwrap();
    user.org_repos("acme").unwrap();
    user.org_repos_if_changed("acme", &mut Default::default()).unwrap();
    standin.with(|state| state.runner_ends = Some(Default::default()));
    for scope in ["org:acme", "repo:acme/app", "enterprise:big"] {
        user.runner_end(&scope.parse().unwrap(), "2.330.0").unwrap();
    }
    user.org_repos_pushed("acme", &mut Default::default()).unwrap();
    user.repo(&repo).unwrap();
    user.hook_networks().unwrap();
    let job = standin.queue(&repo, JobSpec::new(&["self-hosted"]));
    let run = standin.with(|state| state.jobs[&job].run);
    user.open_jobs(&repo).unwrap();
    user.job(&repo, job).unwrap().unwrap();
    user.job(&repo, JobId(1)).unwrap();
    user.run_origin(&repo, run, true).unwrap();
    let pulled = standin.queue(&repo, JobSpec::new(&["self-hosted"]).pulled(&"eve/app".parse().unwrap(), "MEMBER"));
    let run = standin.with(|state| state.jobs[&pulled].run);
    user.run_origin(&repo, run, true).unwrap();
    for scope in ["org:acme", "repo:acme/app", "enterprise:big"].map(|scope| scope.parse::<Scope>().unwrap()) {
        let jit = user.generate_jit_config(&scope, "one", 1, &["x".to_owned()]).unwrap();
        user.generate_jit_config(&scope, "one", 1, &["x".to_owned()]).unwrap_err();
        user.runners(&scope).unwrap();
        user.runner_by_name(&scope, "one").unwrap().unwrap();
        user.delete_runner(&scope, jit.runner).unwrap();
        user.registration_token(&scope).unwrap();
        user.runner_downloads(&scope).unwrap();
        if !matches!(scope, Scope::Repo(_)) {
            user.group_refusal(&scope, "Big", &repo, false).unwrap();
        }
        if !matches!(scope, Scope::Enterprise(_)) {
            hooks(standin, &user, &scope);
        }
    }
    let app = of(CredentialKind::App { id: 7, key });
    app.identity(0).unwrap();
    app.discover().unwrap();
    let fresh = of(CredentialKind::App { id: 7, key: key_again() });
    for scope in ["org:acme", "repo:acme/app", "enterprise:big"].map(|scope| scope.parse::<Scope>().unwrap()) {
        // A client of its own for each, which has to find the installation.
        fresh.clone().runners(&scope).unwrap();
    }
    of(CredentialKind::App { id: 7, key: key_again() }).runners(&"repo:acme/app".parse().unwrap()).unwrap();
}

fn key_again() -> AppKey {
    AppKey::from_pem(&std::fs::read("tests/fixtures/keys/app.pem").unwrap()).unwrap()
}

fn hooks(standin: &GitHubStandin, user: &GitHub, scope: &Scope) {
    let wanted = HookWanted {
        url: "http://127.0.0.1:9/hooks/lxdrunner".to_owned(),
        secret: Secret::new("secret"),
        insecure: true,
    };
    let hook = user.create_hook(scope, &wanted).unwrap();
    user.hooks(scope).unwrap();
    user.update_hook(scope, hook.id, &wanted).unwrap();
    user.ping_hook(scope, hook.id).unwrap();
    let listed = standin.wait_for(Duration::from_secs(20), |state| {
        let hook = state.hooks.iter().find(|one| one.id == hook.id)?;
        hook.deliveries.first().map(|one| one.id)
    });
    user.deliveries(scope, hook.id, Purpose::List, |_| true).unwrap();
    user.redeliver(scope, hook.id, listed.unwrap()).unwrap();
    user.delete_hook(scope, hook.id).unwrap();
}

/// The description's path that a request's fits, and its operation.
fn operation<'a>(root: &'a Value, request: &Request) -> Option<(&'a str, &'a Value)> {
    let parts: Vec<&str> = request.path.split('/').collect();
    let fits = |template: &&String| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(|(own, part)| own.starts_with('{') || own == part)
    };
    let paths = root["paths"].as_object().unwrap();
    // `runners/downloads` rather than `runners/{runner_id}`.
    let path = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
    Some((path.as_str(), paths[path].get(request.method.to_lowercase())?))
}

/// What is wrong with a request, or with the stand-in's answer.
fn wrong(root: &Value, operation: &Value, request: &Request, status: u16, body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let parameters: Vec<&Value> =
        operation["parameters"].as_array().into_iter().flatten().map(|one| resolved(root, one)).collect();
    let mut given = BTreeSet::new();
    for (name, value) in request.query.split('&').filter_map(|pair| pair.split_once('=')) {
        given.insert(name);
        let Some(known) = parameters.iter().find(|one| one["in"] == "query" && one["name"] == name) else {
            // Pages are asked for in this way wherever there are any, says the general part of GitHub's documentation.
            if !matches!(name, "page" | "per_page") {
                found.push(format!("the parameter {name} is unknown"));
            }
            continue;
        };
        let kind = resolved(root, &known["schema"]);
        let value = match kind["type"].as_str() {
            Some("integer") => value.parse::<u64>().map_or(Value::Null, Value::from),
            _ => Value::from(value),
        };
        found.extend(complaints(root, kind, &value).into_iter().map(|what| format!("the parameter {name}{what}")));
    }
    let missing = parameters.iter().filter(|one| one["in"] == "query" && one["required"] == true);
    found.extend(
        missing.filter(|one| !given.contains(one["name"].as_str().unwrap())).map(|one| format!("{one} is missing")),
    );
    let wanted = &operation["requestBody"];
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(sent) => match wanted.pointer("/content/application~1json/schema") {
            Some(schema) => found.extend(complaints(root, schema, &sent).into_iter().map(|what| format!("sent{what}"))),
            None => found.push("there is to be no body".to_owned()),
        },
        Err(_) => {
            if wanted["required"] == true {
                found.push("there is to be a body".to_owned());
            }
        }
    }
    let answer = resolved(root, &operation["responses"][status.to_string()]);
    if answer.is_null() {
        // Every call may be refused; that is in the general part of GitHub's documentation.
        if !matches!(status, 401 | 403 | 404 | 409 | 422) {
            found.push(format!("the stand-in answers {status}, which is not described"));
        }
    } else if let Some(schema) = answer.pointer("/content/application~1json/schema") {
        // Of this listing the description says that an account is a user and an enterprise at once; of a single
        // installation it says, rightly, either.
        let right = serde_json::json!({"type": "array", "items": {"$ref": "#/components/schemas/installation"}});
        let schema = if request.path == "/app/installations" { &right } else { schema };
        let told: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        found.extend(complaints(root, schema, &told).into_iter().map(|what| format!("told{what}")));
    } else if !body.is_empty() {
        found.push("there is to be nothing in the answer".to_owned());
    }
    found
}

#[test]
fn every_request_and_every_answer_is_as_github_describes_it() {
    let Some(roots) = descriptions() else { return };
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    make_all(&standin);
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (request, status, body) in standin.with(|state| state.answers.clone()) {
        let found = roots.iter().find_map(|root| operation(root, &request).map(|found| (root, found)));
        let Some((root, (path, operation))) = found else {
            kinds.entry(format!("{} {}", request.method, request.path)).or_default().insert("is unknown".to_owned());
            continue;
        };
        let wrongs = kinds.entry(format!("{} {path}", request.method)).or_default();
        wrongs.extend(wrong(root, operation, &request, status, &body));
    }
    let good = kinds.values().filter(|wrongs| wrongs.is_empty()).count();
    let mut text = String::new();
    for (kind, wrongs) in &kinds {
        text += &format!("{} {kind}\n", if wrongs.is_empty() { "ok  " } else { "FAIL" });
        wrongs.iter().take(12).for_each(|what| text += &format!("       {what}\n"));
    }
    println!("{text}{good} of {} request kinds are as GitHub describes them", kinds.len());
    assert!(good == kinds.len(), "\n{text}");
    assert_eq!(kinds.len(), KINDS, "a request kind is new, or is not made any more\n{text}");
}
