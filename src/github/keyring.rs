//! The credential for each request: each scope may have its own.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::app::App;
use super::budget::Budget;
use super::error::{Error, ErrorKind};
use super::wire::Wire;
use crate::config::{Credential, CredentialKind, GitHubConfig};
use crate::model::{RepoName, Scope, Secret, Timestamp};
use crate::threads::lock;

/// How a request's credential is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The one that serves this scope.
    Place(Scope),
    /// The one at this index of the config.
    Credential(usize),
}

impl Whose {
    /// By the path of a call, which begins with the scope: `repos/acme/app/…`.
    pub fn by_path(path: &str) -> Whose {
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.split('/');
        let owned = |part: Option<&str>| part.map(str::to_lowercase);
        let place = match (parts.next(), parts.next(), parts.next()) {
            (Some("orgs"), org, _) => owned(org).map(Scope::Org),
            (Some("enterprises"), slug, _) => owned(slug).map(Scope::Enterprise),
            (Some("repos"), Some(owner), Some(name)) => {
                Some(Scope::Repo(RepoName { owner: owner.to_owned(), name: name.to_owned() }))
            }
            _ => None,
        };
        place.map_or(Whose::Credential(0), Whose::Place)
    }
}

/// All credentials of one GitHub, and the scopes that each serves.
pub(super) struct Keyring {
    holders: Vec<Holder>,
    /// Scope to index, by the config and by discovery.
    assigned: Mutex<BTreeMap<Scope, usize>>,
}

/// One credential.
pub(super) struct Holder {
    pub name: String,
    pub kind: Kind,
}

pub(super) enum Kind {
    /// An empty one is not sent.
    Token(Secret, Budget),
    App(Box<App>),
}

impl Keyring {
    /// A single token.
    pub fn of_token(token: Secret, percent: u8) -> Keyring {
        let kind = Kind::Token(token, Budget::new(percent));
        Keyring { holders: vec![Holder { name: "default".to_owned(), kind }], assigned: Mutex::default() }
    }

    pub fn of_config(config: &GitHubConfig) -> Keyring {
        let percent = config.api_budget;
        let holder = |Credential { name, kind }: &Credential| {
            let kind = match kind {
                CredentialKind::Token(token) => Kind::Token(token.clone(), Budget::new(percent)),
                CredentialKind::App { id, key } => match key.pair() {
                    Ok(pair) => Kind::App(Box::new(App::new(*id, pair, percent))),
                    // Impossible: it was read once with the config.
                    Err(_) => Kind::Token(Secret::default(), Budget::new(percent)),
                },
            };
            Holder { name: name.clone(), kind }
        };
        let holders = config.credentials.iter().map(holder).collect();
        Keyring { holders, assigned: Mutex::new(config.assigned.clone()) }
    }

    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Records that this credential sees the scope.
    pub fn assign(&self, scope: &Scope, place: usize) {
        lock(&self.assigned).entry(scope.clone()).or_insert(place);
    }

    fn holder(&self, whose: &Whose) -> Option<&Holder> {
        let place = match whose {
            Whose::Credential(place) => *place,
            Whose::Place(scope) => serving(&lock(&self.assigned), scope),
        };
        self.holders.get(place)
    }

    /// The token to send, and its budget. `stale`: a token that GitHub refused and that may be renewed.
    pub fn grant(&self, wire: &Wire, whose: &Whose, stale: Option<&Secret>) -> Result<(Secret, Budget), Error> {
        let holder = self.holder(whose);
        match (holder.map(|holder| &holder.kind), whose) {
            (Some(Kind::Token(token, budget)), _) => Ok((token.clone(), budget.clone())),
            (Some(Kind::App(app)), Whose::Place(scope)) => app.token(wire, scope, stale),
            (Some(Kind::App(_)), _) | (None, _) => {
                let message = "a GitHub App has no user; name targets in the config";
                Err(Error::new("ask as a user", ErrorKind::Forbidden, message))
            }
        }
    }

    /// True if a refused token can be renewed.
    pub fn is_renewable(&self, whose: &Whose) -> bool {
        self.holder(whose).is_some_and(|holder| matches!(holder.kind, Kind::App(_)))
    }

    /// The budget of calls about `scope`, if it is known.
    pub fn budget_of(&self, scope: &Scope) -> Option<Budget> {
        match &self.holder(&Whose::Place(scope.clone()))?.kind {
            Kind::Token(_, budget) => Some(budget.clone()),
            Kind::App(app) => app.budget_of(scope),
        }
    }

    /// When the tokens end, if known. (Those of a GitHub App are renewed.)
    pub fn token_ends(&self) -> Vec<(String, Timestamp)> {
        let end = |holder: &Holder| match &holder.kind {
            Kind::Token(_, budget) => Some((holder.name.clone(), budget.token_end()?)),
            Kind::App(_) => None,
        };
        self.holders.iter().filter_map(end).collect()
    }

    /// All budgets, each with a name.
    pub fn budgets(&self) -> Vec<(String, Budget)> {
        let of = |holder: &Holder| match &holder.kind {
            Kind::Token(_, budget) => vec![(holder.name.clone(), budget.clone())],
            Kind::App(app) => {
                let accounts = app.budgets().into_iter();
                accounts.map(|(account, budget)| (format!("{}:{account}", holder.name), budget)).collect()
            }
        };
        self.holders.iter().flat_map(of).collect()
    }
}

/// The index of the credential that serves `scope`: its own, its organisation's, that of the only enterprise with one, or the
/// first.
fn serving(assigned: &BTreeMap<Scope, usize>, scope: &Scope) -> usize {
    if let Some(place) = assigned.get(scope) {
        return *place;
    }
    if let Scope::Repo(repo) = scope
        && let Some(place) = assigned.get(&Scope::Org(repo.owner.to_lowercase()))
    {
        return *place;
    }
    let mut enterprises = assigned.iter().filter(|(scope, _)| matches!(scope, Scope::Enterprise(_)));
    match (enterprises.next(), enterprises.next()) {
        (Some((_, place)), None) => *place,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_credential() {
        let assigned: BTreeMap<Scope, usize> =
            [("org:acme", 1), ("repo:acme/secret", 2), ("repo:bob/x", 3), ("enterprise:big", 4)]
                .map(|(scope, place)| (scope.parse().unwrap(), place))
                .into();
        #[track_caller]
        fn check(assigned: &BTreeMap<Scope, usize>, path: &str, place: usize) {
            let found = match Whose::by_path(path) {
                Whose::Place(scope) => serving(assigned, &scope),
                Whose::Credential(place) => place,
            };
            assert_eq!(found, place, "{path}");
        }
        check(&assigned, "orgs/Acme/actions/runners?per_page=100", 1);
        check(&assigned, "repos/acme/app/actions/jobs/7", 1);
        check(&assigned, "repos/ACME/Secret", 2);
        check(&assigned, "repos/bob/x/actions/runners", 3);
        check(&assigned, "enterprises/big/actions/runners", 4);
        check(&assigned, "repos/of-big/app", 4);
        check(&assigned, "user/orgs?per_page=100", 0);
        let mut none = assigned.clone();
        none.remove(&Scope::Enterprise("big".to_owned()));
        check(&none, "repos/bob/y", 0);
        check(&none, "orgs/other", 0);
    }
}
