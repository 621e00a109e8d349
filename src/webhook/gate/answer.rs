//! The gate's own answers, and tiny_http's rewritten for clients. Pure.

use crate::webhook::event::SignatureError;
use crate::webhook::limits::LONGEST_ANSWER;
use crate::webhook::throttled_log::Kind;

/// An answer that the gate gives itself. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    status: &'static str,
    pub(super) text: &'static str,
}

impl Refusal {
    const fn new(kind: Kind, status: &'static str, text: &'static str) -> Refusal {
        Refusal { kind, status, text }
    }

    pub(super) const BUSY: Refusal =
        Refusal::new(Kind::Crowded, "503 Service Unavailable", "too many requests, retry later");
    pub(super) const LATE: Refusal =
        Refusal::new(Kind::Late, "408 Request Timeout", "the request took too long to arrive");
    pub(super) const CUT_HEAD: Refusal =
        Refusal::new(Kind::Malformed, "400 Bad Request", "the request ends before its headers do");
    pub(super) const CUT: Refusal =
        Refusal::new(Kind::Malformed, "400 Bad Request", "the body is shorter than it said");
    pub(super) const CHUNKS: Refusal =
        Refusal::new(Kind::Malformed, "400 Bad Request", "a chunk of the body is malformed");
    pub(super) const LONG_HEAD: Refusal =
        Refusal::new(Kind::Malformed, "431 Request Header Fields Too Large", "more headers than any webhook has");
    pub(super) const LONG_BODY: Refusal =
        Refusal::new(Kind::Malformed, "413 Content Too Large", "the body is longer than 25 MB, GitHub's limit");
    pub(super) const NOT_HTTP: Refusal = Refusal::new(Kind::Malformed, "400 Bad Request", "not an HTTP/1.1 request");
    pub(super) const FRAMING: Refusal =
        Refusal::new(Kind::Malformed, "400 Bad Request", "invalid Content-Length or Transfer-Encoding");
    pub(super) const EXPECTATION: Refusal =
        Refusal::new(Kind::Malformed, "417 Expectation Failed", "no other expectation than 100-continue is known");
    pub(super) const NO_SERVER: Refusal =
        Refusal::new(Kind::Unanswered, "502 Bad Gateway", "internal timeout, see the daemon's log");
    pub(super) const NOT_ALLOWED: Refusal =
        Refusal::new(Kind::NotAllowed, "403 Forbidden", "web_allow of lxdrunner does not name this address");
    pub(super) const HIDDEN: Refusal = Refusal::new(
        Kind::NotAllowed,
        "403 Forbidden",
        "lxdrunner cannot tell whether web_allow names who asks: name the proxy in web_trusted_proxies, and let it set X-Forwarded-For",
    );

    /// A delivery that cannot be GitHub's.
    pub(super) const fn unsigned(error: SignatureError) -> Refusal {
        Refusal::new(Kind::Unsigned, "401 Unauthorized", error.text())
    }

    /// The whole answer.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Refusal { status, text, .. } = self;
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
        )
        .into_bytes()
    }
}

/// The longest answer of tiny_http with its head, in bytes.
const LONGEST: usize = LONGEST_ANSWER + 1024;
const MOST_HEADERS: usize = 16;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// True for HEAD.
    pub(super) bodyless: bool,
    pub(super) keep_alive: bool,
}

/// tiny_http's answer rewritten for the client; `None` until it is complete. `Connection` is the gate's, since tiny_http's
/// connection is another one.
///
/// # Errors
/// `bytes` are not one answer.
pub(super) fn relay(bytes: &[u8], form: Form) -> Result<Option<Vec<u8>>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= LONGEST => return Ok(None),
        _ => return Err(()),
    };
    let status = response.code.ok_or(())?;
    let is_empty = matches!(status, 204 | 304);
    let connection = if form.keep_alive { "keep-alive" } else { "close" };
    let mut answer =
        format!("HTTP/1.1 {status} {}\r\nConnection: {connection}\r\n", response.reason.unwrap_or_default())
            .into_bytes();
    let mut length = 0;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok()).ok_or(())?;
            // RFC 9110, 8.6: a 204 has no length.
            if is_empty {
                continue;
            }
        }
        if !header.name.eq_ignore_ascii_case("server") {
            for piece in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
                answer.extend_from_slice(piece);
            }
        }
    }
    answer.extend_from_slice(b"\r\n");
    let length = if form.bodyless || is_empty { 0 } else { length };
    let body = bytes.get(head..).unwrap_or_default();
    if length > LONGEST || body.len() > length {
        return Err(());
    }
    answer.extend_from_slice(body);
    Ok((body.len() == length).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_out_when_it_is_whole() {
        let form = |bodyless, keep_alive| Form { bodyless, keep_alive };
        let usual = form(false, true);
        let answer = b"HTTP/1.1 200 OK\r\nServer: s\r\nDate: d\r\nContent-Length: 3\r\n\r\nabc";
        for at in 0..answer.len() {
            assert_eq!(relay(&answer[..at], usual), Ok(None), "{at}");
        }
        let check = |answer: &[u8], form: Form, expected: &str| {
            assert_eq!(String::from_utf8(relay(answer, form).unwrap().unwrap()).unwrap(), expected);
        };
        let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nDate: d\r\nContent-Length: 3\r\n\r\n";
        check(answer, usual, &format!("{head}abc"));
        check(&answer[..answer.len() - 3], form(true, false), &head.replace("keep-alive", "close"));
        let none = "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n";
        check(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", usual, none);
        assert_eq!(relay(&[answer.as_slice(), b"HTTP/1.1"].concat(), usual), Err(()));
        assert_eq!(relay(b"HTTP/1.1 200 OK\r\nContent-Length: 1049601\r\n\r\n", usual), Err(()));
        assert_eq!(relay(b"nonsense\r\n\r\n", usual), Err(()));
    }
}
