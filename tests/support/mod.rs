//! A rig for tests of the built daemon: GitHub is the stand-in, LXD the stand-in or a real one, and the daemon is the
//! binary, started as a user starts it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lxdrunner::lxd::Lxd;
use lxdrunner::model::{JobId, RepoName, keys};
use standin::farm::{self, Insides};
use standin::github::{GitHubStandin, JobSpec, Stage};
use standin::lxd::LxdStandin;
use standin::package::{self, BuiltPackage};
pub use standin::testing::{Scratch, real_lxd};

pub const HOOK_SECRET: &str = "a-hook-secret-that-must-not-be-seen";
/// Long enough for a loaded machine; nothing waits for its end when all is well.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Rigs of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The daemon's process and what it said.
pub struct Daemon {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Daemon {
    /// Starts the binary with a config file.
    pub fn start(config: &Path) -> Daemon {
        let other = std::env::var_os("LXDRUNNER_BIN").filter(|binary| !binary.is_empty());
        Daemon::start_with(Command::new(other.unwrap_or(env!("CARGO_BIN_EXE_lxdrunner").into())), config)
    }

    /// The same, as another user. The binary is copied to where the config is: that user may not see the original.
    pub fn start_as(user: u32, config: &Path) -> Daemon {
        use std::os::unix::process::CommandExt;
        let copy = config.with_file_name("lxdrunner");
        std::fs::copy(env!("CARGO_BIN_EXE_lxdrunner"), &copy).unwrap();
        let mut command = Command::new(copy);
        command.uid(user).gid(user).current_dir("/");
        Daemon::start_with(command, config)
    }

    /// The same as `start`, by a program that starts what its arguments name.
    pub fn start_under(wrapper: &Path, config: &Path) -> Daemon {
        let mut command = Command::new(wrapper);
        command.arg(env!("CARGO_BIN_EXE_lxdrunner"));
        Daemon::start_with(command, config)
    }

    fn start_with(mut command: Command, config: &Path) -> Daemon {
        // Who runs the tests has a shell of his own; only what is meant for the daemon under test reaches it.
        match std::env::var_os("LXDRUNNER_TEST_TRACE") {
            Some(trace) => command.env("LXDRUNNER_TRACE", trace),
            None => command.env_remove("LXDRUNNER_TRACE"),
        };
        command.env_remove("JOURNAL_STREAM");
        let mut child = command
            .args(["serve".as_ref(), "-c".as_ref(), config.as_os_str()])
            .env("LXDRUNNER_LOG", std::env::var("LXDRUNNER_TEST_LOG").unwrap_or("debug".to_owned()))
            .env("LXDRUNNER_END_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let stderr = child.stderr.take().unwrap();
        let heard = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                heard.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                heard.1.notify_all();
            }
        });
        Daemon { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Every line so far.
    pub fn log(&self) -> Vec<String> {
        // Also after `wait` has given up on it: the log is what is wanted then.
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines have all the parts.
    pub fn count(&self, parts: &[&str]) -> usize {
        self.log().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// Waits for a line with all the parts, and returns it.
    #[track_caller]
    pub fn wait(&self, parts: &[&str]) -> String {
        self.wait_count(parts, 1)
    }

    /// Waits for the `n`-th line with all the parts, and returns it.
    #[track_caller]
    pub fn wait_count(&self, parts: &[&str], n: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.0.lock().unwrap();
        loop {
            let mut found = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part)));
            if let Some(line) = found.nth(n - 1) {
                return line.clone();
            }
            let left = deadline.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("no line with {parts:?} ({n}) in:\n{}", lines.join("\n")) };
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log().join("\n"));
        }
    }
}

/// What a rig is like.
pub struct Plan {
    /// Lines of the config on top of the usual ones.
    pub config: String,
    /// The runnermap; `IMAGE` in it is the image at hand.
    pub classes: String,
    pub targets: String,
    /// A wrong checksum is told for the package.
    pub bad_checksum: bool,
    /// The runner package on offer; the small one where there is none.
    pub package: Option<BuiltPackage>,
    /// The daemon runs as this user, which only root can order.
    pub user: Option<u32>,
    /// Webhooks are listened for.
    pub web: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            config: "reconcile_interval: 2\n".to_owned(),
            classes: "  - {name: small, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false}\n"
                .to_owned(),
            targets: "[{org: acme}]".to_owned(),
            bad_checksum: false,
            package: None,
            user: None,
            web: true,
        }
    }
}

impl Plan {
    pub fn with(config: &str) -> Plan {
        Plan { config: format!("{}{config}\n", Plan::default().config), ..Plan::default() }
    }
}

