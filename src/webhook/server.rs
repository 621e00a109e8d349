//! The receiver: answers what the gate lets through. It never waits for LXD or GitHub.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tiny_http::{Header, Method, Request, Response, Server};

use super::event::{Parsed, parse, verify};
use super::gate::{self, Limits, PEER_HEADER};
use super::{HOOK_PATH, LONGEST_BODY};
use crate::model::{Hint, Secret};
use crate::threads;

/// Threads that check signatures and parse; each has at most one body in memory.
const WORKERS: usize = 2;

/// Deliveries that are remembered, to tell those that come twice.
const REMEMBERED: usize = 4096;

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Well, in a few words that start with `ok`.
    Good(String),
    /// What is wrong.
    Bad(String),
}

/// The webhook receiver. Its threads live as long as the process.
#[derive(Debug)]
pub struct Receiver {
    local: SocketAddr,
}

/// The receiver could not be started.
#[derive(Debug)]
pub struct Error {
    tried: String,
    mend: &'static str,
    source: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.tried, self.source)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, " — {}", self.mend) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Receiver {
    /// Listens on `listen` and hands each new signed delivery to `deliver`, which must not block; `health` is asked for
    /// `GET /healthz` and must answer within a few seconds.
    ///
    /// # Errors
    /// The address cannot be had, or the system has no sockets left.
    pub fn start(
        listen: SocketAddr,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        health: impl Fn() -> Health + Send + Sync + 'static,
    ) -> Result<Receiver, Error> {
        Receiver::start_with(listen, secret, deliver, health, Limits::default())
    }

    /// Like [`Receiver::start`], with other limits than the usual ones.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        listen: SocketAddr,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        health: impl Fn() -> Health + Send + Sync + 'static,
        limits: Limits,
    ) -> Result<Receiver, Error> {
        let listener = TcpListener::bind(listen).map_err(|source| Error::bind(listen, source))?;
        let local = listener.local_addr().map_err(|source| Error::bind(listen, source))?;
        let within = |source| Error { tried: "set up the webhook receiver".to_owned(), mend: "", source };

        let (inner, address) = inner_listener().map_err(within)?;
        let server = Server::from_listener(inner, None).map_err(|e| within(io::Error::other(e)))?;
        let desk = Arc::new(Desk {
            server,
            secret,
            deliver: Box::new(deliver),
            health: Box::new(health),
            seen: Mutex::new(Seen::default()),
            refused: Mutex::new(Seldom::default()),
        });
        for n in 0..WORKERS {
            let desk = Arc::clone(&desk);
            threads::spawn(&format!("webhook-{n}"), move || desk.work());
        }
        gate::open(listener, address, limits);
        Ok(Receiver { local })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Error {
    fn bind(listen: SocketAddr, source: io::Error) -> Error {
        let mend = match source.kind() {
            ErrorKind::AddrInUse => "another program has that port (another lxdrunner?): stop it, or change web_port",
            ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: change web_port",
            ErrorKind::AddrNotAvailable => "this machine has no such address: change web_host",
            _ => "see web_host and web_port",
        };
        Error { tried: format!("listen for webhooks on {listen}"), mend, source }
    }
}

/// A socket of Linux's abstract name space: it needs no file, and is gone with the process.
fn inner_listener() -> io::Result<(UnixListener, UnixAddr)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = UnixAddr::from_abstract_name(format!("lxdrunner-{}-{n}", std::process::id()))?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok((listener, address)),
            // A process of another PID namespace that shares our network may have it.
            Err(error) if error.kind() == ErrorKind::AddrInUse && n < 1000 => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the workers share.
struct Desk {
    server: Server,
    secret: Secret,
    deliver: Box<dyn Fn(Hint) + Send + Sync>,
    health: Box<dyn Fn() -> Health + Send + Sync>,
    seen: Mutex<Seen>,
    refused: Mutex<Seldom>,
}

/// An answer: status, one line of text, and the methods for a 405.
struct Answer {
    status: u16,
    text: String,
    allow: Option<&'static str>,
}

impl Answer {
    fn new(status: u16, text: impl Into<String>) -> Answer {
        Answer { status, text: text.into(), allow: None }
    }
}

impl Desk {
    fn work(&self) {
        loop {
            match self.server.recv() {
                Ok(mut request) => {
                    let answer = self.answer(&mut request);
                    send(request, &answer);
                }
                // Its accepting thread is gone, and no request will ever come again.
                Err(error) => threads::die(&format!("webhook receiver lost its socket: {error}")),
            }
        }
    }

    fn answer(&self, request: &mut Request) -> Answer {
        let path = request.url().split('?').next().unwrap_or_default();
        match (path, request.method()) {
            ("/healthz", Method::Get | Method::Head) => match (self.health)() {
                Health::Good(words) => Answer::new(200, words),
                Health::Bad(reason) => Answer::new(503, reason),
            },
            ("/healthz", _) => Answer { allow: Some("GET, HEAD"), ..Answer::new(405, "healthz is only read") },
            (HOOK_PATH, Method::Post) => self.delivery(request),
            (HOOK_PATH, _) => Answer { allow: Some("POST"), ..Answer::new(405, "webhooks are posted here by GitHub") },
            _ => Answer::new(404, format!("nothing here: webhooks go to {HOOK_PATH}, health is at /healthz")),
        }
    }

    fn delivery(&self, request: &mut Request) -> Answer {
        if request.body_length().is_none() {
            return Answer::new(411, "the body's length is missing (Content-Length)");
        }
        if let Some(kind) = header(request, "content-type") {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json") {
                let mend = "in the hook's settings, set Content type to application/json";
                self.note_refusal(mend, request);
                return Answer::new(415, mend);
            }
        }
        let mut body = Vec::new();
        let limit = u64::try_from(LONGEST_BODY).unwrap_or(u64::MAX) + 1;
        match request.as_reader().take(limit).read_to_end(&mut body) {
            Ok(_) if body.len() > LONGEST_BODY => return Answer::new(413, "longer than 25 MB, GitHub's limit"),
            Ok(_) => {}
            Err(_) => return Answer::new(400, "the body is shorter than it said"),
        }

        let signature = header(request, "x-hub-signature-256").or_else(|| header(request, "x-hub-signature"));
        if let Err(error) = verify(&self.secret, &body, signature) {
            self.note_refusal(&error.to_string(), request);
            return Answer::new(401, error.to_string());
        }

        // From here on it is GitHub that speaks, or whoever else knows the secret.
        let event = header(request, "x-github-event").unwrap_or_default();
        let id = header(request, "x-github-delivery").unwrap_or_default();
        if event.is_empty() {
            return Answer::new(400, "the header X-GitHub-Event is missing");
        }
        let parsed = match parse(event, &body) {
            Ok(parsed) => parsed,
            Err(error) => {
                log::warn!("delivery_refused event={event:?} delivery={id:?} reason={:?}", error.to_string());
                return Answer::new(400, error.to_string());
            }
        };
        let hint = match parsed {
            Parsed::Hint(hint) => hint,
            Parsed::Ignored(reason) => {
                log::debug!("delivery_ignored event={event:?} delivery={id:?} reason={reason:?}");
                return Answer::new(204, reason);
            }
        };
        let fresh = id.is_empty() || lock(&self.seen).insert(fingerprint(id, signature.unwrap_or_default()));
        if !fresh {
            log::debug!("delivery_repeated event={event:?} delivery={id:?}");
            return Answer::new(202, "accepted before");
        }
        log::debug!("delivery_accepted event={event:?} delivery={id:?} hint={hint:?}");
        (self.deliver)(hint);
        Answer::new(202, if event == "ping" { "pong" } else { "accepted" })
    }

    /// Of what may come from anybody the log tells seldom.
    fn note_refusal(&self, reason: &str, request: &Request) {
        if let Some(unsaid) = lock(&self.refused).due(Instant::now()) {
            let peer = header(request, PEER_HEADER).unwrap_or("unknown");
            log::warn!("delivery_refused peer={peer} unsaid={unsaid} reason={reason:?}");
        }
    }
}

