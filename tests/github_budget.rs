//! GitHub's limits, over the wire: what is told to wait is not sent, and what has not changed costs nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lxdrunner::config::{Credential, CredentialKind, GitHubConfig};
use lxdrunner::github::{Deletion, ErrorKind, GitHub, Listing, Purpose, QueueSeen, TURNS};
use lxdrunner::model::{RepoName, Scope, Secret};
use standin::github::wire::{Reply, Response, Server};
use standin::github::{Fault, GitHubStandin, JobSpec, Mischief, Stage};

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn both() -> (GitHubStandin, GitHub) {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    standin.add_repo(&repo("acme/app"), false);
    let github = GitHub::new(&standin.api(), standin.token());
    (standin, github)
}

fn org() -> Scope {
    "org:acme".parse().unwrap()
}

fn nobody() -> BTreeSet<String> {
    BTreeSet::new()
}

fn left(standin: &GitHubStandin) -> u64 {
    standin.with(|state| state.limits.of("core").left)
}

#[test]
fn while_told_to_wait_nothing_is_sent() {
    let (standin, github) = both();
    standin.inject(Fault::retry_after("/user", 1));
    let limited = |error: &lxdrunner::github::Error| matches!(error.kind, ErrorKind::RateLimited(_));
    assert!(limited(&github.identity(0).unwrap_err()));
    let sent = standin.requests().len();
    let clone = github.clone();
    while let Some(wait) = github.quiet_for(&org()) {
        assert!(limited(&clone.identity(0).unwrap_err()) || github.quiet_for(&org()).is_none());
        assert_eq!(standin.requests().len(), sent);
        std::thread::sleep(wait);
    }
    github.identity(0).unwrap();
}

#[test]
fn an_unchanged_queue_costs_nothing_and_a_changed_one_is_told_once() {
    let (standin, github) = both();
    let app = repo("acme/app");
    let mut seen = QueueSeen::default();
    let mut look = || github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap().map(|jobs| jobs.len());
    // Queued and in-progress runs are asked for in each look, from the second on also runs in one of three other states.
    for _ in 0..4 {
        assert_eq!(look(), Some(0));
    }
    let unchanged = || github.standings()[0].1.counts.unchanged;
    let before = (left(&standin), unchanged());
    assert_eq!(look(), None);
    assert_eq!((left(&standin), unchanged()), (before.0, before.1 + 3));
    let first = standin.queue(&app, JobSpec::new(&["self-hosted"]));
    assert_eq!((look(), look()), (Some(1), None));
    // A second run: the first one's jobs are not sent again.
    standin.queue(&app, JobSpec::new(&["self-hosted"]));
    let before = left(&standin);
    assert_eq!((look(), look()), (Some(2), None));
    assert_eq!(left(&standin), before - 2, "the runs' list and the new run's jobs");
    let run = standin.with(|state| state.jobs[&first].run);
    standin.queue_in_run(&app, run, JobSpec::new(&["x"]));
    assert_eq!((look(), look()), (Some(3), None));
    standin.cancel(first);
    assert_eq!((look(), look()), (Some(2), None));
    assert_eq!(seen.open_runs(), 2);
}

