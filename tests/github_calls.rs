//! The GitHub client against the GitHub stand-in: every call, and every way in which it can go wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lxdrunner::github::{Deletion, ErrorKind, GitHub, Identity};
use lxdrunner::model::{JobId, JobStatus, RepoName, RunnerId, Scope, Secret};
use standin::github::state::GroupRules;
use standin::github::{Event, Fault, GitHubStandin, JobSpec, Mischief};

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn scope(name: &str) -> Scope {
    name.parse().unwrap()
}

fn both() -> (GitHubStandin, GitHub) {
    let standin = GitHubStandin::start(any()).unwrap();
    standin.add_org("acme");
    standin.add_repo(&repo("acme/app"), false);
    let github = GitHub::new(&standin.api(), standin.token());
    (standin, github)
}

fn labels(list: &[&str]) -> Vec<String> {
    list.iter().map(|&label| label.to_owned()).collect()
}

#[test]
fn the_credential_is_looked_at() {
    let (standin, github) = both();
    let user = |scopes: Option<Vec<String>>| Identity::User { login: "octocat".to_owned(), scopes };
    assert_eq!(github.identity(0).unwrap(), user(Some(labels(&["repo", "admin:org"]))));
    standin.with(|state| state.token_scopes = None);
    assert_eq!(github.identity(0).unwrap(), user(None));
    let stranger = GitHub::new(&standin.api(), Secret::new("wrong"));
    let error = stranger.identity(0).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, "Bad credentials"));
}

#[test]
fn requests_introduce_themselves() {
    let (standin, github) = both();
    github.orgs().unwrap();
    let request = standin.requests().pop().unwrap();
    let check = |name: &str, value: &str| assert_eq!(request.header(name), Some(value), "{name}");
    check("user-agent", concat!("lxdrunner/", env!("CARGO_PKG_VERSION")));
    check("accept", "application/vnd.github+json");
    check("x-github-api-version", "2022-11-28");
    check("authorization", "Bearer standin-token");
}

#[test]
fn an_enterprise_servers_base_works_too() {
    let (standin, _) = both();
    let github = GitHub::new(&format!("{}/api/v3/", standin.api()), standin.token());
    assert!(matches!(github.identity(0), Ok(Identity::User { login, .. }) if login == "octocat"));
    assert_eq!(github.web_url(&scope("org:acme")), format!("{}/acme", standin.api()));
}

