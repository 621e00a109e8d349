//! `lxdrunner explain`: with a daemon and without, and whatever is typed in place of a job.

use std::process::Command;

use standin::github::{Fault, JobSpec};

use super::support::*;
use super::{Row, check_parts, row, table, tidied};

/// The exit code, and what was said on either stream.
fn explain(rig: &Rig, job: &str) -> (Option<i32>, String) {
    let config = rig.scratch.0.join("config.yml");
    let run = Command::new(env!("CARGO_BIN_EXE_lxdrunner")).args(["explain", job, "-c"]).arg(config).output().unwrap();
    let said = [run.stdout, run.stderr].map(|out| String::from_utf8(out).unwrap());
    (run.status.code(), said.concat().trim().to_owned())
}

#[track_caller]
fn check(rig: &Rig, job: &str, code: i32, parts: &[&str]) -> String {
    let (found, said) = explain(rig, job);
    assert_eq!(found, Some(code), "{said}");
    check_parts(&said, parts);
    assert!(!said.contains(rig.github.token().expose()) && !said.contains(HOOK_SECRET), "a secret is told");
    let first = said.lines().next().unwrap_or_default();
    format!("exit {code}: {}", tidied(rig, first))
}

fn bad(input: &'static str, job: &'static str, code: i32, parts: &'static [&'static str]) -> Row {
    row(input, move || check(&Rig::new(Plan::default()), job, code, parts))
}

#[test]
fn what_is_no_job() {
    let rows = vec![
        bad("nonsense for a job", "the red one", 2, &["names no job", "OWNER/REPO#ID"]),
        bad("a run's address", "https://github.com/acme/app/actions/runs/5", 2, &["is a run, not a job"]),
        bad(
            "a job of another host",
            "https://ghe.example/acme/app/actions/runs/5/job/7",
            1,
            &["that job is at ghe.example, and github_api in the config is http://127.0.0.1:", "another GitHub"],
        ),
        bad("an id that does not exist", "acme/app#7", 1, &["GitHub knows no job 7 in acme/app (404)", "rights"]),
        bad("a repository that does not exist", "acme/nothing#7", 1, &["no job 7 in acme/nothing (404)"]),
        bad("a bare id that nobody knows", "7", 1, &["none of the 1 repositories", "lxdrunner explain OWNER/REPO#7"]),
        row("a bare id among too many repositories", || {
            let rig = Rig::new(Plan::default());
            for n in 0..30 {
                rig.github.add_repo(&format!("acme/r{n}").parse().unwrap(), false);
            }
            check(&rig, "7", 1, &["31 repositories are too many to search"])
        }),
        row("a file in place of the daemon's socket", || {
            let rig = Rig::new(Plan::default());
            let job = rig.github.queue(&repo(), JobSpec::new(&["arm64"]));
            let socket = rig.scratch.0.join("cache/control").join(format!("{}.sock", rig.prefix));
            rig.daemon.wait(&[&format!("job={job}"), "not launched"]);
            std::fs::remove_file(&socket).unwrap();
            std::fs::write(&socket, "").unwrap();
            let said = check(&rig, &format!("acme/app#{job}"), 0, &["not served here", "no daemon answers at"]);
            said.replace(&job.to_string(), "JOB")
        }),
    ];
    table("explain", rows);
}

#[test]
fn with_a_daemon_it_says_what_the_daemon_knows() {
    let rig = Rig::new(Plan::with("max_workers: 1"));
    rig.insides.hold_jobs(true);
    let first = rig.queue();
    rig.daemon.wait(&[&format!("job={first}"), "job runs"]);
    let address = format!("{}/acme/app/actions/runs/1/job/{first}", rig.github.api());
    check(&rig, &address, 0, &[&format!("job {first} runs on {}-{first}-1, an instance of ours", rig.prefix)]);
    let second = rig.queue();
    rig.daemon.wait(&[&format!("job={second}"), "not launched"]);
    let parts = [
        &format!("job {second} waits: all 1 instances are in use (max_workers)"),
        "caps:     1 of 1 instances",
        "class:    \"small\" takes it",
        "next:     the next instance that ends makes room",
        "rights:   the credential may administer the runners of org:acme",
        "budget:   github_left=",
    ];
    check(&rig, &second.to_string(), 0, &parts);
    let nobodys = rig.github.queue(&repo(), JobSpec::new(&["self-hosted", "arm64"]));
    check(&rig, &format!("acme/app#{nobodys}"), 0, &["is not served here", "\"small\" lacks arm64"]);
    let waiting = JobSpec { waiting: true, ..JobSpec::new(&["self-hosted"]) };
    let waiting = rig.github.queue(&repo(), waiting);
    check(&rig, &format!("acme/app#{waiting}"), 0, &["waits at GitHub for something else than a runner"]);
    let name = rig.instances().remove(0);
    // GitHub is asked, too: whether its delivery arrived yet makes no difference.
    rig.github.hook_by_itself(false);
    rig.insides.runner(&name).unwrap().let_finish();
    rig.wait_done(first);
    check(&rig, &format!("acme/app#{first}"), 0, &["is over"]);
    assert_eq!(rig.daemon.count(&["delivery", "explain"]), 0);
}

#[test]
fn without_a_daemon_it_takes_a_look_of_its_own() {
    let mut rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.daemon.kill();
    rig.github.hook_by_itself(false);
    let job = rig.queue();
    let alone = ["no daemon answers at", "what one that starts now would do", "package:  runner"];
    check(
        &rig,
        &job.to_string(),
        0,
        &[&[&*format!("job {job} is next: instance {}-{job}-1", rig.prefix)], &alone[..]].concat(),
    );
    // The group of its class lets others in only.
    rig.github.with(|state| {
        let rules = standin::github::state::GroupRules { selected: Some(Vec::new()), private_only: false };
        state.group_rules.insert(1, rules);
    });
    let parts =
        ["but GitHub does not give it to our runners", "\"Default\" of org:acme does not serve acme/app: choose it"];
    check(&rig, &format!("acme/app#{job}"), 0, &parts);
    rig.github.with(|state| state.group_rules.clear());
    rig.github.inject(Fault::status("/orgs/acme/actions/runners", 403, "Must have admin rights").times(usize::MAX));
    let parts = ["but no runner can be registered", "rights:   could not", "Must have admin rights", "admin:org"];
    check(&rig, &format!("acme/app#{job}"), 0, &parts);
    rig.github.clear_faults();
    rig.github.inject(Fault::status("/repos/acme/app/actions/jobs/", 502, "Bad Gateway").times(usize::MAX));
    check(&rig, &format!("acme/app#{job}"), 1, &["GitHub does not tell of the job", "502", "no daemon answers"]);
}
