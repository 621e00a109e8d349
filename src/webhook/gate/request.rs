//! The head of a request: parsed, and rewritten for tiny_http. Pure.

use std::fmt::Write;

use super::answer::Refusal;
use crate::webhook::event::claimed;
use crate::webhook::limits::{HOOK_PATH, LONGEST_BODY};
use crate::webhook::peers::Caller;

const MOST_HEADERS: usize = 100;

/// Headers that proxies add.
const PROXIES: [&str; 7] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip", "x-forwarded-port"];

/// Headers that are passed on, in this spelling.
const FORWARDED: [&str; 5] = ["Content-Type", "X-GitHub-Event", "X-GitHub-Delivery", SIGNATURE, OLD_SIGNATURE];
const SIGNATURE: &str = "X-Hub-Signature-256";
const OLD_SIGNATURE: &str = "X-Hub-Signature";

/// How the body's end is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    Length(usize),
    Chunked,
}

/// The parts of a request's head that are used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    method: String,
    /// The path and the query.
    target: String,
    /// Names of [`FORWARDED`] with their values.
    headers: Vec<(&'static str, String)>,
    pub(super) body: Framing,
    pub(super) expects_continue: bool,
    /// True if the client wants to keep the connection.
    pub(super) keep_alive: bool,
    /// True for HEAD, whose answer has no body.
    pub(super) bodyless: bool,
    /// True for a POST to the path of webhooks: it must be signed.
    pub(super) is_delivery: bool,
    /// True if a header shows that a proxy passed it on.
    pub(super) proxied: bool,
    /// All X-Forwarded-For headers, joined by commas.
    pub(super) forwarded_for: Option<String>,
}

/// True if `bytes` may contain the empty line that ends a head; bytes before `seen` were checked before.
pub(super) fn may_be_complete(bytes: &[u8], seen: usize) -> bool {
    let fresh = bytes.get(seen.saturating_sub(3)..).unwrap_or_default();
    let mut rest = fresh;
    while let Some(at) = rest.iter().position(|b| *b == b'\n') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.first() == Some(&b'\n') || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

/// The head and its length in bytes; `None` if it is incomplete.
pub(super) fn parse_head(bytes: &[u8], most: usize) -> Result<Option<(Head, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > most => return Err(Refusal::LONG_HEAD),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::LONG_HEAD),
        Err(_) => return Err(Refusal::NOT_HTTP),
    };
    let plain = |text: &&str| text.bytes().all(|b| b.is_ascii_graphic());
    let method = request.method.filter(plain).ok_or(Refusal::NOT_HTTP)?;
    let target = path_of(request.path.filter(plain).ok_or(Refusal::NOT_HTTP)?);
    let newer = request.version == Some(1);
    let mut head = Head {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Framing::None,
        expects_continue: false,
        keep_alive: newer,
        bodyless: method == "HEAD",
        is_delivery: method == "POST" && target.split('?').next() == Some(HOOK_PATH),
        proxied: false,
        forwarded_for: None,
    };
    for header in request.headers.iter() {
        head.take(header.name, std::str::from_utf8(header.value).ok().map(str::trim), newer)?;
    }
    Ok(Some((head, length)))
}

/// The path of a target, which may be a whole address (RFC 9112, 3.2.2).
fn path_of(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return target;
    }
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}

