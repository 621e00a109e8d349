//! Typed calls of GitHub's REST API ("REST API endpoints for self-hosted runners" and its neighbours in GitHub's
//! documentation).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::address::{repo_path, scope_path};
use super::budget::{Purpose, Standing, USUAL_SHARE};
use super::error::{Error, ErrorKind};
use super::http::Http;
use super::json;
use super::keyring::Keyring;
use super::listing::Listing;
use super::pages::MAX_PAGES;
use super::types::{Deletion, Download, JitConfig, Repo};
use super::wire::{Call, SKEW_TOLD, clock_trouble, decode};
use crate::config::GitHubConfig;
use crate::http1::{path_segment, query_value};
use crate::model::{Job, JobId, RepoName, Runner, RunnerId, Scope, Secret, Timestamp};

/// The directory of the jobs' files, below the runner's own.
const WORK_FOLDER: &str = "_work";

/// A client of one GitHub with its credentials. Cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct GitHub {
    pub(super) http: Http,
}

impl GitHub {
    /// A client that uses this token for all calls. `base` is `https://api.github.com` or `https://HOST/api/v3`.
    pub fn new(base: &str, token: Secret) -> GitHub {
        GitHub { http: Http::new(base, Keyring::of_token(token, USUAL_SHARE), Vec::new()) }
    }

    /// The client that the config describes: each scope is asked with the credential that serves it.
    pub fn of_config(config: &GitHubConfig) -> GitHub {
        GitHub { http: Http::new(&config.api, Keyring::of_config(config), config.authorities.clone()) }
    }

    /// The same client with another deadline for a whole call than half a minute.
    pub fn with_deadline(self, deadline: Duration) -> GitHub {
        GitHub { http: self.http.with_deadline(deadline) }
    }

    /// The address that calls go to, without a closing slash.
    pub fn base(&self) -> &str {
        self.http.wire.base()
    }

    /// How long registrations with `scope` have to wait from now on; a call before that fails without being sent.
    pub fn quiet_for(&self, scope: &Scope) -> Option<Duration> {
        self.wait(Purpose::Register, scope)
    }

    /// How long a call about `scope` for this purpose has to wait from now on; before that it fails without being sent,
    /// with [`ErrorKind::RateLimited`] and the time.
    pub fn wait(&self, purpose: Purpose, scope: &Scope) -> Option<Duration> {
        self.http.keys().budget_of(scope)?.wait(purpose)
    }

    /// The state of GitHub's limits for each credential, and for each account of a GitHub App.
    pub fn standings(&self) -> Vec<(String, Standing)> {
        let budgets = self.http.keys().budgets().into_iter();
        budgets.map(|(name, budget)| (name, budget.standing())).collect()
    }

    /// The time by GitHub's clock, estimated from the Date of its answers.
    pub fn now(&self) -> Timestamp {
        Timestamp(Timestamp::now().0.saturating_add_signed(self.http.wire.skew()))
    }

    /// A message if this machine's clock differs from GitHub's.
    pub fn clock_trouble(&self) -> Option<String> {
        let ahead = self.http.wire.skew();
        (ahead.unsigned_abs() > SKEW_TOLD).then(|| clock_trouble(ahead))
    }

