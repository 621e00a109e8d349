//! Calls of one GitHub, each with the credential that serves its scope.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use super::keyring::{Keyring, Whose};
use super::wire::{Answer, Call, Wire, decode};

/// A connection to GitHub with the credentials.
#[derive(Clone)]
pub(super) struct Http {
    pub wire: Wire,
    /// Shared by all clones of this, and with it their budgets.
    keys: Arc<Keyring>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl Http {
    pub fn new(base: &str, keys: Keyring, authorities: Vec<CertificateDer<'static>>) -> Http {
        Http { wire: Wire::new(base, authorities), keys: Arc::new(keys) }
    }

    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The same with another deadline for a whole call.
    pub fn with_deadline(mut self, deadline: Duration) -> Http {
        self.wire = self.wire.with_deadline(deadline);
        self
    }

    /// Calls `path` (with its query, without a leading slash). A status that means success comes back as an answer,
    /// everything else as an error.
    pub fn call(&self, call: Call<'_>, path: &str) -> Result<Answer, Error> {
        self.call_url(call, &Whose::by_path(path), &format!("{}/{path}", self.wire.base()))
    }

    /// The same with the credential at this index of the config.
    pub fn call_as(&self, place: usize, call: Call<'_>, path: &str) -> Result<Answer, Error> {
        self.call_url(call, &Whose::Credential(place), &format!("{}/{path}", self.wire.base()))
    }

    /// GET of `path`, decoded.
    pub fn get<T: serde::de::DeserializeOwned>(&self, tried: &str, purpose: Purpose, path: &str) -> Result<T, Error> {
        let answer = self.call(Call::get(tried, purpose), path)?;
        decode(tried, &answer)
    }

    /// The same as [`Http::call`] for a whole address, which must be at the base's origin.
    pub fn call_url(&self, call: Call<'_>, whose: &Whose, url: &str) -> Result<Answer, Error> {
        let (token, budget) = self.keys.grant(&self.wire, whose, None)?;
        match self.wire.call_url(call, url, &token, &budget) {
            // The token ended early: once more with a fresh one.
            Err(error) if error.kind == ErrorKind::Unauthorized && self.keys.is_renewable(whose) => {
                let (token, budget) = self.keys.grant(&self.wire, whose, Some(&token))?;
                self.wire.call_url(call, url, &token, &budget)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_credential_is_not_printed() {
        let http = Http::new("https://ghe.example", Keyring::of_token(Secret::new("hunter2"), 20), Vec::new());
        assert!(!format!("{http:?}").contains("hunter2"));
    }
}
