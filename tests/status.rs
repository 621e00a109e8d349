//! How all stands, asked of the running daemon: by people on its host, and by what watches it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::process::Command;

use support::*;

fn run(rig: &Rig, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lxdrunner"))
        .args(arguments)
        .arg("-c")
        .arg(rig.scratch.0.join("config.yml"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_job_that_is_held_up_and_one_that_runs_are_shown() {
    let config = "max_workers: 1\nreconcile_interval: 60\nweb_metrics: [127.0.0.1]\n";
    let mut rig = Rig::new(Plan { config: config.to_owned(), ..Plan::default() });
    rig.insides.hold_jobs(true);
    let first = rig.queue();
    rig.daemon.wait(&[&format!("job={first} "), "job runs"]);
    let second = rig.queue();
    rig.daemon.wait(&[&format!("job={second} "), "not launched"]);

    let (code, text) = run(&rig, &["status"]);
    let squeezed: Vec<String> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let has = |part: &str| squeezed.iter().any(|line| line.contains(part));
    assert!(code == 0 && has("jobs: 1 queued, 1 running") && has("instances: 1 of 1"), "{text}");
    assert!(has("small 1 1 0 0 1 0 0 1 of 1 none"), "{text}");
    assert!(has(&format!("{second} acme/app small")) && has("all 1 instances are in use (max_workers)"), "{text}");
    assert!(has("github: github_left="), "{text}");

    let (code, metrics) = run(&rig, &["status", "--metrics"]);
    let (_, page) = rig.get("/metrics");
    let running = "\nlxdrunner_jobs{class=\"small\",state=\"running\"} 1\n";
    for told in [&metrics, &page] {
        assert!(code == 0 && told.contains(running), "{told}");
        assert!(told.contains("\nlxdrunner_start_seconds_count{class=\"small\"} 1\n"), "{told}");
    }
    let first_one = rig.instances().remove(0);
    rig.insides.hold_jobs(false);
    rig.insides.runner(&first_one).unwrap().let_finish();
    rig.wait_done(first);
    rig.wait_done(second);
    rig.wait_nothing_left();

    rig.daemon.kill();
    let (code, text) = run(&rig, &["status"]);
    assert!(code == 1 && text.contains("no daemon answers at") && text.contains("systemctl start lxdrunner"), "{text}");
}
