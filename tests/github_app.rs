//! GitHub Apps and several credentials, over the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use lxdrunner::config::{AppKey, Credential, CredentialKind, GitHubConfig};
use lxdrunner::github::{ErrorKind, GitHub, Identity};
use lxdrunner::model::{RepoName, Scope, Secret};
use standin::github::{Fault, GitHubStandin, JobSpec, Mischief};

const APP: u64 = 4711;

fn key(file: &str) -> AppKey {
    AppKey::from_pem(&std::fs::read(format!("tests/fixtures/keys/{file}")).unwrap()).unwrap()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn scope(name: &str) -> Scope {
    name.parse().unwrap()
}

/// A GitHub with an App that is installed nowhere yet.
fn standin() -> GitHubStandin {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    standin.add_repo(&repo("acme/app"), false);
    standin.with(|state| state.add_app(APP, key("app.pem").pair().unwrap().public().as_ref()));
    standin
}

fn app(file: &str) -> CredentialKind {
    CredentialKind::App { id: APP, key: key(file) }
}

fn github(standin: &GitHubStandin, credentials: Vec<CredentialKind>, assigned: &[(&str, usize)]) -> GitHub {
    let name = |(n, kind)| Credential { name: format!("c{n}"), kind };
    GitHub::of_config(&GitHubConfig {
        api: standin.api(),
        api_budget: 20,
        credentials: credentials.into_iter().enumerate().map(name).collect(),
        assigned: assigned.iter().map(|(name, place)| (scope(name), *place)).collect::<BTreeMap<_, _>>(),
        authorities: Vec::new(),
    })
}

fn count(standin: &GitHubStandin, ending: &str) -> usize {
    standin.requests().iter().filter(|request| request.path.ends_with(ending)).count()
}

fn register(github: &GitHub, place: &str, name: &str) -> Result<(), lxdrunner::github::Error> {
    github.generate_jit_config(&scope(place), name, 1, &["x".to_owned()]).map(|_| ())
}

#[test]
fn an_app_gets_one_token_for_each_account_and_keeps_it() {
    let standin = standin();
    standin.add_repo(&repo("alice/tool"), false);
    standin.with(|state| {
        state.install_app(APP, "org:acme");
        state.install_app(APP, "repo:alice/tool");
        state.install_app(APP, "enterprise:big");
    });
    // Both forms in which GitHub and its users keep keys.
    for (round, file) in ["app.pem", "app.pkcs8.pem"].into_iter().enumerate() {
        let github = github(&standin, vec![app(file)], &[]);
        for place in ["org:acme", "repo:acme/app", "repo:alice/tool", "enterprise:big"] {
            register(&github, place, &format!("one-{round}")).unwrap();
            assert!(github.runners(&scope(place)).unwrap().len() > round);
        }
        assert_eq!(count(&standin, "/access_tokens"), 3 * (round + 1));
        assert_eq!(count(&standin, "/installation"), 3 * (round + 1));
        let identity = github.identity(0).unwrap();
        assert!(
            matches!(&identity, Identity::App { name, permissions } if name == "farmer" && !permissions.is_empty())
        );
        assert_eq!(github.orgs().unwrap_err().kind, ErrorKind::Forbidden);
        let names: Vec<String> = github.standings().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c0:acme", "c0:alice", "c0:enterprise:big"]);
    }
}

#[test]
fn many_threads_share_one_token() {
    let standin = standin();
    standin.with(|state| state.install_app(APP, "org:acme"));
    let github = github(&standin, vec![app("app.pem")], &[]);
    std::thread::scope(|scope| {
        for n in 0..12 {
            let github = github.clone();
            scope.spawn(move || register(&github, "org:acme", &format!("r-{n}")).unwrap());
        }
    });
    assert_eq!(count(&standin, "/access_tokens"), 1);
}

#[test]
fn one_account_that_hangs_keeps_no_other_waiting() {
    let standin = standin();
    standin.add_org("bravo");
    standin.with(|state| ["org:acme", "org:bravo"].map(|account| state.install_app(APP, account)));
    standin.inject(Fault::on("/orgs/bravo/installation", Mischief::Stall));
    let github = github(&standin, vec![app("app.pem")], &[]);
    let hangs = std::thread::spawn({
        let github = github.clone();
        move || register(&github, "org:bravo", "one").map_err(|error| error.kind)
    });
    while count(&standin, "/orgs/bravo/installation") == 0 {
        std::thread::yield_now();
    }
    register(&github, "org:acme", "one").unwrap();
    assert!(!hangs.is_finished(), "it waited for the other account");
    standin.clear_faults();
    drop(hangs);
}

#[test]
fn a_token_that_ended_is_renewed_and_asked_with_once() {
    let standin = standin();
    standin.with(|state| state.install_app(APP, "org:acme"));
    let github = github(&standin, vec![app("app.pem")], &[]);
    register(&github, "org:acme", "one").unwrap();
    // GitHub takes it back before its time.
    standin.with(|state| state.app_tokens.clear());
    register(&github, "org:acme", "two").unwrap();
    assert_eq!(count(&standin, "/access_tokens"), 2);
    standin.inject(Fault::status("/orgs/acme/actions/runners", 401, "Bad credentials").times(2));
    assert_eq!(register(&github, "org:acme", "three").unwrap_err().kind, ErrorKind::Unauthorized);
    assert_eq!(count(&standin, "/access_tokens"), 3, "not for ever");
}

#[test]
fn an_installation_that_was_made_anew_is_found_again() {
    let standin = standin();
    let first = standin.with(|state| state.install_app(APP, "org:acme"));
    let github = github(&standin, vec![app("app.pem")], &[]);
    register(&github, "org:acme", "one").unwrap();
    let forget = |state: &mut standin::github::State| {
        state.installations.retain(|one| one.id != first);
        state.app_tokens.clear();
    };
    standin.with(forget);
    let gone = register(&github, "org:acme", "two").unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    let text = gone.to_string();
    assert!(
        text.contains("not installed there") && text.contains("Install App") && text.contains("org:acme"),
        "{text}"
    );
    standin.with(|state| state.install_app(APP, "org:acme"));
    register(&github, "org:acme", "two").unwrap();
}

#[test]
fn a_clock_that_is_wrong_is_made_up_for_and_told() {
    #[track_caller]
    fn check(ahead: i64, told: &str) {
        let standin = standin();
        standin.with(|state| {
            state.install_app(APP, "org:acme");
            state.clock_ahead = ahead * 1000;
        });
        let github = github(&standin, vec![app("app.pem")], &[]);
        register(&github, "org:acme", "one").unwrap();
        let trouble = github.clock_trouble().unwrap_or_default();
        assert!(trouble.contains(told) && trouble.is_empty() == told.is_empty(), "{trouble}");
        // It is asked for once more at most.
        assert!(count(&standin, "/installation") <= 2);
    }
    check(0, "");
    check(3 * 365 * 86400, "s behind GitHub's");
    check(7200, "s behind GitHub's");
    check(-7200, "s ahead of GitHub's");
    check(20, "");
}

#[test]
fn what_is_wrong_with_an_app_is_told_with_its_fix() {
    #[track_caller]
    fn check(change: impl FnOnce(&GitHubStandin), file: &str, kind: ErrorKind, parts: &[&str]) {
        let standin = standin();
        change(&standin);
        let github = github(&standin, vec![app(file)], &[]);
        let error = register(&github, "org:acme", "one").unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let text = error.to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text}"));
    }
    let install = |standin: &GitHubStandin| drop(standin.with(|state| state.install_app(APP, "org:acme")).to_string());
    check(install, "other-app.pem", ErrorKind::Unauthorized, &["401", "could not be decoded", "not of one GitHub App"]);
    let unknown = |standin: &GitHubStandin| standin.with(|state| state.apps.clear());
    check(unknown, "app.pem", ErrorKind::Unauthorized, &["Integration not found", "not of one GitHub App"]);
    check(|_| (), "app.pem", ErrorKind::NotFound, &["404", "not installed there", "Install App"]);
    let suspended = |standin: &GitHubStandin| {
        install(standin);
        standin.with(|state| state.installations[0].suspended = true);
    };
    check(suspended, "app.pem", ErrorKind::Forbidden, &["suspended"]);
    let powerless = |standin: &GitHubStandin| {
        install(standin);
        standin.with(|state| state.installations[0].runners = false);
    };
    check(powerless, "app.pem", ErrorKind::Forbidden, &["not accessible by integration", "Self-hosted runners"]);
}

