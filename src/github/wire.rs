//! Requests to one GitHub, and their answers with the limits that they name.
//!
//! Only this file sends a credential, and only to the origin of the configured base.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use ureq::http::{HeaderMap, Request, header};

use super::address::origin_of;
use super::agents::{Agents, CALL_TIMEOUT};
use super::budget::{Budget, Purpose};
use super::error::{Error, ErrorKind, one_line};
use super::failure::{Failure, MAX_ANSWER, failure};
use super::limits;
use crate::model::{Secret, Timestamp};

/// Redirects of renamed things that are followed, all within the same origin.
const MAX_REDIRECTS: usize = 3;
/// A larger difference of the clocks, in milliseconds, is reported.
pub(super) const SKEW_TOLD: u64 = 60_000;
const API_VERSION: &str = "2022-11-28";

/// A connection pool for one base address.
#[derive(Clone)]
pub(super) struct Wire {
    pub agents: Agents,
    base: String,
    origin: String,
    /// How far GitHub's clock is ahead of ours, in milliseconds, as last seen. Shared by all clones.
    skew: Arc<AtomicI64>,
}

/// An answer, whole.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// GitHub says to slow down for this long.
    told: Option<Duration>,
    /// The credential that was sent.
    token: Secret,
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// For people: `list the runners of org:acme`.
    pub tried: &'a str,
    pub purpose: Purpose,
    pub method: &'static str,
    pub body: Option<&'a Value>,
    /// The ETag of the known version: the server answers 304 if it is unchanged.
    pub etag: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub fn new(tried: &'a str, purpose: Purpose, method: &'static str) -> Call<'a> {
        Call { tried, purpose, method, body: None, etag: None }
    }

    pub fn get(tried: &'a str, purpose: Purpose) -> Call<'a> {
        Call::new(tried, purpose, "GET")
    }

    pub fn body(self, body: &'a Value) -> Call<'a> {
        Call { body: Some(body), ..self }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Wire {
    pub fn new(base: &str, authorities: Vec<CertificateDer<'static>>) -> Wire {
        let base = base.trim_end_matches('/').to_owned();
        let origin = origin_of(&base).unwrap_or_else(|| base.clone());
        let agents = Agents::new(&base, CALL_TIMEOUT, authorities);
        Wire { agents, base, origin, skew: Arc::default() }
    }

    /// How far GitHub's clock is ahead of this machine's, in milliseconds; zero until known.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Without a closing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `scheme://host[:port]` of the base.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The same with another deadline for a whole call.
    pub fn with_deadline(mut self, deadline: Duration) -> Wire {
        self.agents = self.agents.with_deadline(&self.base, deadline);
        self
    }

    /// Calls `path` (with its query, without a leading slash) with this token. A status that means success comes back as an
    /// answer, everything else as an error.
    pub fn call(&self, call: Call<'_>, path: &str, token: &Secret, budget: &Budget) -> Result<Answer, Error> {
        self.call_url(call, &format!("{}/{path}", self.base), token, budget)
    }

    /// The same for a whole address, which must be at the base's origin.
    pub fn call_url(&self, call: Call<'_>, url: &str, token: &Secret, budget: &Budget) -> Result<Answer, Error> {
        self.follow(call, url, |url| self.exchange(call, url, token, budget))
    }

    /// Makes the request, and those that redirects ask for.
    fn follow(
        &self,
        call: Call<'_>,
        url: &str,
        exchange: impl Fn(&str) -> Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        let tried = call.tried;
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = exchange(&url)?;
            let moved = matches!(answer.status, 301 | 302 | 307 | 308);
            if !moved || (call.method != "GET" && !matches!(answer.status, 307 | 308)) {
                return judge(call, answer);
            }
            let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
            url = location.and_then(|location| self.same_origin(location)).ok_or_else(|| {
                Error::new(tried, ErrorKind::Refused(answer.status), "it redirects to another host; check github_api")
            })?;
        }
        Err(Error::new(tried, ErrorKind::Malformed, "too many redirects"))
    }

    /// One request and its whole answer, whatever its status.
    fn exchange(&self, call: Call<'_>, url: &str, token: &Secret, budget: &Budget) -> Result<Answer, Error> {
        let Call { tried, method, .. } = call;
        let pass = budget.enter(tried, call.purpose)?;
        let started = Instant::now();
        let outcome = self.send(call, url, token);
        let path = url.strip_prefix(&self.base).unwrap_or(url);
        let millis = started.elapsed().as_millis();
        match outcome {
            Ok(mut answer) => {
                self.compare_clocks(&answer.headers);
                if let Some(at) = limits::token_end(&answer.headers) {
                    budget.set_token_end(at);
                }
                answer.told =
                    pass.settle(&limits::read(answer.status, &answer.headers, &answer.body, Timestamp::now()));
                let left = limits::number(&answer.headers, "x-ratelimit-remaining");
                let left = left.map_or_else(|| "unknown".to_owned(), |left| left.to_string());
                log::debug!(
                    "github_call method={method} path={path} status={} bytes={} ms={millis} limit_left={left}",
                    answer.status,
                    answer.body.len()
                );
                Ok(answer)
            }
            Err(error) => {
                drop(pass);
                let mut error = failure(tried, error);
                if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout) {
                    error.message = format!("{}: {}", self.origin, error.message);
                }
                log::debug!("github_call method={method} path={path} failed={:?} ms={millis}", error.kind);
                Err(error)
            }
        }
    }

    /// Warns if this machine's clock is wrong: a GitHub App's signature depends on it.
    fn compare_clocks(&self, headers: &HeaderMap) {
        let Some(theirs) = limits::server_time(headers) else { return };
        let ahead = i64::try_from(theirs.0).unwrap_or(0).saturating_sub(i64::try_from(Timestamp::now().0).unwrap_or(0));
        let before = self.skew.swap(ahead, Ordering::Relaxed);
        if ahead.unsigned_abs() > SKEW_TOLD && before.unsigned_abs() <= SKEW_TOLD {
            log::warn!("msg=\"{}\"", clock_trouble(ahead));
        }
    }

    fn send(&self, call: Call<'_>, url: &str, token: &Secret) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(url)
            .header("X-GitHub-Api-Version", API_VERSION)
            .header(header::ACCEPT, "application/vnd.github+json");
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if let Some(etag) = call.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let text = match call.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Some(body.to_string())
            }
            // A proxy may require a length.
            None => (call.method == "POST").then(String::new),
        };
        let response = self.agents.run(request, text)?;
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().take(MAX_ANSWER as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_ANSWER {
            return Err(Failure::TooLong);
        }
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes,
            told: None,
            token: token.clone(),
        })
    }

    /// `link` as a full address, if it stays at the origin.
    pub fn same_origin(&self, link: &str) -> Option<String> {
        if link.starts_with('/') && !link.starts_with("//") {
            return Some(format!("{}{link}", self.origin));
        }
        (origin_of(link).as_deref() == Some(self.origin.as_str())).then(|| link.to_owned())
    }
}

