//! The gate: what strangers connect to.
//!
//! `tiny_http` trusts its clients: it reads heads of any length, waits for ever, makes as many threads as there are
//! connections, and to skip a body it allocates what the client declared. So strangers do not talk to it. The gate
//! takes each connection, reads **one** request within fixed bounds of size and time, and hands it on, complete and
//! written anew, over a unix socket of this process; the answer goes back and the connection is closed.
//!
//! ```text
//! client ──TCP──▶ gate (deadlines, caps) ──abstract unix socket──▶ tiny_http (server.rs)
//! ```
//!
//! What it cannot take it answers itself: 400, 408, 413, 417, 431, 502, 503.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::LONGEST_BODY;
use crate::threads;

/// Bounds of what strangers may take of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more are answered 503.
    pub connections: usize,
    /// Bytes of request line and headers.
    pub head: usize,
    /// Bytes of bodies, of all connections together.
    pub memory: usize,
    /// From the connection until the head is there.
    pub head_time: Duration,
    /// From the connection until the body is there.
    pub request_time: Duration,
    /// For the answer to be made, and again to be sent.
    pub answer_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 64,
            head: 16 * 1024,
            memory: LONGEST_BODY + 7 * 1024 * 1024,
            head_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(10),
        }
    }
}

/// The header that tells the server who sent a request. The client's own one of that name is not passed on.
pub(super) const PEER_HEADER: &str = "X-Lxdrunner-Peer";

/// Headers that are passed on, in lower case; all others say nothing to us.
const PASSED_ON: &[&str] =
    &["content-type", "x-github-event", "x-github-delivery", "x-hub-signature", "x-hub-signature-256"];

const MOST_HEADERS: usize = 100;
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Lets strangers in from `listener` and hands their requests to whoever listens at `inner`.
pub fn open(listener: TcpListener, inner: UnixAddr, limits: Limits) {
    let shared = Arc::new(Shared { inner, limits, connections: AtomicUsize::new(0), memory: AtomicUsize::new(0) });
    threads::spawn("gate", move || accept(&listener, &shared));
}

struct Shared {
    inner: UnixAddr,
    limits: Limits,
    connections: AtomicUsize,
    memory: AtomicUsize,
}

/// Gives back what was counted, however the work ends.
struct Held<'a> {
    counter: &'a AtomicUsize,
    amount: usize,
}

impl<'a> Held<'a> {
    fn nothing(counter: &'a AtomicUsize) -> Held<'a> {
        Held { counter, amount: 0 }
    }

    /// Takes `more`; false, and nothing taken, where that would go beyond `limit`.
    fn take(&mut self, more: usize, limit: usize) -> bool {
        let before = self.counter.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > limit {
            self.counter.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.amount += more;
        true
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client is gone already, or we are out of file descriptors: nothing that ends us.
                log::warn!("accept_failed error={error:?}");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= shared.limits.connections {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            log::debug!("connection_refused peer={peer} reason=too_many");
            refuse(&stream, &Refusal::BUSY, shared.limits.answer_time);
            continue;
        }
        let theirs = Arc::clone(shared);
        let spawned = threads::try_spawn("gate-client", move || {
            let _slot = Held { counter: &theirs.connections, amount: 1 };
            serve(&stream, peer, &theirs);
        });
        if let Err(error) = spawned {
            // The closure, and the connection with it, is dropped unrun.
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            log::warn!("connection_refused peer={peer} reason=no_thread error={error:?}");
        }
    }
}

/// An answer that the gate gives itself.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: &'static str,
    text: &'static str,
}

impl Refusal {
    const BUSY: Refusal = Refusal { status: "503 Service Unavailable", text: "too much at once: try again" };
    const LATE: Refusal = Refusal { status: "408 Request Timeout", text: "the request took too long to arrive" };
    const CUT: Refusal = Refusal { status: "400 Bad Request", text: "the body is shorter than it said" };
    const LONG_HEAD: Refusal =
        Refusal { status: "431 Request Header Fields Too Large", text: "more headers than any webhook has" };
    const LONG_BODY: Refusal =
        Refusal { status: "413 Content Too Large", text: "the body is longer than 25 MB, GitHub's limit" };
    const NOT_HTTP: Refusal = Refusal { status: "400 Bad Request", text: "not an HTTP/1.1 request" };
    const FRAMING: Refusal =
        Refusal { status: "400 Bad Request", text: "Content-Length or Transfer-Encoding make no sense" };
    const EXPECTATION: Refusal =
        Refusal { status: "417 Expectation Failed", text: "no other expectation than 100-continue is known" };
    const NO_SERVER: Refusal = Refusal { status: "502 Bad Gateway", text: "no answer from within: see the log" };
}

/// Why a request ends at the gate: with an answer, or in silence because nobody is there any more.
enum End {
    Answer(Refusal),
    Silence,
}

fn serve(stream: &TcpStream, peer: SocketAddr, shared: &Shared) {
    let started = Instant::now();
    let limits = &shared.limits;
    match relay(stream, peer, shared, started) {
        Ok(()) => {}
        Err(End::Answer(refusal)) => {
            log::debug!("request_refused peer={peer} status={:?} reason={:?}", refusal.status, refusal.text);
            refuse(stream, &refusal, limits.answer_time);
            linger(stream);
        }
        Err(End::Silence) => log::debug!("connection_lost peer={peer}"),
    }
}

fn relay(stream: &TcpStream, peer: SocketAddr, shared: &Shared, started: Instant) -> Result<(), End> {
    let limits = &shared.limits;
    let mut client = Timed { stream, until: started + limits.head_time };
    let (head, rest) = read_head(&mut client, limits.head)?;
    client.until = started + limits.request_time;
    if head.expects_continue && rest.is_empty() && head.body != Framing::None {
        let _ = stream.set_write_timeout(Some(limits.answer_time));
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| End::Silence)?;
    }
    let mut held = Held::nothing(&shared.memory);
    let body = read_body(&head, rest, &mut client, &mut held, limits.memory)?;
    let answer = ask(&shared.inner, &head.encode(peer, body.as_deref()), body.as_deref(), limits.answer_time).map_err(
        |error| {
            log::warn!("answer_missing peer={peer} error={error:?}");
            End::Answer(Refusal::NO_SERVER)
        },
    )?;
    let _ = stream.set_write_timeout(Some(limits.answer_time));
    write_answer(stream, &answer).map_err(|_| End::Silence)
}

