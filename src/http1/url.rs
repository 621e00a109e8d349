//! Percent-encoding of the pieces of a request's target.

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

/// Undoes the encoding. `None` where a `%` is not followed by two hexadecimal digits, or where the result is not
/// UTF-8. A `+` stays a `+`.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
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
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase();
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}