/// A run that nothing can have happened to is asked for in turn; anything that may have happened brings it back at once.
#[test]
fn a_run_whose_jobs_are_all_at_work_is_seldom_asked_for() {
    let (standin, github) = both();
    let app = repo("acme/app");
    let take = |runner: &str| {
        let job = standin.queue(&app, JobSpec::new(&["self-hosted"]));
        standin.with(|state| {
            let job = state.jobs.get_mut(&job).unwrap();
            (job.stage, job.runner_name) = (Stage::InProgress, Some(runner.to_owned()));
            job.started_at = Some(job.created_at);
            job.run
        })
    };
    let run = take("x-1-1");
    let at_work: BTreeSet<String> = ["x-1-1".to_owned(), "x-2-1".to_owned()].into();
    let mut seen = QueueSeen::default();
    let mut looks = |count: u64, at_work: &BTreeSet<String>| {
        let asked = || {
            let of_run = format!("/actions/runs/{run}/jobs");
            standin.requests().iter().filter(|request| request.path.contains(&of_run)).count()
        };
        let before = asked();
        (0..count).for_each(|_| drop(github.open_jobs_if_changed(&app, &mut seen, at_work).unwrap()));
        asked() - before
    };
    assert_eq!(looks(2, &at_work), 2, "it was not seen unchanged yet");
    assert_eq!(looks(TURNS, &at_work), 1, "nothing can have changed: once in turn");
    // A job that waits for something may be queued at any moment, and one of somebody else's runner may end at any.
    let other = standin.queue_in_run(&app, run, JobSpec::new(&["x"]));
    assert_eq!(looks(3, &nobody()), 3, "its runner's instance is gone");
    assert_eq!(looks(3, &at_work), 3);
    let taken_by = |runner: &str| {
        standin.with(|state| {
            let job = state.jobs.get_mut(&other).unwrap();
            (job.stage, job.runner_name) = (Stage::InProgress, Some(runner.to_owned()));
            job.started_at = Some(job.created_at);
        });
    };
    taken_by("somebody-else");
    assert_eq!(looks(3, &at_work), 3);
    taken_by("x-2-1");
    assert_eq!((looks(2, &at_work), looks(TURNS, &at_work)), (2, 1));
}

#[test]
fn what_changed_before_a_failure_is_told_after_it() {
    let (standin, github) = both();
    let app = repo("acme/app");
    let mut seen = QueueSeen::default();
    assert_eq!(github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap(), Some(vec![]));
    let job = standin.queue(&app, JobSpec::new(&["self-hosted"]));
    let run = standin.with(|state| state.jobs[&job].run);
    standin.inject(Fault::status(&format!("/repos/acme/app/actions/runs/{run}/jobs"), 502, "Bad Gateway"));
    assert_eq!(github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap_err().kind, ErrorKind::Server(502));
    assert_eq!(github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap().unwrap()[0].id, job);
    standin.cancel(job);
    standin.inject(Fault::status("/repos/acme/app/actions/runs", 502, "Bad Gateway").after(1));
    github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap_err();
    assert_eq!(github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap(), Some(vec![]));
    assert_eq!(github.open_jobs_if_changed(&app, &mut seen, &nobody()).unwrap(), None);
}

#[test]
fn listings_of_many_pages_are_kept_up_to_date_page_by_page() {
    let (standin, github) = both();
    let org = org();
    let register = |n: usize| github.generate_jit_config(&org, &format!("r-{n}"), 1, &["x".to_owned()]).unwrap().runner;
    let ids: Vec<_> = (0..250).map(register).collect();
    let mut seen = Listing::default();
    assert!(github.runners_if_changed(&org, &mut seen).unwrap());
    assert_eq!(seen.items().count(), 250);
    let before = left(&standin);
    assert!(!github.runners_if_changed(&org, &mut seen).unwrap());
    assert_eq!(left(&standin), before);
    // The last page loses its last one, which changes the count on all of them; then a whole page goes.
    for gone in [&ids[249..], &ids[195..249]] {
        gone.iter().for_each(|id| assert_eq!(github.delete_runner(&org, *id).unwrap(), Deletion::Deleted));
        assert!(github.runners_if_changed(&org, &mut seen).unwrap());
        assert!(!github.runners_if_changed(&org, &mut seen).unwrap());
    }
    assert_eq!(seen.items().count(), 195);
    assert_eq!(github.runners(&org).unwrap(), seen.items().cloned().collect::<Vec<_>>());
}

