//! What an answer's headers say of GitHub's limits ("Rate limits for the REST API" in its documentation).

use std::time::Duration;

use ureq::http::{HeaderMap, header};

use super::budget::ledger::{Settlement, Told, WindowSeen};
use super::json::Refusal;
use crate::model::Timestamp;

/// The header with the end of a personal access token.
const TOKEN_END: &str = "github-authentication-token-expiration";

/// Reads an answer. `now` is our clock, which counts where GitHub does not tell its own.
pub(super) fn read(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Settlement {
    Settlement { status: Some(status), window: window(headers, now), told: told(status, headers, body, now) }
}

/// A header that is a whole number.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn window(headers: &HeaderMap, now: Timestamp) -> Option<WindowSeen> {
    let resource = headers.get("x-ratelimit-resource").and_then(|name| name.to_str().ok());
    Some(WindowSeen {
        resource: resource.unwrap_or("core").to_owned(),
        limit: number(headers, "x-ratelimit-limit")?,
        remaining: number(headers, "x-ratelimit-remaining")?,
        resets_in: resets_in(headers, now)?,
    })
}

/// By GitHub's own clock, because that of a box without a battery may be anything.
fn resets_in(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let reset = number(headers, "x-ratelimit-reset")?;
    Some(Timestamp(reset.saturating_mul(1000)).since(server_time(headers).unwrap_or(now)))
}

/// Whether GitHub says to slow down, and for how long.
fn told(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<Told> {
    if !matches!(status, 403 | 429) {
        return None;
    }
    if let Some(seconds) = number(headers, "retry-after") {
        return Some(Told::For(Duration::from_secs(seconds)));
    }
    if number(headers, "x-ratelimit-remaining") == Some(0)
        && let Some(wait) = resets_in(headers, now)
    {
        return Some(if window(headers, now).is_some() { Told::Resource(wait) } else { Told::For(wait) });
    }
    let named = || serde_json::from_slice::<Refusal>(body).is_ok_and(|refusal| refusal.is_about_limits());
    (status == 429 || headers.contains_key("retry-after") || named()).then_some(Told::Somehow)
}

/// GitHub's clock.
pub(super) fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let since = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(since.as_secs().saturating_mul(1000)))
}

/// When the token that was shown ends: `2026-12-05 10:00:00 UTC` or `2026-12-05 10:00:00 +0100`.
pub(super) fn token_end(headers: &HeaderMap) -> Option<Timestamp> {
    let mut words = headers.get(TOKEN_END)?.to_str().ok()?.split_whitespace();
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
    use crate::github::budget::ledger::{Ledger, Purpose};

    #[track_caller]
    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    #[test]
    fn limits_are_read_as_the_documentation_tells() {
        let now = Timestamp(1_000_000_000);
        #[track_caller]
        fn check(status: u16, lines: &[(&'static str, &str)], now: Timestamp, seconds: Option<u64>) {
            let came = read(status, &headers(lines), b"", now);
            let found = Ledger::default().settle(Purpose::Ask, Duration::ZERO, &came, 0);
            assert_eq!(found, seconds.map(Duration::from_secs), "{status} {lines:?}");
        }
        check(403, &[("retry-after", "7")], now, Some(7));
        check(429, &[("retry-after", "7"), ("x-ratelimit-remaining", "5")], now, Some(7));
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000030")], now, Some(30));
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "900000")], now, Some(1));
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999999999999")], now, Some(3600));
        check(403, &[("x-ratelimit-remaining", "12")], now, None);
        check(403, &[], now, None);
        check(404, &[("retry-after", "7")], now, None);
        check(429, &[], now, Some(60));
        check(429, &[("retry-after", "soon")], now, Some(60));
        check(403, &[("retry-after", "18446744073709551615")], now, Some(3600));
        let skewed = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1763935250"),
            ("date", "Sun, 23 Nov 2025 22:00:00 GMT"),
        ];
        check(403, &skewed, now, Some(50));
        let whole = [&skewed[..], &[("x-ratelimit-limit", "5000"), ("x-ratelimit-resource", "core")]].concat();
        check(403, &whole, now, Some(50));
        check(200, &whole, now, None);
    }

    #[test]
    fn the_end_is_read_in_each_zone() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let mut headers = HeaderMap::new();
            headers.insert(TOKEN_END, text.parse().unwrap());
            assert_eq!(token_end(&headers).map(Timestamp::to_rfc3339).as_deref(), expected, "{text}");
        }
        check("2026-12-05 10:00:00 UTC", Some("2026-12-05T10:00:00Z"));
        check("2026-12-05 10:00:00 +0100", Some("2026-12-05T09:00:00Z"));
        check("2026-12-05 10:00:00 -0730", Some("2026-12-05T17:30:00Z"));
        for nonsense in ["", "never", "2026-12-05", "2026-12-05 10:00:00", "2026-12-05 10:00:00 \u{e9}", "a b +1"] {
            check(nonsense, None);
        }
    }
}