#[test]
fn an_app_without_targets_serves_what_it_is_installed_on() {
    let standin = standin();
    for name in ["alice/tool", "alice/other", "alice/secret", "bob/x"] {
        standin.add_repo(&repo(name), false);
    }
    standin.with(|state| {
        state.install_app(APP, "org:acme");
        state.install_app(APP, "enterprise:big");
        state.install_app(APP, "repo:alice/any");
        state.installations[2].repos = Some(vec![repo("alice/tool"), repo("alice/other")]);
        state.install_app(APP, "repo:bob/any");
        state.installations[3].suspended = true;
    });
    let github = github(&standin, vec![app("app.pem")], &[]);
    let found: Vec<String> = github.discover().unwrap().iter().map(Scope::to_string).collect();
    assert_eq!(found, ["org:acme", "repo:alice/other", "repo:alice/tool", "enterprise:big"]);
    standin.queue(&repo("alice/tool"), JobSpec::new(&["x"]));
    assert_eq!(github.open_jobs(&repo("alice/tool")).unwrap().len(), 1);
}

#[test]
fn each_target_is_asked_with_its_own_credential() {
    let standin = standin();
    standin.add_org("other");
    standin.add_repo(&repo("other/app"), false);
    standin.with(|state| state.install_app(APP, "org:other"));
    let token = CredentialKind::Token(standin.token());
    let github = github(&standin, vec![token, app("app.pem")], &[("org:other", 1)]);
    register(&github, "org:acme", "one").unwrap();
    register(&github, "org:other", "one").unwrap();
    github.open_jobs(&repo("other/app")).unwrap();
    github.open_jobs(&repo("acme/app")).unwrap();
    for request in standin.requests().iter().filter(|request| !request.path.contains("installation")) {
        let own = request.bearer() == Some(standin.token().expose());
        assert_eq!(own, request.path.contains("acme"), "{} was asked with another's credential", request.path);
    }
    // Later pages have addresses of another form.
    for n in 0..130 {
        register(&github, "org:other", &format!("r-{n}")).unwrap();
    }
    assert_eq!(github.runners(&scope("org:other")).unwrap().len(), 131);
    // A limit of one is none of the other.
    standin.inject(Fault::retry_after("/orgs/acme", 100));
    register(&github, "org:acme", "two").unwrap_err();
    assert!(github.quiet_for(&scope("org:acme")).unwrap() > Duration::from_secs(90));
    assert_eq!(github.quiet_for(&scope("org:other")), None);
    register(&github, "org:other", "two").unwrap();
}