/// Success, or the error by status and body.
fn judge(call: Call<'_>, answer: Answer) -> Result<Answer, Error> {
    let tried = call.tried;
    let status = answer.status;
    if (200..300).contains(&status) || (status == 304 && call.etag.is_some()) {
        return Ok(answer);
    }
    let told: Option<super::json::Refusal> = serde_json::from_slice(&answer.body).ok();
    let html = looks_like_html(&answer);
    let message = match &told {
        Some(refusal) => refusal.to_string(),
        None if html => "a web page instead of JSON".to_owned(),
        None if answer.body.is_empty() => "empty response".to_owned(),
        None => one_line(&String::from_utf8_lossy(answer.body.get(..2048).unwrap_or(&answer.body))),
    };
    let message = match answer.token.is_empty() {
        true => message,
        false => message.replace(answer.token.expose(), "***"),
    };
    let kind = match (status, answer.told) {
        (_, Some(wait)) => ErrorKind::RateLimited(wait),
        (500.., _) => ErrorKind::Server(status),
        _ if html => {
            let message =
                format!("status {status} with a web page; not GitHub's API? look at github_api in the config");
            return Err(Error::new(tried, ErrorKind::Malformed, message));
        }
        (401, _) => ErrorKind::Unauthorized,
        (403, _) => ErrorKind::Forbidden,
        (404, _) => ErrorKind::NotFound,
        (409, _) => ErrorKind::Conflict,
        _ => ErrorKind::Refused(status),
    };
    Err(Error::new(tried, kind, message))
}

/// The message for a clock that is off by so many milliseconds.
pub(super) fn clock_trouble(ahead: i64) -> String {
    let side = if ahead > 0 { "behind" } else { "ahead of" };
    let seconds = ahead.unsigned_abs() / 1000;
    format!("this machine's clock is {seconds} s {side} GitHub's: set it (timedatectl set-ntp true)")
}

/// The JSON of an answer.
pub(super) fn decode<T: serde::de::DeserializeOwned>(tried: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| match looks_like_html(answer) {
        true => {
            let status = answer.status;
            let message =
                format!("status {status} with a web page; not GitHub's API? look at github_api in the config");
            Error::new(tried, ErrorKind::Malformed, message)
        }
        false => Error::new(tried, ErrorKind::Malformed, error.to_string()).with_source(error),
    })
}

fn looks_like_html(answer: &Answer) -> bool {
    let declared = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    declared.starts_with("text/html") || answer.body.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let wire = Wire::new("https://ghe.example/api/v3/", Vec::new());
        assert_eq!(wire.base(), "https://ghe.example/api/v3");
        let check = |link: &str, kept: Option<&str>| assert_eq!(wire.same_origin(link).as_deref(), kept, "{link}");
        check("https://ghe.example/x?page=2", Some("https://ghe.example/x?page=2"));
        check("https://GHE.example:443/x", Some("https://GHE.example:443/x"));
        check("/x", Some("https://ghe.example/x"));
        check("//evil.example/x", None);
        check("https://ghe.example.evil.example/x", None);
        check("https://ghe.example@evil.example/x", None);
        check("http://ghe.example/x", None);
        check("https://ghe.example:8443/x", None);
        check("", None);
    }
}
