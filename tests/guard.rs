//! Whose jobs run: the built daemon against both stand-ins, with repositories and pull requests that are not let in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use standin::github::{Fault, JobSpec};
use support::*;

/// How often something was asked whose path ends so.
fn asked(rig: &Rig, end: &str) -> usize {
    rig.github.requests().iter().filter(|r| r.path.ends_with(end)).count()
}

#[test]
fn a_strangers_pull_request_is_left_alone_and_a_members_runs() {
    let config = "fork_policy: members\nreconcile_interval: 3600\n".to_owned();
    let rig = Rig::new(Plan { config, ..Plan::default() });
    // The one look at the queue is over: only the question is left to fail.
    rig.daemon.wait(&["github_call", "acme/app/actions/runs?status=in_progress"]);
    rig.github.inject(Fault::status("/repos/acme/app/actions/runs/", 502, "Bad Gateway"));
    let of = |association| JobSpec::new(&["self-hosted"]).pulled(&"bob/app".parse().unwrap(), association);
    let push = rig.queue();
    rig.daemon.wait(&["WARN", "GitHub did not tell", "run "]);
    assert_eq!(rig.wait_done(push), "success");
    let stranger = rig.github.queue(&repo(), of("CONTRIBUTOR"));
    let line = rig.daemon.wait(&[&format!("job={stranger}"), "WARN", "not launched", "bob/app"]);
    assert!(line.contains("bob is no member") && line.contains("fork_policy"), "{line}");
    assert!(line.contains("Members: read"), "{line}");
    // GitHub does not tell that of a private member to everybody.
    let private = JobSpec::new(&["self-hosted"]).pulled(&"carol/app".parse().unwrap(), "CONTRIBUTOR");
    rig.github.with(|state| state.members.push(("acme".to_owned(), "carol".to_owned())));
    let private = rig.github.queue(&repo(), private);
    assert_eq!(rig.wait_done(private), "success");
    let member = rig.github.queue(&repo(), of("MEMBER"));
    assert_eq!(rig.wait_done(member), "success");
    // Somebody else pushed into the member's branch.
    let mut spec = of("OWNER");
    spec.pull.as_mut().unwrap().pusher = "mallory".to_owned();
    let pushed = rig.github.queue(&repo(), spec);
    rig.daemon.wait(&[&format!("job={pushed}"), "not launched", "mallory pushed last"]);
    rig.wait_nothing_left();
    // One question for a push and its one repetition, two for each pull request.
    assert_eq!(asked(&rig, "/pulls"), 4);
    let runs = rig.github.with(|state| state.jobs.values().map(|job| job.run).collect::<Vec<_>>());
    let each = runs.iter().map(|run| asked(&rig, &format!("/actions/runs/{run}"))).collect::<Vec<_>>();
    assert_eq!(each, [2, 1, 1, 1, 1]);
}

#[test]
fn of_a_public_repository_only_what_members_made_runs_unless_all_forks_are_let_in() {
    let public = "acme/open".parse().unwrap();
    let stranger = JobSpec::new(&["self-hosted"]).pulled(&"bob/open".parse().unwrap(), "NONE");
    let rig = Rig::new(Plan::with("allow_public_repos: true"));
    rig.github.add_repo(&public, true);
    let refused = rig.github.queue(&public, stranger.clone());
    rig.daemon.wait(&[&format!("job={refused}"), "WARN", "bob is no member"]);
    // As an App without that permission is answered.
    rig.github.with(|state| state.reads_members = false);
    let unknown = rig.github.queue(&public, stranger.clone());
    let said = "does not say whether bob is a member of acme (Resource not accessible by integration)";
    rig.daemon.wait(&[&format!("job={unknown}"), "WARN", said, "organisation permission", "Members: read"]);
    let pushed = rig.github.queue(&public, JobSpec::new(&["self-hosted"]));
    let private = rig.queue();
    rig.wait_done(pushed);
    rig.wait_done(private);
    let run = rig.github.with(|state| state.jobs[&private].run);
    assert_eq!(
        asked(&rig, &format!("/actions/runs/{run}")),
        0,
        "a private repository's forks are its owners' business"
    );

    let rig = Rig::new(Plan::with("allow_public_repos: true\nfork_policy: allow"));
    rig.github.add_repo(&public, true);
    let job = rig.github.queue(&public, stranger);
    assert_eq!(rig.wait_done(job), "success");
    assert_eq!(asked(&rig, "/pulls"), 0);
}

#[test]
fn repositories_that_the_patterns_leave_out_are_neither_served_nor_asked_about() {
    let rig = Rig::prepared(Plan::with("repos: {allow: [acme/*], deny: [acme/secret-*]}"), |before| {
        before.github.add_repo(&"acme/secret-1".parse().unwrap(), false);
    });
    let secret = rig.github.queue(&"acme/secret-1".parse().unwrap(), JobSpec::new(&["self-hosted"]));
    rig.daemon.wait(&[&format!("job={secret}"), "INFO", "not launched", "repos denies acme/secret-*"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait_count(&["github_call", "acme/app/actions/runs?status=queued"], 2);
    assert_eq!(asked(&rig, "acme/secret-1/actions/runs"), 0);
    rig.wait_nothing_left();
}
