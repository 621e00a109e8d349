//! From the webhook's first byte to the runner process's first line, on a real LXD with a package of the real one's size.
//!
//! Ours begins when the GitHub stand-in sets about sending the hook, and ends when `run.sh` of the runner package begins,
//! by a time that it takes itself (the host and its containers share one clock) and tells later. The floor begins before
//! its first call and ends at the same line. Both go by turns.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lxdrunner::lxd::Lxd;
use lxdrunner::model::{InstanceStatus, JobId, Phase, Timestamp, keys};
use lxdrunner::plan::LAUNCHES_AT_ONCE;
use standin::github::{Event, JobSpec};
use standin::package::{self, BuiltPackage, PackageSpec, Padding};

use crate::figure::{Figure, Table, median};
use crate::floor::Floor;
use crate::support::{PATIENCE, Plan, Rig, real_lxd, repo};

/// Jobs of a burst.
const BURST: usize = 20;

fn rounds(usual: usize) -> usize {
    std::env::var("LXDRUNNER_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

pub fn starts(table: &mut Table, parts: &[&str]) {
    let Some((socket, image)) = real_lxd() else {
        table.say(&format!("not measured, there is no real LXD: {}", parts.join(", ")));
        return;
    };
    let package = real_size_package();
    table.say(&format!("the runner package: {} MB packed, {} files", package.size / 1_000_000, Padding::REAL.files));
    let lxd = Lxd::new(socket);
    let prefix = format!("floor{}", std::process::id());
    let floor = Floor { lxd: &lxd, image, prefix, package: package.path.clone() };
    if parts.contains(&"template") || parts.contains(&"burst") {
        let rig = rig(&package, "template: true");
        let template = wait_for(&rig, Phase::Template, InstanceStatus::Stopped);
        if parts.contains(&"template") {
            let run = |table: &mut Table| by_turns(table, rounds(11), |n| floor.template(&template, n), || ours(&rig));
            let (floor, ours) = run(table);
            tell_traces(table, &rig);
            table.add(start("from a template, one after the other", ours, floor, 1.15, Some(1000.0)));
        }
        if parts.contains(&"burst") {
            let at_once = LAUNCHES_AT_ONCE;
            let run = |n| floor.burst(&template, BURST, at_once, n);
            let before = traces(&rig).len();
            let (floor, ours) = by_turns(table, rounds(2).min(3), run, || ours_in_a_burst(&rig));
            tell(table, &traces(&rig)[before..]);
            let what = format!("burst of {BURST}, the last one started");
            table.add(start(&what, ours, floor, 1.2, None));
        }
    }
    if parts.contains(&"standby") {
        let rig = rig(&package, "standby: 1");
        let template = wait_for(&rig, Phase::Template, InstanceStatus::Stopped);
        let ready = || {
            wait_for(&rig, Phase::Standby, InstanceStatus::Frozen);
            ours(&rig)
        };
        let (floor, ours) = by_turns(table, rounds(11), |n| floor.standby(&template, n), ready);
        tell_traces(table, &rig);
        table.add(start("from a standby, one after the other", ours, floor, 1.5, Some(150.0)));
    }
    if parts.contains(&"image") {
        let rig = rig(&package, "template: false");
        let (floor, ours) = by_turns(table, rounds(5).min(5), |n| floor.image(n), || ours(&rig));
        tell_traces(table, &rig);
        table.add(start("from the image, package pushed", ours, floor, 1.1, None));
    }
}

fn start<'a>(what: &'a str, ours: f64, floor: f64, times: f64, limit: Option<f64>) -> Figure<'a> {
    Figure { what, unit: "ms", measured: ours, limit, floor: Some((floor, Some(times))) }
}

/// Medians of the floor and of ours, and all of them for those who want to see how far they spread.
fn by_turns(
    table: &mut Table,
    rounds: usize,
    mut floor: impl FnMut(usize) -> f64,
    mut ours: impl FnMut() -> f64,
) -> (f64, f64) {
    let (mut floors, mut own) = (Vec::new(), Vec::new());
    for n in 0..rounds {
        floors.push(floor(n));
        own.push(ours());
    }
    let shown = |values: &[f64]| values.iter().map(|v| format!("{v:.0}")).collect::<Vec<_>>().join(" ");
    table.say(&format!("floor: {}   ours: {}", shown(&floors), shown(&own)));
    (median(&floors), median(&own))
}

/// The moments of each start, as the daemon traced them, in milliseconds.
fn traces(rig: &Rig) -> Vec<Vec<(String, f64)>> {
    let moments = |line: &String| -> Option<Vec<(String, f64)>> {
        let (_, words) = line.split_once("trace job=")?;
        let number = |word: &str| word.split_once('=').and_then(|(name, ms)| Some((name.to_owned(), ms.parse().ok()?)));
        Some(words.split(' ').skip(3).filter_map(number).collect())
    };
    rig.daemon.log().iter().filter_map(moments).collect()
}

