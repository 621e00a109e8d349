//! A GitHub App: it authenticates with a signed JWT, and gets a token, valid for an hour, for each account it is installed on
//! ("Authenticating as a GitHub App installation" in GitHub's documentation).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use serde::Deserialize;
use serde_json::json;

use super::address::scope_path;
use super::budget::{Budget, Purpose};
use super::error::{Error, ErrorKind};
use super::json::Token;
use super::limits::server_time;
use super::wire::{Answer, Call, Wire, decode};
use crate::model::{Scope, Secret, Timestamp};
use crate::threads::lock;

/// JWTs are backdated by so many seconds, for a clock that runs a little ahead of GitHub's.
const BACKDATED: u64 = 60;
/// In seconds; GitHub accepts ten minutes at most.
const JWT_LIFETIME: u64 = 9 * 60;
/// A token is renewed this long before its end, which is longer than any call takes.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// Assumed if GitHub does not say when a token ends; usually it is an hour.
const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A smaller difference of the clocks, in milliseconds, does not explain a refused signature.
const SKEW_THAT_MATTERS: u64 = 30_000;

/// One App, its installations and their tokens.
pub(super) struct App {
    id: u64,
    key: KeyPair,
    /// Of calls as the App itself.
    pub budget: Budget,
    percent: u8,
    accounts: Mutex<BTreeMap<String, Installation>>,
    /// By account; held while its token is requested, so that other threads wait.
    renewing: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

/// The App on one account.
struct Installation {
    id: u64,
    token: Option<(Secret, Instant)>,
    /// Each installation has limits of its own.
    budget: Budget,
}

/// `GET …/installation`, and one of `GET /app/installations`.
#[derive(Deserialize)]
pub(super) struct InstallationWire {
    pub id: u64,
    #[serde(default)]
    pub account: Option<AccountWire>,
    #[serde(default)]
    pub target_type: String,
    #[serde(default)]
    pub suspended_at: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct AccountWire {
    /// Of an organisation or a user.
    #[serde(default)]
    pub login: String,
    /// Of an enterprise.
    #[serde(default)]
    pub slug: String,
}

#[derive(Deserialize)]
pub(super) struct AppWire {
    pub name: crate::text::Line,
    #[serde(default)]
    pub permissions: BTreeMap<String, serde_json::Value>,
}

impl App {
    pub fn new(id: u64, key: KeyPair, percent: u8) -> App {
        let (accounts, renewing) = (Mutex::default(), Mutex::default());
        App { id, key, budget: Budget::new(percent), percent, accounts, renewing }
    }

    /// A token for the account of `scope`, and that account's budget. `stale` is a token that GitHub refused.
    pub fn token(&self, wire: &Wire, scope: &Scope, stale: Option<&Secret>) -> Result<(Secret, Budget), Error> {
        if let Some(known) = self.known(scope, stale) {
            return Ok(known);
        }
        let account = account(scope);
        let renewing = Arc::clone(lock(&self.renewing).entry(account.clone()).or_default());
        let _renewing = lock(&renewing);
        if let Some(known) = self.known(scope, stale) {
            return Ok(known);
        }
        let known = lock(&self.accounts).get(&account).map(|installation| installation.id);
        let (id, answer) = match known {
            None => self.resolve_and_create(wire, scope)?,
            Some(id) => match self.create(wire, scope, id) {
                Ok(answer) => (id, answer),
                // The App was uninstalled, and perhaps installed again under another id.
                Err(error) if error.kind == ErrorKind::NotFound => {
                    lock(&self.accounts).remove(&account);
                    self.resolve_and_create(wire, scope)?
                }
                Err(error) => return Err(error),
            },
        };
        let (token, good_for) = answer;
        let until = Instant::now() + good_for.saturating_sub(RENEW_BEFORE).max(Duration::from_secs(60));
        let mut accounts = lock(&self.accounts);
        let fresh = || Installation { id, token: None, budget: Budget::new(self.percent) };
        let installation = accounts.entry(account).or_insert_with(fresh);
        installation.token = Some((token.clone(), until));
        Ok((token, installation.budget.clone()))
    }

    /// The budgets of the accounts with a known installation.
    pub fn budgets(&self) -> Vec<(String, Budget)> {
        let accounts = lock(&self.accounts);
        accounts.iter().map(|(account, installation)| (account.clone(), installation.budget.clone())).collect()
    }

