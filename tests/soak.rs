//! Many jobs on a real LXD, while the daemon is killed at random moments, LXD is restarted and the storage pool runs
//! full: each job must run to its end exactly once, and afterwards everything must be as it was.
//!
//! `tests/soak.sh` runs it at full length. `LXDRUNNER_SOAK_JOBS` (default 12) and `LXDRUNNER_SOAK_KILLS` (4) set the
//! length, `LXDRUNNER_SOAK_RESTART` is a command that restarts LXD. With `LXDRUNNER_SOAK_OWN=1` the LXD and `TMPDIR` are
//! nobody else's: the pool is filled, and its volumes and the temporary files are compared, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

#[path = "simulation/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lxdrunner::lxd::{Exec, Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, Devices, InstanceType, JobId, RunnerArch};
use rng::Rng;
use standin::github::{Event, JobSpec, Stage};
use standin::package::{self, PackageSpec, Padding};
use support::*;

/// Launches that must meet the full pool.
const FAILURES: usize = 3;

/// Jobs that wait or run at once.
const OUTSTANDING: usize = 8;

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    instances: BTreeSet<String>,
    images: BTreeSet<String>,
    /// Of all storage pools.
    volumes: BTreeSet<String>,
    /// GitHub's registrations.
    runners: BTreeSet<String>,
    cache: BTreeSet<String>,
    temporary: BTreeSet<String>,
}

impl Place {
    fn look(rig: &Rig, own: bool) -> Place {
        let names = |path: &Path| -> BTreeSet<String> {
            let entries: Vec<_> =
                std::fs::read_dir(path).map(|entries| entries.flatten().collect()).unwrap_or_default();
            entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        Place {
            instances: rig.instances().into_iter().collect(),
            images: rig.lxd.images("default").unwrap().into_iter().map(|image| image.fingerprint).collect(),
            volumes: if own { volumes() } else { BTreeSet::new() },
            runners: rig.github.with(|state| state.runners.values().map(|runner| runner.name.clone()).collect()),
            // What failed launches said is kept on purpose, the last few.
            cache: names(&rig.scratch.0.join("cache")).into_iter().filter(|name| name != "failures").collect(),
            temporary: if own { names(&std::env::temp_dir()) } else { BTreeSet::new() },
        }
    }
}

fn volumes() -> BTreeSet<String> {
    let pools = listed("/1.0/storage-pools");
    let all = pools.iter().flat_map(|pool| listed(&format!("{pool}/volumes")));
    // LXD unpacks an image when it is first used, and keeps that as long as the image.
    all.filter(|volume| !volume.contains("/volumes/image/")).collect()
}

/// A list of LXD's that our own client has no use for.
fn listed(path: &str) -> Vec<String> {
    let (socket, _) = real_lxd().unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    // Answers to the older version come in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: lxd\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["metadata"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect()
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
    let own = number("LXDRUNNER_SOAK_OWN", 0) == 1;
    let offered = Scratch::new();
    let mut plan = Plan::with("max_workers: 6\nprovision_timeout: 60");
    if own {
        // A launch must need room. The real one's 590 MB would be the work of half an hour.
        let padding = Some(Padding { files: 100, bytes: 24_000_000 });
        let spec = PackageSpec { padding, ..PackageSpec::small(RunnerArch::X64) };
        plan.package = Some(package::build_as(&offered.0, &spec).unwrap());
    }
    let Some(mut rig) = Rig::real(plan) else { return };
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let before = Place::look(&rig, own);
    let mut rng = Rng::new(seed);
    let begun = Instant::now();
    let deadline = begun + PATIENCE + Duration::from_secs(10 * jobs as u64 + 10 * kills);

    let mut queued: Vec<JobId> = Vec::new();
    let (mut killed, mut restarted, mut filled, mut told) = (0, 0, 0, 0);
    while queued.len() < jobs || finished(&rig) < jobs || killed < kills {
        assert!(Instant::now() < deadline, "{}", story(&rig, &queued, jobs, killed));
        // A job that runs while the pool fills up may fail for lack of room, as it may anywhere.
        let no_more = own && filled == 0 && finished(&rig) >= jobs / 2;
        while !no_more && queued.len() < jobs && queued.len() - finished(&rig) < OUTSTANDING {
            queued.push(queue(&rig, &mut rng));
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
        } else if no_more && done == queued.len() {
            fill_the_pool(&rig, || queued.push(queue(&rig, &mut rng)));
            filled = 1;
        } else if killed < kills && done * (kills as usize) >= (killed as usize) * jobs / 2 {
            // At a random moment of whatever is under way; which one is the point.
            std::thread::sleep(Duration::from_millis(rng.range(0, 900)));
            rig.restart();
            killed += 1;
        } else {
            // One more job is done, or a second is over.
            let more = |state: &standin::github::State| {
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
    let after = Place::look(&rig, own);
    assert_eq!(after, before, "left behind");
    // A daemon that went through all of it at once has no more open than a fresh one.
    let used = descriptors(&rig);
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let fresh = descriptors(&rig);
    println!(
        "nothing left: instances, images, volumes, runners, package and temporary files as before; {used} descriptors open, {fresh} in a fresh daemon"
    );
    assert!(used <= fresh + 8, "{used} descriptors, {fresh} in a fresh daemon");
}

fn queue(rig: &Rig, rng: &mut Rng) -> JobId {
    let script = format!("sleep 0.{}\necho done", rng.range(0, 9));
    rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(&script))
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

/// Takes all room of the storage pool, from within an instance that is nobody's, then queues jobs, until launches have failed.
fn fill_the_pool(rig: &Rig, mut queue: impl FnMut()) {
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
    // Large pieces first; what is left in the end is too little for anything. What others free is taken again, until told
    // otherwise.
    let script = "n=0; for size in 1G 256M 64M 16M 4M 1M 256K 64K; do \
                  while fallocate -l $size /fill.$n; do n=$((n+1)); done 2>/dev/null; done; \
                  (while [ ! -e /run/enough ]; do n=$((n+1)); dd if=/dev/zero of=/rest.$n bs=64k; sleep 0.1; done) \
                  </dev/null >/dev/null 2>&1 & \
                  sleep 1; df / >&2; true";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let exec = Exec { command, environment: ConfigMap::new(), record: true };
    let result = rig.lxd.exec("default", &name, &exec, PATIENCE).unwrap();
    println!("the pool is full: {}", result.stderr.lines().last().unwrap_or_default());
    let met = Instant::now() + PATIENCE;
    let failed = ["launch failed"];
    let before = rig.daemon.count(&failed);
    for _ in 0..FAILURES {
        queue();
    }
    while rig.daemon.count(&failed) < before + FAILURES {
        assert!(Instant::now() < met, "no launch fails:\n{}", rig.daemon.log().join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = rig.daemon.log();
    println!("launches that failed on it: {}", rig.daemon.count(&failed) - before);
    println!("{}", log.iter().rfind(|line| line.contains(failed[0])).unwrap());
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
