//! Percent-encoding of the pieces of a request's target.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

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

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