#[test]
fn repositories_are_listed_with_their_owners() {
    let (standin, github) = both();
    standin.add_repo(&repo("octocat/open"), true);
    assert_eq!(github.orgs().unwrap(), ["acme"]);
    let own = Scope::Repo(repo("octocat/open"));
    assert_eq!(github.discover().unwrap(), [scope("org:acme"), own]);
    let of_org = github.org_repos("acme").unwrap();
    assert_eq!((of_org.len(), of_org[0].public), (1, false));
    assert!(!github.repo(&repo("acme/app")).unwrap().public);
    assert_eq!(github.repo(&repo("acme/none")).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(github.org_repos("none").unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn open_jobs_are_found_in_every_run_and_on_every_page() {
    let (standin, github) = both();
    let app = repo("acme/app");
    let first = standin.queue(&app, JobSpec::new(&["self-hosted", "linux"]));
    let run = standin.with(|state| state.jobs[&first].run);
    for _ in 0..150 {
        standin.queue_in_run(&app, run, JobSpec::new(&["self-hosted"]));
    }
    let over: Vec<JobId> = (0..120).map(|_| standin.queue(&app, JobSpec::new(&["x"]))).collect();
    let mut waiting = JobSpec::new(&["x"]);
    waiting.waiting = true;
    let waits = standin.queue_in_run(&app, run, waiting);
    let jobs = github.open_jobs(&app).unwrap();
    assert_eq!(jobs.len(), 1 + 150 + 120 + 1);
    let by_id = |id: JobId| jobs.iter().find(|job| job.id == id).unwrap();
    assert_eq!(by_id(first).labels.to_string(), "linux,self-hosted");
    assert_eq!((by_id(first).public, by_id(first).run_id), (Some(false), run));
    assert!(by_id(first).created_at.is_some());
    assert_eq!(by_id(waits).status, JobStatus::Waiting);
    for id in &over {
        standin.cancel(*id);
    }
    assert_eq!(github.open_jobs(&app).unwrap().len(), 1 + 150 + 1);
    standin.cancel(first);
    let left = github.open_jobs(&app).unwrap();
    assert!(left.len() == 151 && left.iter().all(|job| job.id != first), "a run in progress has open jobs");
}

#[test]
fn one_job_is_asked_for() {
    let (standin, github) = both();
    let app = repo("acme/app");
    let id = standin.queue(&app, JobSpec::new(&["self-hosted"]));
    let job = github.job(&app, id).unwrap().unwrap();
    assert_eq!((job.status, job.runner_name, job.name.as_str()), (JobStatus::Queued, None, "build"));
    assert_eq!(github.job(&app, JobId(1)).unwrap(), None);
}

#[test]
fn a_runner_lives_and_dies() {
    let (standin, github) = both();
    for scope in ["org:acme", "repo:acme/app", "enterprise:big"].map(scope) {
        let jit = github.generate_jit_config(&scope, "one", 1, &labels(&["self-hosted", "Linux"])).unwrap();
        let again = github.generate_jit_config(&scope, "one", 1, &labels(&["x"])).unwrap_err();
        assert_eq!(again.kind, ErrorKind::Conflict);
        let runners = github.runners(&scope).unwrap();
        assert_eq!(runners.len(), 1);
        assert_eq!((runners[0].id, runners[0].online, runners[0].busy), (jit.runner, false, false));
        assert_eq!(runners[0].labels.to_string(), "linux,self-hosted");
        assert_eq!(github.runner_by_name(&scope, "one").unwrap().unwrap().id, jit.runner);
        assert_eq!(github.runner_by_name(&scope, "on").unwrap(), None);
        assert_eq!(github.delete_runner(&scope, jit.runner).unwrap(), Deletion::Deleted);
        assert_eq!(github.delete_runner(&scope, jit.runner).unwrap(), Deletion::Gone);
    }
    let none = github.generate_jit_config(&scope("org:acme"), "two", 1, &[]).unwrap_err();
    assert_eq!(none.kind, ErrorKind::Refused(422));
    standin.with(|state| state.jit = false);
    let old = github.generate_jit_config(&scope("org:acme"), "two", 1, &labels(&["x"])).unwrap_err();
    assert_eq!(old.kind, ErrorKind::NotFound);
    assert!(!github.registration_token(&scope("org:acme")).unwrap().is_empty());
}

#[test]
fn a_filter_that_is_ignored_finds_the_right_one() {
    let (_standin, github) = both();
    let org = scope("org:acme");
    for n in 0..130 {
        github.generate_jit_config(&org, &format!("r-{n}"), 1, &labels(&["x"])).unwrap();
    }
    assert_eq!(github.runners(&org).unwrap().len(), 130);
    assert_eq!(github.runner_by_name(&org, "R-129").unwrap().unwrap().name, "r-129");
}

#[test]
fn groups_are_found_by_name() {
    let (standin, github) = both();
    standin.with(|state| state.groups.push((7, "Big Iron".to_owned())));
    let count = standin.requests().len();
    assert_eq!(github.runner_group(&scope("org:acme"), "Default").unwrap(), 1);
    assert_eq!(github.runner_group(&scope("repo:acme/app"), "default").unwrap(), 1);
    assert_eq!(standin.requests().len(), count, "the default group needs no asking");
    assert_eq!(github.runner_group(&scope("org:acme"), "big iron").unwrap(), 7);
    let error = github.runner_group(&scope("org:acme"), "small").unwrap_err();
    assert!(error.kind == ErrorKind::NotFound && error.message.contains("Big Iron"), "{error}");
    assert_eq!(github.runner_group(&scope("repo:acme/app"), "Big Iron").unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn whom_a_group_does_not_serve_is_told_with_the_fix() {
    let (standin, github) = both();
    let (app, open) = (repo("acme/app"), repo("acme/open"));
    standin.add_repo(&open, true);
    standin.with(|state| {
        state.groups.push((7, "Big".to_owned()));
        state.groups.push((8, "Inner".to_owned()));
        state.group_rules.insert(7, GroupRules { selected: Some(vec![app.clone()]), private_only: false });
        state.group_rules.insert(8, GroupRules { selected: None, private_only: true });
    });
    let check = |place: &str, group: &str, name: &RepoName, public: bool, part: Option<&str>| {
        let told = github.group_refusal(&scope(place), group, name, public).unwrap();
        assert_eq!(told.is_some(), part.is_some(), "{group} {name}: {told:?}");
        assert!(told.clone().unwrap_or_default().contains(part.unwrap_or_default()), "{told:?}");
    };
    check("org:acme", "Default", &open, true, None);
    check("org:acme", "Big", &app, false, None);
    check(
        "org:acme",
        "big",
        &open,
        true,
        Some("\"Big\" of org:acme does not serve acme/open: choose it in the group's settings"),
    );
    check("org:acme", "Inner", &app, false, None);
    check("org:acme", "Inner", &open, true, Some("does not serve public repositories: allow it"));
    check("enterprise:big", "Big", &app, false, None);
    check("enterprise:big", "Big", &repo("other/app"), false, Some("does not serve other"));
    check("repo:acme/app", "Default", &app, false, None);
}

#[test]
fn a_busy_runner_is_kept_and_an_ephemeral_one_goes_with_its_job() {
    let (standin, github) = both();
    let org = scope("org:acme");
    let job = standin.queue(&repo("acme/app"), JobSpec::new(&["self-hosted"]));
    let jit = github.generate_jit_config(&org, "one", 1, &labels(&["self-hosted", "linux"])).unwrap();
    let runner = standin::github::SimulatedRunner::start_and_hold(jit.encoded.expose()).unwrap();
    let wait = Duration::from_secs(20);
    standin.wait_event(wait, 0, |event| matches!(event, Event::JobStarted { .. })).unwrap();
    let seen = github.runners(&org).unwrap();
    assert!(seen[0].online && seen[0].busy);
    assert_eq!(github.delete_runner(&org, jit.runner).unwrap(), Deletion::Busy);
    let running = github.job(&repo("acme/app"), job).unwrap().unwrap();
    assert_eq!((running.status, running.runner_name.as_deref()), (JobStatus::InProgress, Some("one")));
    runner.let_finish();
    standin.wait_event(wait, 0, |event| matches!(event, Event::Removed { .. })).unwrap();
    assert_eq!(github.delete_runner(&org, jit.runner).unwrap(), Deletion::Gone);
    assert_eq!(github.job(&repo("acme/app"), job).unwrap().unwrap().status, JobStatus::Completed);
    assert!(github.open_jobs(&repo("acme/app")).unwrap().is_empty());
}

/// What `user()` makes of a fault.
#[track_caller]
fn check(fault: Fault, kind: ErrorKind, message: &str) {
    let (standin, github) = both();
    let github = github.with_deadline(Duration::from_millis(700));
    standin.inject(fault);
    let error = github.identity(0).unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(message), "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("standin-token") && !text.contains('\n'), "{text}");
    if !matches!(kind, ErrorKind::RateLimited(_)) {
        github.identity(0).unwrap();
    }
}

#[test]
fn refusals_keep_githubs_words() {
    check(Fault::status("/user", 401, "Bad credentials"), ErrorKind::Unauthorized, "Bad credentials");
    check(Fault::status("/user", 403, "Resource not accessible"), ErrorKind::Forbidden, "not accessible");
    check(Fault::status("/user", 404, "Not Found"), ErrorKind::NotFound, "Not Found");
    check(Fault::status("/user", 409, "Already exists"), ErrorKind::Conflict, "Already exists");
    check(Fault::status("/user", 422, "two\nlines"), ErrorKind::Refused(422), "two lines");
    check(Fault::status("/user", 451, "no"), ErrorKind::Refused(451), "no");
    check(Fault::status("/user", 500, "oops"), ErrorKind::Server(500), "oops");
    check(Fault::status("/user", 400, "your token standin-token is odd"), ErrorKind::Refused(400), "***");
    check(Fault::status("/user", 422, &"long ".repeat(10_000)), ErrorKind::Refused(422), "long long");
}

#[test]
fn limits_say_when_to_come_back() {
    let limited = |seconds| ErrorKind::RateLimited(Duration::from_secs(seconds));
    check(Fault::retry_after("/user", 17), limited(17), "secondary rate limit");
    check(Fault::limit_until("/user", 1), limited(1), "API rate limit");
    check(Fault::limit_until("/user", u64::MAX), limited(3600), "API rate limit");
    check(Fault::status("/user", 429, "slow down"), limited(60), "slow down");
}

#[test]
fn what_is_not_github_is_told_apart() {
    check(Fault::html("/user", 200), ErrorKind::Malformed, "github_api");
    check(Fault::html("/user", 404), ErrorKind::Malformed, "status 404");
    check(Fault::html("/user", 502), ErrorKind::Server(502), "web page");
    let answer = |body: &str| Mischief::Answer { status: 200, headers: Vec::new(), body: body.to_owned() };
    check(Fault::on("/user", answer("")), ErrorKind::Malformed, "");
    check(Fault::on("/user", answer("{\"login\":")), ErrorKind::Malformed, "");
    check(Fault::on("/user", answer("{\"login\":7}")), ErrorKind::Malformed, "");
    check(Fault::on("/user", answer("[]")), ErrorKind::Malformed, "");
    check(Fault::on("/user", answer(&"[".repeat(100_000))), ErrorKind::Malformed, "");
    check(Fault::on("/user", Mischief::Raw(b"\x00\xff\xfe nonsense\r\n\r\n".to_vec())), ErrorKind::Malformed, "");
}

#[test]
fn silence_and_cuts_are_told() {
    check(Fault::on("/user", Mischief::Stall), ErrorKind::Timeout, "");
    check(Fault::on("/user", Mischief::Close), ErrorKind::Unreachable, "");
    check(Fault::on("/user", Mischief::CutAfter(10)), ErrorKind::Unreachable, "");
    let nobody = std::net::TcpListener::bind(any()).unwrap().local_addr().unwrap();
    let error = GitHub::new(&format!("http://{nobody}"), Secret::default()).identity(0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let (standin, github) = both();
    for _ in 0..20 {
        github.identity(0).unwrap();
        standin.cut_connections();
    }
}

#[test]
fn an_answer_that_is_lost_leaves_the_runner() {
    let (standin, github) = both();
    let org = scope("org:acme");
    standin.inject(Fault::on("/orgs/acme/actions/runners/generate-jitconfig", Mischief::ActThenLose));
    assert!(github.generate_jit_config(&org, "one", 1, &labels(&["x"])).is_err());
    let left = github.runner_by_name(&org, "one").unwrap().unwrap();
    assert_eq!(github.delete_runner(&org, left.id).unwrap(), Deletion::Deleted);
}

#[test]
fn pages_do_not_lead_astray() {
    #[track_caller]
    fn check(link: &str, kind: Option<ErrorKind>) {
        let (standin, github) = both();
        let link = link.replace("HERE", &standin.api());
        let headers = vec![("Link".to_owned(), link.clone())];
        let answer = Mischief::Answer { status: 200, headers, body: "[]".to_owned() };
        standin.inject(Fault::on("/user/orgs", answer).times(usize::MAX));
        assert_eq!(github.orgs().err().map(|error| error.kind), kind, "{link}");
        assert!(standin.requests().len() <= 3, "{link}");
    }
    check("<HERE/user/orgs?per_page=100>; rel=\"next\"", Some(ErrorKind::Malformed));
    check("<HERE/user/orgs?page=2>; rel=\"next\"", Some(ErrorKind::Malformed));
    check("<http://127.0.0.2:9/user/orgs?page=2>; rel=\"next\"", Some(ErrorKind::Malformed));
    check("<//127.0.0.2:9/x>; rel=\"next\"", Some(ErrorKind::Malformed));
    check("<HERE/user/orgs?page=2>; rel=\"last\"", None);
    check("<<<>>>,;rel=next", None);
}

#[test]
fn endless_pages_end() {
    let (standin, github) = both();
    for page in 1..300 {
        let headers = vec![("Link".to_owned(), format!("</user/orgs?page={}>; rel=\"next\"", page + 1))];
        let answer = Mischief::Answer { status: 200, headers, body: "[]".to_owned() };
        standin.inject(Fault::on("/user/orgs", answer));
    }
    assert_eq!(github.orgs().unwrap_err().kind, ErrorKind::Malformed);
    assert_eq!(standin.requests().len(), 100);
}

#[test]
fn redirects_stay_at_home() {
    let redirect = |to: &str, status: u16| {
        let headers = vec![("Location".to_owned(), to.to_owned())];
        Mischief::Answer { status, headers, body: String::new() }
    };
    let (standin, github) = both();
    let other = GitHubStandin::start(any()).unwrap();
    standin.inject(Fault::on("/repos/acme/old", redirect("/repos/acme/app", 301)));
    assert_eq!(github.repo(&repo("acme/old")).unwrap().name, repo("acme/app"));
    standin.inject(Fault::on("/user", redirect(&format!("{}/user", other.api()), 302)));
    assert_eq!(github.identity(0).unwrap_err().kind, ErrorKind::Refused(302));
    assert!(other.requests().is_empty(), "the credential stays with its own host");
    standin.inject(Fault::on("/user", redirect("/user", 307)).times(50));
    assert_eq!(github.identity(0).unwrap_err().kind, ErrorKind::Malformed);
    assert!(standin.requests().len() < 10);
}

#[test]
fn too_long_an_answer_is_not_read() {
    #[track_caller]
    fn check(length: usize, fits: bool) {
        let (standin, github) = both();
        let text = r#"{"login":"x","bio":""}"#;
        let body = text.replace("\"\"", &format!("\"{}\"", "a".repeat(length - text.len())));
        assert_eq!(body.len(), length);
        standin.inject(Fault::on("/user", Mischief::Answer { status: 200, headers: Vec::new(), body }));
        let found = github.identity(0).map_err(|error| error.kind);
        assert_eq!(found.is_ok(), fits, "{found:?}");
        assert!(fits || found == Err(ErrorKind::Malformed));
    }
    check(16 << 20, true);
    check((16 << 20) + 1, false);
}

#[test]
fn a_runner_that_is_lost_fails_its_job() {
    let (standin, github) = both();
    let org = scope("org:acme");
    let jit = github.generate_jit_config(&org, "one", 1, &labels(&["x"])).unwrap();
    let runner = standin::github::SimulatedRunner::start_and_hold(jit.encoded.expose()).unwrap();
    let job = standin.queue(&repo("acme/app"), JobSpec::new(&["x"]));
    standin.wait_event(Duration::from_secs(20), 0, |event| matches!(event, Event::JobStarted { .. })).unwrap();
    runner.kill();
    let over = standin.wait_for(Duration::from_secs(20), |state| state.jobs[&job].conclusion);
    assert_eq!(over, Some("failure"));
    assert_eq!(github.runners(&org).unwrap(), []);
    assert_eq!(github.delete_runner(&org, RunnerId(jit.runner.0)).unwrap(), Deletion::Gone);
}
