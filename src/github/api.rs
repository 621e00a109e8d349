//! Typed calls of GitHub's REST API, those that we use ("REST API endpoints for self-hosted runners" and its
//! neighbours in GitHub's documentation).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

pub use super::error::{Error, ErrorKind};
use super::http::{Http, decode};
use super::json;
use crate::model::{Job, JobId, JobStatus, RepoName, Runner, RunnerId, Scope, Secret};

/// The id of the group that every scope has.
const DEFAULT_GROUP: u64 = 1;
/// Where the runner keeps its jobs' files, below its own directory.
const WORK_FOLDER: &str = "_work";

/// A client of one GitHub with one credential. Cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct GitHub {
    pub(super) http: Http,
}

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
    /// For example `actions-runner-linux-x64-2.330.0.tar.gz`. From the network: not to be used as a path unchecked.
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
    /// True where the credential's user may administer it, which registering runners needs.
    pub admin: bool,
}

impl GitHub {
    /// `base` is `https://api.github.com` or `https://HOST/api/v3`.
    pub fn new(base: &str, token: Secret) -> GitHub {
        GitHub { http: Http::new(base, token) }
    }

    /// The same client with another deadline for a whole call than half a minute.
    pub fn with_deadline(self, deadline: Duration) -> GitHub {
        GitHub { http: self.http.with_deadline(deadline) }
    }

    /// The address that calls go to, without a closing slash.
    pub fn base(&self) -> &str {
        self.http.base()
    }

    /// How long GitHub wants to be left alone from now on; calls before that fail without being sent.
    pub fn quiet_for(&self) -> Option<Duration> {
        self.http.quiet_for()
    }

    /// The web address that runners of `scope` register with: `https://github.com/acme`.
    pub fn web_url(&self, scope: &Scope) -> String {
        let origin = self.http.origin();
        // github.com and the ghe.com of data residency put `api.` before the web's host, GHES a path behind it.
        let at_subdomain = self.http.base() == origin;
        let web = match origin.strip_prefix("https://api.") {
            Some(host) if at_subdomain => format!("https://{host}"),
            _ => origin.to_owned(),
        };
        match scope {
            Scope::Org(org) => format!("{web}/{org}"),
            Scope::Repo(repo) => format!("{web}/{repo}"),
            Scope::Enterprise(slug) => format!("{web}/enterprises/{slug}"),
        }
    }