/// A poisoned lock means that a thread panicked, which ends the process; in tests it is of no harm.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|h| h.field.equiv(name)).map(|h| h.value.as_str())
}

fn send(request: Request, answer: &Answer) {
    let mut text = answer.text.replace(['\r', '\n'], " ");
    text.push('\n');
    let mut response = Response::from_string(text).with_status_code(answer.status);
    let allow = answer.allow.and_then(|methods| Header::from_bytes("Allow", methods).ok());
    let kind = Header::from_bytes("Content-Type", "text/plain; charset=utf-8").ok();
    for header in [allow, kind].into_iter().flatten() {
        response.add_header(header);
    }
    if let Err(error) = request.respond(response) {
        log::debug!("answer_lost status={} error={error:?}", answer.status);
    }
}

/// A delivery's id together with its signature: the id alone is not signed, so somebody who replays one delivery
/// under another id must not be able to make us deaf for that id.
fn fingerprint(id: &str, signature: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(id.len().to_le_bytes());
    hash.update(id);
    hash.update(signature.to_ascii_lowercase());
    hash.finalize().into()
}

/// The last deliveries, oldest first.
#[derive(Default)]
struct Seen {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Seen {
    /// True where it is new.
    fn insert(&mut self, delivery: [u8; 32]) -> bool {
        if !self.known.insert(delivery) {
            return false;
        }
        self.order.push_back(delivery);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Says something at most once a second, and how often it was not said in between.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// How often it was left out before, where it is time to say it.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let quiet = |last: Instant| now.saturating_duration_since(last) < Duration::from_secs(1);
        if self.last.is_some_and(quiet) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_new_once_and_the_oldest_are_forgotten() {
        let mut seen = Seen::default();
        let key = |n: usize| fingerprint(&n.to_string(), "sha256=00");
        assert!(seen.insert(key(0)));
        assert!(!seen.insert(key(0)));
        assert!((1..REMEMBERED).all(|n| seen.insert(key(n))));
        assert!(!seen.insert(key(0)));
        assert!(seen.insert(key(REMEMBERED)));
        assert!(seen.insert(key(0)));
        assert_eq!((seen.known.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn an_id_is_taken_together_with_its_signature() {
        assert_ne!(fingerprint("a", "sha256=00"), fingerprint("a", "sha256=01"));
        assert_ne!(fingerprint("a", "bc"), fingerprint("ab", "c"));
        assert_eq!(fingerprint("a", "sha256=AB"), fingerprint("a", "sha256=ab"));
    }

    #[test]
    fn a_flood_is_told_once_a_second() {
        let mut seldom = Seldom::default();
        let start = Instant::now();
        let mut check = |millis: u64, said: Option<u64>| {
            assert_eq!(seldom.due(start + Duration::from_millis(millis)), said, "{millis}");
        };
        check(0, Some(0));
        check(1, None);
        check(999, None);
        check(1000, Some(2));
        check(1500, None);
        check(9000, Some(1));
    }
}
