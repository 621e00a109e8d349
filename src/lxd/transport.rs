//! HTTP exchanges over a `UnixStream`: connections are kept alive, and each call has one absolute deadline.
//!
//! The daemon may have closed a kept connection. It is checked before it is used again; if it closes right then, the exchange is
//! repeated once on a new connection, but only if nothing can happen twice: a GET without any byte of an answer, or a request
//! of which the socket took no byte.

use std::fmt;
use std::io::{self, ErrorKind as Io, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::http1::{self, Event, Headers, Parser, Start};
use crate::threads::lock;

/// Idle connections that are kept; more than the workers would only cost memory.
pub const MAX_IDLE: usize = 16;
/// The longest whole answer, in bytes: a listing of some ten thousand instances.
pub const MAX_BODY: usize = 64 * 1024 * 1024;
/// Bytes that are read or written at once.
const BLOCK: usize = 64 * 1024;

/// The connections to one daemon.
#[derive(Debug)]
pub struct Transport {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

/// A request.
pub struct Request<'a> {
    /// For example `GET`.
    pub method: &'static str,
    /// Path and query, percent-encoded.
    pub target: String,
    /// In addition to those that the transport sets (host, user agent, length).
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body<'a>,
    /// The part of the answer's body that is wanted.
    pub keep: Keep,
    /// When the whole exchange must be over, connecting included.
    pub deadline: Instant,
}

/// A request's body.
pub enum Body<'a> {
    /// None.
    Empty,
    /// In memory; JSON.
    Json(Vec<u8>),
    /// Read while it is sent; exactly `length` bytes are.
    Stream {
        /// Where the bytes come from.
        content: &'a mut dyn Read,
        /// How many.
        length: u64,
    },
}

/// How much of the answer's body is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All, which fails beyond [`MAX_BODY`].
    All,
    /// All, which fails beyond so many bytes.
    UpTo(usize),
    /// The last so many bytes.
    Tail(usize),
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// HTTP's status, errors included.
    pub status: u16,
    /// The headers of the final head.
    pub headers: Headers,
    /// The wanted part of the body.
    pub body: Vec<u8>,
}

/// The answer to a request for another protocol.
#[derive(Debug)]
pub enum Upgraded {
    /// The connection speaks it now; `rest` are bytes that came behind the head.
    Yes { stream: UnixStream, rest: Vec<u8> },
    /// The daemon answered something else.
    No { status: u16 },
}

/// A failed exchange.
#[derive(Debug)]
pub enum Failure {
    /// The socket could not be connected to.
    Connect(io::Error),
    /// The connection broke; the request may have been carried out.
    Broken(io::Error),
    /// The deadline passed.
    Timeout,
    /// The answer is not HTTP.
    Http(http1::Error),
    /// The answer's body is longer than so many bytes.
    TooLong(usize),
    /// The content to be sent could not be read, or ended early.
    Content(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(error) => write!(f, "cannot connect: {error}"),
            Failure::Broken(error) => write!(f, "the connection broke: {error}"),
            Failure::Timeout => f.write_str("no complete answer before the deadline"),
            Failure::Http(error) => write!(f, "the answer is not HTTP: {error}"),
            Failure::TooLong(limit) => write!(f, "the answer is longer than {limit} bytes"),
            Failure::Content(error) => write!(f, "the content to be sent could not be read: {error}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Connect(error) | Failure::Broken(error) | Failure::Content(error) => Some(error),
            Failure::Http(error) => Some(error),
            Failure::Timeout | Failure::TooLong(_) => None,
        }
    }
}

/// A failed attempt, and how far it got.
struct Attempt {
    failure: Failure,
    /// True if the socket took no byte of the request.
    untouched: bool,
    /// True if no byte of an answer came.
    unanswered: bool,
}

impl Transport {
    /// Connections to the daemon behind `socket`; the first is made on demand.
    pub fn new(socket: impl Into<PathBuf>) -> Transport {
        Transport { socket: socket.into(), idle: Mutex::new(Vec::new()) }
    }

