//! Both stand-ins together: what the daemon's scripts do inside an instance of the LXD stand-in, down to a runner that
//! talks to the GitHub stand-in.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::github::SimulatedRunner;
use super::github::simulate::{Orders, Progress};
use super::lxd::{ExecOutcome, ImageEntry, InstanceView, LxdStandin, Options};
use lxdrunner::model::ConfigMap;

/// The image of a container in the LXD stand-in here.
pub const IMAGE: &str = "standin";
/// The image of a virtual machine.
pub const VM_IMAGE: &str = "standin-vm";

/// What the daemon's start script waits for.
const CREDENTIALS: &str = "/run/lxdrunner/credentials";
/// Where the set-up script writes what it says.
const SETUP_LOG: &str = "/var/log/lxdrunner-setup.log";

/// How the set-up script behaves.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Setup {
    /// It does its work.
    #[default]
    Works,
    /// It ends with this code after this output.
    Fails(i64, String),
    /// It prints so many lines, each when the one before was read, and then works.
    Slow(u32),
    /// It prints this and does not end before its instance does.
    Hangs(String),
}

/// What the instances' insides are like, to be changed while they run.
#[derive(Clone, Default)]
pub struct Insides {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    setup: Setup,
    baking: Setup,
    sealing: String,
    orders: Orders,
    mute: bool,
    unreached: String,
    runners: BTreeMap<String, Arc<SimulatedRunner>>,
}

impl Insides {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How set-up scripts of runners' own instances behave from now on.
    pub fn set_setup(&self, setup: Setup) {
        self.lock().setup = setup;
    }

    /// How they behave while a template is baked.
    pub fn set_baking(&self, setup: Setup) {
        self.lock().baking = setup;
    }

    /// What the script says that seals a template.
    pub fn set_sealing(&self, says: &str) {
        says.clone_into(&mut self.lock().sealing);
    }

    /// Whether jobs of runners that start from now on last until [`SimulatedRunner::let_finish`].
    pub fn hold_jobs(&self, hold: bool) {
        self.lock().orders.hold_job = hold;
    }

    /// Whether runners that start from now on have no worker for the job that they acquire, until
    /// [`SimulatedRunner::let_work`].
    pub fn hold_workers(&self, hold: bool) {
        self.lock().orders.hold_worker = hold;
    }

    /// Whether listeners that start from now on stay when they should end: after their job, or without a registration.
    pub fn hang_runners(&self, hang: bool) {
        self.lock().orders.hang = hang;
    }

    /// Whether runners that start from now on never come online.
    pub fn mute_runners(&self, mute: bool) {
        self.lock().mute = mute;
    }

    /// Why instances that are armed from now on do not reach GitHub; empty: they do.
    pub fn set_unreached(&self, why: &str) {
        self.lock().unreached = why.to_owned();
    }

    /// The runner in an instance.
    pub fn runner(&self, instance: &str) -> Option<Arc<SimulatedRunner>> {
        self.lock().runners.get(instance).cloned()
    }

    /// What an executed command does.
    fn execute(&self, view: &InstanceView, command: &[String], environment: &ConfigMap) -> ExecOutcome {
        match command.first().map(String::as_str) {
            Some("/opt/lxdrunner/setup-runner.sh") => self.set_up(view, environment),
            Some("/opt/lxdrunner/seal-template.sh") => {
                ExecOutcome { stdout: self.lock().sealing.clone(), ..ExecOutcome::code(0) }
            }
            Some("/opt/lxdrunner/setup-before.sh" | "/opt/lxdrunner/setup-after.sh") => ExecOutcome::code(0),
            Some("/opt/lxdrunner/start-runner.sh") if command.get(1).is_some_and(|word| word != "arm") => {
                ExecOutcome::code(0)
            }
            Some("/opt/lxdrunner/start-runner.sh") if command.get(1).is_some_and(|word| word == "arm") => {
                self.arm(view)
            }
            Some("sh") if command.iter().any(|word| word.contains("Runner[.]Worker")) => {
                let working = self.runner(view.name()).is_some_and(|r| r.progress() == Progress::Working);
                ExecOutcome::code(i64::from(!working))
            }
            Some("/opt/lxdrunner/start-runner.sh") if command.get(1).is_some_and(|word| word == "settle") => {
                ExecOutcome::code(0)
            }
            // A virtual machine's clock is set.
            Some("date") => ExecOutcome::code(0),
            _ => ExecOutcome::not_found(),
        }
    }

