//! Types of LXD's requests and answers.

use std::fmt;

use crate::model::{ConfigMap, Devices, InstanceStatus, InstanceType, Product, Timestamp};
use crate::text::one_line;

/// The answer to `GET /1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// LXD or Incus.
    pub product: Product,
    /// For example `5.0.2`.
    pub version: String,
    /// False if the server answers but does not trust this client.
    pub trusted: bool,
    /// True for a member of a cluster.
    pub clustered: bool,
    /// API extensions that it has.
    pub extensions: Vec<String>,
    /// Whether it runs virtual machines; `None` if unknown.
    pub virtual_machines: Option<bool>,
    /// Processors that it runs instances of, in LXD's words: `x86_64`, `aarch64`, …
    pub architectures: Vec<String>,
}

/// An instance, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique in its project, and in the whole cluster.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Container or virtual machine.
    pub kind: InstanceType,
    /// Its status at the look.
    pub status: InstanceStatus,
    /// True if LXD deletes it when it stops.
    pub ephemeral: bool,
    /// By the server's clock.
    pub created_at: Option<Timestamp>,
    /// The cluster member that it is on; empty without a cluster.
    pub location: String,
    /// Its own config keys of the form `user.…`, and two of LXD's: the image, and the id mapping of the root.
    pub config: ConfigMap,
}

/// The source of an instance's root.
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

/// A request to `POST /1.0/instances`.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// Letters, digits and hyphens, at most 63, a letter first, no hyphen last.
    pub name: String,
    /// Must be the image's kind.
    pub kind: InstanceType,
    /// The source of its root.
    pub source: Source,
    /// In order; later ones win. Together with `devices` they must give it a root disk.
    pub profiles: Vec<String>,
    /// Over the profiles'. **Readable from inside the instance.**
    pub config: ConfigMap,
    /// Over the profiles'.
    pub devices: Devices,
    /// True if LXD is to delete it when it stops.
    pub ephemeral: bool,
}

/// A command to be run in an instance, as root, without a terminal or standard input.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Program and arguments; no shell in between.
    pub command: Vec<String>,
    /// Never a secret: LXD may show it to others.
    pub environment: ConfigMap,
    /// Record its output.
    pub record: bool,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code; 126 and 127 as in a shell, 128 plus the signal's number after a signal.
    pub code: i64,
    /// At most the last 64 KiB of each; empty without recording.
    pub stdout: String,
    /// LXD's message if the command could not be started.
    pub stderr: String,
}

/// An asynchronous operation of the daemon, under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// LXD's UUID for it.
    pub id: String,
    /// What it does, for people: `create instance lxdrunner-7-1`.
    pub what: String,
    /// The number of the event stream that was open when it began, and reports its end; 0: none.
    pub stream: u64,
}

/// A call that failed: what was tried, on what, and what came back.
#[derive(Debug)]
pub struct Error {
    /// For people: `create instance lxdrunner-7-1`.
    pub tried: String,
    /// For code.
    pub kind: ErrorKind,
    /// LXD's message or the system's, and the fix if one is known.
    pub message: String,
    /// The cause, if the daemon did not answer properly. Boxed for its size.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
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

/// The kind of a failure, for code to act on. Texts are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing answers on the socket (missing, refused, not permitted), or the connection broke before the answer: then the
    /// request may have been carried out.
    Unreachable,
    /// 401, 403: it answers, but not to us.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: the name is taken, or the object is busy.
    Conflict,
    /// 412: the object has changed.
    PreconditionFailed,
    /// Any other refusal with an HTTP status (400, 500, …).
    Refused(u16),
    /// The operation was accepted and ended in failure.
    OperationFailed,
    /// The deadline passed.
    Timeout,
    /// The operation made no progress within its limit, and is still under way.
    Stalled,
    /// The answer is not HTTP or not LXD's JSON.
    Malformed,
    /// The content that was to be sent could not be read.
    Content,
}
