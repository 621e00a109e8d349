//! The config file: read, checked as a whole, every error at once with its line, key path and mend.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ConfigMap, Devices, InstanceType, Labels, RunnerArch, Scope, Secret};

/// Everything the daemon is told. Secrets are read from their files already.
#[derive(Clone, Debug)]
pub struct Config {
    pub pat: Secret,
    pub hooksecret: Secret,
    /// Without a closing slash.
    pub github_api: String,
    /// Empty: all that the credential can see.
    pub targets: Vec<Scope>,
    pub allow_public_repos: bool,
    /// A path; `auto` was resolved while loading (see [`find_socket`]).
    pub socket: PathBuf,
    pub prefix: String,
    pub max_workers: usize,
    pub reconcile_interval: Duration,
    pub provision_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
    pub registration: Registration,
    /// `None` = the latest that GitHub offers.
    pub runner_version: Option<String>,
    pub web_host: std::net::IpAddr,
    pub web_port: u16,
    pub cache_home: PathBuf,
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
    pub name: String,
    /// As written plus the implied `self-hosted`, OS and architecture.
    pub labels: Labels,
    pub image: ImageRef,
    pub kind: InstanceType,
    pub arch: RunnerArch,
    pub profiles: Vec<String>,
    /// The text of the set-up script where it is not the embedded one.
    pub setup_script: Option<String>,
    pub max_workers: usize,
    pub config: ConfigMap,
    pub devices: Devices,
    pub project: String,
    /// Cluster member, `@group`, or empty.
    pub target: String,
    pub runner_group: String,
}

/// An image, as written `[remote:]alias-or-fingerprint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// Alias or fingerprint on the server itself.
    Local(String),
    /// On an image server.
    Remote { remote: String, server: String, protocol: String, alias: String },
}
