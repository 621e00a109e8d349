//! Typed calls of GitHub's REST API, those that we use.

use std::time::Duration;

use crate::model::{Job, JobId, RepoName, Runner, RunnerId, Scope, Secret};

/// A client of one GitHub with one credential. Cheap to share between threads.
pub struct GitHub {}

/// A registration made by `generate-jitconfig`.
#[derive(Clone, Debug)]
pub struct JitConfig {
    pub runner: RunnerId,
    /// Base64 of the runner's settings and credentials, to be handed to it as it is.
    pub encoded: Secret,
}

/// How a runner's removal went.
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
    /// For example `actions-runner-linux-x64-2.330.0.tar.gz`.
    pub filename: String,
    /// In hexadecimal, lower case; GHES may leave it out.
    pub sha256: Option<String>,
    /// To be sent as a bearer token with the download, where GHES asks for one.
    pub token: Option<Secret>,
}

/// A repository, as the listings tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    pub name: RepoName,
    pub public: bool,
    pub archived: bool,
    /// True where the credential may administer it, which registering runners needs.
    pub admin: bool,
}

/// A call that failed: what was tried, on what, and what came back.
#[derive(Debug)]
pub struct Error {
    /// For people: `generate a JIT config for org:acme`.
    pub tried: String,
    pub kind: ErrorKind,
    /// GitHub's own message, or the system's; never a secret.
    pub message: String,
}

/// What kind of failure it was, for code to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 401
    Unauthorized,
    /// 403, not a limit
    Forbidden,
    /// 404: absent, or hidden from this credential
    NotFound,
    /// 409
    Conflict,
    /// 422 and other refusals
    Refused(u16),
    /// 403 or 429 that says to slow down; not before this time has passed.
    RateLimited(Duration),
    /// 5xx
    Server(u16),
    /// The deadline passed.
    Timeout,
    /// No connection, TLS, DNS
    Unreachable,
    /// An answer that is not the JSON we expect (HTML of a proxy, …).
    Malformed,
}

impl GitHub {
    /// `base` is `https://api.github.com` or `https://HOST/api/v3`.
    pub fn new(base: &str, token: Secret) -> GitHub {
        unimplemented!()
    }
    pub fn base(&self) -> &str {
        unimplemented!()
    }
    /// The web address that runners of `scope` register with: `https://github.com/acme`.
    pub fn web_url(&self, scope: &Scope) -> String {
        unimplemented!()
    }
    /// The login behind the credential, and the scopes of a classic token (`None` for others).
    pub fn user(&self) -> Result<(String, Option<Vec<String>>), Error> {
        unimplemented!()
    }
    /// Organisations that the credential's user belongs to, in lower case.
    pub fn orgs(&self) -> Result<Vec<String>, Error> {
        unimplemented!()
    }
    /// Repositories that the credential's user owns or administers.
    pub fn user_repos(&self) -> Result<Vec<Repo>, Error> {
        unimplemented!()
    }
    pub fn org_repos(&self, org: &str) -> Result<Vec<Repo>, Error> {
        unimplemented!()
    }
    pub fn repo(&self, name: &RepoName) -> Result<Repo, Error> {
        unimplemented!()
    }
    /// Every job that is not completed, of the runs in the states queued and in_progress; all pages.
    pub fn open_jobs(&self, repo: &RepoName) -> Result<Vec<Job>, Error> {
        unimplemented!()
    }
    /// One job; `None` on 404.
    pub fn job(&self, repo: &RepoName, id: JobId) -> Result<Option<Job>, Error> {
        unimplemented!()
    }
    pub fn runners(&self, scope: &Scope) -> Result<Vec<Runner>, Error> {
        unimplemented!()
    }
    pub fn runner_by_name(&self, scope: &Scope, name: &str) -> Result<Option<Runner>, Error> {
        unimplemented!()
    }
    pub fn delete_runner(&self, scope: &Scope, id: RunnerId) -> Result<Deletion, Error> {
        unimplemented!()
    }
    /// The id of a runner group by its name; `Default` is 1 without asking. Repositories have only the default one.
    pub fn runner_group(&self, scope: &Scope, name: &str) -> Result<u64, Error> {
        unimplemented!()
    }
    pub fn generate_jit_config(
        &self,
        scope: &Scope,
        name: &str,
        group: u64,
        labels: &[String],
    ) -> Result<JitConfig, Error> {
        unimplemented!()
    }
    pub fn registration_token(&self, scope: &Scope) -> Result<Secret, Error> {
        unimplemented!()
    }
    pub fn runner_downloads(&self, scope: &Scope) -> Result<Vec<Download>, Error> {
        unimplemented!()
    }
    /// The body of a package, from byte `from` on where the server can (the returned number says where it really
    /// starts), and its whole length where it is told.
    pub fn open_download(
        &self,
        download: &Download,
        from: u64,
    ) -> Result<(u64, Option<u64>, Box<dyn std::io::Read + Send>), Error> {
        unimplemented!()
    }
}
