//! What the demo leaves on this machine while it runs, and its removal: at the end, on an error, and on Ctrl-C.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use lxdrunner::lxd::{self, Instance, Lxd};
use lxdrunner::model::{InstanceStatus, keys};

/// How long an instance may take to stop and to be deleted.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for LXD to begin with what it was asked for.
const BETWEEN_LISTINGS: Duration = Duration::from_millis(100);

/// Everything that must not outlive the demo. Dropping it tidies up.
pub struct Remains {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: String,
    directory: PathBuf,
    lxd: Mutex<Option<Arc<Lxd>>>,
    daemon: Mutex<Option<Arc<Mutex<Child>>>>,
    done: Mutex<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remains {
    /// Makes a directory that only we can enter, and begins to listen for Ctrl-C.
    pub fn prepare(prefix: &str) -> io::Result<Remains> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = std::env::temp_dir().join(format!("lxdrunner-{prefix}"));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let inner = Inner {
            prefix: prefix.to_owned(),
            directory,
            lxd: Mutex::default(),
            daemon: Mutex::default(),
            done: Mutex::default(),
        };
        let remains = Remains { inner: Arc::new(inner) };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let inner = Arc::clone(&remains.inner);
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                complain!("\nClearing everything away …");
                let left = inner.tidy();
                left.iter().for_each(|left| complain!("left behind: {left}"));
                if left.is_empty() {
                    complain!("Nothing is left.");
                }
                std::process::exit(128 + signal);
            }
        });
        Ok(remains)
    }

    /// Where files go.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Instances and images of ours in this LXD are removed.
    pub fn watch(&self, lxd: Arc<Lxd>) {
        *locked(&self.inner.lxd) = Some(lxd);
    }

    /// This daemon is ended.
    pub fn hold(&self, daemon: Arc<Mutex<Child>>) {
        *locked(&self.inner.daemon) = Some(daemon);
    }

    /// Removes everything; returns what could not be removed.
    pub fn tidy(&self) -> Vec<String> {
        self.inner.tidy()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        for left in self.inner.tidy() {
            complain!("left behind: {left}");
        }
    }
}

impl Inner {
    fn tidy(&self) -> Vec<String> {
        // Whoever comes second waits for the first.
        let mut done = locked(&self.done);
        if std::mem::replace(&mut *done, true) {
            return Vec::new();
        }
        let mut left = Vec::new();
        if let Some(daemon) = locked(&self.daemon).as_ref() {
            let mut daemon = locked(daemon);
            let ended = daemon.kill().and_then(|()| daemon.wait());
            left.extend(ended.err().map(|error| format!("the daemon, process {}: {error}", daemon.id())));
        }
        if let Some(lxd) = locked(&self.lxd).as_ref() {
            left.extend(self.remove_instances(lxd));
            left.extend(self.remove_images(lxd));
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            left.push(format!("{}: {error}", self.directory.display()));
        }
        left
    }

    /// Removes our instances until none is left. One that LXD is still making or starting cannot be removed yet, and one
    /// that the daemon asked for with its last breath appears a moment later.
    fn remove_instances(&self, lxd: &Lxd) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut none_left = 0;
        while none_left < 2 {
            let list = match lxd.instances("default", &self.prefix) {
                Ok(list) => list,
                Err(error) => return vec![format!("instances called {}-…, perhaps: {error}", self.prefix)],
            };
            let ours: Vec<Instance> =
                list.into_iter().filter(|i| i.config.get(keys::OWNER) == Some(&self.prefix)).collect();
            if Instant::now() > deadline {
                return ours.iter().map(|instance| format!("instance {}", instance.name)).collect();
            }
            none_left = if ours.is_empty() { none_left + 1 } else { 0 };
            // Whatever fails here is tried again; what counts is that it is gone in the end.
            for instance in &ours {
                if instance.status != InstanceStatus::Stopped {
                    let stop = lxd.set_state("default", &instance.name, "stop", true);
                    let _ = stop.and_then(|operation| lxd.wait(&operation, PATIENCE));
                }
                let delete = lxd.delete("default", &instance.name);
                let _ = delete.and_then(|operation| lxd.wait(&operation, PATIENCE));
            }
            std::thread::sleep(BETWEEN_LISTINGS);
        }
        Vec::new()
    }

    /// Removes our templates where they are images.
    fn remove_images(&self, lxd: &Lxd) -> Vec<String> {
        let images = match lxd.images("default") {
            Ok(images) => images,
            Err(error) => return vec![format!("images called {}-…, perhaps: {error}", self.prefix)],
        };
        let ours = images.into_iter().filter(|image| image.properties.get(keys::OWNER) == Some(&self.prefix));
        let remove = |image: lxd::Image| {
            let removed = lxd.delete_image("default", &image.fingerprint);
            let error = removed.and_then(|operation| lxd.wait(&operation, PATIENCE)).err()?;
            Some(format!("image {}: {error}", image.fingerprint))
        };
        ours.filter_map(remove).collect()
    }
}

/// Writes a file that only we can read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
