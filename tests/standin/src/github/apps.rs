//! GitHub Apps: who signs for one, where it is installed, and the tokens that it gets for each installation.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::rest::{error, not_found, page};
use super::shapes;
use super::state::State;
use super::wire::{Request, Response, locked};
use super::{Shared, random_word};
use lxdrunner::model::{RepoName, Scope, Timestamp};

/// GitHub takes no signature that is good for longer.
const LONGEST_JWT: u64 = 600;

/// A registered App.
#[derive(Clone, Debug)]
pub struct AppState {
    pub id: u64,
    pub name: String,
    /// The public half of its key, as `ring` gives it.
    pub key: Vec<u8>,
}

/// An App on an account.
#[derive(Clone, Debug)]
pub struct InstallationState {
    pub id: u64,
    pub app: u64,
    /// An organisation, an enterprise, or, by any of its repositories' names, a user.
    pub account: Scope,
    /// The repositories that it was installed for; `None`: all.
    pub repos: Option<Vec<RepoName>>,
    pub suspended: bool,
    /// Whether it was given the right to administer runners.
    pub runners: bool,
}

/// A token of an installation.
#[derive(Clone, Debug)]
pub struct AppToken {
    pub token: String,
    pub installation: u64,
    pub expires_at: Timestamp,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    User,
    App(u64),
    Installation(u64),
}

impl InstallationState {
    fn covers(&self, scope: &Scope) -> bool {
        match (&self.account, scope) {
            (Scope::Org(org), Scope::Repo(repo)) => org.eq_ignore_ascii_case(&repo.owner) && self.has(repo),
            (Scope::Repo(own), Scope::Repo(repo)) => own.owner.eq_ignore_ascii_case(&repo.owner) && self.has(repo),
            (own, other) => own == other,
        }
    }

    fn has(&self, repo: &RepoName) -> bool {
        self.repos.as_ref().is_none_or(|repos| repos.contains(repo))
    }
}

impl State {
    /// Registers an App; its public key is that of `ring`'s key pair.
    pub fn add_app(&mut self, id: u64, public_key: &[u8]) {
        self.apps.push(AppState { id, name: "farmer".to_owned(), key: public_key.to_vec() });
    }

    /// Installs it; the installation's number.
    pub fn install_app(&mut self, app: u64, account: &str) -> u64 {
        let id = self.fresh_id();
        let account = account.parse().unwrap_or(Scope::Org(account.to_owned()));
        let installation = InstallationState { id, app, account, repos: None, suspended: false, runners: true };
        self.installations.push(installation);
        id
    }

    /// GitHub's clock.
    pub fn now(&self) -> Timestamp {
        Timestamp(Timestamp::now().0.saturating_add_signed(self.clock_ahead))
    }

    /// Who shows `token`; `Err` has GitHub's message.
    pub(super) fn who(&self, token: &str) -> Result<Who, &'static str> {
        if token == self.token {
            return Ok(Who::User);
        }
        if token.split('.').count() == 3 {
            return self.signed(token).map(Who::App);
        }
        let known = self.app_tokens.iter().find(|known| known.token == token && known.expires_at > self.now());
        known.map(|known| Who::Installation(known.installation)).ok_or("Bad credentials")
    }

    fn signed(&self, jwt: &str) -> Result<u64, &'static str> {
        const UNREADABLE: &str = "A JSON web token could not be decoded";
        let (signed, signature) = jwt.rsplit_once('.').ok_or(UNREADABLE)?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| UNREADABLE);
        let (header, claims) = signed.split_once('.').ok_or(UNREADABLE)?;
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).map_err(|_| UNREADABLE);
        let (header, claims) = (json(header)?, json(claims)?);
        let issuer = claims.get("iss").map(|iss| iss.as_str().map_or_else(|| iss.to_string(), str::to_owned));
        let app = self.apps.iter().find(|app| Some(app.id.to_string()) == issuer).ok_or("Integration not found")?;
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.key);
        let sound = key.verify(signed.as_bytes(), &decode(signature)?).is_ok();
        if !sound || header.get("alg").and_then(Value::as_str) != Some("RS256") {
            return Err(UNREADABLE);
        }
        let now = self.now().0 / 1000;
        let at = |name: &str| claims.get(name).and_then(Value::as_u64);
        if at("iat").is_none_or(|at| at > now) {
            return Err(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            );
        }
        match at("exp") {
            Some(end) if end > now + LONGEST_JWT => Err("'Expiration time' claim ('exp') is too far in the future"),
            Some(end) if end > now => Ok(app.id),
            _ => Err("'Expiration time' claim ('exp') must be a numeric value representing the future time at which \
                      the assertion expires"),
        }
    }

    /// Whether an installation may ask for this path; GitHub's answer where not.
    pub(super) fn allows(&self, installation: u64, parts: &[&str]) -> Result<(), Response> {
        let found = self.installations.iter().find(|one| one.id == installation);
        let Some(installation) = found else { return Err(error(401, "Bad credentials")) };
        let scope = match parts {
            ["orgs", org, ..] => format!("org:{org}").parse(),
            ["enterprises", slug, ..] => format!("enterprise:{slug}").parse(),
            ["repos", owner, name, ..] => format!("repo:{owner}/{name}").parse(),
            ["installation", ..] => return Ok(()),
            _ => return Err(error(403, "Resource not accessible by integration")),
        };
        if !scope.is_ok_and(|scope: Scope| installation.covers(&scope)) {
            return Err(not_found());
        }
        match parts.contains(&"runners") && !installation.runners {
            true => Err(error(403, "Resource not accessible by integration")),
            false => Ok(()),
        }
    }
}

