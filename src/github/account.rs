//! The identity of each credential, and the targets that it can serve.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::api::GitHub;
use super::app::{App, AppWire, InstallationWire};
use super::budget::Purpose;
use super::error::Error;
use super::json;
use super::keyring::{Kind, Whose};
use super::types::Repo;
use super::wire::{Answer, Call, decode};
use crate::model::{RepoName, Scope, Secret, is_github_name};
use crate::text::one_line;

/// The user or App behind a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A user's token, and the scopes of a classic one (`None` for others).
    User { login: String, scopes: Option<Vec<String>> },
    /// A GitHub App, with its permissions (`actions: read`).
    App { name: String, permissions: Vec<String> },
}

#[derive(Deserialize)]
struct Installed {
    repositories: Vec<json::RepoWire>,
}

impl GitHub {
    /// The names of the credentials, in the config's order.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        self.http.keys().holders().iter().map(|holder| holder.name.as_str())
    }

    fn user_of(&self, place: usize) -> Result<(String, Option<Vec<String>>), Error> {
        let tried = "ask whose the credential is";
        let answer = self.http.call_as(place, Call::get(tried, Purpose::Ask), "user")?;
        let user: json::User = decode(tried, &answer)?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|scopes| scopes.to_str().ok());
        let words = |scopes: &str| scopes.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
        Ok((user.login.into(), scopes.map(words)))
    }

    /// The user or App of the credential at this index of the config.
    ///
    /// # Errors
    /// As for every call.
    pub fn identity(&self, place: usize) -> Result<Identity, Error> {
        let Some(app) = self.app(place) else {
            let (login, scopes) = self.user_of(place)?;
            return Ok(Identity::User { login, scopes });
        };
        let tried = "ask who the GitHub App is";
        let answer = app.call(&self.http.wire, Call::get(tried, Purpose::Ask), "app")?;
        let wire: AppWire = decode(tried, &answer)?;
        let permission =
            |(name, level): (String, serde_json::Value)| one_line(format!("{name}: {}", level.as_str().unwrap_or("?")));
        Ok(Identity::App {
            name: wire.name.into(),
            permissions: wire.permissions.into_iter().map(permission).collect(),
        })
    }

    /// A call that needs no rights: as the first credential's user, or anonymously if it is an App.
    pub(super) fn as_anybody(&self, call: Call<'_>, path: &str) -> Result<Answer, Error> {
        match self.app(0) {
            Some(app) => self.http.wire.call(call, path, &Secret::default(), &app.budget),
            None => self.http.call_as(0, call, path),
        }
    }

    fn app(&self, place: usize) -> Option<&App> {
        match &self.http.keys().holders().get(place)?.kind {
            Kind::App(app) => Some(app),
            Kind::Token(..) => None,
        }
    }

    /// The organisations of the first credential's user, in lower case.
    ///
    /// # Errors
    /// As for every call.
    pub fn orgs(&self) -> Result<Vec<String>, Error> {
        self.orgs_of(0)
    }

    fn orgs_of(&self, place: usize) -> Result<Vec<String>, Error> {
        let mut orgs = Vec::new();
        let take = |page: Vec<json::Org>| {
            orgs.extend(page.into_iter().map(|org| org.login.to_lowercase()).filter(|org| is_github_name(org)))
        };
        let tried = "list the credential's organisations";
        self.http.pages_of(
            &Whose::Credential(place),
            Call::get(tried, Purpose::List),
            "user/orgs?per_page=100",
            take,
        )?;
        Ok(orgs)
    }

    fn user_repos_of(&self, place: usize) -> Result<Vec<Repo>, Error> {
        let mut repos: Vec<Repo> = Vec::new();
        let take = |page: Vec<json::RepoWire>| repos.extend(page.into_iter().filter_map(json::RepoWire::into_repo));
        let path = "user/repos?affiliation=owner,collaborator&per_page=100";
        let tried = "list the credential's repositories";
        self.http.pages_of(&Whose::Credential(place), Call::get(tried, Purpose::List), path, take)?;
        repos.retain(|repo| repo.admin);
        Ok(repos)
    }

    /// All targets that the credentials can serve: organisations, enterprises, and repositories outside of them. Each is asked
    /// with the credential that saw it from then on.
    ///
    /// # Errors
    /// As for every call, whichever credential it was made with.
    pub fn discover(&self) -> Result<Vec<Scope>, Error> {
        let mut all = BTreeSet::new();
        for place in 0..self.http.keys().holders().len() {
            let found = match self.app(place) {
                Some(app) => self.installed(app)?,
                None => self.administered(place)?,
            };
            for scope in found {
                self.http.keys().assign(&scope, place);
                all.insert(scope);
            }
        }
        Ok(all.into_iter().collect())
    }

    /// The organisations of a token's user, and the repositories that it administers outside of them.
    fn administered(&self, place: usize) -> Result<Vec<Scope>, Error> {
        let orgs: BTreeSet<String> = self.orgs_of(place)?.into_iter().collect();
        let mut repos = self.user_repos_of(place)?;
        repos.retain(|repo| !repo.archived && !orgs.contains(&repo.name.owner.to_lowercase()));
        let repos = repos.into_iter().map(|repo| Scope::Repo(repo.name));
        Ok(orgs.into_iter().map(Scope::Org).chain(repos).collect())
    }

    /// The organisations and enterprises that an App is installed on, and the repositories of users that it is installed on.
    fn installed(&self, app: &App) -> Result<Vec<Scope>, Error> {
        let mut found = Vec::new();
        for wire in self.installations(app)? {
            let InstallationWire { id, account: Some(account), target_type, suspended_at: None } = wire else {
                continue;
            };
            let scope: Result<Scope, String> = match target_type.as_str() {
                "Organization" => format!("org:{}", account.login).parse(),
                "Enterprise" => format!("enterprise:{}", account.slug).parse(),
                _ => {
                    found.extend(self.installed_repos(app, &account.login, id)?);
                    continue;
                }
            };
            if let Ok(scope) = scope {
                app.learn(&scope, id);
                found.push(scope);
            }
        }
        Ok(found)
    }

    fn installations(&self, app: &App) -> Result<Vec<InstallationWire>, Error> {
        let tried = "list the installations of the GitHub App";
        let mut all = Vec::new();
        for page in 1..=super::pages::MAX_PAGES {
            let path = format!("app/installations?per_page=100&page={page}");
            let answer = app.call(&self.http.wire, Call::get(tried, Purpose::List), &path)?;
            let wires: Vec<InstallationWire> = decode(tried, &answer)?;
            let last = wires.len() < 100;
            all.extend(wires);
            if last {
                break;
            }
        }
        Ok(all)
    }

    fn installed_repos(&self, app: &App, user: &str, id: u64) -> Result<Vec<Scope>, Error> {
        // Only the owner matters: it names the installation.
        let whose = Scope::Repo(RepoName { owner: user.to_owned(), name: "any".to_owned() });
        app.learn(&whose, id);
        let tried = format!("list the repositories of {user} that the GitHub App is installed on");
        let mut repos: Vec<Repo> = Vec::new();
        let take = |page: Installed| repos.extend(page.repositories.into_iter().filter_map(json::RepoWire::into_repo));
        let (token, budget) = app.token(&self.http.wire, &whose, None)?;
        self.http.wire.pages(&token, &budget, &tried, "installation/repositories?per_page=100", take)?;
        repos.retain(|repo| !repo.archived);
        Ok(repos.into_iter().map(|repo| Scope::Repo(repo.name)).collect())
    }
}
