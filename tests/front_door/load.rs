//! Sends signed deliveries as GitHub does to the webhook port, counted and timed. See `usage` below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod anybody;
mod held;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use held::{activate, end};
use hmac::{Hmac, Mac};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection, StreamOwned};
use sha2::Sha256;

const USAGE: &str = "\
usage: load script SECRET FILE [close]            writes a script for wrk that sends signed deliveries
       load most ADDRESS SECRET SECONDS [tls]     as many as go, a new connection each: a second
       load rate ADDRESS SECRET SECONDS N [tls]   N a second, a new connection each: how many failed, and how long they took
       load forged ADDRESS SECRET SECONDS N       the same, with a wrong signature, over connections that are kept
       load large ADDRESS SECONDS N [chunked]     bodies of 25 MB with a wrong signature, one after the other on N connections
       load restarts ADDRESS SECRET COUNT BINARY CONFIG
                                                  holds the socket for a daemon that it restarts so often, while deliveries go on
";

/// A delivery that has no answer for so long failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["script", secret, file, rest @ ..] => std::fs::write(file, script(secret, !rest.is_empty())).unwrap(),
        ["most", address, secret, seconds, rest @ ..] => most(&Target::new(address, secret, rest), seconds),
        ["rate", address, secret, seconds, rate, rest @ ..] => {
            timed(&Target::new(address, secret, rest), seconds, rate.parse().unwrap());
        }
        ["forged", address, secret, seconds, rate] => forged(&Target::new(address, secret, &[]), seconds, rate),
        ["large", address, seconds, count, rest @ ..] => {
            large(address.parse().unwrap(), seconds, count.parse().unwrap(), rest == ["chunked"]);
        }
        ["restarts", address, secret, count, binary, config] => {
            restarts(&Target::new(address, secret, &[]), count.parse().unwrap(), binary, config);
        }
        _ => {
            print!("{USAGE}");
            std::process::exit(2);
        }
    }
}

/// A body like GitHub's of `length` bytes or a little more.
fn body(length: usize) -> String {
    let fixture = include_str!("../fixtures/workflow_job_queued.json");
    let (start, rest) = fixture.split_once("\"workflow_job\": {").unwrap();
    let mut steps = String::new();
    for n in 1.. {
        if !steps.is_empty() {
            steps.push(',');
        }
        let _ = write!(
            steps,
            "{{\"name\":\"Run actions/checkout@v4 number {n}\",\"status\":\"completed\",\"conclusion\":\"success\",\"number\":{n},\
             \"started_at\":\"2021-06-11T13:29:15.000Z\",\"completed_at\":\"2021-06-11T13:29:17.000Z\"}}"
        );
        if fixture.len() + steps.len() >= length {
            break;
        }
    }
    format!("{start}\"workflow_job\": {{\"steps\":[{steps}],{rest}")
}

fn signature(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

/// The lengths of deliveries: 12 to 25 KB.
fn bodies() -> Vec<String> {
    (0..8).map(|n| body(12_000 + n * 1_800)).collect()
}

/// What comes before the delivery's id, and what behind it.
fn parts(secret: &str, body: &str, connection: &str) -> (String, String) {
    let before = "POST /hooks/lxdrunner HTTP/1.1\r\nHost: lxdrunner.test\r\nUser-Agent: GitHub-Hookshot/044aadd\r\nAccept: */*\r\n\
                  Content-Type: application/json\r\nX-GitHub-Event: workflow_job\r\nX-GitHub-Hook-ID: 292430182\r\n\
                  X-GitHub-Hook-Installation-Target-Type: organization\r\nX-GitHub-Delivery: ";
    let behind = format!(
        "\r\nX-Hub-Signature-256: sha256={}\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
        signature(secret, body),
        body.len()
    );
    (before.to_owned(), behind)
}

fn script(secret: &str, close: bool) -> String {
    let mut text = "local behind = {}\n".to_owned();
    let connection = if close { "close" } else { "keep-alive" };
    for (n, body) in bodies().iter().enumerate() {
        let (before, behind) = parts(secret, body, connection);
        let _ = write!(text, "before = {before:?}\nbehind[{}] = {:?}\n", n + 1, behind);
    }
    text + "local count = 0\nlocal own = tostring({}):sub(8)\n\
            request = function()\n  count = count + 1\n  return before .. own .. count .. behind[count % #behind + 1]\nend\n\
            done = function(summary, latency)\n  local e = summary.errors\n\
            \x20 io.write(string.format('rate=%.0f failed=%d p99_ms=%.1f\\n', summary.requests / summary.duration * 1e6,\n\
            \x20   e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99) / 1000))\nend\n"
}

struct Target {
    address: SocketAddr,
    requests: Vec<(String, String)>,
    kept: Vec<(String, String)>,
    tls: Option<Arc<ClientConfig>>,
    count: AtomicU64,
}

impl Target {
    fn new(address: &str, secret: &str, rest: &[&str]) -> Target {
        let tls = (rest == ["tls"]).then(|| anybody::client(ALL_VERSIONS));
        let requests = |connection| bodies().iter().map(|body| parts(secret, body, connection)).collect();
        Target {
            address: address.parse().unwrap(),
            requests: requests("close"),
            kept: requests("keep-alive"),
            tls,
            count: AtomicU64::new(0),
        }
    }

    fn request(&self, from: &[(String, String)]) -> Vec<u8> {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let (before, behind) = &from[n as usize % from.len()];
        format!("{before}{}-{n}{behind}", std::process::id()).into_bytes()
    }

    /// One signed delivery over a connection of its own.
    fn deliver(&self) -> io::Result<()> {
        let request = self.request(&self.requests);
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // What follows TLS's handshake must not wait for the acknowledgement of its last piece.
        stream.set_nodelay(true)?;
        let answer = match &self.tls {
            None => exchange(stream, &request)?,
            Some(config) => {
                let name = ServerName::try_from("lxdrunner.test").unwrap();
                let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(connection, stream), &request)?
            }
        };
        if answer.starts_with(b"HTTP/1.1 202 ") {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::with_capacity(1024);
    match stream.read_to_end(&mut answer) {
        // Who closes without TLS's farewell has said all the same what it had to say.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        other => drop(other?),
    }
    Ok(answer)
}

fn most(target: &Target, seconds: &str) {
    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < until {
                    count(target.deliver(), &done, &failed);
                }
            });
        }
    });
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("rate={rate:.0} failed={}", failed.load(Ordering::Relaxed));
}