    /// The socket's path.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Sends the request and takes the whole answer.
    ///
    /// # Errors
    /// See [`Failure`]. An answer with an error status is no failure here.
    pub fn exchange(&self, mut request: Request<'_>) -> Result<Response, Failure> {
        let head = head_of(&request).map_err(Failure::Http)?;
        if let Some(stream) = self.take_idle() {
            match self.attempt(stream, &head, &mut request) {
                Ok(response) => return Ok(response),
                Err(attempt) => {
                    let broken = matches!(attempt.failure, Failure::Broken(_));
                    let harmless = attempt.untouched || (request.method == "GET" && attempt.unanswered);
                    if !(broken && harmless) {
                        return Err(attempt.failure);
                    }
                    log::debug!("lxd stale_connection=retried method={}", request.method);
                }
            }
        }
        // Connecting has no deadline in std. It waits only while the daemon's backlog (thousands) is full. Connect only with a
        // request at hand: LXD 5.0 accepts no other connection while a new one is silent.
        let stream = UnixStream::connect(&self.socket).map_err(Failure::Connect)?;
        self.attempt(stream, &head, &mut request).map_err(|attempt| attempt.failure)
    }

    /// Asks for another protocol on a new connection, which has no read timeout after that.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn upgrade(&self, target: &str, headers: &[(&str, &str)], deadline: Instant) -> Result<Upgraded, Failure> {
        let stream = UnixStream::connect(&self.socket).map_err(Failure::Connect)?;
        let headers: Vec<(&str, &str)> = [("Host", "lxd")].iter().chain(headers).copied().collect();
        let head = http1::encode_request("GET", target, &headers).map_err(Failure::Http)?;
        write_all(&stream, &head, deadline, &mut 0)?;
        let mut parser = Parser::response_to("GET");
        let mut block = [0; 4096];
        loop {
            stream.set_read_timeout(Some(rest_of(deadline)?)).map_err(Failure::Broken)?;
            let read = match (&stream).read(&mut block) {
                Ok(0) => return Err(Failure::Broken(Io::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == Io::Interrupted => continue,
                Err(error) => return Err(broken_or_late(error)),
            };
            let bytes = block.get(..read).unwrap_or_default();
            let (used, event) = parser.step(bytes).map_err(Failure::Http)?;
            if let Event::Head(head) = event {
                return match head.start {
                    Start::Response { status: 101 } => {
                        stream.set_read_timeout(None).map_err(Failure::Broken)?;
                        let rest = bytes.get(used..).unwrap_or_default().to_vec();
                        Ok(Upgraded::Yes { stream, rest })
                    }
                    Start::Response { status } => Ok(Upgraded::No { status }),
                    Start::Request { .. } => Err(Failure::Http(http1::Error::StartLine)),
                };
            }
        }
    }

    fn take_idle(&self) -> Option<UnixStream> {
        loop {
            let stream = lock(&self.idle).pop()?;
            // Input or the end of input on an idle connection means that it is unusable.
            let quiet = || -> io::Result<bool> {
                stream.set_nonblocking(true)?;
                let quiet = matches!((&stream).read(&mut [0]), Err(error) if error.kind() == Io::WouldBlock);
                stream.set_nonblocking(false)?;
                Ok(quiet)
            };
            if quiet().unwrap_or(false) {
                return Some(stream);
            }
        }
    }

    fn put_idle(&self, stream: UnixStream) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(stream);
        }
    }

    fn attempt(&self, stream: UnixStream, head: &[u8], request: &mut Request<'_>) -> Result<Response, Attempt> {
        let (mut sent, mut received) = (0, 0);
        let answer = match send(&stream, head, &mut request.body, request.deadline, &mut sent) {
            Ok(()) => receive(&stream, request, &mut received),
            // A daemon that refuses early stops reading: its answer may have come although sending failed.
            Err(Failure::Broken(error)) if sent > 0 => match receive(&stream, request, &mut received) {
                Ok((response, _)) => Ok((response, false)),
                Err(_) => Err(Failure::Broken(error)),
            },
            Err(failure) => Err(failure),
        };
        match answer {
            Ok((response, reusable)) => {
                if reusable {
                    self.put_idle(stream);
                }
                Ok(response)
            }
            Err(failure) => Err(Attempt { failure, untouched: sent == 0, unanswered: received == 0 }),
        }
    }
}