/// What an App asks as itself.
pub(super) fn answer(shared: &Shared, request: &Request, app: u64, parts: &[&str]) -> Response {
    let origin = shared.origin();
    match (request.method.as_str(), parts) {
        ("GET", ["app"]) => {
            let state = locked(&shared.state);
            let found = state.apps.iter().find(|known| known.id == app);
            found.map_or_else(not_found, |app| Response::json(200, &app_shape(&origin, app)))
        }
        ("GET", ["app", "installations"]) => {
            let state = locked(&shared.state);
            let own = state.installations.iter().filter(|one| one.app == app);
            let shapes = own.map(|one| installation_shape(&origin, one)).collect();
            drop(state);
            page(shared, request, None, shapes)
        }
        ("POST", ["app", "installations", id, "access_tokens"]) => create(shared, app, id.parse().unwrap_or(0)),
        ("GET", [place @ .., "installation"]) => {
            let scope = match place {
                ["orgs", org] => format!("org:{org}").parse(),
                ["enterprises", slug] => format!("enterprise:{slug}").parse(),
                ["repos", owner, name] => format!("repo:{owner}/{name}").parse(),
                _ => return not_found(),
            };
            let Ok(scope) = scope else { return not_found() };
            let state = locked(&shared.state);
            let found = state.installations.iter().find(|one| one.app == app && one.covers(&scope));
            found.map_or_else(not_found, |one| Response::json(200, &installation_shape(&origin, one)))
        }
        _ => error(401, "A JSON web token could not be decoded"),
    }
}

fn create(shared: &Shared, app: u64, id: u64) -> Response {
    shared.update(|state| {
        let Some(installation) = state.installations.iter().find(|one| one.app == app && one.id == id) else {
            return not_found();
        };
        if installation.suspended {
            return error(403, "This installation has been suspended");
        }
        let permissions = permissions(installation);
        let selection = if installation.repos.is_some() { "selected" } else { "all" };
        let expires_at = state.now().after(Duration::from_secs(3600));
        let token = format!("ghs_{}", random_word());
        state.app_tokens.push(AppToken { token: token.clone(), installation: id, expires_at });
        let body = json!({
            "token": token, "expires_at": expires_at.to_rfc3339(), "permissions": permissions,
            "repository_selection": selection
        });
        Response::json(201, &body)
    })
}

/// `GET /installation/repositories`.
pub(super) fn repositories(shared: &Shared, request: &Request, installation: u64) -> Response {
    let origin = shared.origin();
    let state = locked(&shared.state);
    let found = state.installations.iter().find(|one| one.id == installation);
    let covered = state
        .repos
        .iter()
        .filter(|repo| found.is_some_and(|installation| installation.covers(&Scope::Repo(repo.name.clone()))));
    let shapes = covered.map(|repo| shapes::repository(&origin, &state, repo)).collect();
    drop(state);
    page(shared, request, Some("repositories"), shapes)
}

fn permissions(installation: &InstallationState) -> Value {
    let mut permissions = json!({"actions": "read", "metadata": "read", "organization_hooks": "write"});
    if let (Value::Object(fields), true) = (&mut permissions, installation.runners) {
        fields.insert("administration".to_owned(), "write".into());
        fields.insert("organization_self_hosted_runners".to_owned(), "write".into());
    }
    permissions
}

fn app_shape(origin: &str, app: &AppState) -> Value {
    json!({
        "id": app.id, "slug": app.name, "node_id": format!("A_{}", app.id), "client_id": format!("Iv1.{}", app.id),
        "owner": shapes::account(origin, "acme", 33_435_655, "Organization"), "name": app.name, "description": "",
        "external_url": "https://example.com", "html_url": format!("{origin}/apps/{}", app.name),
        "created_at": "2021-06-11T13:29:13Z", "updated_at": "2021-06-11T13:29:13Z",
        "permissions": {"actions": "read", "metadata": "read", "organization_self_hosted_runners": "write"},
        "events": ["workflow_job"], "installations_count": 1
    })
}

fn installation_shape(origin: &str, installation: &InstallationState) -> Value {
    let (kind, account) = match &installation.account {
        Scope::Org(org) => ("Organization", shapes::account(origin, org, 33_435_655, "Organization")),
        Scope::Repo(repo) => ("User", shapes::account(origin, &repo.owner, 319_655, "User")),
        Scope::Enterprise(slug) => ("Enterprise", shapes::enterprise(origin, slug)),
    };
    let api = format!("{origin}/app/installations/{}", installation.id);
    json!({
        "id": installation.id, "account": account, "target_id": 33_435_655, "target_type": kind,
        "repository_selection": if installation.repos.is_some() { "selected" } else { "all" },
        "access_tokens_url": format!("{api}/access_tokens"),
        "repositories_url": format!("{origin}/installation/repositories"),
        "html_url": format!("{origin}/settings/installations/{}", installation.id),
        "app_id": installation.app, "app_slug": "farmer", "permissions": permissions(installation),
        "events": ["workflow_job"], "created_at": "2021-06-11T13:29:13Z", "updated_at": "2021-06-11T13:29:13Z",
        "single_file_name": null, "has_multiple_single_files": false, "single_file_paths": [],
        "suspended_by": if installation.suspended { shapes::account(origin, "octocat", 1, "User") } else { Value::Null },
        "suspended_at": if installation.suspended { json!("2021-06-11T13:29:13Z") } else { Value::Null }
    })
}