    /// The login behind the credential, and the scopes of a classic token (`None` for others).
    pub fn user(&self) -> Result<(String, Option<Vec<String>>), Error> {
        let tried = "ask whose the credential is";
        let answer = self.http.call(tried, "GET", "user", None)?;
        let user: json::User = decode(tried, &answer)?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|scopes| scopes.to_str().ok());
        let words = |scopes: &str| scopes.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
        Ok((user.login, scopes.map(words)))
    }

    /// Organisations that the credential's user belongs to, in lower case.
    pub fn orgs(&self) -> Result<Vec<String>, Error> {
        let mut orgs = Vec::new();
        let take = |page: Vec<json::Org>| orgs.extend(page.into_iter().map(|org| org.login.to_lowercase()));
        self.http.pages("list the credential's organisations", "user/orgs?per_page=100", take)?;
        Ok(orgs)
    }

    /// Repositories that the credential's user owns, or administers as a collaborator; those of organisations are
    /// had from [`GitHub::org_repos`].
    pub fn user_repos(&self) -> Result<Vec<Repo>, Error> {
        let path = "user/repos?affiliation=owner,collaborator&per_page=100";
        let mut repos = self.repos("list the credential's repositories", path)?;
        repos.retain(|repo| repo.admin);
        Ok(repos)
    }

    /// The organisation's repositories, as far as the credential sees them.
    pub fn org_repos(&self, org: &str) -> Result<Vec<Repo>, Error> {
        self.repos(&format!("list the repositories of org:{org}"), &format!("orgs/{}/repos?per_page=100", quoted(org)))
    }

    fn repos(&self, tried: &str, path: &str) -> Result<Vec<Repo>, Error> {
        let mut repos = Vec::new();
        let take = |page: Vec<json::RepoWire>| repos.extend(page.into_iter().filter_map(json::RepoWire::into_repo));
        self.http.pages(tried, path, take)?;
        Ok(repos)
    }

    /// One repository.
    pub fn repo(&self, name: &RepoName) -> Result<Repo, Error> {
        let tried = format!("look at repo:{name}");
        let wire: json::RepoWire = self.http.get(&tried, &repo_path(name))?;
        wire.into_repo().ok_or_else(|| Error::new(tried, ErrorKind::Malformed, "a repository without a proper name"))
    }

    /// Every job that is not completed, of the runs in the states queued and in_progress; all pages.
    ///
    /// A run in progress may have queued jobs, so both are asked. A run that vanishes meanwhile has none.
    pub fn open_jobs(&self, repo: &RepoName) -> Result<Vec<Job>, Error> {
        let mut runs = BTreeMap::new();
        for status in ["queued", "in_progress"] {
            let tried = format!("list the {status} runs of repo:{repo}");
            let path = format!("{}/actions/runs?status={status}&per_page=100", repo_path(repo));
            let take = |page: json::RunPage| runs.extend(page.workflow_runs.iter().map(|run| (run.id, run.public())));
            self.http.pages(&tried, &path, take)?;
        }
        let mut jobs = BTreeMap::new();
        for (run, public) in runs {
            let tried = format!("list the jobs of run {run} of repo:{repo}");
            let path = format!("{}/actions/runs/{run}/jobs?filter=latest&per_page=100", repo_path(repo));
            let take = |page: json::JobPage| {
                let open = page.jobs.into_iter().map(|job| job.into_job(repo, public));
                jobs.extend(open.filter(|job| job.status != JobStatus::Completed).map(|job| (job.id, job)));
            };
            match self.http.pages(&tried, &path, take) {
                Err(error) if error.kind == ErrorKind::NotFound => (),
                other => other?,
            }
        }
        Ok(jobs.into_values().collect())
    }

    /// One job; `None` on 404.
    pub fn job(&self, repo: &RepoName, id: JobId) -> Result<Option<Job>, Error> {
        let path = format!("{}/actions/jobs/{id}", repo_path(repo));
        match self.http.get::<json::JobWire>(&format!("look at job {id} of repo:{repo}"), &path) {
            Ok(wire) => Ok(Some(wire.into_job(repo, None))),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All runners that are registered with the scope itself.
    pub fn runners(&self, scope: &Scope) -> Result<Vec<Runner>, Error> {
        self.list_runners(scope, &format!("list the runners of {scope}"), "")
    }

    /// The runner of exactly this name.
    pub fn runner_by_name(&self, scope: &Scope, name: &str) -> Result<Option<Runner>, Error> {
        let tried = format!("look for the runner {name} of {scope}");
        // Older servers ignore the filter and list them all.
        let found = self.list_runners(scope, &tried, &format!("name={}&", quoted(name)))?;
        Ok(found.into_iter().find(|runner| runner.name.eq_ignore_ascii_case(name)))
    }

    fn list_runners(&self, scope: &Scope, tried: &str, filter: &str) -> Result<Vec<Runner>, Error> {
        let path = format!("{}/actions/runners?{filter}per_page=100", scope_path(scope));
        let mut runners = BTreeMap::new();
        let take = |page: json::RunnerPage| {
            runners.extend(page.runners.into_iter().map(|wire| wire.into_runner()).map(|runner| (runner.id, runner)));
        };
        self.http.pages(tried, &path, take)?;
        Ok(runners.into_values().collect())
    }

    /// Removes a registration, unless the runner is busy.
    pub fn delete_runner(&self, scope: &Scope, id: RunnerId) -> Result<Deletion, Error> {
        let tried = format!("delete the runner {id} of {scope}");
        let path = format!("{}/actions/runners/{id}", scope_path(scope));
        match self.http.call(&tried, "DELETE", &path, None) {
            Ok(_) => Ok(Deletion::Deleted),
            Err(Error { kind: ErrorKind::NotFound, .. }) => Ok(Deletion::Gone),
            Err(Error { kind: ErrorKind::Refused(422), .. }) => Ok(Deletion::Busy),
            Err(error) => Err(error),
        }
    }

    /// The id of a runner group by its name; `Default` is 1 without asking. Repositories have only the default one.
    pub fn runner_group(&self, scope: &Scope, name: &str) -> Result<u64, Error> {
        if name.eq_ignore_ascii_case("default") {
            return Ok(DEFAULT_GROUP);
        }
        let tried = format!("find the runner group {name:?} of {scope}");
        if matches!(scope, Scope::Repo(_)) {
            let message =
                "a repository has no runner groups: leave runner_group out, or register with the organisation";
            return Err(Error::new(tried, ErrorKind::NotFound, message));
        }
        let path = format!("{}/actions/runner-groups?per_page=100", scope_path(scope));
        let mut found = None;
        let mut names = Vec::new();
        self.http.pages(&tried, &path, |page: json::GroupPage| {
            for group in page.runner_groups {
                if group.name.eq_ignore_ascii_case(name) {
                    found.get_or_insert(group.id);
                }
                names.push(group.name);
            }
        })?;
        found.ok_or_else(|| Error::new(tried, ErrorKind::NotFound, format!("there are only: {}", names.join(", "))))
    }

    /// Registers a runner that takes one job. The labels are exactly those given, 1 to 100 of them. `Conflict`: a
    /// runner of that name is there. `NotFound`: the credential lacks the right, or the server knows no such call.
    pub fn generate_jit_config(
        &self,
        scope: &Scope,
        name: &str,
        group: u64,
        labels: &[String],
    ) -> Result<JitConfig, Error> {
        let tried = format!("generate a JIT config for a runner of {scope}");
        let path = format!("{}/actions/runners/generate-jitconfig", scope_path(scope));
        let body = json!({"name": name, "runner_group_id": group, "labels": labels, "work_folder": WORK_FOLDER});
        let answer = self.http.call(&tried, "POST", &path, Some(&body))?;
        let jit: json::Jit = decode(&tried, &answer)?;
        Ok(JitConfig { runner: RunnerId(jit.runner.id), encoded: Secret::new(jit.encoded_jit_config) })
    }

    /// A token that `config.sh` registers with; good for an hour.
    pub fn registration_token(&self, scope: &Scope) -> Result<Secret, Error> {
        let tried = format!("get a registration token for {scope}");
        let path = format!("{}/actions/runners/registration-token", scope_path(scope));
        let answer = self.http.call(&tried, "POST", &path, None)?;
        let token: json::Token = decode(&tried, &answer)?;
        Ok(Secret::new(token.token))
    }

    /// The packages that runners of this scope are to be made of: the newest version, one for each platform.
    pub fn runner_downloads(&self, scope: &Scope) -> Result<Vec<Download>, Error> {
        let tried = format!("list the runner packages for {scope}");
        let path = format!("{}/actions/runners/downloads", scope_path(scope));
        let wires: Vec<json::DownloadWire> = self.http.get(&tried, &path)?;
        Ok(wires.into_iter().map(Download::from).collect())
    }
}

fn scope_path(scope: &Scope) -> String {
    match scope {
        Scope::Org(org) => format!("orgs/{}", quoted(org)),
        Scope::Repo(repo) => repo_path(repo),
        Scope::Enterprise(slug) => format!("enterprises/{}", quoted(slug)),
    }
}

pub(super) fn repo_path(repo: &RepoName) -> String {
    format!("repos/{}/{}", quoted(&repo.owner), quoted(&repo.name))
}

/// `text` for use in a path or a query: everything but RFC 3986's unreserved characters as percent codes.
pub(super) fn quoted(text: &str) -> String {
    use std::fmt::Write;

    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => quoted.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(quoted, "%{byte:02X}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_web_address_follows_the_apis() {
        #[track_caller]
        fn check(base: &str, scope: &str, web: &str) {
            let github = GitHub::new(base, Secret::default());
            assert_eq!(github.web_url(&scope.parse().unwrap()), web);
        }
        check("https://api.github.com", "org:acme", "https://github.com/acme");
        check("https://api.github.com/", "repo:alice/tool", "https://github.com/alice/tool");
        check("https://api.acme.ghe.com", "org:a", "https://acme.ghe.com/a");
        check("https://ghe.example/api/v3", "enterprise:big", "https://ghe.example/enterprises/big");
        check("https://api.example/api/v3", "org:a", "https://api.example/a");
        check("http://127.0.0.1:8080", "org:a", "http://127.0.0.1:8080/a");
    }

    #[test]
    fn names_cannot_change_an_address() {
        assert_eq!(quoted("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(quoted("a/b?c#d e&é"), "a%2Fb%3Fc%23d%20e%26%C3%A9");
    }

    #[test]
    fn the_credential_is_not_printed() {
        let github = GitHub::new("https://ghe.example", Secret::new("hunter2"));
        assert!(!format!("{github:?}").contains("hunter2"));
        let jit = JitConfig { runner: RunnerId(1), encoded: Secret::new("hunter2") };
        assert!(!format!("{jit:?}").contains("hunter2"));
    }
}