/// A connection that is read until a point of time.
struct Timed<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        loop {
            match (&*self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the system says when the time is over.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                done => return done,
            }
        }
    }
}

fn ended(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::TimedOut => End::Answer(Refusal::LATE),
        _ => End::Silence,
    }
}

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Neither length nor chunks: there is no body.
    None,
    Length(usize),
    Chunked,
}

/// What is kept of a request's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Framing,
    expects_continue: bool,
}

/// Reads up to the empty line. Also returns what came behind it.
fn read_head(client: &mut impl Read, most: usize) -> Result<(Head, Vec<u8>), End> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let count = client.read(&mut chunk).map_err(|e| ended(&e))?;
        if count == 0 {
            return Err(End::Silence);
        }
        let seen = bytes.len().saturating_sub(3);
        bytes.extend(chunk.iter().take(count));
        let fresh = bytes.get(seen..).unwrap_or_default();
        let complete = fresh.windows(4).any(|w| w == b"\r\n\r\n") || fresh.windows(2).any(|w| w == b"\n\n");
        if complete && let Some((head, length)) = parse_head(&bytes).map_err(End::Answer)? {
            if length > most {
                return Err(End::Answer(Refusal::LONG_HEAD));
            }
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() >= most {
            return Err(End::Answer(Refusal::LONG_HEAD));
        }
    }
}

