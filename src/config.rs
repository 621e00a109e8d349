//! The config file: read and checked as a whole; all errors are reported at once, each with line, key path and fix.
//!
//! `node` parses and finds lines, `read` takes typed values out, `report` gathers complaints; `top`, `class` and
//! `secret` know the keys.

mod class;
mod credentials;
mod file;
mod find;
mod github;
mod guard;
mod image;
mod inside;
mod node;
mod original;
mod read;
mod report;
mod script;
mod secret;
mod socket;
mod top;
mod web;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ClassId, ConfigMap, Devices, InstanceType, Labels, RunnerArch, Scope, Secret};

pub use credentials::{AppKey, Credential, CredentialKind};
pub use find::passed_over;
pub use github::{GitHubConfig, hook_address};
#[cfg(test)]
pub(crate) use guard::testkit_rules;
pub use guard::{ForkPolicy, Glob, RepoRules};
pub use image::{ImageRef, Origin, PublicRemote, Remote};
pub use inside::{Inside, NESTING};
pub use report::{ConfigErrors, Warning};
pub use socket::{find_socket, socket_candidates};
pub use web::{Network, WebAllow, WebTls};

/// The longest `prefix`. Instances are called `{prefix}-{job id}-{n}`; with 12 digits of a job's id and two of `n` a
/// name stays under the 40 characters that a virtual machine's name may have.
pub const PREFIX_MAX: usize = 20;

/// See [`Config::longest_making`].
const LONGEST_MAKING: Duration = Duration::from_secs(4 * 3600);

/// All settings of the daemon. Secrets have been read from their files.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of GitHub and the credentials.
    pub github: GitHubConfig,
    /// The secret that webhooks are signed with.
    pub hooksecret: Secret,
    /// The address under which GitHub reaches this host, with the path. With it the daemon manages the webhooks.
    pub webhook_url: Option<String>,
    /// True: an offline runner is kept registered for each class.
    pub placeholders: bool,
    /// Empty: all organisations and repositories that the credential can see.
    pub targets: Vec<Scope>,
    /// False: jobs of public repositories are refused.
    pub allow_public_repos: bool,
    /// Which repositories are served, whatever the class.
    pub repos: RepoRules,
    /// Whether jobs from forks run; `None`: see [`ForkPolicy::holds`].
    pub fork_policy: Option<ForkPolicy>,
    /// A path; `auto` was resolved while loading (see [`find_socket`]).
    pub socket: PathBuf,
    /// The start of the names of instances and runners; lower-case letters, digits and `-`.
    pub prefix: String,
    /// The highest number of instances at once, all classes together.
    pub max_workers: usize,
    /// True: GitHub sends no webhooks, so queues are only polled.
    pub polling: bool,
    /// False: no port is opened, neither for webhooks nor for `/healthz`.
    pub listens: bool,
    /// The time between two looks at GitHub.
    pub reconcile_interval: Duration,
    /// The longest time without progress of what is made or fetched, and from the start of a runner until it must be online.
    pub provision_timeout: Duration,
    /// How long an idle runner is kept beyond the demand.
    pub idle_timeout: Duration,
    /// A standby or idle runner that waited longer is replaced by a fresh one.
    pub ready_max_age: Duration,
    /// The longest life of an instance.
    pub max_lifetime: Duration,
    /// The number of failed instances whose logs are kept.
    pub failures_kept: usize,
    /// How runners get their credentials.
    pub registration: Registration,
    /// `None` = the latest that GitHub offers.
    pub runner_version: Option<String>,
    /// The address to listen on for webhooks.
    pub web_host: IpAddr,
    /// The port to listen on; 0: a free port, which the log names.
    pub web_port: u16,
    /// Whether the webhook port speaks TLS.
    pub web_tls: WebTls,
    /// The proxies whose `X-Forwarded-For` is used.
    pub web_trusted_proxies: Vec<Network>,
    /// The clients that are accepted; `None`: all.
    pub web_allow: Option<WebAllow>,
    /// The clients that may read `/metrics` on the webhook port.
    pub web_metrics: Vec<Network>,
    /// The directory of runner packages and the logs of failed instances.
    pub cache_home: PathBuf,
    /// `runnermap`, in the file's order.
    pub classes: Vec<Class>,
}

/// How a runner gets its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// `generate-jitconfig`; a registration token where GitHub has no such endpoint.
    Jit,
    /// `config.sh --ephemeral` with a registration token.
    Token,
}

/// One entry of `runnermap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique, whatever the case.
    pub name: String,
    /// As written plus the implied `self-hosted`, OS and architecture.
    pub labels: Labels,
    /// The image of its instances.
    pub image: ImageRef,
    /// Container or virtual machine.
    pub kind: InstanceType,
    /// The processor that the runner package is for.
    pub arch: RunnerArch,
    /// LXD profiles, in order.
    pub profiles: Vec<String>,
    /// What its instances contain besides the runner.
    pub inside: Inside,
    /// systemd units that must have started before a job starts.
    pub wait_for: Vec<String>,
    /// The highest number of instances of this class at once.
    pub max_workers: usize,
    /// False: every job starts from the image, and no template is baked.
    pub template: bool,
    /// Booted, frozen, unregistered instances kept ready.
    pub standby: usize,
    /// Registered runners kept online beyond the demand, for each scope.
    pub idle: usize,
    /// LXD instance config.
    pub config: ConfigMap,
    /// LXD devices.
    pub devices: Devices,
    /// LXD project.
    pub project: String,
    /// Cluster member, `@group`, or empty.
    pub target: String,
    /// The repositories whose jobs it takes, within the `repos` of the whole file.
    pub repos: RepoRules,
    /// GitHub's runner group, by name.
    pub runner_group: String,
}

/// The runner group that every scope has.
pub(super) const DEFAULT_GROUP: &str = "Default";

impl Class {
    /// True where its runners register in a group that the config names.
    pub fn has_own_group(&self) -> bool {
        !self.runner_group.eq_ignore_ascii_case(DEFAULT_GROUP)
    }
}

impl Config {
    #[allow(clippy::indexing_slicing, reason = "an id is a class's")]
    pub fn class(&self, id: ClassId) -> &Class {
        &self.classes[id.0]
    }

    /// The classes with their ids.
    pub fn class_ids(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().enumerate().map(|(place, class)| (ClassId(place), class))
    }

    pub fn class_named(&self, name: &str) -> Option<ClassId> {
        self.class_ids().find(|(_, class)| class.name == name).map(|(id, _)| id)
    }

    /// The address and port to listen on for webhooks.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.web_host, self.web_port)
    }

    /// How long the making of an instance, or the fetch of an image, may take whatever progress it makes: a set-up that prints
    /// forever must not keep its place forever.
    pub fn longest_making(&self) -> Duration {
        LONGEST_MAKING.max(self.provision_timeout)
    }
}