#[test]
fn listings_stop_at_their_share_and_registrations_go_on() {
    let (standin, _) = both();
    let github = GitHub::of_config(&GitHubConfig {
        api: standin.api(),
        api_budget: 1,
        credentials: vec![Credential { name: "one".to_owned(), kind: CredentialKind::Token(standin.token()) }],
        assigned: Default::default(),
        authorities: Vec::new(),
    });
    let limit_of = |error: lxdrunner::github::Error| match error.kind {
        ErrorKind::RateLimited(wait) => (wait, error.to_string()),
        other => panic!("{other:?}"),
    };
    for _ in 0..50 {
        github.orgs().unwrap();
    }
    let sent = standin.requests().len();
    let (wait, text) = limit_of(github.orgs().unwrap_err());
    assert!(wait > Duration::from_secs(3000) && text.contains("api_budget") && text.contains("next try in"), "{text}");
    assert_eq!(standin.requests().len(), sent);
    github.generate_jit_config(&"org:acme".parse().unwrap(), "one", 1, &["x".to_owned()]).unwrap();
    github.identity(0).unwrap();
    let standing = github.standings()[0].1.clone();
    assert_eq!(standing.listings, Some((0, 50)));
    assert!(standing.to_string().contains("listings_left=0/50 waits=\"listings for"), "{standing}");
}

#[test]
fn the_last_requests_of_the_hour_are_kept_and_then_none_is_sent() {
    let (standin, github) = both();
    let org = org();
    let register = |name: &str| github.generate_jit_config(&org, name, 1, &["x".to_owned()]);
    standin.with(|state| state.limits.of("core").left = 501);
    github.orgs().unwrap();
    let (wait, kind) = (github.wait(Purpose::List, &org).unwrap(), github.orgs().unwrap_err().kind);
    assert!(wait > Duration::from_secs(3000) && matches!(kind, ErrorKind::RateLimited(_)));
    standin.with(|state| state.limits.of("core").left = 0);
    // A refusal, from which on nothing goes that counts against the same limit.
    assert!(matches!(github.identity(0).unwrap_err().kind, ErrorKind::RateLimited(_)));
    let sent = standin.requests().len();
    assert!(matches!(github.identity(0).unwrap_err().kind, ErrorKind::RateLimited(_)));
    assert_eq!(standin.requests().len(), sent);
    // Registrations have a limit of their own at GitHub.
    assert_eq!(github.quiet_for(&org), None);
    register("two").unwrap();
}

#[test]
fn few_are_under_way_at_once_however_many_threads_ask() {
    // Answers nobody before as many are there as may be: how many there are now, and were at most.
    let room = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let inside = Arc::clone(&room);
    let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| {
        let mut counts = inside.0.lock().unwrap();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        inside.1.notify_all();
        let wait = Duration::from_secs(20);
        counts = inside.1.wait_timeout_while(counts, wait, |counts| counts.1 < 8).unwrap().0;
        counts.0 -= 1;
        Reply::Answer(Response::json(200, &serde_json::json!({"login": "octocat"})))
    });
    let server = server.unwrap();
    let github = GitHub::new(&format!("http://{}", server.address()), Secret::default());
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| github.identity(0).unwrap());
        }
    });
    assert_eq!(*room.0.lock().unwrap(), (0, 8));
}

#[test]
fn an_outage_is_not_hammered() {
    let (standin, github) = both();
    standin.inject(Fault::status("/", 503, "Service Unavailable").times(3));
    for _ in 0..3 {
        assert_eq!(github.identity(0).unwrap_err().kind, ErrorKind::Server(503));
    }
    let sent = standin.requests().len();
    let error = github.identity(0).unwrap_err();
    assert!(error.kind == ErrorKind::Server(503) && error.to_string().contains("3 times in a row"), "{error}");
    assert_eq!(standin.requests().len(), sent);
    std::thread::sleep(github.wait(Purpose::Ask, &org()).unwrap());
    github.identity(0).unwrap();
}

#[test]
fn an_answer_that_never_comes_frees_its_place() {
    let (standin, github) = both();
    let github = github.with_deadline(Duration::from_millis(300));
    standin.inject(Fault::on("/user", Mischief::Stall).times(20));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(github.identity(0).unwrap_err().kind, ErrorKind::Timeout));
        }
    });
    github.identity(0).unwrap();
}
