//! The floor: the bare API calls that a start cannot do without, made by a loop of a few lines, and after them the same
//! first line of the same runner package that the daemon's runners are measured by.
//!
//! The command waits for a default route and a name server before the first line, since no runner may start without:
//! it would wait half a minute after its first call failed.

use std::fs::File;
use std::time::Duration;

use lxdrunner::lxd::Operation;
use lxdrunner::lxd::{Exec, Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, InstanceType, Timestamp, keys};

const PROJECT: &str = "default";
const PATIENCE: Duration = Duration::from_secs(120);
/// The first line of the runner package as its user, once there is a network; it prints when it was.
const BEGIN: &str = "cd /opt/lxdrunner/runner; \
    until grep -q '^[^\t]*\t00000000\t' /proc/net/route && grep -q ^nameserver /etc/resolv.conf; do sleep 0.01; done; \
    exec setpriv --reuid=runner --regid=runner --init-groups env LXDRUNNER_STANDIN_ONLY_BEGIN=1 ./run.sh";
/// What makes a runner of a package, at the least.
const SET_UP: &str = "mkdir -p /opt/lxdrunner/runner; useradd --create-home --user-group runner; \
    tar -xzof /opt/lxdrunner/package.tar.gz -C /opt/lxdrunner/runner; chown -R runner:runner /opt/lxdrunner/runner; ";

/// Makes the calls.
pub struct Floor<'a> {
    pub lxd: &'a Lxd,
    pub image: String,
    pub prefix: String,
    /// The package that is pushed.
    pub package: std::path::PathBuf,
}

impl Floor<'_> {
    fn wait(&self, operation: &Operation) {
        self.lxd.wait(operation, PATIENCE).unwrap();
    }

    fn power(&self, name: &str, action: &str) {
        self.wait(&self.lxd.set_state(PROJECT, name, action, true).unwrap());
    }

    /// Runs a command in it; the number that it prints last: nanoseconds since 1970.
    fn exec(&self, name: &str, script: &str) -> u64 {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let exec = Exec { command, environment: ConfigMap::new(), record: true };
        let result = self.lxd.exec(PROJECT, name, &exec, PATIENCE).unwrap();
        let last = result.stdout.lines().last().and_then(|line| line.parse().ok());
        last.unwrap_or_else(|| panic!("{name}: {result:?}"))
    }

    fn create(&self, name: &str, source: Source) {
        // A copy must not be taken for the daemon's own: it would have its keys.
        let keys = [keys::OWNER, keys::PHASE, keys::CLASS, keys::TEMPLATE, keys::DAEMON];
        let new = NewInstance {
            name: name.to_owned(),
            kind: InstanceType::Container,
            source,
            profiles: vec!["default".to_owned()],
            config: keys.map(|key| (key.to_owned(), String::new())).into(),
            devices: Default::default(),
            ephemeral: true,
        };
        self.wait(&self.lxd.create(PROJECT, "", &new).unwrap());
    }

    fn copy(&self, template: &str, name: &str) {
        self.create(name, Source::Copy(template.to_owned()));
    }

    pub fn remove(&self, name: &str) {
        self.power(name, "stop");
        if let Ok(operation) = self.lxd.delete(PROJECT, name) {
            let _ = self.lxd.wait(&operation, PATIENCE);
        }
    }

    /// Milliseconds from before the first call to the first line.
    pub fn template(&self, template: &str, n: usize) -> f64 {
        let name = format!("{}-t{n}", self.prefix);
        let begun = now();
        self.copy(template, &name);
        self.power(&name, "start");
        let took = since(begun, self.exec(&name, BEGIN));
        self.remove(&name);
        took
    }

    pub fn standby(&self, template: &str, n: usize) -> f64 {
        let name = format!("{}-s{n}", self.prefix);
        self.copy(template, &name);
        self.power(&name, "start");
        self.exec(&name, BEGIN);
        self.power(&name, "freeze");
        let begun = now();
        self.power(&name, "unfreeze");
        let took = since(begun, self.exec(&name, BEGIN));
        self.remove(&name);
        took
    }

    pub fn image(&self, n: usize) -> f64 {
        let name = format!("{}-i{n}", self.prefix);
        let begun = now();
        self.create(&name, Source::Alias(self.image.clone()));
        self.lxd.make_directory(PROJECT, &name, "/opt/lxdrunner", 0o755).unwrap();
        let mut package = File::open(&self.package).unwrap();
        let length = package.metadata().unwrap().len();
        let path = "/opt/lxdrunner/package.tar.gz";
        self.power(&name, "start");
        self.lxd.push_file(PROJECT, &name, path, 0o644, &mut package, length, PATIENCE).unwrap();
        let took = since(begun, self.exec(&name, &format!("{SET_UP}{BEGIN}")));
        self.remove(&name);
        took
    }

    /// From before the first call to the last first line of so many starts, `at_once` of them at a time. Nothing is
    /// removed before the last one began.
    pub fn burst(&self, template: &str, count: usize, at_once: usize, round: usize) -> f64 {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let begun = now();
        let last = std::thread::scope(|scope| {
            let worker = || {
                let mut last = 0;
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if n >= count {
                        return last;
                    }
                    let name = format!("{}-b{round}-{n}", self.prefix);
                    self.copy(template, &name);
                    self.power(&name, "start");
                    last = last.max(self.exec(&name, BEGIN));
                }
            };
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
        });
        (0..count).for_each(|n| self.remove(&format!("{}-b{round}-{n}", self.prefix)));
        since(begun, last)
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// Milliseconds from then to the moment that a command printed.
fn since(begun: Timestamp, nanos: u64) -> f64 {
    nanos as f64 / 1e6 - begun.0 as f64
}
