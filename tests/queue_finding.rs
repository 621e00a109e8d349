//! Jobs that nobody told of, and what it costs to look for them: the built daemon against both stand-ins, counted on the
//! wire. With `--nocapture` the figures come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;

use standin::github::{Fault, JobSpec, Mischief};
use support::*;

/// Requests of the daemon from the `from`th on, by kind. Those of runners are their own, and packages are no API.
fn kinds(rig: &Rig, from: usize) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in rig.github.requests().into_iter().skip(from) {
        if request.path.starts_with("/_") {
            continue;
        }
        let path: Vec<&str> = request.path.split('/').map(|p| if p.parse::<u64>().is_ok() { "N" } else { p }).collect();
        *kinds.entry(format!("{} {}", request.method, path.join("/"))).or_default() += 1;
    }
    kinds
}

#[test]
fn a_job_that_a_webhook_tells_of_costs_one_request() {
    let config = "reconcile_interval: 3600\n".to_owned();
    let rig = Rig::new(Plan { config, ..Plan::default() });
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.daemon.wait(&["github_call", "acme/app/actions/runs?status=in_progress"]);
    let before = rig.github.requests().len();
    let jobs = 20;
    for _ in 0..jobs {
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
    }
    rig.wait_nothing_left();
    let kinds = kinds(&rig, before);
    let all: usize = kinds.values().sum();
    println!(
        "requests per job in the steady state: {:.2} ({all} for {jobs} jobs): {kinds:?}",
        all as f64 / jobs as f64
    );
    assert_eq!(kinds, BTreeMap::from([("POST /orgs/acme/actions/runners/generate-jitconfig".to_owned(), jobs)]));
}

#[test]
fn polling_needs_neither_webhook_nor_port_and_asks_only_for_what_changed() {
    let config = "polling: true\nreconcile_interval: 1\n".to_owned();
    let rig = Rig::new(Plan { config, web: false, ..Plan::default() });
    rig.daemon.wait(&["github_call", "orgs/acme/repos?sort=pushed", "status=200"]);
    for n in 0..40 {
        rig.github.add_repo(&format!("acme/quiet-{n}").parse().unwrap(), false);
    }
    rig.daemon.wait(&["msg=\"lxdrunner is up\"", "listen=none"]);
    for _ in 0..2 {
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.wait_nothing_left();
    }
    // A run in progress with a job that is queued only later, in a repository of which nothing was heard so far.
    let late = "acme/quiet-0".parse().unwrap();
    rig.insides.hold_jobs(true);
    let first = rig.github.queue(&late, JobSpec::new(&["self-hosted"]));
    let run = rig.github.with(|state| state.jobs[&first].run);
    rig.daemon.wait(&[&format!("job={first}"), "job runs"]);
    let second = rig.github.queue_in_run(&late, run, JobSpec::new(&["self-hosted"]));
    rig.daemon.wait(&[&format!("job={second}"), "job runs"]);
    rig.insides.hold_jobs(false);
    rig.instances().iter().for_each(|name| rig.insides.runner(name).unwrap().let_finish());
    rig.wait_done(first);
    rig.wait_done(second);
    rig.wait_nothing_left();
    let unchanged = rig.daemon.count(&["github_call", "actions/runs?status=", "status=304"]);
    assert!(unchanged > 10, "{unchanged}");
}

#[test]
fn a_run_is_seldom_asked_for_while_its_jobs_run_here_and_each_time_once_their_instance_does_not_run() {
    let rig = Rig::new(Plan { config: "reconcile_interval: 1\n".to_owned(), ..Plan::default() });
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"job runs\""]);
    let run = rig.github.with(|state| state.jobs[&job].run);
    let of_run = format!("/acme/app/actions/runs/{run}/jobs");
    let (looks, asked) = (["github_call", "acme/app/actions/runs?status=in_progress"], ["github_call", &of_run]);
    let asked_in = |count: usize| {
        let before = rig.daemon.count(&asked);
        rig.daemon.wait_count(&looks, rig.daemon.count(&looks) + count);
        rig.daemon.count(&asked) - before
    };
    asked_in(3);
    let seldom = asked_in(8);
    assert!(seldom <= 2, "{seldom} of 8");
    // Nobody can tell what becomes of a job whose instance stands still.
    let name = rig.instances().remove(0);
    let freezing = rig.lxd.set_state("default", &name, "freeze", false).unwrap();
    rig.lxd.wait(&freezing, PATIENCE).unwrap();
    asked_in(1);
    let often = asked_in(5);
    assert!(often >= 4, "{often} of 5");
    let thawing = rig.lxd.set_state("default", &name, "unfreeze", false).unwrap();
    rig.lxd.wait(&thawing, PATIENCE).unwrap();
    rig.insides.runner(&name).unwrap().let_finish();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
}

