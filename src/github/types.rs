//! Types of GitHub's answers.

use crate::model::{RepoName, RunnerId, Secret, Timestamp};

/// A registration made by `generate-jitconfig`.
#[derive(Clone, Debug)]
pub struct JitConfig {
    pub runner: RunnerId,
    /// Base64 of the runner's settings and credentials, to be handed to it as it is.
    pub encoded: Secret,
}

/// The result of a runner's removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// 404: gone already.
    Gone,
    /// 422: it runs a job.
    Busy,
}

/// One runner package that GitHub offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    pub os: String,
    pub architecture: String,
    pub url: String,
    /// For example `actions-runner-linux-x64-2.330.0.tar.gz`. From the network: not to be used as a path unchecked.
    pub filename: String,
    /// In hexadecimal, lower case; GHES may leave it out.
    pub sha256: Option<String>,
    /// To be sent as a bearer token with the download, where GHES asks for one.
    pub token: Option<Secret>,
}

/// A repository, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    pub name: RepoName,
    pub public: bool,
    pub archived: bool,
    /// True if the credential's user administers it, which registering runners needs.
    pub admin: bool,
    /// When commits were last pushed to it.
    pub pushed_at: Option<Timestamp>,
}
