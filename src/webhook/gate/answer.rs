//! Answers: those that the gate gives itself, and those of the server within on their way out.

use crate::webhook::LONGEST_ANSWER;
use crate::webhook::event::SignatureError;
use crate::webhook::tally::Kind;

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

/// The longest answer of the server within, its head included.
const LONGEST: usize = LONGEST_ANSWER + 1024;
const MOST_HEADERS: usize = 16;

/// The server's answer as the client is to get it: with the word whether the connection ends, which `tiny_http` does
/// not say; and how many bytes of `bytes` it was. `None` where it has not all come yet.
///
/// # Errors
/// It is no answer.
pub(super) fn relay(bytes: &[u8], bodyless: bool, keep_alive: bool) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= LONGEST => return Ok(None),
        _ => return Err(()),
    };
    let code = response.code.ok_or(())?;
    let mut length = 0;
    for header in response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length")) {
        length = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok()).ok_or(())?;
    }
    let length = if bodyless || matches!(code, 204 | 304) { 0 } else { length };
    if length > LONGEST {
        return Err(());
    }
    let Some(answer) = bytes.get(..head + length) else { return Ok(None) };
    let line = answer.iter().position(|b| *b == b'\n').ok_or(())? + 1;
    let (line, rest) = answer.split_at_checked(line).ok_or(())?;
    let connection: &[u8] = if keep_alive { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" };
    Ok(Some(([line, connection, rest].concat(), answer.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_out_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 3\r\n\r\nabc";
        for at in 0..answer.len() {
            assert_eq!(relay(&answer[..at], false, true), Ok(None), "{at}");
        }
        let text = |answer: &[u8], bodyless, keep| String::from_utf8(relay(answer, bodyless, keep).unwrap().unwrap().0);
        let expected = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nServer: s\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(text(answer, false, true).unwrap(), expected);
        let head = &answer[..answer.len() - 3];
        assert!(text(head, true, false).unwrap().contains("\r\nConnection: close\r\n"));
        let none = text(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1", false, true).unwrap();
        assert_eq!(none, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
        let two = [answer.as_slice(), b"HTTP/1.1"].concat();
        assert_eq!(relay(&two, false, true).unwrap().unwrap().1, answer.len());
        assert_eq!(relay(b"HTTP/1.1 200 OK\r\nContent-Length: 1049601\r\n\r\n", false, true), Err(()));
        assert_eq!(relay(b"nonsense\r\n\r\n", false, true), Err(()));
    }
}