#[test]
fn what_several_credentials_see_is_served_by_who_saw_it() {
    let standin = standin();
    let elsewhere = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    drop(elsewhere);
    standin.add_org("other");
    standin.with(|state| state.install_app(APP, "org:other"));
    let stranger = CredentialKind::Token(Secret::new("expired"));
    let first = github(&standin, vec![stranger, app("app.pem")], &[]);
    assert_eq!(first.discover().unwrap_err().kind, ErrorKind::Unauthorized);
    standin.with(|state| state.orgs.retain(|org| org != "other"));
    let both = github(&standin, vec![CredentialKind::Token(standin.token()), app("app.pem")], &[]);
    let found: Vec<String> = both.discover().unwrap().iter().map(Scope::to_string).collect();
    assert_eq!(found, ["org:acme", "org:other"]);
    standin.add_org("other");
    register(&both, "org:other", "one").unwrap();
    let last = standin.requests().pop().unwrap();
    assert!(last.bearer().unwrap().starts_with("ghs_"), "asked as the App that saw it");
}

#[test]
fn no_key_and_no_token_is_printed() {
    let standin = standin();
    standin.with(|state| state.install_app(APP, "org:acme"));
    let github = github(&standin, vec![app("app.pem")], &[]);
    standin.inject(Fault::status("/orgs/acme/actions", 422, "what is this ghs_secret?"));
    let error = register(&github, "org:acme", "one").unwrap_err();
    let text = format!("{github:?} {error:?} {:?} {:?}", key("app.pem"), app("app.pem"));
    let token = standin.with(|state| state.app_tokens[0].token.clone());
    assert!(text.contains("***") && !text.contains(&token) && !text.contains("der"), "{text}");
}