/// Parses digits only; saturates.
fn decimal(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

impl Head {
    fn take(&mut self, name: &str, value: Option<&str>, newer: bool) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        self.proxied |= PROXIES.iter().any(|known| is(known));
        if is("content-length") {
            let length = value.and_then(decimal).ok_or(Refusal::FRAMING)?;
            // Also refuses a length beside chunks and two different lengths, as in request smuggling.
            if !matches!(self.body, Framing::None) && self.body != Framing::Length(length) {
                return Err(Refusal::FRAMING);
            }
            self.body = Framing::Length(length);
        } else if is("transfer-encoding") {
            let chunked = value.is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
            if !chunked || !newer || self.body != Framing::None {
                return Err(Refusal::FRAMING);
            }
            self.body = Framing::Chunked;
        } else if is("expect") {
            if !value.is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
                return Err(Refusal::EXPECTATION);
            }
            self.expects_continue = newer;
        } else if is("connection") {
            for word in value.unwrap_or_default().split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    self.keep_alive = false;
                } else if word.eq_ignore_ascii_case("keep-alive") && !newer {
                    self.keep_alive = true;
                }
            }
        } else if is("x-forwarded-for") {
            let all = self.forwarded_for.get_or_insert_default();
            if !all.is_empty() {
                all.push(',');
            }
            // A value that is not UTF-8 is not an address.
            all.push_str(value.unwrap_or("?"));
        } else if let Some(known) = FORWARDED.into_iter().find(|known| is(known)) {
            let printable = |v: &&str| v.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            // The first of several counts.
            if let Some(value) = value.filter(printable).filter(|_| self.header(known).is_none()) {
                self.headers.push((known, value.to_owned()));
            }
        }
        Ok(())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Its size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let values: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.method.len() + self.target.len() + values + self.forwarded_for.as_ref().map_or(0, String::len)
    }

    /// The head for tiny_http. Of the client's bytes it has only method and target without spaces, and printable values of
    /// [`FORWARDED`]. `length` is that of the body as received.
    pub(super) fn encode(&self, caller: &Caller, length: usize) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n{}: {caller}\r\n", self.method, self.target, Caller::HEADER);
        // Writing to a String does not fail.
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if self.is_delivery && self.body != Framing::None {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Refuses a delivery whose signature cannot be one, before its body is read.
    pub(super) fn check_signature(&self) -> Result<(), Refusal> {
        match claimed(self.header(SIGNATURE).or_else(|| self.header(OLD_SIGNATURE))) {
            Err(error) if self.is_delivery && self.body != Framing::None => Err(Refusal::unsigned(error)),
            _ => Ok(()),
        }
    }

    /// True if the declared length is above the limit.
    pub(super) fn too_long(&self) -> bool {
        matches!(self.body, Framing::Length(length) if length > LONGEST_BODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> Result<Head, Refusal> {
        let (head, length) = parse_head(text.as_bytes(), 16 * 1024)?.expect("complete");
        assert_eq!(length, text.len());
        Ok(head)
    }

    #[test]
    fn a_head_is_written_anew() {
        let caller: Caller = "192.0.2.7 public".parse().unwrap();
        #[track_caller]
        fn check(caller: &Caller, text: &str, line: &str, headers: &str) {
            let written = String::from_utf8(parsed(text).unwrap().encode(caller, 7)).unwrap();
            assert_eq!(written, format!("{line} HTTP/1.1\r\nLxdrunner-Caller: 192.0.2.7 public\r\n{headers}\r\n"));
        }
        let check = |text: &str, line: &str, headers: &str| check(&caller, text, line, headers);
        check("GET / HTTP/1.0\r\n\r\n", "GET /", "");
        check("GET http://h/a?b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET /a?b", "");
        check("GET HTTPS://h HTTP/1.1\r\n\r\n", "GET /", "");
        check("GET ftp://h/ HTTP/1.1\r\n\r\n", "GET ftp://h/", "");
        check("GET /?u=http://h/ HTTP/1.1\r\n\r\n", "GET /?u=http://h/", "");
        // Only the gate says who asks, and how long the body is.
        check("GET / HTTP/1.1\r\nLxdrunner-Caller: ::1 metrics\r\nlxdrunner-caller: x\r\n\r\n", "GET /", "");
        check("POST / HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", "POST /", "");
        let post = |more: &str| format!("POST /hooks/lxdrunner HTTP/1.1\r\n{more}\r\n");
        let line = "POST /hooks/lxdrunner";
        check(&post("Content-Length: 009\r\nTE: chunked\r\n"), line, "Content-Length: 7\r\n");
        check(&post("Transfer-Encoding: chunked\r\n"), line, "Content-Length: 7\r\n");
        check(&post(""), line, "");
        check(&post("X-GITHUB-Event:  ping \r\n"), line, "X-GitHub-Event: ping\r\n");
        check(&post("X-GitHub-Event: p\u{e9}ng\r\nX-GitHub-Events: a\r\n"), line, "");
        check(&post("X-GitHub-Event: a\tb\r\n"), line, "");
        check(&post("X-GitHub-Event: a\r\nX-GitHub-Event: b\r\n"), line, "X-GitHub-Event: a\r\n");
        for text in ["GET /a b HTTP/1.1\r\n\r\n", "GET /\t HTTP/1.1\r\n\r\n", "G@T / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"] {
            assert_eq!(parsed(text), Err(Refusal::NOT_HTTP), "{text:?}");
        }
    }

    #[test]
    fn a_connection_lasts_as_its_client_wants() {
        let check = |text: &str, keep_alive: bool| assert_eq!(parsed(text).unwrap().keep_alive, keep_alive, "{text}");
        check("GET / HTTP/1.1\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", false);
        check("GET / HTTP/1.0\r\n\r\n", false);
        check("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true);
    }

    #[test]
    fn forwarders_are_joined() {
        let head = parsed("GET / HTTP/1.1\r\nX-Forwarded-For: a, b\r\nX-Forwarded-For: c\r\n\r\n").unwrap();
        assert_eq!(head.forwarded_for.as_deref(), Some("a, b,c"));
        let text = b"GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nX-Forwarded-For: \xff\r\n\r\n";
        let (head, _) = parse_head(text, 1024).unwrap().unwrap();
        assert_eq!(head.forwarded_for.as_deref(), Some("a,?"));
        let proxied = |line: &str| parsed(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n")).unwrap().proxied;
        assert!(proxied("Via: 1.1 x") && proxied("forwarded: for=x") && proxied("X-Real-IP: x") && !proxied("Host: x"));
    }

    #[test]
    fn the_end_of_a_head_is_found_at_every_split() {
        for text in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n", "GET / HTTP/1.1\nA: b\n\r\n"] {
            for at in 0..text.len() {
                assert!(!may_be_complete(&text.as_bytes()[..at], 0), "{at}");
                assert!(may_be_complete(text.as_bytes(), at), "{at}");
            }
        }
    }
}
