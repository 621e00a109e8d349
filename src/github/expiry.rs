//! The end of personal access tokens.

use std::fmt;
use std::time::Duration;

use super::api::GitHub;
use crate::model::Timestamp;

/// Warn this long before the end.
const SOON: Duration = Duration::from_secs(7 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// A token that expires soon, or has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEnd {
    /// The credential's name in the config.
    pub credential: String,
    pub at: Timestamp,
    /// Whole days left; `None`: it has expired.
    pub days: Option<u64>,
}

impl fmt::Display for TokenEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (credential, at) = (&self.credential, self.at.to_rfc3339());
        match self.days {
            None => write!(f, "the token of credential {credential} expired at {at}")?,
            Some(0) => write!(f, "the token of credential {credential} expires within a day, at {at}")?,
            Some(days) => write!(f, "the token of credential {credential} expires in {days} days, at {at}")?,
        }
        f.write_str(": make another one in GitHub's settings, write it in place of this one, and restart lxdrunner")
    }
}

impl GitHub {
    /// Tokens that expire within a week, by GitHub's answers.
    pub fn token_ends(&self) -> Vec<TokenEnd> {
        let now = self.now();
        let known = self.http.keys().token_ends().into_iter();
        let soon = known.filter(|(_, at)| *at <= now.after(SOON));
        let end = |(credential, at): (String, Timestamp)| {
            let days = (at > now).then(|| at.since(now).as_secs() / DAY);
            TokenEnd { credential, at, days }
        };
        soon.map(end).collect()
    }
}
