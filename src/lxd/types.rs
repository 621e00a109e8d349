//! What LXD is asked for and what it answers, as the rest of the daemon knows it.

use std::fmt;

use crate::model::{ConfigMap, Devices, InstanceStatus, InstanceType, Product, Timestamp};
use crate::text::one_line;

/// What `GET /1.0` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// LXD or Incus.
    pub product: Product,
    /// For example `5.0.2`.
    pub version: String,
    /// False where the socket answers but does not trust us.
    pub trusted: bool,
    /// True for a member of a cluster.
    pub clustered: bool,
    /// API extensions that it has.
    pub extensions: Vec<String>,
    /// Whether it runs virtual machines; `None` where it does not say.
    pub virtual_machines: Option<bool>,
    /// Processors that it runs instances of, in LXD's words: `x86_64`, `aarch64`, …
    pub architectures: Vec<String>,
}

/// An instance, as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique in its project, and in the whole cluster.
    pub name: String,
    /// Where it belongs.
    pub project: String,
    /// Container or virtual machine.
    pub kind: InstanceType,
    /// How it was when it was looked at.
    pub status: InstanceStatus,
    /// True where LXD deletes it when it stops.
    pub ephemeral: bool,
    /// By the server's clock.
    pub created_at: Option<Timestamp>,
    /// The cluster member that it is on, empty where there is no cluster.
    pub location: String,
    /// Its own config keys, of those that users set (`user.…`) and two of LXD's: the image, and how the root's ids are shifted.
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
    Remote {
        /// Its base URL.
        server: String,
        /// `simplestreams` or `lxd`.
        protocol: String,
        /// The image's name there.
        alias: String,
    },
    /// A stopped instance of this server, by name.
    Copy(String),
}

/// What `POST /1.0/instances` is asked for.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// Letters, digits and hyphens, at most 63, a letter first, no hyphen last.
    pub name: String,
    /// Must be the image's kind.
    pub kind: InstanceType,
    /// Where its root comes from.
    pub source: Source,
    /// In order; later ones win. Together with `devices` they must give it a root disk.
    pub profiles: Vec<String>,
    /// Over the profiles'. **Readable from inside the instance.**
    pub config: ConfigMap,
    /// Over the profiles'.
    pub devices: Devices,
    /// True where LXD is to delete it when it stops.
    pub ephemeral: bool,
}

/// A command to be run in an instance, as root, without a terminal or standard input.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Program and arguments; no shell in between.
    pub command: Vec<String>,
    /// Never a secret: what LXD shows of it to others is out of our hands.
    pub environment: ConfigMap,
    /// Keep what it prints.
    pub record: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code; 126 and 127 like in a shell, 128 and a signal's number where one ended it.
    pub code: i64,
    /// At most the last 64 KiB of each; empty where nothing was recorded.
    pub stdout: String,
    /// LXD's own words where the command could not be started.
    pub stderr: String,
}

/// An asynchronous operation of the daemon, under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// LXD's UUID for it.
    pub id: String,
    /// What it does, for people: `create instance lxdrunner-7-1`.
    pub what: String,
    /// The number of the event stream that was listened to when it was begun, which will tell of its end; 0: none.
    pub stream: u64,
}

/// A call that failed: what was tried, on what, and what came back.
#[derive(Debug)]
pub struct Error {
    /// For people: `create instance lxdrunner-7-1`.
    pub tried: String,
    /// For code.
    pub kind: ErrorKind,
    /// LXD's own words, or the system's, and the fix where one is known.
    pub message: String,
    /// What went wrong underneath, where the daemon did not answer properly. Boxed, as it is the larger part.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without anything underneath.
    pub fn new(tried: impl Into<String>, kind: ErrorKind, message: impl Into<String>) -> Error {
        let (tried, message) = (one_line(tried.into()), one_line(message.into()));
        Error { tried, kind, message, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What kind of failure it was, for code to act on. Never matched on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing answers on the socket (missing, refused, not permitted), or the connection broke before the answer:
    /// then what was asked for may have been done.
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
    /// The operation is still under way, and made no progress for as long as it was given.
    Stalled,
    /// Something that is not HTTP or not LXD's JSON.
    Malformed,
    /// The content that was to be sent could not be read.
    Content,
}
