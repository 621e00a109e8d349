//! What the daemon itself costs: measured on the built binary against both stand-ins, so that nothing else is in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lxdrunner::lxd::{Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, InstanceType, keys};
use lxdrunner::observe::list_instances;
use standin::farm::IMAGE;
use standin::github::{JobSpec, Stage};
use standin::lxd::LxdStandin;

use crate::figure::{Figure, Table, median};
use crate::support::{PATIENCE, Plan, Rig, Scratch, repo};

/// For how long the daemon is watched at rest.
const WATCH: Duration = Duration::from_secs(120);

/// Nothing of the daemon's own log but what it says at the least level that names its address.
fn quiet() {
    // The daemon's environment is made from ours before any thread is there.
    // (std calls the setting of variables unsafe, so the runner of the bench does it: see tests/bench.sh.)
    assert!(std::env::var("LXDRUNNER_TEST_LOG").is_ok_and(|level| level == "info"), "run it by tests/bench.sh");
}

pub fn snapshot(table: &mut Table) {
    let scratch = Scratch::new();
    let standin = LxdStandin::start(&scratch.0).unwrap();
    let lxd = Lxd::new(standin.socket());
    for n in 0..2_000 {
        let config = [
            (keys::OWNER, "bench".to_owned()),
            (keys::CLASS, "small".to_owned()),
            (keys::SCOPE, "org:acme".to_owned()),
            (keys::JOB, n.to_string()),
            (keys::RUNNER_ID, n.to_string()),
            (keys::PHASE, "started".to_owned()),
            (keys::DAEMON, lxdrunner::identity::process_identity()),
        ];
        let new = NewInstance {
            name: format!("bench-{n}-1"),
            kind: InstanceType::Container,
            source: Source::Alias("dev".to_owned()),
            profiles: vec!["default".to_owned()],
            config: config.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<ConfigMap>(),
            devices: Default::default(),
            ephemeral: true,
        };
        lxd.wait(&lxd.create("default", "", &new).unwrap(), PATIENCE).unwrap();
    }
    let text = format!(
        "pat: x\nhooksecret: 0123456789abcdef0123456789abcdef\ntargets: [{{org: acme}}]\nsocket: {}\nprefix: bench\n\
         runnermap:\n  - {{name: small, labels: [self-hosted], image: dev}}\n",
        standin.socket().display()
    );
    let path = scratch.0.join("config.yml");
    std::fs::write(&path, text).unwrap();
    let config = lxdrunner::config::Config::load(&path).unwrap_or_else(|errors| panic!("{errors}")).0;
    lxd.server().unwrap();
    let rounds: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(list_instances(&lxd, &config).unwrap().len(), 2_000);
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    table.add(Figure::at_most(
        "snapshot of 2,000 instances, the stand-in's own work included",
        "ms",
        median(&rounds),
        150.0,
    ));
}

/// Every call that the daemon makes because of one job, from its webhook until nothing of it is left.
pub fn calls(table: &mut Table) {
    let template = "  - {name: small, labels: [self-hosted], image: IMAGE, template: true}\n";
    let image = "  - {name: small, labels: [self-hosted], image: IMAGE, template: false}\n";
    let standby = "  - {name: small, labels: [self-hosted], image: IMAGE, standby: 1}\n";
    for (what, classes, limit) in [
        ("LXD calls a job, from a template", template, Some(7.0)),
        ("LXD calls a job, from the image", image, None),
        ("LXD calls a job, from a standby (its replacement aside)", standby, None),
    ] {
        let rig = Rig::new(Plan { classes: classes.to_owned(), ..Plan::default() });
        // The first job is served while templates and standbys are being made.
        rig.wait_done(rig.queue());
        settle(&rig);
        let before = rig.standin().faults().calls().len();
        let job = rig.queue();
        rig.wait_done(job);
        let name = rig.github.with(|state| state.jobs[&job].runner_name.clone()).unwrap();
        rig.standin().wait_until("default", PATIENCE, |names| !names.contains(&name));
        settle(&rig);
        let calls = rig.standin().faults().calls();
        let since = &calls[before..];
        let own: Vec<String> = since
            .iter()
            .filter(|call| call.path.contains(&name) || (call.method == "POST" && call.path == "/1.0/instances"))
            .chain(since.iter().filter(|call| call.path.starts_with("/1.0/operations/")))
            .map(|call| format!("{} {}", call.method, call.path.replace(&name, "NAME")))
            .collect();
        let count = own.len() as f64;
        table.add(match limit {
            Some(limit) => Figure::at_most(what, "", count, limit),
            None => Figure::plain(what, "", count),
        });
        table.say(&own.join(", "));
    }
}

