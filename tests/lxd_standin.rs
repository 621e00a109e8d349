//! What the LXD stand-in offers beyond what the contract with a real LXD covers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lxdrunner::lxd::transport::{Body, Keep, Request, Transport};
use lxdrunner::lxd::{ErrorKind, Exec, Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, InstanceStatus, InstanceType, Product, Timestamp, keys};
use standin::lxd::{Call, ExecOutcome, Fault, ImageEntry, LxdStandin, Options};

const PATIENCE: Duration = Duration::from_secs(30);

struct TempDir(PathBuf);

impl TempDir {
    fn new(case: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("lxdrunner-standin-{}-{case}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn start(case: &str, options: Options) -> (TempDir, LxdStandin, Lxd) {
    let dir = TempDir::new(case);
    let standin = LxdStandin::start_with(&dir.0, options).unwrap();
    let lxd = Lxd::new(standin.socket());
    (dir, standin, lxd)
}

fn new_instance(name: &str, kind: InstanceType, alias: &str) -> NewInstance {
    NewInstance {
        name: name.to_owned(),
        kind,
        source: Source::Alias(alias.to_owned()),
        profiles: vec!["default".to_owned()],
        config: ConfigMap::from([(keys::OWNER.to_owned(), "x".to_owned())]),
        devices: Default::default(),
        ephemeral: true,
    }
}

fn create(lxd: &Lxd, project: &str, name: &str) -> Result<(), ErrorKind> {
    let new = new_instance(name, InstanceType::Container, "dev");
    lxd.create(project, "", &new).and_then(|operation| lxd.wait(&operation, PATIENCE)).map_err(|error| error.kind)
}

fn run(lxd: &Lxd, name: &str) {
    lxd.wait(&lxd.set_state("default", name, "start", false).unwrap(), PATIENCE).unwrap();
}

#[test]
fn the_hook_sees_what_was_pushed_and_may_power_the_instance_off() {
    let (told, tell) = mpsc::channel();
    let exec = move |view: &standin::lxd::InstanceView, command: &[String], environment: &ConfigMap| {
        let secret = String::from_utf8(view.read_file("/run/secret").unwrap()).unwrap();
        view.remove_file("/run/secret");
        view.write_file("/var/log/deep/er/log", b"logged");
        let seen = (view.name().to_owned(), secret, command.to_vec(), environment["A"].clone());
        told.send(seen).unwrap();
        view.power_off();
        ExecOutcome::code(0)
    };
    // The hook is shared between threads, a sender is not.
    let exec = std::sync::Mutex::new(exec);
    let exec =
        Box::new(move |view: &_, command: &[String], environment: &_| exec.lock().unwrap()(view, command, environment));
    let (_dir, standin, lxd) = start("hook", Options { exec, ..Options::default() });
    create(&lxd, "default", "a").unwrap();
    run(&lxd, "a");
    lxd.push_file("default", "a", "/run/secret", 0o600, &mut &b"jit"[..], 3, PATIENCE).unwrap();
    let environment = ConfigMap::from([("A".to_owned(), "b".to_owned())]);
    let start = Exec { command: vec!["/start".to_owned()], environment, record: true };
    drop(lxd.exec("default", "a", &start, PATIENCE));
    let seen = tell.recv_timeout(PATIENCE).unwrap();
    assert_eq!(seen, ("a".to_owned(), "jit".to_owned(), vec!["/start".to_owned()], "b".to_owned()));
    assert!(standin.instance_names("default").is_empty());
    assert_eq!(lxd.instance("default", "a").unwrap(), None);
}

#[test]
fn circumstances_change_while_it_runs() {
    let (_dir, standin, lxd) = start("change", Options { pool_full: true, ..Options::default() });
    assert_eq!(create(&lxd, "default", "a"), Err(ErrorKind::OperationFailed));
    let (used, total) = lxd.storage_pool("default").unwrap().unwrap().space.unwrap();
    assert_eq!(used, total);
    standin.set_pool_full(false);
    assert_eq!(create(&lxd, "default", "a"), Ok(()));

    standin.remove_image("dev");
    assert_eq!(create(&lxd, "default", "b"), Err(ErrorKind::NotFound));
    standin.add_image(ImageEntry::container("dev"));
    assert_eq!(create(&lxd, "default", "b"), Ok(()));

    let profile = lxd.profile("default", "default").unwrap().unwrap();
    standin.remove_profile("default");
    assert_eq!(create(&lxd, "default", "c"), Err(ErrorKind::Refused(500)));
    let profile = standin::lxd::ProfileEntry { config: profile.config, devices: profile.devices };
    standin.add_profile("default", profile);
    assert_eq!(create(&lxd, "default", "c"), Ok(()));

    assert_eq!(create(&lxd, "other", "a"), Err(ErrorKind::NotFound));
    standin.add_project("other");
    assert_eq!(create(&lxd, "other", "a"), Ok(()));
    assert_eq!(lxd.instances("other", "x").unwrap().len(), 1);
    assert_eq!(lxd.instances("default", "x").unwrap().len(), 3);

    let old = Timestamp(1_000_000_000_000);
    standin.set_created_at("default", "a", old);
    assert_eq!(lxd.instance("default", "a").unwrap().unwrap().0.created_at, Some(old));
}

#[test]
fn a_start_may_take_its_time() {
    let (_dir, _standin, lxd) =
        start("slow", Options { start_delay: Duration::from_millis(300), ..Options::default() });
    create(&lxd, "default", "a").unwrap();
    let began = Instant::now();
    run(&lxd, "a");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_virtual_machine_has_no_agent_at_first() {
    let images = vec![ImageEntry::virtual_machine("vm")];
    let (_dir, _standin, lxd) = start("vm", Options { images, agent_polls: 2, ..Options::default() });
    let new = new_instance("a", InstanceType::VirtualMachine, "vm");
    lxd.wait(&lxd.create("default", "", &new).unwrap(), PATIENCE).unwrap();
    run(&lxd, "a");
    let seen: Vec<i64> = (0..4).map(|_| lxd.processes("default", "a").unwrap()).collect();
    assert!(seen[..2] == [-1, -1] && seen[2] > 0 && seen[3] > 0, "{seen:?}");
    let (instance, _) = lxd.instance("default", "a").unwrap().unwrap();
    assert_eq!((instance.kind, instance.status), (InstanceType::VirtualMachine, InstanceStatus::Running));
}

#[test]
fn keys_of_a_virtual_machine_are_set_also_where_its_agent_could_not_be_told() {
    let images = vec![ImageEntry::virtual_machine("vm")];
    let (_dir, standin, lxd) = start("vmkeys", Options { images, agent_polls: 1000, ..Options::default() });
    let new = new_instance("a", InstanceType::VirtualMachine, "vm");
    lxd.wait(&lxd.create("default", "", &new).unwrap(), PATIENCE).unwrap();
    let key = |value: &str| ConfigMap::from([(keys::PHASE.to_owned(), value.to_owned())]);
    let etag = || lxd.instance("default", "a").unwrap().unwrap().1;
    let status = |value: &str| {
        let path = "/1.0/instances/a?project=default".to_owned();
        let body = Body::Json(serde_json::json!({"config": key(value)}).to_string().into_bytes());
        let (headers, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        let request = Request { method: "PATCH", target: path, headers, body, keep: Keep::All, deadline };
        Transport::new(lxd.socket()).exchange(request).unwrap().status
    };
    let sets = |value: &str| {
        lxd.patch_config("default", "a", &key(value), Some(&etag())).unwrap();
        assert_eq!(lxd.instance("default", "a").unwrap().unwrap().0.config[keys::PHASE], value);
    };
    assert_eq!(status("stopped"), 200);
    run(&lxd, "a");
    assert_eq!(status("starting"), 500, "5.0.2 wants its agent");
    sets("running");
    lxd.wait(&lxd.set_state("default", "a", "freeze", false).unwrap(), PATIENCE).unwrap();
    assert_eq!(status("freezing"), 500);
    sets("frozen");
    // What was not done is told as ever.
    standin.faults().next("PATCH", "", Fault::Status(500, String::new()));
    let refused = lxd.patch_config("default", "a", &key("x"), Some(&etag()));
    assert_eq!(refused.map_err(|error| error.kind), Err(ErrorKind::Refused(500)));
    let stale = lxd.patch_config("default", "a", &key("frozen"), Some("stale"));
    assert_eq!(stale.map_err(|error| error.kind), Err(ErrorKind::PreconditionFailed));
}

#[test]
fn as_incus_it_names_its_headers_otherwise() {
    let (_dir, standin, lxd) = start("incus", Options { product: "incus".to_owned(), ..Options::default() });
    assert_eq!(lxd.server().unwrap().product, Product::Incus);
    create(&lxd, "default", "a").unwrap();
    lxd.push_file("default", "a", "/opt/x", 0o755, &mut &b"x"[..], 1, PATIENCE).unwrap();
    assert_eq!(standin.instance("default", "a").unwrap().mode("/opt/x").as_deref(), Some("0755"));
    assert_eq!(
        lxd.pull_file_tail("default", "a", "/opt", 10, Duration::from_secs(5)).map_err(|e| e.kind),
        Err(ErrorKind::Malformed)
    );
}

#[test]
fn calls_are_recorded_and_faults_hit_the_call_that_is_meant() {
    let (_dir, standin, lxd) = start("faults", Options::default());
    let faults = standin.faults();
    faults.add("", "", 2, 1, Fault::Status(503, String::new()));
    let kinds: Vec<bool> = (0..4).map(|_| lxd.server().is_ok()).collect();
    assert_eq!(kinds, [true, true, false, true]);
    faults.add("GET", "/1.0/images", 1, 2, Fault::Status(503, String::new()));
    let kinds: Vec<bool> = (0..4).map(|_| lxd.images("default").is_ok()).collect();
    assert_eq!(kinds, [true, false, false, true]);
    lxd.server().unwrap();
    assert_eq!((faults.count("GET", "/1.0/images"), faults.count("", "/1.0")), (4, 9));
    let last = Call { method: "GET".to_owned(), path: "/1.0".to_owned(), query: String::new() };
    assert_eq!(faults.calls().last(), Some(&last));
    assert!(faults.calls().iter().any(|call| call.query.contains("project=default")));
}

#[test]
fn a_stalled_call_is_let_go_and_the_end_waits_for_nobody() {
    let (_dir, standin, lxd) = start("stalled", Options::default());
    standin.faults().add("GET", "/1.0", 0, 2, Fault::Stall);
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| lxd.server().map_err(|error| error.kind));
        assert!(standin.faults().wait_until(PATIENCE, |calls| calls.len() == 1));
        standin.faults().clear();
        assert_eq!(stalled.join().unwrap(), Err(ErrorKind::Unreachable));
    });
    standin.faults().next("GET", "/1.0", Fault::Stall);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| lxd.server().map_err(|error| error.kind));
        assert!(standin.faults().wait_until(PATIENCE, |calls| calls.len() == 2));
        drop(standin);
        assert_eq!(stalled.join().unwrap(), Err(ErrorKind::Unreachable));
    });
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn it_can_be_started_again_in_the_same_place() {
    let (dir, standin, lxd) = start("again", Options::default());
    lxd.server().unwrap();
    drop(standin);
    assert_eq!(lxd.server().map_err(|error| error.kind), Err(ErrorKind::Unreachable));
    let _standin = LxdStandin::start(&dir.0).unwrap();
    lxd.server().unwrap();
}
