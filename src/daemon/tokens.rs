//! Tokens that end soon, in the log: once when it is seen, and once a day.

use std::collections::BTreeMap;

use log::{error, warn};

use crate::github::{GitHub, TokenEnd};

#[derive(Default)]
pub(super) struct TokenLog {
    /// By credential, what was said last.
    told: BTreeMap<String, Option<u64>>,
}

impl TokenLog {
    /// Says what has changed.
    pub fn tell(&mut self, github: &GitHub) {
        let ends = github.token_ends();
        self.told.retain(|name, _| ends.iter().any(|end| end.credential == *name));
        for end in ends {
            let TokenEnd { credential, days, .. } = &end;
            if self.told.get(credential) != Some(days) {
                match days {
                    None | Some(0) => error!("credential={credential:?} msg={:?}", end.to_string()),
                    Some(_) => warn!("credential={credential:?} msg={:?}", end.to_string()),
                }
                self.told.insert(credential.clone(), *days);
            }
        }
    }
}
