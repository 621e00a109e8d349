//! A small HTTP server for stand-ins: it parses with `httparse` and, unlike a finished server, lets its answers be cut
//! short, held back or lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use lxdrunner::model::Timestamp;

/// Connections served at once, each by a thread of its own; more are closed at the door.
const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 32 << 20;
/// An idle connection, or one that stalls in the middle of a request, is closed after this.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// A request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What follows the question mark; empty where there is none.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// True for what a runner says, false for the REST API.
    pub fn is_of_a_runner(&self) -> bool {
        self.path.starts_with(super::faults::RUNNERS)
    }

    /// A parameter of the query, percent codes undone.
    pub fn param(&self, name: &str) -> Option<String> {
        let value = self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(unquoted(value))
    }

    /// The token of an Authorization header, of whichever scheme.
    pub fn bearer(&self) -> Option<&str> {
        Some(self.header("authorization")?.split_once(' ')?.1.trim())
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Payload,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Payload {
    Bytes(Vec<u8>),
    /// A part of a file, never held in memory as a whole.
    File {
        file: File,
        from: u64,
        length: u64,
    },
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Payload::Bytes(Vec::new()) }
    }

    /// An answer in JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Response {
        Response::text(status, "application/json; charset=utf-8", body.to_string())
    }

    /// An answer of some other kind.
    pub fn text(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        Response::empty(status).with("Content-Type", kind).with_body(body.into())
    }

    /// The answer with one header more.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn with_body(mut self, body: Vec<u8>) -> Response {
        self.body = Payload::Bytes(body);
        self
    }

    fn length(&self) -> u64 {
        match &self.body {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File { length, .. } => *length,
        }
    }
}

/// What is done with an answer.
#[derive(Debug)]
pub enum Reply {
    /// Sent.
    Answer(Response),
    /// Sent up to this many bytes of its body; then the connection is closed.
    Cut(Response, u64),
    /// Nothing is sent; the connection stays open until the client or the stand-in ends.
    Stall,
    /// Nothing is sent; the connection is closed.
    Close,
    /// These bytes are sent as they are; then the connection is closed.
    Raw(Vec<u8>),
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    stopping: AtomicBool,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, TcpStream>>,
    stopped: Condvar,
}