/// `None` where the head is not complete, else the head and how many bytes it has.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::LONG_HEAD),
        Err(_) => return Err(Refusal::NOT_HTTP),
    };
    let plain = |text: &&str| text.bytes().all(|b| b.is_ascii_graphic());
    let method = request.method.filter(plain).ok_or(Refusal::NOT_HTTP)?.to_owned();
    let target = request.path.filter(plain).ok_or(Refusal::NOT_HTTP)?.to_owned();
    let mut head = Head { method, target, headers: Vec::new(), body: Framing::None, expects_continue: false };
    for header in request.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = std::str::from_utf8(header.value).ok().map(str::trim);
        match name.as_str() {
            "content-length" => {
                let length = value.and_then(decimal).ok_or(Refusal::FRAMING)?;
                // Also refuses a length beside chunks, and two different lengths: the tricks of request smuggling.
                if !matches!(head.body, Framing::None) && head.body != Framing::Length(length) {
                    return Err(Refusal::FRAMING);
                }
                head.body = Framing::Length(length);
            }
            "transfer-encoding" => {
                let chunked = value.is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
                if !chunked || head.body != Framing::None {
                    return Err(Refusal::FRAMING);
                }
                head.body = Framing::Chunked;
            }
            "expect" => {
                if !value.is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
                    return Err(Refusal::EXPECTATION);
                }
                head.expects_continue = true;
            }
            known if PASSED_ON.contains(&known) => {
                let printable = |v: &&str| v.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
                if let Some(value) = value.filter(printable) {
                    head.headers.push((name, value.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(Some((head, length)))
}

/// Digits alone. More of them than a `usize` has room for are simply the largest there is.
fn decimal(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

impl Head {
    /// The head for the server within: our own words, the body's length as it was counted.
    fn encode(&self, peer: SocketAddr, body: Option<&[u8]>) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str(&format!("{PEER_HEADER}: {}\r\n\r\n", peer.ip()));
        text
    }
}

/// Reads the whole body, `None` where there is none. `rest` is what came with the head.
fn read_body(
    head: &Head,
    rest: Vec<u8>,
    client: &mut impl Read,
    held: &mut Held<'_>,
    memory: usize,
) -> Result<Option<Vec<u8>>, End> {
    match head.body {
        Framing::None => Ok(None),
        Framing::Length(length) if length > LONGEST_BODY => Err(End::Answer(Refusal::LONG_BODY)),
        Framing::Length(length) => {
            let mut source = rest.as_slice().chain(client).take(u64::try_from(length).unwrap_or(u64::MAX));
            let body = gather(&mut source, held, memory)?;
            if body.len() < length { Err(End::Answer(Refusal::CUT)) } else { Ok(Some(body)) }
        }
        Framing::Chunked => {
            // Chunks of one byte each take six; nobody honest makes a body twice as long by chunking it.
            let most = u64::try_from(LONGEST_BODY * 2).unwrap_or(u64::MAX);
            let mut source = chunked_transfer::Decoder::new(rest.as_slice().chain(client).take(most));
            gather(&mut source, held, memory).map(Some)
        }
    }
}

fn gather(source: &mut impl Read, held: &mut Held<'_>, memory: usize) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let count = match source.read(&mut chunk) {
            Ok(0) => return Ok(body),
            Ok(count) => count,
            // The chunks' decoder says this of what is no chunk.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(End::Answer(Refusal::CUT)),
            Err(error) => return Err(ended(&error)),
        };
        if body.len() + count > LONGEST_BODY {
            return Err(End::Answer(Refusal::LONG_BODY));
        }
        if !held.take(count, memory) {
            return Err(End::Answer(Refusal::BUSY));
        }
        body.extend(chunk.iter().take(count));
    }
}

/// Has a request answered within.
fn ask(inner: &UnixAddr, head: &str, body: Option<&[u8]>, time: Duration) -> io::Result<Vec<u8>> {
    let mut server = UnixStream::connect_addr(inner)?;
    server.set_write_timeout(Some(time))?;
    server.set_read_timeout(Some(time))?;
    server.write_all(head.as_bytes())?;
    server.write_all(body.unwrap_or_default())?;
    let mut answer = Vec::new();
    server.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Sends the answer on, with the word that the connection ends with it, which `tiny_http` does not say.
fn write_answer(mut stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    let line = answer.windows(2).position(|w| w == b"\r\n").map_or(answer.len(), |at| at + 2);
    let (status, rest) = answer.split_at_checked(line).unwrap_or((answer, &[]));
    let mut whole = Vec::with_capacity(answer.len() + 32);
    whole.extend_from_slice(status);
    whole.extend_from_slice(b"Connection: close\r\n");
    whole.extend_from_slice(rest);
    stream.write_all(&whole)?;
    stream.shutdown(Shutdown::Write)
}

fn refuse(mut stream: &TcpStream, refusal: &Refusal, time: Duration) {
    let Refusal { status, text } = refusal;
    let length = text.len() + 1;
    let whole = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
    );
    // Whether it arrives is not ours to care for.
    let _ = stream.set_write_timeout(Some(time));
    let _ = stream.write_all(whole.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}

/// Reads on for a moment: closing with unread bytes makes the system send a reset, which can overtake the answer.
fn linger(stream: &TcpStream) {
    let mut client = Timed { stream, until: Instant::now() + Duration::from_secs(1) };
    let mut chunk = [0; 4096];
    let mut left = 1024 * 1024_usize;
    while let Ok(count @ 1..) = client.read(&mut chunk) {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
