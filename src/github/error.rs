//! Errors of calls, in GitHub's words and with the fix.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::text::escaped;

/// The longest message of GitHub's, in characters, that is kept.
const MAX_MESSAGE: usize = 300;

/// The permissions that a credential needs, as GitHub's settings pages name them.
const RIGHTS: &str = "a classic token the scope admin:org, for a repository repo; a fine-grained one \
                      or a GitHub App Self-hosted runners, for a repository Administration, to read and write";

/// A call that failed: what was tried, on what, and what came back.
#[derive(Debug)]
pub struct Error {
    /// For people: `generate a JIT config for org:acme`.
    pub tried: String,
    pub kind: ErrorKind,
    /// GitHub's own message, or the system's; one line, never a secret.
    pub message: String,
    /// The fix, if it differs from the usual one for the kind.
    fix: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure it was, for code to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 401
    Unauthorized,
    /// 403, not a limit
    Forbidden,
    /// 404: absent, or hidden from this credential
    NotFound,
    /// 409
    Conflict,
    /// 422 and other refusals
    Refused(u16),
    /// 403 or 429 for a rate limit, or a call that was not sent because of one; how long to wait.
    RateLimited(Duration),
    /// 5xx
    Server(u16),
    /// The deadline passed.
    Timeout,
    /// No connection, TLS, DNS
    Unreachable,
    /// An answer that is not the JSON we expect (HTML of a proxy, …).
    Malformed,
}

impl ErrorKind {
    /// True if GitHub answered that it did nothing, or was not asked at all.
    pub fn is_refusal(self) -> bool {
        match self {
            ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::RateLimited(_) => true,
            // 408: it took too long.
            ErrorKind::Refused(status) => (400..500).contains(&status) && status != 408,
            ErrorKind::Server(_) | ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Malformed => false,
        }
    }

    /// The status of GitHub's answer.
    fn status(self) -> Option<u16> {
        match self {
            ErrorKind::Unauthorized => Some(401),
            ErrorKind::Forbidden => Some(403),
            ErrorKind::NotFound => Some(404),
            ErrorKind::Conflict => Some(409),
            ErrorKind::Refused(status) | ErrorKind::Server(status) => Some(status),
            _ => None,
        }
    }
}

impl Error {
    /// A failure without a cause further down.
    pub fn new(tried: impl Into<String>, kind: ErrorKind, message: impl AsRef<str>) -> Error {
        Error {
            tried: escaped(&tried.into()).into_owned(),
            kind,
            message: one_line(message.as_ref()),
            fix: None,
            source: None,
        }
    }

    /// The same failure with another fix than the usual one for its kind.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Error {
        self.fix = Some(fix.into());
        self
    }

    /// The same failure with its cause.
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { tried, message, .. } = self;
        write!(f, "could not {tried}: ")?;
        if let Some(fix) = &self.fix {
            return match self.kind.status() {
                Some(status) => write!(f, "GitHub says {status}: {message}; {fix}"),
                None => write!(f, "{message}; {fix}"),
            };
        }
        match self.kind {
            ErrorKind::Unauthorized => {
                write!(
                    f,
                    "GitHub refused the credential (401: {message}); it expired, was revoked or is mistyped: renew pat"
                )
            }
            ErrorKind::Forbidden => write!(
                f,
                "GitHub forbids it (403: {message}); the credential needs the right to administer the runners there: \
                 {RIGHTS}"
            ),
            ErrorKind::NotFound => write!(
                f,
                "not found (404: {message}); it is absent or hidden from this credential: check the name and the \
                 credential's rights: {RIGHTS}"
            ),
            ErrorKind::Conflict => write!(f, "it clashes with what is there (409: {message})"),
            ErrorKind::Refused(status) => write!(f, "GitHub refused it ({status}: {message})"),
            ErrorKind::RateLimited(wait) => {
                write!(f, "GitHub's rate limit ({message}); next try in {} s", wait.as_secs())
            }
            ErrorKind::Server(status) => write!(f, "GitHub failed ({status}: {message}); it is tried again"),
            ErrorKind::Timeout => write!(
                f,
                "no answer in time ({message}); it is tried again; if it stays, check the network, its proxy and \
                 github_api in the config"
            ),
            ErrorKind::Unreachable => {
                write!(f, "no connection ({message}); check the network, its proxy and github_api in the config")
            }
            ErrorKind::Malformed => write!(f, "the answer is not what GitHub sends: {message}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// `text` in one line of bounded length, with control characters escaped.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for c in escaped(word).chars() {
            if length >= MAX_MESSAGE {
                line.push('…');
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_becomes_one_short_line() {
        let check = |text: &str, line: &str| assert_eq!(one_line(text), line);
        check("Bad credentials", "Bad credentials");
        check("two\r\nlines\u{1b}[31m red\t", "two lines\\x1b[31m red");
        check("", "");
        let long = "é".repeat(400);
        assert_eq!(one_line(&long).chars().count(), MAX_MESSAGE + 1);
        check(&"x".repeat(MAX_MESSAGE), &"x".repeat(MAX_MESSAGE));
    }

    #[test]
    fn the_cause_is_kept() {
        let error = Error::new("ask", ErrorKind::Unreachable, "x").with_source(std::io::Error::other("y"));
        assert_eq!(StdError::source(&error).unwrap().to_string(), "y");
    }
}
