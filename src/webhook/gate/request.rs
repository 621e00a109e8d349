//! What the gate must know of a request: where it ends, and what of it the server within is to hear. Pure: bytes in,
//! words out.

use super::answer::Refusal;
use crate::webhook::event::claimed;
use crate::webhook::letters::{Field, Words};
use crate::webhook::{HOOK_PATH, LONGEST_BODY};

const MOST_HEADERS: usize = 100;

/// Headers that proxies add.
const PROXIES: [&str; 7] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip", "x-forwarded-port"];

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Neither length nor chunks: there is no body.
    None,
    Length(usize),
    Chunked,
}

/// What is kept of a request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The request for the server within: method and path, in our own words.
    pub(super) line: Vec<u8>,
    /// What the server is to hear beside it.
    pub(super) words: Words,
    pub(super) body: Framing,
    pub(super) expects_continue: bool,
    /// True where the client wants to ask more over this connection.
    pub(super) keep_alive: bool,
    /// True for HEAD, whose answer has no body.
    pub(super) bodyless: bool,
    posted: bool,
    /// True for a delivery: it must be signed.
    pub(super) is_delivery: bool,
    /// True where a header says that a proxy passed it on.
    pub(super) proxied: bool,
    /// Every X-Forwarded-For, joined as if it were one.
    pub(super) forwarded_for: Option<String>,
}

/// True where the empty line that ends a head may be in `bytes`; those before `seen` were looked at before.
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

/// `None` where the head is not complete, else the head and how many bytes it has.
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
    let mut line = Vec::with_capacity(method.len() + target.len() + 12);
    for piece in [method, " ", target, " HTTP/1.1\r\n"] {
        line.extend_from_slice(piece.as_bytes());
    }
    let mut head = Head {
        line,
        words: Words::default(),
        body: Framing::None,
        expects_continue: false,
        keep_alive: newer,
        bodyless: method == "HEAD",
        posted: method == "POST",
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

/// Digits alone. More of them than a `usize` has room for are simply the largest there is.
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
            // Also refuses a length beside chunks, and two different lengths: the tricks of request smuggling.
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
            // What is no text names nobody.
            all.push_str(value.unwrap_or("?"));
        } else if let Some((field, _)) = Field::ALL.into_iter().find(|(_, known)| is(known)) {
            let printable = |v: &&str| v.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            if let Some(value) = value.filter(printable) {
                self.words.set(field, value);
            }
        }
        Ok(())
    }

    /// Refuses a delivery whose signature cannot be one, before its body is read.
    pub(super) fn check_signature(&self) -> Result<(), Refusal> {
        match claimed(self.words.signature()) {
            Err(error) if self.is_delivery && self.body != Framing::None => Err(Refusal::unsigned(error)),
            _ => Ok(()),
        }
    }

    /// True where the declared length is more than anybody may send.
    pub(super) fn too_long(&self) -> bool {
        matches!(self.body, Framing::Length(length) if length > LONGEST_BODY)
    }

    /// True where the server is to see a body.
    pub(super) fn has_body(&self) -> bool {
        self.posted && self.body != Framing::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> Result<(String, Head), Refusal> {
        let (head, length) = parse_head(text.as_bytes(), 16 * 1024)?.expect("complete");
        assert_eq!(length, text.len());
        Ok((String::from_utf8(head.line.clone()).unwrap(), head))
    }

    #[test]
    fn the_server_within_hears_our_own_words() {
        let check = |text: &str, line: &str| assert_eq!(parsed(text).unwrap().0, line, "{text}");
        check("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\n");
        check("GET http://h/a?b HTTP/1.1\r\nHost: h\r\nBundle: 1\r\n\r\n", "GET /a?b HTTP/1.1\r\n");
        check("GET HTTPS://h HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n");
        check("GET ftp://h/ HTTP/1.1\r\n\r\n", "GET ftp://h/ HTTP/1.1\r\n");
        check("GET /?u=http://h/ HTTP/1.1\r\n\r\n", "GET /?u=http://h/ HTTP/1.1\r\n");
        let event = |text: &str| parsed(text).unwrap().1.words.get(Field::Event).map(str::to_owned);
        let check = |header: &str, heard: Option<&str>| {
            assert_eq!(event(&format!("PUT / HTTP/1.1\r\n{header}\r\n\r\n")).as_deref(), heard, "{header}");
        };
        check("X-GITHUB-Event:  ping ", Some("ping"));
        check("X-GitHub-Event: p\u{e9}ng", None);
        check("X-GitHub-Events: ping", None);
        check("X-GitHub-Event: a\r\nX-GitHub-Event: b", Some("a"));
        let text = "POST / HTTP/1.1\r\nContent-Length: 003\r\nBundle: 8\r\nX-GitHub-Delivery: d\r\n\r\n";
        let (line, head) = parsed(text).unwrap();
        assert_eq!((line.as_str(), head.words.get(Field::Delivery)), ("POST / HTTP/1.1\r\n", Some("d")));
    }

    #[test]
    fn a_connection_lasts_as_its_client_wants() {
        let check = |text: &str, keep_alive: bool| assert_eq!(parsed(text).unwrap().1.keep_alive, keep_alive, "{text}");
        check("GET / HTTP/1.1\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", false);
        check("GET / HTTP/1.0\r\n\r\n", false);
        check("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true);
    }

    #[test]
    fn forwarders_are_joined() {
        let (_, head) = parsed("GET / HTTP/1.1\r\nX-Forwarded-For: a, b\r\nX-Forwarded-For: c\r\n\r\n").unwrap();
        assert_eq!(head.forwarded_for.as_deref(), Some("a, b,c"));
        let text = b"GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nX-Forwarded-For: \xff\r\n\r\n";
        let (head, _) = parse_head(text, 1024).unwrap().unwrap();
        assert_eq!(head.forwarded_for.as_deref(), Some("a,?"));
        let proxied = |line: &str| parsed(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n")).unwrap().1.proxied;
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