pub enum Host {
    Standin(LxdStandin),
    Real { socket: PathBuf },
}

/// Everything at work together.
pub struct Rig {
    // In the order in which they go: the daemon first.
    pub daemon: Daemon,
    pub lxd: Lxd,
    pub host: Host,
    pub insides: Insides,
    pub github: GitHubStandin,
    pub prefix: String,
    pub address: String,
    pub scratch: Scratch,
}

pub fn repo() -> RepoName {
    "acme/app".parse().unwrap()
}

impl Rig {
    /// With stand-ins for both sides.
    pub fn new(plan: Plan) -> Rig {
        Rig::prepared(plan, |_| {})
    }

    /// The same; `prepare` sees the stand-ins before the daemon starts.
    pub fn prepared(plan: Plan, prepare: impl FnOnce(&Before<'_>)) -> Rig {
        let scratch = Scratch::new();
        let insides = Insides::default();
        let host = farm::lxd_with(&scratch.0, &insides).unwrap();
        let github = GitHubStandin::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let socket = host.socket().to_owned();
        prepare(&Before { github: &github, lxd: Some(&host), insides: &insides });
        Rig::start(plan, scratch, insides, Host::Standin(host), github, &socket, farm::IMAGE)
    }

    /// On a real LXD, if there is one; where there must be one, its absence is a failure.
    pub fn real(plan: Plan) -> Option<Rig> {
        let (socket, image) = real_lxd()?;
        let scratch = Scratch::new();
        let bind = format!("{}:0", bridge_address(&Lxd::new(&socket)));
        let github = GitHubStandin::start(bind.parse().unwrap()).unwrap();
        let host = Host::Real { socket: socket.clone() };
        Some(Rig::start(plan, scratch, Insides::default(), host, github, &socket, &image))
    }

    fn start(
        plan: Plan,
        scratch: Scratch,
        insides: Insides,
        host: Host,
        github: GitHubStandin,
        socket: &Path,
        image: &str,
    ) -> Rig {
        github.add_org("acme");
        github.add_repo(&repo(), false);
        let offered = scratch.0.join("offered");
        std::fs::create_dir(&offered).unwrap();
        let built = plan.package.unwrap_or_else(|| package::build(&offered, "x64", package::VERSION).unwrap());
        let sum = if plan.bad_checksum { "0".repeat(64) } else { built.sha256 };
        github.offer(&built.path, "x64", Some(sum)).unwrap();
        let n = COUNT.fetch_add(1, Ordering::SeqCst);
        let prefix = format!("t{}-{n}", std::process::id());
        let tls = if plan.config.contains("web_tls") { "" } else { "web_tls: false\n" };
        let web = match plan.web {
            true => format!("hooksecret: {HOOK_SECRET}\nweb_host: 127.0.0.1\nweb_port: 0\n{tls}"),
            false => String::new(),
        };
        let config = format!(
            "{web}pat: {:?}\ngithub_api: {}\ntargets: {}\nsocket: {}\nprefix: {prefix}\n\
             cache_home: {}\n{}runnermap:\n{}",
            github.token().expose(),
            github.api(),
            plan.targets,
            socket.display(),
            scratch.0.join("cache").display(),
            plan.config,
            plan.classes.replace("IMAGE", image),
        );
        let path = scratch.0.join("config.yml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let lxd = Lxd::new(socket);
        let daemon = match plan.user {
            None => Daemon::start(&path),
            Some(user) => {
                let cache = scratch.0.join("cache");
                std::fs::create_dir(&cache).unwrap();
                for owned in [&path, &cache] {
                    std::os::unix::fs::chown(owned, Some(user), Some(user)).unwrap();
                }
                Daemon::start_as(user, &path)
            }
        };
        let mut rig = Rig { daemon, lxd, host, insides, github, prefix, address: String::new(), scratch };
        rig.find_address();
        rig
    }

    fn find_address(&mut self) {
        let line = self.daemon.wait(&["msg=\"lxdrunner is up\""]);
        let (_, rest) = line.split_once("listen=").unwrap();
        self.address = rest.split(' ').next().unwrap().to_owned();
        if self.address == "none" {
            return;
        }
        self.github.set_hook(&format!("http://{}/hooks/lxdrunner", self.address), HOOK_SECRET);
    }

    /// Starts the daemon again after a kill.
    pub fn restart(&mut self) {
        self.restart_with(Daemon::start);
    }

    /// The same, but the daemon is started by `start`, which gets the config's path.
    pub fn restart_with(&mut self, start: impl FnOnce(&Path) -> Daemon) {
        self.daemon.kill();
        self.daemon = start(&self.scratch.0.join("config.yml"));
        self.find_address();
    }

    pub fn standin(&self) -> &LxdStandin {
        match &self.host {
            Host::Standin(standin) => standin,
            Host::Real { .. } => panic!("this rig's LXD is real"),
        }
    }

    /// Lines that ask for attention, those about the rig's own config and image aside.
    pub fn complaints(&self) -> Vec<String> {
        let asks = |line: &String| line.contains(" WARN ") || line.contains(" ERROR ");
        let own =
            |line: &String| line.contains(" WARN  [lxdrunner] config ") || line.contains("msg=\"the image lacks ");
        self.daemon.log().into_iter().filter(|line| asks(line) && !own(line)).collect()
    }

    /// Queues a job; the webhook goes out by itself.
    pub fn queue(&self) -> JobId {
        self.github.queue(&repo(), JobSpec::new(&["self-hosted"]))
    }

    /// Waits until the job is over, and returns its conclusion.
    #[track_caller]
    pub fn wait_done(&self, job: JobId) -> String {
        let done = self.github.wait_for(PATIENCE, |state| {
            let job = state.jobs.get(&job)?;
            (job.stage == Stage::Completed).then(|| job.conclusion.unwrap_or("").to_owned())
        });
        done.unwrap_or_else(|| panic!("job {job} was not done:\n{}", self.daemon.log().join("\n")))
    }

    /// Names of our instances now.
    pub fn instances(&self) -> Vec<String> {
        self.lxd.instances("default", &self.prefix).unwrap().into_iter().map(|i| i.name).collect()
    }

    /// Names of the registrations now.
    pub fn registrations(&self) -> Vec<String> {
        self.github.with(|state| state.runners.values().map(|r| r.name.clone()).collect())
    }

    /// Waits until `test` holds of the instances.
    #[track_caller]
    pub fn wait_instances(&self, test: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let names = self.instances();
            if test(&names) {
                return names;
            }
            assert!(Instant::now() < deadline, "instances: {names:?}\n{}", self.daemon.log().join("\n"));
            // From outside, a listing is the only way to see it.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until neither an instance nor a registration of ours is left.
    #[track_caller]
    pub fn wait_nothing_left(&self) {
        let ours = format!("{}-", self.prefix);
        let gone = self
            .github
            .wait_for(PATIENCE, |state| (!state.runners.values().any(|r| r.name.starts_with(&ours))).then_some(()));
        assert!(gone.is_some(), "registrations: {:?}", self.registrations());
        self.wait_instances(|names| names.is_empty());
    }

    /// `GET /healthz`: the status and the body.
    pub fn health(&self) -> (u16, String) {
        self.get("/healthz")
    }

    /// Waits until healthz tells this.
    #[track_caller]
    pub fn wait_healthy(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.health().1.contains(part) {
            assert!(Instant::now() < deadline, "{}\n{}", self.health().1, self.daemon.log().join("\n"));
            // From outside, to ask is the only way to see it.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// GET of a path: the status and the whole answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// Sends this to the webhook port, and returns what comes back.
    pub fn send(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.daemon.child.kill();
        let _ = self.daemon.child.wait();
        if let Host::Real { .. } = self.host {
            for image in self.lxd.images("default").unwrap_or_default() {
                if image.properties.get(keys::OWNER) == Some(&self.prefix) {
                    let delete = self.lxd.delete_image("default", &image.fingerprint);
                    let _ = delete.and_then(|operation| self.lxd.wait(&operation, PATIENCE));
                }
            }
            // LXD refuses to remove what is about to start: it is asked again.
            for _ in 0..50 {
                let left = self.lxd.instances("default", &self.prefix).unwrap_or_default();
                if left.is_empty() {
                    return;
                }
                for name in left.into_iter().map(|i| i.name) {
                    let stop = self.lxd.set_state("default", &name, "stop", true);
                    let _ = stop.and_then(|operation| self.lxd.wait(&operation, PATIENCE));
                    let delete = self.lxd.delete("default", &name);
                    let _ = delete.and_then(|operation| self.lxd.wait(&operation, PATIENCE));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// The stand-ins before the daemon starts.
pub struct Before<'a> {
    pub github: &'a GitHubStandin,
    pub lxd: Option<&'a LxdStandin>,
    pub insides: &'a Insides,
}

fn bridge_address(lxd: &Lxd) -> String {
    let profile = lxd.profile("default", "default").unwrap().expect("a profile `default`");
    let network = profile.devices.values().find_map(|d| d.get("network").or(d.get("parent"))).expect("a nic");
    let network = lxd.network("default", network).unwrap().expect("a managed network");
    network.config.get("ipv4.address").expect("an address").split('/').next().unwrap().to_owned()
}
