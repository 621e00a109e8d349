//! The server's side of HTTP and websockets.

use percent_encoding::percent_decode_str;

/// Segments of a path and pairs of a query, decoded.
pub(super) type Target = (Vec<String>, Vec<(String, String)>);

/// A target as its path's segments and its query's pairs, without empty segments. `None` if something does not decode.
pub(super) fn split_target(target: &str) -> Option<Target> {
    let decode = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').filter(|s| !s.is_empty()).map(decode).collect::<Option<_>>()?;
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decode(name)?, decode(&value.replace('+', " "))?))
    };
    let pairs = query.split('&').filter(|p| !p.is_empty()).map(pair).collect::<Option<_>>()?;
    Some((segments, pairs))
}

/// The head of a response.
pub(super) fn encode_response(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        206 => "Partial Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        500 => "Internal Server Error",
        _ => "",
    };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} {reason}\r\n{headers}\r\n").into_bytes()
}

/// One chunk of a chunked body; an empty one is the last.
pub(super) fn encode_chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let query = vec![pair("x", ""), pair("y", "1=2"), pair("z", "a b")];
        assert_eq!(split_target("/a//b%2Fc/?x&y=1=2&&z=a+b"), Some((vec!["a".to_owned(), "b/c".to_owned()], query)));
        assert_eq!(split_target("/%ff"), None);
    }
}
