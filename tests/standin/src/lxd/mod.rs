//! A stand-in for LXD: the real wire protocol over a unix socket, everything behind it in memory.
//!
//! It follows LXD 5.0.2 where it was tried (`tests/lxd_contract.rs` runs the same cases against both), quirks
//! included: a name that is taken fails in the operation, `start: true` is ignored, a listing of an unknown project is
//! empty. What an executed command does is told by a hook, and any call can be made to fail.

mod answer;
mod events;
mod exec;
mod faults;
mod files;
mod images;
mod instances;
mod objects;
mod operations;
mod server;
mod state;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use exec::{ExecHook, ExecOutcome, InstanceView};
pub use faults::{Call, Fault, Faults};
use server::Shared;
use state::State;
pub use state::{Download, ImageEntry, NetworkEntry, ProfileEntry};

use lxdrunner::model::Timestamp;

/// What the stand-in is like from its start. All but the hook can be changed while it runs.
pub struct Options {
    /// `lxd`, or `incus`, which names its headers otherwise.
    pub product: String,
    /// What it says of itself.
    pub version: String,
    /// It starts what it creates where it is asked to, and says that it does. 5.0 does not.
    pub starts_at_creation: bool,
    /// It is the one member, `standin`, of a cluster.
    pub clustered: bool,
    /// How long a start takes.
    pub start_delay: Duration,
    /// Creating fails for want of space.
    pub pool_full: bool,
    /// How many looks at a started virtual machine's state find its agent not yet there.
    pub agent_polls: u32,
    /// Images of the server; an image server's are the same ones.
    pub images: Vec<ImageEntry>,
    /// What executed commands do; without a hook every command succeeds silently.
    pub exec: Box<ExecHook>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            product: "lxd".to_owned(),
            version: "5.0.2".to_owned(),
            starts_at_creation: false,
            clustered: false,
            start_delay: Duration::ZERO,
            pool_full: false,
            agent_polls: 1,
            images: vec![ImageEntry::container("dev")],
            exec: Box::new(|_, _, _| ExecOutcome::code(0)),
        }
    }
}

/// A running stand-in. Dropping it ends its threads and closes its connections.
pub struct LxdStandin {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl LxdStandin {
    /// Listens on `unix.socket` in `dir`, as a server with one image (`dev`), one pool (`default`), one bridge
    /// (`lxdbr0`) and one profile (`default`) that joins them.
    ///
    /// # Errors
    /// When the socket cannot be made (its path may have a hundred bytes or so).
    pub fn start(dir: impl AsRef<Path>) -> io::Result<LxdStandin> {
        LxdStandin::start_with(dir, Options::default())
    }