    /// The web address that runners of `scope` register with: `https://github.com/acme`.
    pub fn web_url(&self, scope: &Scope) -> String {
        let origin = self.http.wire.origin();
        // github.com and the ghe.com of data residency put `api.` before the web's host, GHES a path behind it.
        let at_subdomain = self.http.wire.base() == origin;
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

    /// The address ranges that webhooks come from (`192.0.2.0/24`). A GitHub Enterprise Server does not list them.
    pub fn hook_networks(&self) -> Result<Vec<String>, Error> {
        let tried = "ask where webhooks come from";
        let meta: json::Meta = decode(tried, &self.as_anybody(Call::get(tried, Purpose::Ask), "meta")?)?;
        let message = "this server does not tell: name its address in web_allow, in place of github";
        match meta.hooks.is_empty() {
            true => Err(Error::new(tried, ErrorKind::Malformed, message)),
            false => Ok(meta.hooks.into_iter().map(String::from).collect()),
        }
    }

    /// The organisation's repositories, as far as the credential sees them.
    pub fn org_repos(&self, org: &str) -> Result<Vec<Repo>, Error> {
        let mut repos = Vec::new();
        let take = |page: Vec<json::RepoWire>| repos.extend(page.into_iter().filter_map(json::RepoWire::into_repo));
        let tried = format!("list the repositories of org:{org}");
        self.http.pages(
            Call::get(&tried, Purpose::List),
            &format!("orgs/{}/repos?per_page=100", path_segment(org)),
            take,
        )?;
        Ok(repos)
    }

    /// One repository.
    pub fn repo(&self, name: &RepoName) -> Result<Repo, Error> {
        let tried = format!("look at repo:{name}");
        let wire: json::RepoWire = self.http.get(&tried, Purpose::Ask, &repo_path(name))?;
        wire.into_repo().ok_or_else(|| Error::new(tried, ErrorKind::Malformed, "a repository without a proper name"))
    }

    /// One job; `None` on 404.
    pub fn job(&self, repo: &RepoName, id: JobId) -> Result<Option<Job>, Error> {
        let path = format!("{}/actions/jobs/{id}", repo_path(repo));
        let tried = format!("look at job {id} of repo:{repo}");
        match self.http.get::<json::JobWire>(&tried, Purpose::Ask, &path) {
            Ok(wire) => Ok(Some(wire.into_job(repo, None))),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All runners that are registered with the scope itself.
    pub fn runners(&self, scope: &Scope) -> Result<Vec<Runner>, Error> {
        let mut seen = Listing::default();
        self.runners_if_changed(scope, &mut seen)?;
        Ok(unique(&seen))
    }

    /// The runners of a listing, each once: entries may have moved while its pages were read.
    pub fn listed_runners(seen: &Listing<Runner>) -> Vec<Runner> {
        unique(seen)
    }

    /// Updates `seen`, a listing of this scope's runners; true if anything changed. An unchanged listing costs nothing of the
    /// hourly limit.
    pub fn runners_if_changed(&self, scope: &Scope, seen: &mut Listing<Runner>) -> Result<bool, Error> {
        self.list_runners(scope, Purpose::List, &format!("list the runners of {scope}"), "", seen)
    }

    /// The runner of exactly this name.
    pub fn runner_by_name(&self, scope: &Scope, name: &str) -> Result<Option<Runner>, Error> {
        let tried = format!("look for the runner {name} of {scope}");
        let mut seen = Listing::default();
        // Older servers ignore the filter and list them all.
        self.list_runners(scope, Purpose::Ask, &tried, &format!("name={}&", query_value(name)), &mut seen)?;
        Ok(unique(&seen).into_iter().find(|runner| runner.name.eq_ignore_ascii_case(name)))
    }

    fn list_runners(
        &self,
        scope: &Scope,
        purpose: Purpose,
        tried: &str,
        filter: &str,
        seen: &mut Listing<Runner>,
    ) -> Result<bool, Error> {
        let path = format!("{}/actions/runners?{filter}per_page=100", scope_path(scope));
        let runners = |page: json::RunnerPage| page.runners.into_iter().map(|wire| wire.into_runner()).collect();
        self.http.pages_if_changed(Call::get(tried, purpose), &path, seen, runners, MAX_PAGES)
    }

    /// Removes a registration, unless the runner is busy.
    pub fn delete_runner(&self, scope: &Scope, id: RunnerId) -> Result<Deletion, Error> {
        let tried = format!("delete the runner {id} of {scope}");
        let path = format!("{}/actions/runners/{id}", scope_path(scope));
        match self.http.call(Call::new(&tried, Purpose::Remove, "DELETE"), &path) {
            Ok(_) => Ok(Deletion::Deleted),
            Err(Error { kind: ErrorKind::NotFound, .. }) => Ok(Deletion::Gone),
            Err(Error { kind: ErrorKind::Refused(422), .. }) => Ok(Deletion::Busy),
            Err(error) => Err(error),
        }
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
        let answer = self.http.call(Call::new(&tried, Purpose::Register, "POST").body(&body), &path)?;
        let jit: json::Jit = decode(&tried, &answer)?;
        Ok(JitConfig { runner: RunnerId(jit.runner.id), encoded: Secret::new(jit.encoded_jit_config) })
    }

    /// A token that `config.sh` registers with; good for an hour.
    pub fn registration_token(&self, scope: &Scope) -> Result<Secret, Error> {
        let tried = format!("get a registration token for {scope}");
        let path = format!("{}/actions/runners/registration-token", scope_path(scope));
        let answer = self.http.call(Call::new(&tried, Purpose::Register, "POST"), &path)?;
        let token: json::Token = decode(&tried, &answer)?;
        Ok(Secret::new(token.token))
    }

    /// The newest runner packages for this scope, one for each platform.
    pub fn runner_downloads(&self, scope: &Scope) -> Result<Vec<Download>, Error> {
        let tried = format!("list the runner packages for {scope}");
        let path = format!("{}/actions/runners/downloads", scope_path(scope));
        let wires: Vec<json::DownloadWire> = self.http.get(&tried, Purpose::Ask, &path)?;
        Ok(wires.into_iter().map(Download::from).collect())
    }
}

/// The runners of a listing, each once: entries may move while its pages are read.
fn unique(seen: &Listing<Runner>) -> Vec<Runner> {
    let runners: BTreeMap<RunnerId, &Runner> = seen.items().map(|runner| (runner.id, runner)).collect();
    runners.into_values().cloned().collect()
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
    fn the_credential_is_not_printed() {
        let github = GitHub::new("https://ghe.example", Secret::new("hunter2"));
        assert!(!format!("{github:?}").contains("hunter2"));
        let jit = JitConfig { runner: RunnerId(1), encoded: Secret::new("hunter2") };
        assert!(!format!("{jit:?}").contains("hunter2"));
    }
}
