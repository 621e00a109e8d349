//! Typed calls of LXD's REST API, those that we use.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{ConfigMap, Devices, InstanceType, Timestamp};

/// A client of one LXD daemon. Cheap to share between threads; it holds idle connections only.
#[derive(Debug)]
pub struct Lxd {
    socket: PathBuf,
}

/// What `GET /1.0` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `lxd` or `incus`.
    pub product: String,
    /// For example `5.0.2`.
    pub version: String,
    /// False where the socket answers but does not trust us.
    pub trusted: bool,
    /// True for a member of a cluster.
    pub clustered: bool,
    /// API extensions that it has.
    pub extensions: Vec<String>,
}

/// An instance's status, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceStatus {
    Running,
    Stopped,
    Frozen,
    /// Starting, stopping, error, and whatever else LXD may say.
    Other,
}

/// An instance, as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub name: String,
    pub project: String,
    pub kind: InstanceType,
    pub status: InstanceStatus,
    pub ephemeral: bool,
    pub created_at: Option<Timestamp>,
    /// The cluster member that it is on, empty where there is no cluster.
    pub location: String,
    /// Its own config keys.
    pub config: ConfigMap,
}

/// Where an instance's root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image of this server, by alias.
    Alias(String),
    /// An image of this server, by fingerprint.
    Fingerprint(String),
    /// An image of an image server.
    Remote { server: String, protocol: String, alias: String },
}

/// What `POST /1.0/instances` is asked for.
#[derive(Clone, Debug)]
pub struct NewInstance {
    pub name: String,
    pub kind: InstanceType,
    pub source: Source,
    pub profiles: Vec<String>,
    pub config: ConfigMap,
    pub devices: Devices,
    pub ephemeral: bool,
}

/// A command to be run in an instance, as root, without a terminal or standard input.
#[derive(Clone, Debug)]
pub struct Exec {
    pub command: Vec<String>,
    /// Never a secret: LXD shows it in its operations.
    pub environment: ConfigMap,
    /// Keep what it prints.
    pub record: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    pub code: i64,
    /// At most the last 64 KiB of each; empty where nothing was recorded.
    pub stdout: String,
    pub stderr: String,
}

/// An asynchronous operation of the daemon, under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub id: String,
}

/// A call that failed: what was tried, on what, and what came back.
#[derive(Debug)]
pub struct Error {
    /// For people: `create instance lxdrunner-7-1`.
    pub tried: String,
    pub kind: ErrorKind,
    /// LXD's own words, or the system's.
    pub message: String,
}

/// What kind of failure it was, for code to act on. Never matched on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing answers on the socket: missing, refused, or not permitted.
    Unreachable,
    /// 401, 403: it answers, but not to us.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: the name is taken, or the object is busy.
    Conflict,
    /// 412: somebody was there before.
    PreconditionFailed,
    /// Any other refusal with an HTTP status (400, 500, …).
    Refused(u16),
    /// The operation was accepted and ended in failure.
    OperationFailed,
    /// The deadline passed.
    Timeout,
    /// Something that is not HTTP or not LXD's JSON.
    Malformed,
}

impl Lxd {
    /// A client of the daemon behind `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Lxd {
        Lxd { socket: socket.into() }
    }
    pub fn socket(&self) -> &Path {
        &self.socket
    }
    pub fn server(&self) -> Result<Server, Error> {
        unimplemented!()
    }
    /// All instances of `project` whose config has the key `owner_key`=`owner` (filtered here if the server cannot).
    pub fn instances(&self, project: &str, owner: &str) -> Result<Vec<Instance>, Error> {
        unimplemented!()
    }
    /// One instance and its ETag; `None` where there is none.
    pub fn instance(&self, project: &str, name: &str) -> Result<Option<(Instance, String)>, Error> {
        unimplemented!()
    }
    /// `target` is a cluster member, `@group`, or empty.
    pub fn create(&self, project: &str, target: &str, new: &NewInstance) -> Result<Operation, Error> {
        unimplemented!()
    }
    /// Merges `config` into the instance's own. 412 where `etag` is given and stale.
    pub fn patch_config(&self, project: &str, name: &str, config: &ConfigMap, etag: Option<&str>) -> Result<(), Error> {
        unimplemented!()
    }
    /// `start`, `stop`, `freeze`, `unfreeze`.
    pub fn set_state(&self, project: &str, name: &str, action: &str, force: bool) -> Result<Operation, Error> {
        unimplemented!()
    }
    /// How many processes run in it; -1 where a virtual machine's agent does not answer yet.
    pub fn processes(&self, project: &str, name: &str) -> Result<i64, Error> {
        unimplemented!()
    }
    pub fn delete(&self, project: &str, name: &str) -> Result<Operation, Error> {
        unimplemented!()
    }
    /// Waits for the operation's end on the daemon's side, no longer than `timeout`.
    pub fn wait(&self, operation: &Operation, timeout: Duration) -> Result<(), Error> {
        unimplemented!()
    }
    /// Runs a command and waits for its end, no longer than `timeout`.
    pub fn exec(&self, project: &str, name: &str, exec: &Exec, timeout: Duration) -> Result<ExecResult, Error> {
        unimplemented!()
    }
    pub fn make_directory(&self, project: &str, name: &str, path: &str, mode: u32) -> Result<(), Error> {
        unimplemented!()
    }
    /// Streams `length` bytes of `content` into a file, owned by root.
    pub fn push_file(
        &self,
        project: &str,
        name: &str,
        path: &str,
        mode: u32,
        content: &mut dyn Read,
        length: u64,
        timeout: Duration,
    ) -> Result<(), Error> {
        unimplemented!()
    }
    /// At most `limit` bytes from the end of a file in the instance; `None` where there is none.
    pub fn pull_file_tail(&self, project: &str, name: &str, path: &str, limit: usize) -> Result<Option<String>, Error> {
        unimplemented!()
    }
    /// The fingerprint behind an alias.
    pub fn image_alias(&self, project: &str, alias: &str) -> Result<Option<String>, Error> {
        unimplemented!()
    }
}
