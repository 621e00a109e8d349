//! Every shape of a request, and what it gets: the same in plain and through TLS.

use lxdrunner::webhook::Limits;

use super::door::*;

/// One row: the shape, the bytes, and the statuses that come back in a row; then the connection ends, or not.
struct Row(&'static str, Vec<u8>, &'static [u16], &'static str);

fn chunked(id: &str, size: usize, last: &str) -> Vec<u8> {
    let mut bytes = format!("{}Transfer-Encoding: chunked\r\n\r\n", head(id, "")).into_bytes();
    for chunk in QUEUED.chunks(size) {
        bytes.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(last.bytes());
    bytes
}

fn with_lengths(id: &str, lines: &str) -> Vec<u8> {
    [format!("{}{lines}\r\n", head(id, "")).as_bytes(), QUEUED].concat()
}

fn rows() -> Vec<Row> {
    let length = QUEUED.len();
    let text = |text: &str| text.as_bytes().to_vec();
    let get = "GET /healthz HTTP/1.1\r\n\r\n";
    let old = |id: &str, more: &str| {
        String::from_utf8(delivery(id, more)).unwrap().replacen(" HTTP/1.1", " HTTP/1.0", 1).into_bytes()
    };
    let absolute = |id: &str, to: &str| {
        String::from_utf8(delivery(id, "")).unwrap().replacen("/hooks/lxdrunner", to, 1).into_bytes()
    };
    let host = "https://example.test:5000";
    vec![
        Row("HTTP/1.1", delivery("a1", ""), &[202], "Connection: keep-alive"),
        Row("HTTP/1.1, close", delivery("a2", "Connection: close\r\n"), &[202], "Connection: close"),
        Row("HTTP/1.0", old("a3", ""), &[202], "Connection: close"),
        Row("HTTP/1.0, keep-alive", old("a4", "Connection: keep-alive\r\n"), &[202], "Connection: keep-alive"),
        Row(
            "HTTP/1.0, chunked",
            text("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &[400],
            "invalid Content-Length",
        ),
        Row("HTTP/0.9", text("GET /\r\n\r\n"), &[400], "not an HTTP"),
        Row("HTTP/2 preface", text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[400], "not an HTTP"),
        Row("pipelined", [delivery("b1", ""), text(get), delivery("b2", "")].concat(), &[202, 200, 202], "ok"),
        Row(
            "pipelined, then close",
            [text("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), text(get)].concat(),
            &[404],
            "",
        ),
        Row("pipelined, then garbage", [text(get), text("\u{0}\u{1}\r\n\r\n")].concat(), &[200, 400], "not an HTTP"),
        Row("100-continue, body at once", delivery("c1", "Expect: 100-continue\r\n"), &[202], "accepted"),
        Row("another expectation", delivery("c2", "Expect: miracles\r\n"), &[417], "100-continue"),
        Row("chunked, with extensions", chunked("d1", 100, "0\r\n\r\n"), &[202], "accepted"),
        Row("chunked, with trailers", chunked("d2", 100, "0\r\nX: y\r\n\r\n"), &[202], "accepted"),
        Row("chunked, pipelined", [chunked("d3", 7, "0\r\n\r\n"), text(get)].concat(), &[202, 200], "ok"),
        Row("chunked, cut", chunked("d4", 100, ""), &[400], "shorter"),
        Row("chunked, no size", chunked("d5", 100, "z\r\n\r\n"), &[400], "chunk"),
        Row("chunked, size beyond all", chunked("d6", 100, "fffffffffffffffff\r\n"), &[400], "chunk"),
        Row("chunked, 25 MB and more declared", chunked("d7", 100, "1900001\r\nx"), &[400], "shorter"),
        Row("shorter than it says", delivery("e1", "")[..length].to_vec(), &[400], "shorter"),
        Row("longer than it says", [delivery("e2", ""), text("more\r\n\r\n")].concat(), &[202, 400], "not an HTTP"),
        Row("26214401 bytes declared", with_lengths("e3", "Content-Length: 26214401\r\n"), &[413], "25 MB"),
        Row("a length beyond all", with_lengths("e4", "Content-Length: 99999999999999999999999\r\n"), &[413], "25 MB"),
        Row("no length", text("POST /hooks/lxdrunner HTTP/1.1\r\n\r\n"), &[411], "Content-Length"),
        Row(
            "a header line of 1 MB",
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
            &[431],
            "",
        ),
        Row("a request line of 1 MB", format!("GET /{}", "x".repeat(1 << 20)).into_bytes(), &[431], ""),
        Row("101 headers", format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)).into_bytes(), &[431], ""),
        Row(
            "two lengths",
            with_lengths("f1", &format!("Content-Length: {length}\r\nContent-Length: 3\r\n")),
            &[400],
            "invalid Content-Length",
        ),
        Row(
            "a list of lengths",
            with_lengths("f2", &format!("Content-Length: {length}, {length}\r\n")),
            &[400],
            "invalid Content-Length",
        ),
        Row(
            "a signed length",
            with_lengths("f3", &format!("Content-Length: +{length}\r\n")),
            &[400],
            "invalid Content-Length",
        ),
        Row("an empty length", with_lengths("f4", "Content-Length:\r\n"), &[400], "invalid Content-Length"),
        Row(
            "length, then chunked",
            with_lengths("f5", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            &[400],
            "invalid Content-Length",
        ),
        Row(
            "chunked, then length",
            with_lengths("f6", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            &[400],
            "invalid Content-Length",
        ),
        Row(
            "chunked twice",
            with_lengths("f7", "Transfer-Encoding: chunked, chunked\r\n"),
            &[400],
            "invalid Content-Length",
        ),
        Row(
            "another coding",
            with_lengths("f8", "Transfer-Encoding: gzip, chunked\r\n"),
            &[400],
            "invalid Content-Length",
        ),
        Row("a space before the colon", with_lengths("f9", "Transfer-Encoding : chunked\r\n"), &[400], "not an HTTP"),
        Row("a folded header", with_lengths("f10", "X: a\r\n b\r\n"), &[400], "not an HTTP"),
        Row(
            "a carriage return within",
            with_lengths("f11", "X: a\rTransfer-Encoding: chunked\r\n"),
            &[400],
            "not an HTTP",
        ),
        Row("absolute form", absolute("g1", &format!("{host}/hooks/lxdrunner?a=b")), &[202], "accepted"),
        Row("absolute form, no path", absolute("g2", host), &[404], "/hooks/lxdrunner"),
        Row("asterisk form", text("OPTIONS * HTTP/1.1\r\n\r\n"), &[404], ""),
        Row("authority form", text("CONNECT example.test:443 HTTP/1.1\r\n\r\n"), &[404], ""),
        Row("health", text(get), &[200], "ok"),
        Row("health, HEAD", text("HEAD /healthz HTTP/1.1\r\n\r\n"), &[200], "Content-Length"),
        Row("another method", text("DELETE /healthz HTTP/1.1\r\n\r\n"), &[405], "Allow: GET, HEAD"),
        Row(
            "another content type",
            String::from_utf8(delivery("h0", "")).unwrap().replacen("application/json", "text/html", 1).into_bytes(),
            &[415],
            "",
        ),
        Row("no signature", text("POST /hooks/lxdrunner HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"), &[401], "no X-Hub"),
        Row("empty lines first", [text("\r\n\r\n"), delivery("h1", "")].concat(), &[202], "accepted"),
        Row("bare line feeds", text("GET /healthz HTTP/1.1\nHost: x\n\n"), &[200], "ok"),
        Row("nothing", Vec::new(), &[], ""),
        Row("half a head", text("POST /hooks"), &[400], "before its headers do"),
        Row("empty lines behind", [delivery("h2", ""), text("\r\n\r\n")].concat(), &[202], "accepted"),
    ]
}

/// The statuses in what came back.
fn statuses(answer: &str) -> Vec<u16> {
    format!("\n{answer}").split("\nHTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

#[track_caller]
fn check(door: &Door) {
    let mut wrong = String::new();
    for Row(shape, bytes, expected, part) in rows() {
        let answer = door.ask(&bytes);
        if statuses(&answer) != expected || !answer.contains(part) {
            wrong += &format!("{shape}: {expected:?} {part:?} expected, got {answer:?}\n");
        }
        // Whatever came, the next one is served.
        door.check_delivery("next");
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Each delivery that was accepted, once: those of the rows, and the one in between.
    let accepted: usize = rows().iter().map(|row| row.2.iter().filter(|status| **status == 202).count()).sum();
    assert_eq!(door.hints.len(), accepted + 1);
}

#[test]
fn in_plain() {
    check(&Door::plain(Limits::default()));
}

#[test]
fn through_tls() {
    check(&Door::encrypted(Limits::default()));
}

#[test]
fn every_split_is_the_same() {
    for door in [Door::plain(Limits::default()), Door::encrypted(Limits::default())] {
        let whole = chunked("s", 400, "0\r\n\r\n");
        for at in (1..whole.len()).step_by(97) {
            let mut stream = door.enter();
            for part in [&whole[..at], &whole[at..]] {
                stream.write_all(part).unwrap();
                stream.flush().unwrap();
            }
            stream.end();
            let answer = read_all(&mut *stream);
            assert!(answer.starts_with("HTTP/1.1 202 "), "{at}: {answer}");
        }
        assert_eq!(door.hints.len(), 1);
    }
}

#[test]
fn a_connection_serves_many_deliveries() {
    for door in [Door::plain(Limits::default()), Door::encrypted(Limits::default())] {
        let mut stream = door.enter();
        for n in 0..100 {
            stream.write_all(&delivery(&n.to_string(), "")).unwrap();
            stream.flush().unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"accepted\n") {
                let mut piece = [0; 512];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "{n}");
                answer.extend(&piece[..count]);
            }
        }
        assert_eq!(door.hints.len(), 100);
    }
}

#[test]
fn the_body_is_asked_for_where_the_client_waits_for_that() {
    for door in [Door::plain(Limits::default()), Door::encrypted(Limits::default())] {
        let whole = delivery("1", "Expect: 100-continue\r\n");
        let (head, body) = whole.split_at(whole.len() - QUEUED.len());
        let mut stream = door.enter();
        stream.write_all(head).unwrap();
        stream.flush().unwrap();
        let mut go = [0; 25];
        stream.read_exact(&mut go).unwrap();
        assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body).unwrap();
        stream.end();
        assert_eq!(statuses(&read_all(&mut *stream)), [202]);
    }
}