    /// The same, with other circumstances.
    ///
    /// # Errors
    /// As above.
    pub fn start_with(dir: impl AsRef<Path>, options: Options) -> io::Result<LxdStandin> {
        let socket = dir.as_ref().join("unix.socket");
        let shared = Arc::new(Shared::new(options));
        let accepting = server::listen(&socket, &shared)?;
        Ok(LxdStandin { socket, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What goes wrong, and which calls were made.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Names of the instances of a project.
    pub fn instance_names(&self, project: &str) -> Vec<String> {
        let state = self.shared.lock();
        let of_project = state.instances.keys().filter(|(p, _)| p == project);
        of_project.map(|(_, name)| name.clone()).collect()
    }

    /// Waits until `wanted` holds for the names of a project's instances; false where it does not within `patience`.
    pub fn wait_until(&self, project: &str, patience: Duration, mut wanted: impl FnMut(&[String]) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let of_project = state.instances.keys().filter(|(p, _)| p == project);
            let names: Vec<String> = of_project.map(|(_, name)| name.clone()).collect();
            if wanted(&names) {
                return true;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            state = self.shared.wait(state, rest);
        }
    }

    /// A look into an instance; `None` where there is none.
    pub fn instance(&self, project: &str, name: &str) -> Option<InstanceView> {
        InstanceView::of(&self.shared, project, name)
    }

    /// Makes an instance older or younger than it is.
    pub fn set_created_at(&self, project: &str, name: &str, created_at: Timestamp) {
        self.change(|state| {
            if let Some(instance) = state.instance_mut(project, name) {
                instance.created_at = created_at;
            }
        });
    }

    /// From here on it starts what it creates where it is asked to, as servers later than 5.0 do, or does not.
    pub fn set_starts_at_creation(&self, starts: bool) {
        self.shared.lock().starts_at_creation = starts;
    }

    /// From here on it says that it is `lxd` or `incus`.
    pub fn set_product(&self, product: &str) {
        self.change(|state| state.product = product.to_owned());
    }

    /// From here on it is the one member of a cluster, or is none.
    pub fn set_clustered(&self, clustered: bool) {
        self.shared.lock().clustered = clustered;
    }

    /// The images, in the order in which they came.
    pub fn images(&self) -> Vec<ImageEntry> {
        self.shared.lock().images.clone()
    }

    /// From here on it says that it runs virtual machines, or does not.
    pub fn set_virtual_machines(&self, runs: bool) {
        self.change(|state| state.virtual_machines = runs);
    }

    /// Fills or empties the storage pool.
    pub fn set_pool_full(&self, full: bool) {
        self.change(|state| state.pool_full = full);
    }

    /// Adds a storage pool with that driver.
    pub fn add_pool(&self, name: &str, driver: &str) {
        self.change(|state| drop(state.pools.insert(name.to_owned(), driver.to_owned())));
    }

    /// Makes the agents of virtual machines that are started next come after that many looks.
    pub fn set_agent_polls(&self, polls: u32) {
        self.change(|state| state.agent_polls = polls);
    }

    /// Makes the next starts take that long.
    pub fn set_start_delay(&self, delay: Duration) {
        self.change(|state| state.start_delay = delay);
    }

    /// Adds an image.
    pub fn add_image(&self, image: ImageEntry) {
        self.change(|state| state.images.push(image));
    }

    /// Adds an image to what can be fetched of image servers.
    pub fn serve_image(&self, image: ImageEntry) {
        self.change(|state| state.served.push(image));
    }

    /// How images are downloaded from now on.
    pub fn set_downloads(&self, downloads: Download) {
        self.change(|state| state.downloads = downloads);
    }

    /// Removes an image by its alias.
    pub fn remove_image(&self, alias: &str) {
        self.change(|state| state.images.retain(|image| image.alias != alias));
    }

    /// Adds a profile, or replaces one.
    pub fn add_profile(&self, name: &str, profile: ProfileEntry) {
        self.change(|state| drop(state.profiles.insert(name.to_owned(), profile)));
    }

    /// Removes a profile.
    pub fn remove_profile(&self, name: &str) {
        self.change(|state| drop(state.profiles.remove(name)));
    }

    /// Adds a network, or replaces one.
    pub fn add_network(&self, name: &str, network: NetworkEntry) {
        self.change(|state| drop(state.networks.insert(name.to_owned(), network)));
    }

    /// Adds a project, which shares the default one's images, profiles and networks.
    pub fn add_project(&self, name: &str) {
        self.change(|state| {
            state.projects.insert(name.to_owned());
        });
    }

    /// Closes every connection, as a daemon's restart does; it goes on listening, and keeps its state.
    pub fn close_connections(&self) {
        self.shared.close_connections();
    }

    /// The host loses power and boots: connections and operations end, instances stop or start again as LXD has it.
    pub fn lose_power(&self) {
        self.change(State::reboot);
        self.shared.close_connections();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for LxdStandin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
        self.shared.close_connections();
        // The accepting thread sleeps in `accept` until somebody comes. Where the socket's file is gone already nobody
        // can, and the thread stays asleep.
        let woken = std::os::unix::net::UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.accepting.take().filter(|_| woken) {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}
