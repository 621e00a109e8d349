//! Many jobs on a real LXD, while the daemon is killed at random moments, LXD is restarted and the storage pool runs
//! full: each job must run to its end exactly once, and afterwards everything must be as it was.
//!
//! `tests/soak.sh` runs it at full length. `LXDRUNNER_SOAK_JOBS` (default 12) and `LXDRUNNER_SOAK_KILLS` (4) set the
//! length, `LXDRUNNER_SOAK_RESTART` is a command that restarts LXD, and with `LXDRUNNER_SOAK_FILL=1` the pool is filled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

#[path = "simulation/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lxdrunner::lxd::{Exec, Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, Devices, InstanceType, JobId};
use lxdrunner::standin::github::{Event, JobSpec, Stage};
use rng::Rng;
use support::*;

/// Jobs that wait or run at once.
const OUTSTANDING: usize = 8;

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    instances: BTreeSet<String>,
    images: BTreeSet<String>,
    cache: BTreeSet<String>,
}

impl Place {
    fn look(rig: &Rig) -> Place {
        let names = |path: &Path| -> BTreeSet<String> {
            let entries: Vec<_> =
                std::fs::read_dir(path).map(|entries| entries.flatten().collect()).unwrap_or_default();
            entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        Place {
            instances: rig.instances().into_iter().collect(),
            images: rig.lxd.images("default").unwrap().into_iter().map(|image| image.fingerprint).collect(),
            cache: names(&rig.scratch.0.join("cache")),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Files and sockets that the daemon has open.
fn descriptors(rig: &Rig) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", rig.daemon.pid())).unwrap().count()
}

fn finished(rig: &Rig) -> usize {
    rig.github.with(|state| state.jobs.values().filter(|job| job.stage == Stage::Completed).count())
}

#[test]
fn every_job_runs_once_whatever_happens_to_the_daemon_and_to_lxd() {
    let jobs = number("LXDRUNNER_SOAK_JOBS", 12) as usize;
    let kills = number("LXDRUNNER_SOAK_KILLS", 4);
    let seed = number("LXDRUNNER_SOAK_SEED", 1);
    let restart = std::env::var("LXDRUNNER_SOAK_RESTART").ok().filter(|command| !command.is_empty());
    let fill = number("LXDRUNNER_SOAK_FILL", 0) == 1;
    let Some(mut rig) = Rig::real(Plan::with("max_workers: 6\nprovision_timeout: 60")) else { return };
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let before = Place::look(&rig);
    let mut rng = Rng::new(seed);
    let begun = Instant::now();
    let deadline = begun + PATIENCE + Duration::from_secs(10 * jobs as u64 + 10 * kills);

    let mut queued: Vec<JobId> = Vec::new();
    let (mut killed, mut restarted, mut filled, mut told) = (0, 0, 0, 0);
    while queued.len() < jobs || finished(&rig) < jobs || killed < kills {
        assert!(Instant::now() < deadline, "{}", story(&rig, &queued, jobs, killed));
        while queued.len() < jobs && queued.len() - finished(&rig) < OUTSTANDING {
            let script = format!("sleep 0.{}\necho done", rng.range(0, 9));
            queued.push(rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(&script)));
        }
        let done = finished(&rig);
        if done >= told + 20 {
            told = done;
            println!("{done} of {jobs} jobs done, {killed} of {kills} kills, {:.0} s", begun.elapsed().as_secs_f64());
        }
        if restart.is_some() && restarted < 2 && done >= jobs * (restarted + 1) / 3 {
            let command = restart.as_deref().unwrap();
            let ended = Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(ended.success(), "{command}: {ended}");
            restarted += 1;
        } else if fill && filled == 0 && done >= jobs / 2 {
            fill_the_pool(&rig);
            filled = 1;
        } else if killed < kills && done * (kills as usize) >= (killed as usize) * jobs / 2 {
            // At a random moment of whatever is under way; which one is the point.
            std::thread::sleep(Duration::from_millis(rng.range(0, 900)));
            rig.restart();
            killed += 1;
        } else {
            // One more job is done, or a second is over.
            let more = |state: &lxdrunner::standin::github::State| {
                (state.jobs.values().filter(|job| job.stage == Stage::Completed).count() > done).then_some(())
            };
            rig.github.wait_for(Duration::from_secs(1), more);
        }
    }
    rig.wait_nothing_left();

    let timeline = rig.github.timeline();
    let starts =
        |job: JobId| timeline.iter().filter(move |m| matches!(m.event, Event::JobStarted { job: j, .. } if j == job));
    let lost: Vec<_> = queued.iter().filter(|job| rig.wait_done(**job) != "success").collect();
    let twice: Vec<_> = queued.iter().filter(|job| starts(**job).count() != 1).collect();
    println!(
        "{jobs} jobs, {killed} kills of the daemon, {restarted} restarts of LXD, {filled} times a full pool, in {:.0} s: {} lost, {} not run exactly once",
        begun.elapsed().as_secs_f64(),
        lost.len(),
        twice.len(),
    );
    assert!(
        lost.is_empty() && twice.is_empty(),
        "lost: {lost:?}, not once: {twice:?}\n{}",
        rig.daemon.log().join("\n")
    );
    let after = Place::look(&rig);
    assert_eq!(after, before, "left behind");
    // A daemon that went through all of it at once has no more open than a fresh one.
    let used = descriptors(&rig);
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let fresh = descriptors(&rig);
    println!(
        "nothing left: instances, images, package files as before; {used} descriptors open, {fresh} in a fresh daemon"
    );
    assert!(used <= fresh + 8, "{used} descriptors, {fresh} in a fresh daemon");
}

fn story(rig: &Rig, queued: &[JobId], jobs: usize, killed: u64) -> String {
    let open: Vec<_> = rig.github.with(|state| {
        let open = queued.iter().filter(|job| state.jobs[job].stage != Stage::Completed);
        open.map(|job| format!("{job}: {:?}", state.jobs[job].stage)).collect()
    });
    let log = rig.daemon.log();
    let end = log.len().saturating_sub(200);
    format!("{} of {jobs} done, {killed} kills; open: {open:?}\n{}", finished(rig), log[end..].join("\n"))
}

/// Takes all room of the storage pool, from within an instance that is nobody's, for long enough that launches fail.
fn fill_the_pool(rig: &Rig) {
    let name = format!("filler-{}", rig.prefix);
    let (_, image) = real_lxd().unwrap();
    let filler = Filler { lxd: &rig.lxd, name: &name };
    let new = NewInstance {
        name: name.clone(),
        kind: InstanceType::Container,
        source: Source::Alias(image),
        profiles: vec!["default".to_owned()],
        config: ConfigMap::new(),
        devices: Devices::new(),
        ephemeral: false,
    };
    rig.lxd.create("default", "", &new).and_then(|operation| rig.lxd.wait(&operation, PATIENCE)).unwrap();
    let start = rig.lxd.set_state("default", &name, "start", false);
    start.and_then(|operation| rig.lxd.wait(&operation, PATIENCE)).unwrap();
    // Large pieces first; what is left in the end is too little for anything.
    let script = "n=0; for size in 1G 256M 64M 16M 4M 1M 256K 64K; do \
                  while fallocate -l $size /fill.$n; do n=$((n+1)); done 2>/dev/null; done; \
                  dd if=/dev/zero of=/rest bs=4k 2>/dev/null; sync; df / >&2; true";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let exec = Exec { command, environment: ConfigMap::new(), record: true };
    let result = rig.lxd.exec("default", &name, &exec, PATIENCE).unwrap();
    println!("the pool is full: {}", result.stderr.lines().last().unwrap_or_default());
    // Until a launch has met it, where anything is still launched.
    let failed = rig.daemon.count(&["launch failed"]);
    let met = Instant::now() + Duration::from_secs(20);
    while rig.daemon.count(&["launch failed"]) == failed && Instant::now() < met {
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("launches that failed on it: {}", rig.daemon.count(&["launch failed"]) - failed);
    drop(filler);
}

/// Gone whatever happens.
struct Filler<'a> {
    lxd: &'a Lxd,
    name: &'a str,
}

impl Drop for Filler<'_> {
    fn drop(&mut self) {
        let stop = self.lxd.set_state("default", self.name, "stop", true);
        let _ = stop.and_then(|operation| self.lxd.wait(&operation, PATIENCE));
        let delete = self.lxd.delete("default", self.name);
        let _ = delete.and_then(|operation| self.lxd.wait(&operation, PATIENCE));
    }
}