    /// The budget of the account of `scope`, if its installation is known.
    pub fn budget_of(&self, scope: &Scope) -> Option<Budget> {
        Some(lock(&self.accounts).get(&account(scope))?.budget.clone())
    }

    /// Records the account's installation from a listing.
    pub fn learn(&self, scope: &Scope, id: u64) {
        let mut accounts = lock(&self.accounts);
        let account = account(scope);
        if accounts.get(&account).is_none_or(|known| known.id != id) {
            accounts.insert(account, Installation { id, token: None, budget: Budget::new(self.percent) });
        }
    }

    fn known(&self, scope: &Scope, stale: Option<&Secret>) -> Option<(Secret, Budget)> {
        let accounts = lock(&self.accounts);
        let installation = accounts.get(&account(scope))?;
        let (token, until) = installation.token.as_ref()?;
        (*until > Instant::now() && Some(token) != stale).then(|| (token.clone(), installation.budget.clone()))
    }

    fn resolve_and_create(&self, wire: &Wire, scope: &Scope) -> Result<(u64, (Secret, Duration)), Error> {
        let id = self.resolve(wire, scope)?;
        Ok((id, self.create(wire, scope, id)?))
    }

    fn resolve(&self, wire: &Wire, scope: &Scope) -> Result<u64, Error> {
        let tried = format!("find the installation of the GitHub App {} for {scope}", self.id);
        let path = format!("{}/installation", scope_path(scope));
        let answer = self.call(wire, Call::get(&tried, Purpose::Register), &path).map_err(|error| match error.kind {
            ErrorKind::NotFound => error.with_fix(format!(
                "the App is not installed there, or not for this repository: its settings, Install App, and choose {scope}"
            )),
            _ => error,
        })?;
        Ok(decode::<InstallationWire>(&tried, &answer)?.id)
    }

    fn create(&self, wire: &Wire, scope: &Scope, id: u64) -> Result<(Secret, Duration), Error> {
        let tried = format!("get a token of the GitHub App {} for {scope}", self.id);
        let path = format!("app/installations/{id}/access_tokens");
        let answer = self.call(wire, Call::new(&tried, Purpose::Register, "POST"), &path)?;
        let token: Token = decode(&tried, &answer)?;
        let ends = token.expires_at.as_deref().and_then(Timestamp::parse);
        let now = server_time(&answer.headers).unwrap_or_else(Timestamp::now);
        let good_for = ends.map_or(TOKEN_LIFETIME, |ends| ends.since(now));
        Ok((Secret::new(token.token), good_for))
    }

    /// A call as the App itself. If GitHub refuses the signature because this machine's clock is wrong, it is made once more by
    /// GitHub's clock.
    pub fn call(&self, wire: &Wire, call: Call<'_>, path: &str) -> Result<Answer, Error> {
        let by = wire.skew();
        let attempt = |by| wire.call(call, path, &self.jwt(Timestamp::now(), by)?, &self.budget);
        let mut outcome = attempt(by);
        let now = wire.skew();
        let refused = |outcome: &Result<_, Error>| matches!(outcome, Err(e) if e.kind == ErrorKind::Unauthorized);
        if refused(&outcome) && now.abs_diff(by) > SKEW_THAT_MATTERS {
            outcome = attempt(now);
        }
        outcome.map_err(|error| match error.kind {
            ErrorKind::Unauthorized => error.with_fix(
                "app_id and private_key_file are not of one GitHub App, or the key was deleted in its settings",
            ),
            _ => error,
        })
    }

    /// A signed JWT (RFC 7519). `skew` is how far GitHub's clock is ahead of ours, in milliseconds.
    fn jwt(&self, now: Timestamp, skew: i64) -> Result<Secret, Error> {
        let now = now.0.saturating_add_signed(skew) / 1000;
        let claims = json!({
            "iat": now.saturating_sub(BACKDATED), "exp": now + JWT_LIFETIME - BACKDATED, "iss": self.id.to_string()
        });
        let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let made = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        made.map_err(|_| {
            let message = "its private key cannot sign";
            Error::new(format!("sign as the GitHub App {}", self.id), ErrorKind::Malformed, message)
        })?;
        Ok(Secret::new(format!("{signed}.{}", encode(&signature))))
    }
}

/// The account that a scope belongs to: an App has one installation for each.
fn account(scope: &Scope) -> String {
    match scope {
        Scope::Org(org) => org.to_lowercase(),
        Scope::Repo(repo) => repo.owner.to_lowercase(),
        Scope::Enterprise(slug) => format!("enterprise:{}", slug.to_lowercase()),
    }
}
