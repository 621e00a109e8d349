//! Heads and chunks as bytes.

use super::Error;
use super::parse::{is_target, is_token};

/// The head of a request. `target` is a path that is percent-encoded already (see [`super::path_segment`]).
///
/// # Errors
/// [`Error::Unencodable`] where a piece would break out of its place on the wire.
pub fn encode_request(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    if !is_token(method) || !is_target(target) {
        return Err(Error::Unencodable);
    }
    encode(&format!("{method} {target} HTTP/1.1"), headers)
}

/// The head of a response.
///
/// # Errors
/// [`Error::Unencodable`] where a header would break out of its place on the wire.
pub fn encode_response(status: u16, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    let reason = match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    };
    if !(100..=999).contains(&status) {
        return Err(Error::Unencodable);
    }
    encode(&format!("HTTP/1.1 {status} {reason}"), headers)
}

/// One chunk of a chunked body; an empty one is the last.
pub fn encode_chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn encode(start: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(start.as_bytes());
    for (name, value) in headers {
        if !is_token(name) || value.chars().any(char::is_control) {
            return Err(Error::Unencodable);
        }
        for piece in ["\r\n", name, ": ", value] {
            head.extend_from_slice(piece.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n\r\n");
    Ok(head)
}