    fn set_up(&self, view: &InstanceView, environment: &ConfigMap) -> ExecOutcome {
        for file in ["/opt/lxdrunner/setup-runner.sh", "/opt/lxdrunner/package.tar.gz"] {
            if view.read_file(file).is_none() {
                return ExecOutcome { stdout: format!("no {file}\n"), ..ExecOutcome::code(1) };
            }
        }
        let baking = environment.contains_key("LXDRUNNER_BAKING");
        let setup = if baking { self.lock().baking.clone() } else { self.lock().setup.clone() };
        match setup {
            Setup::Slow(lines) if !(0..lines).all(|_| view.print("unpacking\n")) => ExecOutcome::code(137),
            Setup::Works | Setup::Slow(_) => {
                view.write_file("/opt/lxdrunner/runner/run.sh", b"");
                ExecOutcome { stdout: "ready\n".to_owned(), ..ExecOutcome::code(0) }
            }
            Setup::Fails(code, stdout) => {
                view.write_file(SETUP_LOG, stdout.as_bytes());
                ExecOutcome { stdout, ..ExecOutcome::code(code) }
            }
            Setup::Hangs(printed) => {
                view.print(&printed);
                view.wait_for_stop();
                ExecOutcome::code(137)
            }
        }
    }

    /// Leaves a part waiting for the credentials.
    fn arm(&self, view: &InstanceView) -> ExecOutcome {
        if view.read_file("/opt/lxdrunner/runner/run.sh").is_none() {
            return ExecOutcome { stdout: "no run.sh\n".to_owned(), ..ExecOutcome::code(1) };
        }
        let why = self.lock().unreached.clone();
        if !why.is_empty() {
            return ExecOutcome { stdout: format!("lxdrunner-start: 1.00 FAILED: {why}\n"), ..ExecOutcome::code(113) };
        }
        view.write_file("/run/lxdrunner/ready", b"");
        let (insides, waiting) = (self.clone(), view.clone());
        let waits = spawn("standin-armed", move || {
            if let Some(document) = waiting.wait_for_file(CREDENTIALS) {
                waiting.remove_file(CREDENTIALS);
                if insides.start(&waiting, &String::from_utf8_lossy(&document)).is_none() {
                    waiting.power_off();
                }
            }
        });
        ExecOutcome::code(i64::from(waits.is_err()))
    }

    /// Starts a runner with what was handed over; `None` where that is no JIT config.
    fn start(&self, view: &InstanceView, document: &str) -> Option<()> {
        let field = |name: &str| document.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        if document.lines().last() != Some("end") || field("kind") != Some("jit") {
            return None;
        }
        if self.lock().mute {
            view.wait_for_stop();
            return Some(());
        }
        let orders = self.lock().orders;
        let runner = SimulatedRunner::start_with(field("secret")?, orders).map(Arc::new).ok()?;
        self.lock().runners.insert(view.name().to_owned(), Arc::clone(&runner));
        // The runner's end is the instance's, and the other way round.
        let (inside, outside) = (view.clone(), view.clone());
        let watched = Arc::clone(&runner);
        let ends = spawn("standin-power-off", move || {
            while runner.wait(Duration::from_secs(3600)).is_none() {}
            inside.power_off();
        });
        let killed = spawn("standin-power-cut", move || {
            outside.wait_for_stop();
            watched.kill();
        });
        ends.and(killed).ok()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(work).map(drop)
}

/// An LXD stand-in whose instances run simulated runners.
pub fn lxd(directory: &Path) -> io::Result<LxdStandin> {
    lxd_with(directory, &Insides::default())
}

/// The same, with a hand on what goes on inside.
pub fn lxd_with(directory: &Path, insides: &Insides) -> io::Result<LxdStandin> {
    let insides = insides.clone();
    let options = Options {
        images: vec![ImageEntry::container(IMAGE), ImageEntry::virtual_machine(VM_IMAGE)],
        exec: Box::new(move |view, command, environment| insides.execute(view, command, environment)),
        ..Options::default()
    };
    LxdStandin::start_with(directory, options)
}