fn tell_traces(table: &mut Table, rig: &Rig) {
    if let Some(file) = std::env::var_os("LXDRUNNER_BENCH_LOG") {
        std::fs::write(file, rig.daemon.log().join("\n")).unwrap();
    }
    tell(table, &traces(rig));
}

/// The median of each moment.
fn tell(table: &mut Table, traces: &[Vec<(String, f64)>]) {
    let Some(first) = traces.last() else { return };
    let of = |name: &str| traces.iter().flatten().filter(|(n, _)| n == name).map(|(_, ms)| *ms).collect::<Vec<_>>();
    let shown: Vec<String> = first.iter().map(|(name, _)| format!("{name} {:.1}", median(&of(name)))).collect();
    table.say(&format!("ours, ms after the delivery was accepted: {}", shown.join(", ")));
}

fn rig(package: &BuiltPackage, ready: &str) -> Rig {
    let plan = Plan {
        classes: format!("  - {{name: small, labels: [self-hosted], image: IMAGE, max_workers: 30, {ready}}}\n"),
        config: "max_workers: 30\nreconcile_interval: 60\n".to_owned(),
        package: Some(package.clone()),
        ..Plan::default()
    };
    let rig = Rig::real(plan).unwrap();
    // The package's download is no part of any start.
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig
}

/// Waits for what the daemon makes ready, and returns its name.
fn wait_for(rig: &Rig, phase: Phase, status: InstanceStatus) -> String {
    let deadline = Instant::now() + PATIENCE * 4;
    loop {
        let instances = rig.lxd.instances("default", &rig.prefix).unwrap();
        let is = |i: &&lxdrunner::lxd::Instance| {
            i.status == status && i.config.get(keys::PHASE).is_some_and(|p| p == phase.as_str())
        };
        if let Some(found) = instances.iter().find(is) {
            // What was made last may still be busy with its own end.
            std::thread::sleep(Duration::from_millis(500));
            return found.name.clone();
        }
        assert!(Instant::now() < deadline, "no {phase:?}:\n{}", rig.daemon.log().join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn queue(rig: &Rig, script: &str) -> JobId {
    rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(script))
}

/// When the hook of a job set out, and when the runner that took the job began; and that runner's name.
fn moments(rig: &Rig, job: JobId) -> (Timestamp, Timestamp, String) {
    assert_eq!(rig.wait_done(job), "success");
    let deliveries = rig.github.deliveries();
    let hook = deliveries.iter().find(|d| d.job == Some(job) && d.action == "queued").expect("a hook");
    let runner = rig.github.with(|state| state.jobs[&job].runner_name.clone()).expect("a runner");
    let began = rig.github.timeline().into_iter().find_map(|moment| match moment.event {
        Event::SessionOpened { name, began, .. } if name == runner => began,
        _ => None,
    });
    (hook.at, began.expect("the runner tells when it began"), runner)
}

fn ours(rig: &Rig) -> f64 {
    let (hook, began, runner) = moments(rig, queue(rig, "true\n"));
    rig.wait_instances(|names| !names.contains(&runner));
    (began.0 - hook.0) as f64
}

fn ours_in_a_burst(rig: &Rig) -> f64 {
    // As in the floor, none goes before the last one began.
    let jobs: Vec<JobId> = (0..BURST).map(|_| queue(rig, "sleep 25\n")).collect();
    let all: Vec<(Timestamp, Timestamp, String)> = jobs.into_iter().map(|job| moments(rig, job)).collect();
    let first = all.iter().map(|(hook, ..)| hook.0).min().unwrap();
    let last = all.iter().map(|(_, began, _)| began.0).max().unwrap();
    rig.wait_instances(|names| !names.iter().any(|name| all.iter().any(|(.., runner)| runner == name)));
    (last - first) as f64
}

/// The runner stand-in's package, as large as the real one, kept from run to run.
fn real_size_package() -> BuiltPackage {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let spec =
        PackageSpec { version: package::VERSION.to_owned(), arch: "x64".to_owned(), padding: Some(Padding::REAL) };
    let inputs = package::fingerprint(&spec);
    let note = directory.join("real-size-package");
    let path = directory.join(spec.filename());
    if std::fs::read_to_string(&note).is_ok_and(|kept| kept == inputs) && path.exists() {
        return BuiltPackage { size: path.metadata().unwrap().len(), sha256: sha256(&path), path };
    }
    let built = package::build_as(&directory, &spec).unwrap();
    std::fs::write(&note, inputs).unwrap();
    built
}

fn sha256(path: &std::path::Path) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).unwrap();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).unwrap() {
            0 => return hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            read => hash.update(&block[..read]),
        }
    }
}