#[test]
fn a_job_is_found_in_a_run_that_waits_for_an_approval() {
    let config = "polling: true\nreconcile_interval: 1\n".to_owned();
    let rig = Rig::new(Plan { config, web: false, ..Plan::default() });
    let repo = "acme/app".parse().unwrap();
    let approval = JobSpec { waiting: true, ..JobSpec::new(&["self-hosted"]) };
    let first = rig.github.queue(&repo, approval);
    let run = rig.github.with(|state| state.jobs[&first].run);
    let job = rig.github.queue_in_run(&repo, run, JobSpec::new(&["self-hosted"]));
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn a_job_that_ran_between_two_looks_gets_no_second_instance() {
    let config = "polling: true\nreconcile_interval: 5\n".to_owned();
    let rig = Rig::new(Plan { config, web: false, ..Plan::default() });
    for _ in 0..4 {
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.daemon.wait(&[&format!("job={job}"), "msg=\"job runs\""]);
    }
    rig.wait_nothing_left();
    assert_eq!(rig.daemon.count(&["msg=\"runner started\""]), 4);
    assert_eq!(rig.daemon.count(&["ran_a_job=false"]), 0);
}

#[test]
fn a_repository_that_vanishes_is_told_and_then_forgotten() {
    let rig = Rig::new(Plan { config: "reconcile_interval: 1\n".to_owned(), ..Plan::default() });
    let gone = "acme/gone".parse().unwrap();
    let job = rig.github.queue(&gone, JobSpec::new(&["arm64"]));
    rig.daemon.wait(&[&format!("job={job}"), "not launched"]);
    rig.daemon.wait(&["github_call", "acme/gone/actions/runs?status=in_progress", "status=200"]);
    rig.github.with(|state| state.repos.retain(|repo| repo.name != gone));
    rig.daemon.wait(&["ERROR", "what=\"github jobs of acme/gone\"", "404"]);
    // The list of the repositories is asked for at once, and nothing is said of it any more.
    let said = || rig.health().1.contains("acme/gone");
    let asked = rig.daemon.count(&["github_call", "acme/app/actions/runs?status=queued"]);
    rig.daemon.wait_count(&["github_call", "acme/app/actions/runs?status=queued"], asked + 3);
    assert!(!said(), "{}", rig.health().1);
    let asked = rig.daemon.count(&["github_call", "path=/repos/acme/gone/actions/runs?", "status=404"]);
    assert_eq!(asked, 1, "it is not asked for again");
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn a_listing_without_end_is_given_up_and_the_others_are_looked_at() {
    let rig = Rig::prepared(Plan::default(), |before| {
        let endless = "acme/endless".parse().unwrap();
        before.github.add_repo(&endless, false);
        let next = format!("<{}/repos/acme/endless/actions/runs?page=2>; rel=\"next\"", before.github.api());
        let headers =
            [("Content-Type", "application/json"), ("Link", &next)].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let body = "{\"total_count\":1,\"workflow_runs\":[]}".to_owned();
        let page = Mischief::Answer { status: 200, headers: headers.to_vec(), body };
        before.github.inject(Fault::on("/repos/acme/endless/actions/runs", page).times(usize::MAX));
    });
    let line = rig.daemon.wait(&["ERROR", "what=\"github jobs of acme/endless\""]);
    assert!(line.contains("leads back"), "{line}");
    rig.github.hook_by_itself(false);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
}