/// A listening server; dropping it closes every connection and ends its threads.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `bind` and answers through `handler`, which is called from many threads.
    pub fn start(bind: SocketAddr, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Server> {
        let listener = TcpListener::bind(bind)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::new(BTreeMap::new()),
            stopped: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("standin-accept".to_owned())
            .spawn(move || accept(&listener, &for_thread))?;
        Ok(Server { address, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every open connection; new ones are served.
    pub fn cut_connections(&self) {
        for stream in locked(&self.shared.open).values() {
            // One that is closed already is what was wanted.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let mut door = self.address;
        if door.ip().is_unspecified() {
            door.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        // Wakes the accepting thread, which then sees that it is to end.
        let woken = TcpStream::connect_timeout(&door, Duration::from_secs(1)).is_ok();
        self.cut_connections();
        self.shared.stopped.notify_all();
        if let Some(thread) = self.accepting.take().filter(|_| woken) {
            drop(thread.join());
        }
        let open = locked(&self.shared.open);
        let gone = |open: &mut BTreeMap<u64, TcpStream>| !open.is_empty();
        drop(self.shared.stopped.wait_timeout_while(open, Duration::from_secs(2), gone));
    }
}

/// The guard, also where a thread died while it held the lock: a stand-in's state stays usable for the report.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = accepted else { continue };
        let Ok(for_list) = stream.try_clone() else { continue };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = locked(&shared.open);
            if open.len() >= MAX_CONNECTIONS {
                continue;
            }
            open.insert(id, for_list);
        }
        let for_thread = Arc::clone(shared);
        let serving = std::thread::Builder::new().name("standin-serve".to_owned()).spawn(move || {
            // A client that goes away ends the conversation; there is nobody to tell.
            drop(serve(stream, &for_thread));
            locked(&for_thread.open).remove(&id);
            for_thread.stopped.notify_all();
        });
        if serving.is_err() {
            locked(&shared.open).remove(&id);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut ahead = Vec::new();
    while let Some((request, last)) = read_request(&mut stream, &mut ahead)? {
        let head_only = request.method == "HEAD";
        match (shared.handler)(&request) {
            Reply::Answer(response) => write_response(&mut stream, response, None, head_only, last)?,
            Reply::Cut(response, after) => {
                write_response(&mut stream, response, Some(after), head_only, false)?;
                return stream.shutdown(Shutdown::Both);
            }
            Reply::Stall => {
                // Until the client gives up (its end closes) or the stand-in ends (ours is shut down).
                let mut byte = [0];
                stream.set_read_timeout(None)?;
                while stream.read(&mut byte)? > 0 {}
                return Ok(());
            }
            Reply::Close => return stream.shutdown(Shutdown::Both),
            Reply::Raw(bytes) => {
                stream.write_all(&bytes)?;
                return stream.shutdown(Shutdown::Both);
            }
        }
        if last || shared.stopping.load(Ordering::SeqCst) {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// The next request and whether the client wants no other; `None` where it closed the connection.
fn read_request(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> io::Result<Option<(Request, bool)>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mut request, head_length, version) = loop {
        if let Some(parsed) = parse_head(ahead)? {
            break parsed;
        }
        if ahead.len() > MAX_HEAD {
            return Err(bad("the head is too long"));
        }
        if read_more(stream, ahead)? == 0 {
            return if ahead.is_empty() { Ok(None) } else { Err(bad("cut in the head")) };
        }
    };
    ahead.drain(..head_length);
    if request.header("transfer-encoding").is_some() {
        stream.write_all(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Err(bad("a body without a length"));
    }
    let length: usize = request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| bad("no length"))?;
    if length > MAX_BODY {
        return Err(bad("the body is too long"));
    }
    if request.header("expect").is_some() && ahead.len() < length {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while ahead.len() < length {
        if read_more(stream, ahead)? == 0 {
            return Err(bad("cut in the body"));
        }
    }
    request.body = ahead.drain(..length).collect();
    let connection = request.header("connection").unwrap_or("").to_lowercase();
    let last = connection.contains("close") || (version == 0 && !connection.contains("keep-alive"));
    Ok(Some((request, last)))
}

fn read_more(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 16 << 10];
    let count = stream.read(&mut chunk)?;
    ahead.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

/// The request without its body, the length of its head and the minor version of HTTP/1; `None` while incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(Request, usize, u8)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    let request = Request {
        method: parsed.method.unwrap_or("").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed.headers.iter().map(|h| (h.name.to_lowercase(), text(h.value))).collect(),
        body: Vec::new(),
    };
    Ok(Some((request, length, parsed.version.unwrap_or(1))))
}

fn write_response(
    stream: &mut TcpStream,
    response: Response,
    cut: Option<u64>,
    head_only: bool,
    last: bool,
) -> io::Result<()> {
    let Response { status, .. } = response;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    if !response.headers.iter().any(|(name, _)| name == "Date") {
        head.push_str(&format!("Date: {}\r\n", date(Timestamp::now())));
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !matches!(status, 204 | 304) {
        head.push_str(&format!("Content-Length: {}\r\n", response.length()));
    }
    head.push_str(if last { "Connection: close\r\n\r\n" } else { "\r\n" });
    let mut bytes = head.into_bytes();
    let most = cut.unwrap_or(u64::MAX);
    if head_only || matches!(status, 204 | 304) {
        return stream.write_all(&bytes);
    }
    match response.body {
        Payload::Bytes(body) => {
            let length = usize::try_from(most).unwrap_or(usize::MAX).min(body.len());
            bytes.extend_from_slice(body.get(..length).unwrap_or_default());
            stream.write_all(&bytes)
        }
        Payload::File { mut file, from, length } => {
            stream.write_all(&bytes)?;
            file.seek(SeekFrom::Start(from))?;
            io::copy(&mut file.take(length.min(most)), stream).map(drop)
        }
    }
}

/// A time as HTTP writes it.
pub(super) fn date(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(0);
    let now = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (day, month) = (now.weekday().to_string(), now.month().to_string());
    let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
    let (date, year) = (now.day(), now.year());
    let (hour, minute, second) = (now.hour(), now.minute(), now.second());
    format!("{}, {date:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", short(&day), short(&month))
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        206 => "Partial Content",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        422 => "Unprocessable Entity",
        _ => "Status",
    }
}

fn unquoted(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, code.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