fn head_of(request: &Request<'_>) -> Result<Vec<u8>, http1::Error> {
    let length = match &request.body {
        Body::Empty if request.method == "GET" => None,
        Body::Empty => Some(0),
        Body::Json(bytes) => Some(bytes.len() as u64),
        Body::Stream { length, .. } => Some(*length),
    };
    let length = length.map(|n| n.to_string());
    let agent = concat!("lxdrunner/", env!("CARGO_PKG_VERSION"));
    let mut headers = vec![("Host", "lxd"), ("User-Agent", agent)];
    match &request.body {
        Body::Empty => {}
        Body::Json(_) => headers.push(("Content-Type", "application/json")),
        // Without a type LXD reads the body as a form and stores an empty file.
        Body::Stream { .. } => headers.push(("Content-Type", "application/octet-stream")),
    }
    headers.extend(length.as_deref().map(|n| ("Content-Length", n)));
    headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
    http1::encode_request(request.method, &request.target, &headers)
}

/// Sends head and body; `sent` counts the bytes that the socket took.
fn send(
    stream: &UnixStream,
    head: &[u8],
    body: &mut Body<'_>,
    deadline: Instant,
    sent: &mut u64,
) -> Result<(), Failure> {
    match body {
        Body::Empty => write_all(stream, head, deadline, sent),
        Body::Json(bytes) => write_all(stream, &[head, bytes].concat(), deadline, sent),
        Body::Stream { content, length } => {
            write_all(stream, head, deadline, sent)?;
            let mut block = vec![0; BLOCK];
            let mut left = *length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
                let room = block.get_mut(..most).unwrap_or_default();
                let read = match content.read(room) {
                    Ok(0) => return Err(Failure::Content(Io::UnexpectedEof.into())),
                    Ok(read) => read,
                    Err(error) if error.kind() == Io::Interrupted => continue,
                    Err(error) => return Err(Failure::Content(error)),
                };
                write_all(stream, room.get(..read).unwrap_or_default(), deadline, sent)?;
                left = left.saturating_sub(read as u64);
            }
            Ok(())
        }
    }
}

fn write_all(mut stream: &UnixStream, mut bytes: &[u8], deadline: Instant, sent: &mut u64) -> Result<(), Failure> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(rest_of(deadline)?)).map_err(Failure::Broken)?;
        match stream.write(bytes) {
            Ok(0) => return Err(Failure::Broken(Io::WriteZero.into())),
            Ok(wrote) => {
                *sent += wrote as u64;
                bytes = bytes.get(wrote..).unwrap_or_default();
            }
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(broken_or_late(error)),
        }
    }
    Ok(())
}

/// Reads the answer. Returns whether the connection can be used again; `received` counts the answer's bytes.
fn receive(stream: &UnixStream, request: &Request<'_>, received: &mut u64) -> Result<(Response, bool), Failure> {
    let mut source = stream;
    let mut parser = Parser::response_to(request.method);
    let mut block = vec![0; BLOCK / 4];
    let mut head = None;
    let mut body = Vec::new();
    loop {
        stream.set_read_timeout(Some(rest_of(request.deadline)?)).map_err(Failure::Broken)?;
        let read = match source.read(&mut block) {
            Ok(read) => read,
            Err(error) if error.kind() == Io::Interrupted => continue,
            Err(error) => return Err(broken_or_late(error)),
        };
        *received += read as u64;
        let mut rest = block.get(..read).unwrap_or_default();
        let ended = read == 0;
        if ended {
            parser.end_of_input().map_err(|_| Failure::Broken(Io::UnexpectedEof.into()))?;
        }
        loop {
            let (used, event) = parser.step(rest).map_err(Failure::Http)?;
            rest = rest.get(used..).unwrap_or_default();
            match event {
                Event::NeedInput => break,
                Event::Head(it) => head = Some(it),
                Event::Body(piece) => keep(&mut body, piece, request.keep)?,
                Event::End => {
                    let head = head.take().ok_or(Failure::Http(http1::Error::StartLine))?;
                    let Start::Response { status } = head.start else {
                        return Err(Failure::Http(http1::Error::StartLine));
                    };
                    if let Keep::Tail(limit) = request.keep {
                        body.drain(..body.len().saturating_sub(limit));
                    }
                    // Unexpected bytes: the connection cannot be trusted any more.
                    let reusable = head.keep_alive && rest.is_empty() && !ended;
                    return Ok((Response { status, headers: head.headers, body }, reusable));
                }
            }
        }
    }
}