/// Until the daemon has made all that it wants to have ready.
fn settle(rig: &Rig) {
    let done = || {
        let calls = rig.standin().faults().calls();
        calls.iter().filter(|call| call.path != "/1.0/instances" || call.method != "GET").count()
    };
    let mut before = done();
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = done();
        if now == before {
            return;
        }
        before = now;
    }
}

pub fn memory_and_cpu(table: &mut Table, cpu: bool) {
    quiet();
    table.say(&format!("the daemon of the next figures is {}", binary()));
    let rig = rig_of_many();
    let pid = rig.daemon.pid();
    std::thread::sleep(Duration::from_secs(5));
    table.add(Figure::at_most("RSS with no instance", "MB", rss(pid), 5.0));
    // Ten jobs a run, as of a workflow with a small matrix.
    for (running, limit) in [(100, 8.0), (500, 16.0)] {
        run_jobs(&rig, running, 10);
        // A look at GitHub and one at LXD, so that the listings of that many were in memory once.
        std::thread::sleep(Duration::from_secs(35));
        table.add(Figure::at_most(&format!("RSS with {running} running instances"), "MB", rss(pid), limit));
    }
    if cpu {
        watch(table, &rig, "ten jobs a run");
        drop(rig);
        let rig = rig_of_many();
        run_jobs(&rig, 500, 1);
        watch(table, &rig, "one job a run");
    }
}

fn rig_of_many() -> Rig {
    let classes =
        format!("  - {{name: small, labels: [self-hosted], image: {IMAGE}, max_workers: 600, template: false}}\n");
    let rig = Rig::new(Plan { classes, config: "max_workers: 600\n".to_owned(), ..Plan::default() });
    rig.github.with(|state| state.limits.raise(1_000_000));
    rig.insides.hold_jobs(true);
    rig
}

/// Until so many jobs run, all told.
fn run_jobs(rig: &Rig, running: usize, a_run: usize) {
    let queued = rig.github.with(|state| state.jobs.len());
    for _ in 0..(running - queued) / a_run {
        let first = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]));
        let run = rig.github.with(|state| state.jobs[&first].run);
        for _ in 1..a_run {
            rig.github.queue_in_run(&repo(), run, JobSpec::new(&["self-hosted"]));
        }
    }
    let all = rig.github.wait_for(PATIENCE * 4, |state| {
        (state.jobs.values().filter(|job| job.stage == Stage::InProgress).count() == running).then_some(())
    });
    assert!(all.is_some(), "{running} jobs do not come to run:\n{}", rig.daemon.log().join("\n"));
}

/// What the daemon costs while nothing happens.
fn watch(table: &mut Table, rig: &Rig, how: &str) {
    // Two looks, after which it knows all that there is to know.
    std::thread::sleep(Duration::from_secs(130));
    let (pid, requests) = (rig.daemon.pid(), || rig.github.requests().len());
    let (before, asked) = (busy(pid), requests());
    std::thread::sleep(WATCH);
    let (used, asked) = (busy(pid) - before, requests() - asked);
    table.say(&format!("{asked} requests to GitHub in these {} s", WATCH.as_secs()));
    let hour = used * 3600.0 / WATCH.as_secs_f64();
    let what = format!("CPU/h of 500 running, {how} ({} s watched)", WATCH.as_secs());
    table.add(Figure::at_most(&what, "s", hour, 2.0));
}

fn binary() -> String {
    match std::env::var("LXDRUNNER_BIN") {
        Ok(binary) if !binary.is_empty() => binary,
        _ => "cargo's, with a dynamic libc: the static one takes less memory".to_owned(),
    }
}

fn rss(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let kilobytes: f64 = fields["VmRSS"].trim().split(' ').next().unwrap().parse().unwrap();
    kilobytes * 1024.0 / 1e6
}

/// Seconds on a processor, all threads together; those that have ended meanwhile are few, and short.
fn busy(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}
