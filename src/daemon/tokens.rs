//! Log lines about tokens that expire soon: when first seen, and once a day.

use std::collections::BTreeMap;

use log::{error, warn};

use crate::github::{GitHub, TokenEnd};

#[derive(Default)]
pub(super) struct TokenLog {
    /// By credential: the days left at the last line.
    told: BTreeMap<String, Option<u64>>,
}

impl TokenLog {
    /// Logs changes.
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
