//! The config file: read, checked as a whole, every error at once with its line, key path and mend.
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
mod secret;
mod top;
mod web;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ClassId, ConfigMap, Devices, InstanceType, Labels, RunnerArch, Scope, Secret};

pub use credentials::{AppKey, Credential, CredentialKind};
pub use find::{find_socket, passed_over, socket_candidates};
pub use github::{GitHubConfig, hook_address};
#[cfg(test)]
pub(crate) use guard::testkit_rules;
pub use guard::{ForkPolicy, Glob, RepoRules};
pub use image::{ImageRef, Origin, PublicRemote, Remote};
pub use inside::{Inside, NESTING};
pub use report::{ConfigErrors, Warning};
pub use web::{Network, NotANetwork, WebAllow, WebTls};

/// The longest `prefix`. Instances are called `{prefix}-{job id}-{n}`; with 12 digits of a job's id and two of `n` a
/// name stays under the 40 characters that a virtual machine's name may have.
pub const PREFIX_MAX: usize = 20;

/// See [`Config::longest_making`].
const LONGEST_MAKING: Duration = Duration::from_secs(4 * 3600);

/// Everything the daemon is told. Secrets are read from their files already.
#[derive(Clone, Debug)]
pub struct Config {
    /// How GitHub is reached, and as whom.
    pub github: GitHubConfig,
    /// What webhooks are signed with.
    pub hooksecret: Secret,
    /// Where GitHub finds us, path included: webhooks are kept right by themselves.
    pub webhook_url: Option<String>,
    /// True: an offline runner is kept registered for each class.
    pub placeholders: bool,
    /// Empty: all that the credential can see.
    pub targets: Vec<Scope>,
    /// False: jobs of public repositories are refused.
    pub allow_public_repos: bool,
    /// Which repositories are served, whatever the class.
    pub repos: RepoRules,
    /// What becomes of jobs from forks; `None`: see [`ForkPolicy::holds`].
    pub fork_policy: Option<ForkPolicy>,
    /// A path; `auto` was resolved while loading (see [`find_socket`]).
    pub socket: PathBuf,
    /// What the names of our instances and runners start with; lower-case letters, digits and `-`.
    pub prefix: String,
    /// Instances at once, all classes together.
    pub max_workers: usize,
    /// GitHub cannot reach us: queues are found by looking alone.
    pub polling: bool,
    /// False: no port is listened on, neither for webhooks nor for health.
    pub listens: bool,
    /// Between looks at GitHub.
    pub reconcile_interval: Duration,
    /// The longest time without progress of what is made or fetched, and from the start of a runner until it must be online.
    pub provision_timeout: Duration,
    /// How long an idle runner is kept beyond the demand.
    pub idle_timeout: Duration,
    /// A standby or idle runner that waited longer is replaced by a fresh one.
    pub ready_max_age: Duration,
    /// No instance lives longer.
    pub max_lifetime: Duration,
    /// Of so many instances that failed the logs are kept; 0: of none.
    pub failures_kept: usize,
    /// How runners come to their credentials.
    pub registration: Registration,
    /// `None` = the latest that GitHub offers.
    pub runner_version: Option<String>,
    /// Where webhooks are listened for.
    pub web_host: IpAddr,
    /// 0: a free port, told in the log.
    pub web_port: u16,
    /// How webhooks are encrypted on their way.
    pub web_tls: WebTls,
    /// Whose word is believed on whom they speak for.
    pub web_trusted_proxies: Vec<Network>,
    /// Whose connections are let in; `None`: everybody's.
    pub web_allow: Option<WebAllow>,
    /// Who may read `/metrics` on the webhook port.
    pub web_metrics: Vec<Network>,
    /// Where runner packages are kept, the self-signed certificate, and what instances that failed had to say.
    pub cache_home: PathBuf,
    /// `runnermap`, in the file's order.
    pub classes: Vec<Class>,
}

/// How a runner comes to its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// `generate-jitconfig`, falling back to a token by itself where there is no such endpoint.
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
    /// What instances are made from.
    pub image: ImageRef,
    /// Container or virtual machine.
    pub kind: InstanceType,
    /// Which runner package goes in.
    pub arch: RunnerArch,
    /// LXD profiles, in order.
    pub profiles: Vec<String>,
    /// What is put into its instances beside the runner.
    pub inside: Inside,
    /// Units of systemd that have started before a job starts.
    pub wait_for: Vec<String>,
    /// Instances of this class at once.
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
    /// Which repositories' jobs it takes, of those that are served at all.
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

    /// Where webhooks are listened for.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.web_host, self.web_port)
    }

    /// How long the making of an instance, or the fetch of an image, may take whatever progress it makes: a set-up that prints
    /// forever must not keep its place forever.
    pub fn longest_making(&self) -> Duration {
        LONGEST_MAKING.max(self.provision_timeout)
    }
}
