//! Request heads as bytes.

use super::Error;
use super::parse::{is_target, is_token};

/// The head of a request. `target` is a path that is percent-encoded already (see [`super::path_segment`]).
///
/// # Errors
/// [`Error::Unencodable`] if a part would change the form of the message.
pub fn encode_request(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    if !is_token(method) || !is_target(target) {
        return Err(Error::Unencodable);
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        if !is_token(name) || value.chars().any(char::is_control) {
            return Err(Error::Unencodable);
        }
        for piece in [name, ": ", value, "\r\n"] {
            head.push_str(piece);
        }
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}
