//! Both stand-ins together: what the daemon's scripts do inside an instance of the LXD stand-in, down to a runner that
//! talks to the GitHub stand-in.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::github::SimulatedRunner;
use super::github::simulate::Progress;
use super::lxd::{ExecOutcome, ImageEntry, InstanceView, LxdStandin, Options};
use crate::model::ConfigMap;

/// The image of a container in the LXD stand-in here.
pub const IMAGE: &str = "standin";
/// The image of a virtual machine.
pub const VM_IMAGE: &str = "standin-vm";

/// How the set-up script behaves.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Setup {
    /// It does its work.
    #[default]
    Works,
    /// It ends with this code after this output.
    Fails(i64, String),
    /// It does not end before its instance does; its log so far.
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
    hold: bool,
    runners: BTreeMap<String, Arc<SimulatedRunner>>,
}

impl Insides {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How set-up scripts behave from now on.
    pub fn set_setup(&self, setup: Setup) {
        self.lock().setup = setup;
    }

    /// Whether jobs of runners that start from now on last until [`SimulatedRunner::let_finish`].
    pub fn hold_jobs(&self, hold: bool) {
        self.lock().hold = hold;
    }

    /// The runner in an instance.
    pub fn runner(&self, instance: &str) -> Option<Arc<SimulatedRunner>> {
        self.lock().runners.get(instance).cloned()
    }

    /// What an executed command does.
    fn execute(&self, view: &InstanceView, command: &[String], environment: &ConfigMap) -> ExecOutcome {
        match command.first().map(String::as_str) {
            Some("/opt/lxdrunner/setup-runner.sh") => self.set_up(view),
            Some("/opt/lxdrunner/start-runner.sh") => self.start(view, environment),
            Some("sh") if command.iter().any(|word| word.contains("Runner[.]Worker")) => {
                let working = self.runner(view.name()).is_some_and(|r| r.progress() == Progress::Working);
                ExecOutcome::code(i64::from(!working))
            }
            _ => ExecOutcome::not_found(),
        }
    }

    fn set_up(&self, view: &InstanceView) -> ExecOutcome {
        for file in ["/opt/lxdrunner/setup-runner.sh", "/opt/lxdrunner/package.tar.gz"] {
            if view.read_file(file).is_none() {
                return ExecOutcome { stdout: format!("no {file}\n"), ..ExecOutcome::code(1) };
            }
        }
        let setup = self.lock().setup.clone();
        match setup {
            Setup::Works => {
                view.write_file("/run/lxdrunner/.here", b"");
                ExecOutcome { stdout: "ready\n".to_owned(), ..ExecOutcome::code(0) }
            }
            Setup::Fails(code, stdout) => ExecOutcome { stdout, ..ExecOutcome::code(code) },
            Setup::Hangs(log) => {
                view.write_file("/var/log/lxdrunner-setup.log", log.as_bytes());
                view.wait_for_stop();
                ExecOutcome::code(137)
            }
        }
    }

    fn start(&self, view: &InstanceView, environment: &ConfigMap) -> ExecOutcome {
        let secret = view.read_file("/run/lxdrunner/secret");
        view.remove_file("/run/lxdrunner/secret");
        let jit = environment.get("LXDRUNNER_REGISTRATION").is_some_and(|kind| kind == "jit");
        let (Some(secret), true) = (secret.and_then(|s| String::from_utf8(s).ok()), jit) else {
            return ExecOutcome { stdout: "no JIT config\n".to_owned(), ..ExecOutcome::code(1) };
        };
        let hold = self.lock().hold;
        let start = if hold { SimulatedRunner::start_and_hold } else { SimulatedRunner::start };
        let Ok(runner) = start(&secret).map(Arc::new) else { return ExecOutcome::code(1) };
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
        match ends.and(killed) {
            Ok(()) => ExecOutcome::code(0),
            Err(_) => ExecOutcome::code(1),
        }
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