fn keep(body: &mut Vec<u8>, piece: &[u8], keep: Keep) -> Result<(), Failure> {
    let whole = body.len().saturating_add(piece.len());
    match keep {
        Keep::All if whole > MAX_BODY => return Err(Failure::TooLong(MAX_BODY)),
        Keep::UpTo(limit) if whole > limit => return Err(Failure::TooLong(limit)),
        Keep::Tail(limit) if body.len() > limit.saturating_mul(2).saturating_add(BLOCK) => {
            body.drain(..body.len().saturating_sub(limit));
        }
        _ => {}
    }
    body.extend_from_slice(piece);
    Ok(())
}

/// The time until the deadline, never zero: zero would mean no timeout to the socket.
fn rest_of(deadline: Instant) -> Result<Duration, Failure> {
    let rest = deadline.saturating_duration_since(Instant::now());
    if rest.is_zero() { Err(Failure::Timeout) } else { Ok(rest) }
}

fn broken_or_late(error: io::Error) -> Failure {
    match error.kind() {
        Io::WouldBlock | Io::TimedOut => Failure::Timeout,
        _ => Failure::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_up_to_the_cap_and_not_beyond() {
        let check = |most: Keep, before: usize, piece: usize, fits: bool| {
            let mut body = vec![0; before];
            assert_eq!(keep(&mut body, &vec![0; piece], most).is_ok(), fits, "{most:?} {before} + {piece}");
            assert_eq!(body.len(), if fits { before + piece } else { before });
        };
        for (most, limit) in [(Keep::All, MAX_BODY), (Keep::UpTo(100), 100)] {
            check(most, limit - 2, 1, true);
            check(most, limit - 1, 1, true);
            check(most, limit - 1, 2, false);
            check(most, limit, 1, false);
        }
    }

    #[test]
    fn of_a_tail_only_the_end_is_held() {
        let (limit, mut body) = (10, Vec::new());
        for n in 0..100 {
            keep(&mut body, &vec![n; BLOCK], Keep::Tail(limit)).unwrap();
            assert!(body.len() <= 2 * limit + 2 * BLOCK, "{}", body.len());
            assert!(body.ends_with(&[n; 10]));
        }
    }

    #[test]
    fn no_more_idle_connections_are_held_than_the_cap() {
        let transport = Transport::new("/nowhere");
        let mut ends = Vec::new();
        for _ in 0..=MAX_IDLE {
            let (ours, theirs) = UnixStream::pair().unwrap();
            transport.put_idle(ours);
            ends.push(theirs);
        }
        assert_eq!(transport.idle.lock().unwrap().len(), MAX_IDLE);
        // What was closed at the other end, or spoke without being asked, is not handed out.
        let alive = ends.remove(0);
        (&ends[0]).write_all(b"x").unwrap();
        let talking = ends.remove(0);
        drop(ends);
        assert!(transport.take_idle().is_some());
        assert!(transport.take_idle().is_none());
        drop((alive, talking));
    }

    #[test]
    fn a_deadline_that_has_passed_is_no_timeout_of_zero() {
        assert!(matches!(rest_of(Instant::now()), Err(Failure::Timeout)));
        assert!(rest_of(Instant::now() + Duration::from_secs(9)).is_ok_and(|rest| rest > Duration::from_secs(5)));
    }
}
