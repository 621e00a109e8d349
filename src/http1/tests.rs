//! Every message at every split point and every truncation, every cap at its limit and beyond, and garbage.

use super::*;

/// What a message came to: its head, its body, and how many bytes were not taken.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    head: Head,
    body: Vec<u8>,
    left: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    ResponseTo(&'static str),
}

impl Kind {
    fn parser(self) -> Parser {
        match self {
            Kind::Request => Parser::request(),
            Kind::ResponseTo(method) => Parser::response_to(method),
        }
    }
}

/// Feeds the pieces one after another, then the end; `None` where the message is not complete then.
fn parse(kind: Kind, pieces: &[&[u8]]) -> Result<Seen, Error> {
    let mut parser = kind.parser();
    let (mut head, mut body) = (None, Vec::new());
    let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
    // The empty piece at the end shows what was complete without further input.
    for piece in pieces.iter().copied().chain([&b""[..]]) {
        let mut rest = piece;
        loop {
            let (used, event) = parser.step(rest)?;
            left -= used;
            rest = &rest[used..];
            match event {
                Event::NeedInput => {
                    assert!(rest.is_empty(), "asks for more with {} bytes left", rest.len());
                    break;
                }
                Event::Head(it) => assert!(head.replace(it).is_none(), "two heads"),
                Event::Body(piece) => {
                    assert!(!piece.is_empty());
                    body.extend_from_slice(piece);
                }
                Event::End => return Ok(Seen { head: head.unwrap(), body, left }),
            }
        }
    }
    parser.end_of_input()?;
    assert_eq!(parser.step(b""), Ok((0, Event::End)));
    Ok(Seen { head: head.unwrap(), body, left })
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// Messages that are whole: what they are, their text, their body, whether the connection lives on, and bytes behind.
const WHOLE: &[(Kind, &str, &str, bool, usize)] = &[
    (Kind::ResponseTo("GET"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP", "hello", true, 4),
    (Kind::ResponseTo("GET"), "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", true, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", "", true, 0),
    (Kind::ResponseTo("HEAD"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", true, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 204 No Content\r\n\r\n", "", true, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nhi", "hi", false, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nhi", "hi", false, 0),
    (Kind::ResponseTo("GET"), "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", false, 0),
    (
        Kind::ResponseTo("GET"),
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        "hi",
        true,
        0,
    ),
    (
        Kind::ResponseTo("GET"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
        "hello0123456789",
        true,
        0,
    ),
    (
        Kind::ResponseTo("GET"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1 \r\na\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\nrest",
        "a",
        true,
        4,
    ),
    (
        Kind::ResponseTo("POST"),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "x",
        true,
        0,
    ),
    (Kind::ResponseTo("GET"), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}", "", false, 2),
    (Kind::Request, "GET / HTTP/1.1\r\nHost: lxd\r\n\r\n", "", true, 0),
    (Kind::Request, "GET /1.0?a=b HTTP/1.1\r\n\r\nGET", "", true, 3),
    (Kind::Request, "POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "abc", true, 0),
    (Kind::Request, "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", true, 0),
    (Kind::Request, "GET / HTTP/1.0\r\n\r\n", "", false, 0),
];

#[test]
fn whole_messages_are_the_same_at_every_split_point() {
    for (kind, text, body, keep_alive, left) in WHOLE {
        let bytes = text.as_bytes();
        let whole = parse(*kind, &[bytes]).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(whole.body, body.as_bytes(), "{text:?}");
        assert_eq!(whole.head.keep_alive, *keep_alive, "{text:?}");
        assert_eq!(whole.left, *left, "{text:?}");
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(parse(*kind, &[first, second]).as_ref(), Ok(&whole), "{text:?} at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(*kind, &single).as_ref(), Ok(&whole), "{text:?} byte by byte");
    }
}

#[test]
fn a_message_that_is_cut_off_is_never_whole() {
    for (kind, text, _, _, left) in WHOLE {
        let bytes = text.as_bytes();
        for at in 0..bytes.len() - left {
            let expected = if at == 0 { Error::ClosedBefore } else { Error::CutOff };
            assert_eq!(parse(*kind, &[&bytes[..at]]), Err(expected), "{text:?} at {at}");
        }
    }
}

#[test]
fn a_body_without_a_length_lasts_until_the_close() {
    let text = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nas long as it lasts";
    for at in 0..=text.len() {
        let (first, second) = text.as_bytes().split_at(at);
        let seen = parse(Kind::ResponseTo("GET"), &[first, second]).unwrap();
        assert_eq!(seen.body, b"as long as it lasts");
        assert!(!seen.head.keep_alive);
    }
}

#[test]
fn headers_are_found_without_regard_to_case() {
    let text = "HTTP/1.1 200 OK\r\nETag:  \t\"a b\" \t\r\nX-A: 1\r\nx-a: 2\r\nEmpty:\r\nContent-Length: 0\r\n\r\n";
    let headers = parse(Kind::ResponseTo("GET"), &[text.as_bytes()]).unwrap().head.headers;
    assert_eq!(headers.get("etag"), Some("\"a b\""));
    assert_eq!(headers.get("X-a"), Some("1"));
    assert_eq!(headers.get("empty"), Some(""));
    assert_eq!(headers.get("absent"), None);
    assert_eq!(headers.iter().count(), 5);
}

#[track_caller]
fn check_error(kind: Kind, text: impl AsRef<[u8]>, expected: Error) {
    let bytes = text.as_ref();
    let shown = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
    assert_eq!(parse(kind, &[bytes]), Err(expected), "{shown:?}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(parse(kind, &single), Err(expected), "{shown:?} byte by byte");
}

#[test]
fn what_is_not_http_is_refused() {
    let response = Kind::ResponseTo("GET");
    for line in [
        "",
        "garbage",
        "HTTP/1.1",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 099 x",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\u{0}K",
        "SSH-2.0-OpenSSH_9.2",
        "<html>",
        "HTTP/1.1 200 a\rb",
    ] {
        check_error(response, format!("{line}\r\n\r\n"), Error::StartLine);
    }
    check_error(response, "HTTP/1.1 200 OK\n\n", Error::StartLine);
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/3",
        "GE T / HTTP/1.1",
        "GET x HTTP/1.1",
        "GET http://x/ HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "",
    ] {
        check_error(Kind::Request, format!("{line}\r\n\r\n"), Error::StartLine);
    }
    check_error(Kind::Request, b"GET /\xff HTTP/1.1\r\n\r\n", Error::StartLine);
    for line in ["no colon", ": no name", "na me: x", "name : x", " folded: x", "x: a\u{0}b", "x: a\rb", "n\u{e9}: x"] {
        check_error(response, format!("{OK}{line}\r\n\r\n"), Error::Header);
    }
    check_error(response, format!("{OK}A: b\n\r\n"), Error::Header);
    for headers in [
        "Content-Length: x",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1 2",
        "Content-Length: 0x1",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1, 1",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
    ] {
        check_error(response, format!("{OK}{headers}\r\n\r\n"), Error::Framing);
        check_error(Kind::Request, format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n"), Error::Framing);
    }
    for chunks in ["x\r\n", "\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", ";a\r\n", "1 x\r\n", "1\n", "10000000000000000\r\n"]
    {
        check_error(response, format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}"), Error::Chunk);
    }
    for chunks in ["1\r\nab\r\n", "1\r\na\n\r\n", "1\r\na\r\r\n"] {
        check_error(response, format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}"), Error::Chunk);
    }
    check_error(response, format!("{OK}Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n"), Error::Header);
}

#[test]
fn an_error_stays() {
    let mut parser = Parser::request();
    assert_eq!(parser.step(b"\r\n"), Err(Error::StartLine));
    assert_eq!(parser.step(b"GET / HTTP/1.1\r\n\r\n"), Err(Error::StartLine));
    assert_eq!(parser.end_of_input(), Err(Error::StartLine));
}

#[test]
fn every_cap_holds_at_its_limit_and_not_beyond() {
    let response = Kind::ResponseTo("GET");
    let whole = |text: String| assert!(parse(response, &[text.as_bytes()]).is_ok());

    let head = |length: usize| {
        let frame = format!("{OK}Content-Length: 0\r\nX: \r\n\r\n").len();
        format!("{OK}Content-Length: 0\r\nX: {}\r\n\r\n", "x".repeat(length - frame))
    };
    whole(head(MAX_HEAD - 1));
    whole(head(MAX_HEAD));
    check_error(response, head(MAX_HEAD + 1), Error::HeadTooLong);
    // A line that never ends is given up at the cap, not collected.
    check_error(response, "x".repeat(MAX_HEAD + 1), Error::HeadTooLong);
    check_error(response, format!("{OK}{}", "x".repeat(MAX_HEAD)), Error::HeadTooLong);

    let headers = |count: usize| format!("{OK}Content-Length: 0\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    whole(headers(MAX_HEADERS));
    check_error(response, headers(MAX_HEADERS + 1), Error::TooManyHeaders);

    let interim = |count: usize| format!("{}{OK}Content-Length: 0\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n".repeat(count));
    whole(interim(MAX_INTERIM));
    check_error(response, interim(MAX_INTERIM + 1), Error::TooManyInterim);

    // The cap holds for each size line, not for all of them together.
    let chunk = |length: usize| {
        let line = format!("1;{}\r\na\r\n", "x".repeat(length - "1;\r\n".len()));
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n{line}{line}0\r\n\r\n")
    };
    whole(chunk(MAX_CHUNK_LINE - 1));
    whole(chunk(MAX_CHUNK_LINE));
    check_error(response, chunk(MAX_CHUNK_LINE + 1), Error::ChunkLineTooLong);

    let trailers = |length: usize| {
        let frame = "A: \r\nB: \r\n\r\n".len();
        let first = (length - frame) / 2;
        let second = length - frame - first;
        let lines = format!("A: {}\r\nB: {}\r\n\r\n", "x".repeat(first), "x".repeat(second));
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n0\r\n{lines}")
    };
    whole(trailers(MAX_TRAILERS));
    check_error(response, trailers(MAX_TRAILERS + 1), Error::TrailersTooLong);

    // The largest length that can be told is waited for, without anything being made ready for it.
    let huge = format!("{OK}Content-Length: {}\r\n\r\nx", u64::MAX);
    assert_eq!(parse(response, &[huge.as_bytes()]), Err(Error::CutOff));
    let huge = format!("{OK}Transfer-Encoding: chunked\r\n\r\n{:x}\r\nx", u64::MAX);
    assert_eq!(parse(response, &[huge.as_bytes()]), Err(Error::CutOff));
}

#[test]
fn garbage_ends_in_an_error_and_in_nothing_worse() {
    // A small generator of its own (xorshift), so that a failure repeats.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for round in 0..2000 {
        let (kind, text, ..) = WHOLE[round % WHOLE.len()];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, u8::try_from(random(256)).unwrap()),
                _ => bytes.insert(at, b"\r\n: 0;"[random(6)]),
            }
        }
        // Whatever comes of it, it is the same however the bytes arrive.
        let (first, second) = bytes.split_at(random(bytes.len()));
        assert_eq!(parse(kind, &[first, second]), parse(kind, &[&bytes]), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_is_encoded_is_parsed_again() {
    let head = encode_request("POST", "/1.0/x?a=b%20c", &[("Host", "lxd"), ("Content-Length", "3")]).unwrap();
    let seen = parse(Kind::Request, &[&head, b"abc"]).unwrap();
    let start = Start::Request { method: "POST".to_owned(), target: "/1.0/x?a=b%20c".to_owned() };
    assert_eq!((seen.head.start, seen.head.headers.get("host")), (start, Some("lxd")));
}

#[test]
fn what_would_break_out_of_its_place_is_not_encoded() {
    let refused = |method: &str, target: &str, headers: &[(&str, &str)]| {
        assert_eq!(
            encode_request(method, target, headers),
            Err(Error::Unencodable),
            "{method:?} {target:?} {headers:?}"
        );
    };
    for method in ["", "GET ", "G\r\nET", "GÉT"] {
        refused(method, "/", &[]);
    }
    for target in ["", "x", "/a b", "/a\r\nb", "/é", "/a\u{0}"] {
        refused("GET", target, &[]);
    }
    for header in [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\ny: z"), ("a", "x\ny"), ("a", "\u{0}")] {
        refused("GET", "/", &[header]);
    }
}

#[test]
fn pieces_of_a_target_survive_the_way() {
    for text in ["plain-name_1.2~", "a b", "a/b", "100%", "é ü", "a&b=c?d#e+f", "\u{0}\r\n", "", "%2F"] {
        for encoded in [path_segment(text), query_value(text)] {
            assert!(
                parse::is_target(&format!("/{encoded}")) && !encoded.contains(['/', '?', '&', '=', '+']),
                "{encoded}"
            );
            assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap(), text);
        }
    }
    assert_eq!((path_segment(".."), path_segment(".")), ("%2E%2E".to_owned(), "%2E".to_owned()));
}
