//! Percent-encoding of the pieces of a request's target.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a path: everything but RFC 3986's unreserved characters is encoded, slashes too, and
/// the segments `.` and `..`, which would move the path, lose their meaning.
pub fn path_segment(text: &str) -> String {
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => encode(text),
    }
}

/// A text as a name or a value of a query.
pub fn query_value(text: &str) -> String {
    encode(text)
}

/// True where the host of an address is this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Undoes the encoding. `None` where the result is not UTF-8. A `+` stays a `+`, and so does a `%` without two digits.
pub fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// Segments of a path and pairs of a query, decoded.
pub type Target = (Vec<String>, Vec<(String, String)>);

/// A target as its path's segments and its query's pairs; empty segments (a closing slash) are left out. `None` where
/// something does not decode.
pub fn split_target(target: &str) -> Option<Target> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').filter(|s| !s.is_empty()).map(decode).collect::<Option<_>>()?;
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decode(name)?, decode(&value.replace('+', " "))?))
    };
    let pairs = query.split('&').filter(|p| !p.is_empty()).map(pair).collect::<Option<_>>()?;
    Some((segments, pairs))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
