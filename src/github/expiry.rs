//! When a personal access token ends: each answer tells, in the header `github-authentication-token-expiration`.

use std::fmt;
use std::time::Duration;

use ureq::http::HeaderMap;

use super::api::GitHub;
use crate::model::Timestamp;

const HEADER: &str = "github-authentication-token-expiration";
/// Its end is told so long before.
const SOON: Duration = Duration::from_secs(7 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// A token that ends soon, or is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEnd {
    /// The credential's name in the config.
    pub credential: String,
    pub at: Timestamp,
    /// Whole days that are left; `None`: it is over.
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
    /// Tokens that end within a week, as far as GitHub's answers told.
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

/// The time in an answer, such as `2026-12-05 10:00:00 UTC` or `2026-12-05 10:00:00 +0100`.
pub(super) fn read(headers: &HeaderMap) -> Option<Timestamp> {
    let mut words = headers.get(HEADER)?.to_str().ok()?.split_whitespace();
    let (date, time) = (words.next()?, words.next()?);
    let zone = match words.next()? {
        "UTC" => "Z".to_owned(),
        offset => format!("{}:{}", offset.get(..3)?, offset.get(3..)?),
    };
    Timestamp::parse(&format!("{date}T{time}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_in_each_zone() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, text.parse().unwrap());
            assert_eq!(read(&headers).map(Timestamp::to_rfc3339).as_deref(), expected, "{text}");
        }
        check("2026-12-05 10:00:00 UTC", Some("2026-12-05T10:00:00Z"));
        check("2026-12-05 10:00:00 +0100", Some("2026-12-05T09:00:00Z"));
        check("2026-12-05 10:00:00 -0730", Some("2026-12-05T17:30:00Z"));
        for nonsense in ["", "never", "2026-12-05", "2026-12-05 10:00:00", "2026-12-05 10:00:00 \u{e9}", "a b +1"] {
            check(nonsense, None);
        }
    }
}