fn count<T>(result: io::Result<T>, done: &AtomicU64, failed: &AtomicU64) {
    match result {
        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
        Err(error) => {
            if failed.fetch_add(1, Ordering::Relaxed) < 3 {
                println!("failure: {error}");
            }
        }
    }
}

/// Begins one in each of equal steps, however long the others take, and tells how long they took.
fn timed(target: &Target, seconds: &str, rate: u64) {
    let all = rate * seconds.parse::<u64>().unwrap();
    let step = Duration::from_secs(1) / u32::try_from(rate).unwrap();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let work = || {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= all {
                    return times;
                }
                let due = began + step * u32::try_from(n).unwrap();
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // From when it was due: what waits for one of us has waited too.
                count(target.deliver(), &done, &failed);
                times.push(due.elapsed());
            }
        };
        let workers: Vec<_> = (0..16).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    let failed = failed.load(Ordering::Relaxed);
    println!("count={all} failed={failed} p50_ms={:.1} p99_ms={:.1} max_ms={:.1}", at(0.5), at(0.99), at(1.0));
}

/// Signed with another secret. Each connection sends one after the other.
fn forged(target: &Target, seconds: &str, rate: &str) {
    const CONNECTIONS: u32 = 8;
    let step = Duration::from_secs(1) * CONNECTIONS / rate.parse::<u32>().unwrap();
    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut due = Instant::now();
                let mut stream = TcpStream::connect(target.address).unwrap();
                let mut answer = [0; 4096];
                while due < until {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += step;
                    let sent = stream.write_all(&target.request(&target.kept)).and_then(|()| stream.read(&mut answer));
                    match sent {
                        Ok(length) if answer[..length].starts_with(b"HTTP/1.1 401 ") => {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            stream = TcpStream::connect(target.address).unwrap();
                        }
                    }
                }
            });
        }
    });
    let rate = done.load(Ordering::Relaxed) / seconds.parse::<u64>().unwrap();
    println!("rate={rate} failed={}", failed.load(Ordering::Relaxed));
}

/// The longest body that is let in.
const LONGEST: usize = 25 << 20;

/// As many bodies of that length as go, with a signature that is well-formed and wrong. One that is refused is begun anew.
fn large(address: SocketAddr, seconds: &str, connections: u64, chunked: bool) {
    const PIECE: usize = 64 << 10;
    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let (whole, cut) = (AtomicU64::new(0), AtomicU64::new(0));
    let (head, piece, end) = if chunked {
        let piece = [format!("{PIECE:x}\r\n").into_bytes(), vec![b' '; PIECE], b"\r\n".to_vec()].concat();
        ("Transfer-Encoding: chunked".to_owned(), piece, &b"0\r\n\r\n"[..])
    } else {
        (format!("Content-Length: {LONGEST}"), vec![b' '; PIECE], &b""[..])
    };
    let head = format!(
        "POST /hooks/lxdrunner HTTP/1.1\r\nX-GitHub-Event: workflow_job\r\nX-Hub-Signature-256: sha256={}\r\n{head}\r\n\r\n",
        "0".repeat(64)
    );
    let send = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(head.as_bytes())?;
        for _ in 0..LONGEST / PIECE {
            stream.write_all(&piece)?;
        }
        stream.write_all(end)?;
        let mut answer = [0; 13];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"HTTP/1.1 401 ")
    };
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while Instant::now() < until {
                    let done = if send().unwrap_or(false) { &whole } else { &cut };
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("whole={} cut={}", whole.into_inner(), cut.into_inner());
}

/// Deliveries between two restarts, at least.
const BETWEEN: u64 = 200;

fn restarts(target: &Target, count_of_restarts: u64, binary: &str, config: &str) {
    let listener = mio::net::TcpListener::bind(target.address).unwrap();
    let listener = TcpListener::from(OwnedFd::from(listener));
    let (done, failed, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    count(target.deliver(), &done, &failed);
                }
            });
        }
        for _ in 0..count_of_restarts {
            let before = done.load(Ordering::Relaxed);
            let daemon = activate(binary, config.as_ref(), &listener);
            while done.load(Ordering::Relaxed) < before + BETWEEN {
                std::thread::sleep(Duration::from_millis(1));
            }
            end(daemon);
        }
        // The last deliveries wait for it.
        let mut last = activate(binary, config.as_ref(), &listener);
        over.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        last.kill().unwrap();
        last.wait().unwrap();
    });
    let [count, failed] = [done, failed].map(AtomicU64::into_inner);
    println!("restarts={count_of_restarts} count={count} failed={failed}");
}
