//! The receiver: tiny_http and its workers, which answer the requests from the gate. They never wait for LXD or GitHub.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tiny_http::{Header, Method, Request, Response, Server};

use super::error::Error;
use super::event::{Parsed, parse, verify};
use super::gate;
use super::limits::{HOOK_PATH, LONGEST_ANSWER, LONGEST_BODY, Limits};
use super::listen::Listener;
use super::peers::{Access, Caller, Peers};
use super::throttled_log::{Kind, ThrottledLog};
use super::tls::Tls;
use crate::model::{Hint, Secret};
use crate::text::escaped_lines;
use crate::threads::lock;
use crate::{private_socket, threads};

/// Threads that check signatures and parse.
const WORKERS: usize = 2;

/// Connections between the gate and tiny_http: one for health and metrics, the others for deliveries. tiny_http has a
/// thread for each of up to four; with more, its pool may leave one without a thread (`TaskPool::spawn` of 0.12).
pub(super) const LINKS: usize = 4;

/// Deliveries that are remembered, to recognise repetitions.
const REMEMBERED: usize = 4096;

/// The daemon's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// A short text that starts with `ok`.
    Good(String),
    /// The reason.
    Bad(String),
}

/// Where and how clients are served.
#[derive(Debug)]
pub struct Front {
    /// The socket for clients.
    pub listener: Listener,
    /// The certificate; `None`: without TLS.
    pub tls: Option<Arc<Tls>>,
    /// The addresses that may connect.
    pub peers: Arc<Peers>,
    /// What clients may use.
    pub limits: Limits,
    /// Directories for the socket from the gate to tiny_http; the first that can be written is used.
    pub private: Vec<PathBuf>,
    /// A byte from here ends the process after requests that have begun.
    pub ending: Option<UnixStream>,
}

/// The webhook receiver. Its threads live as long as the process.
#[derive(Debug)]
pub struct Receiver {
    local: SocketAddr,
}

impl Receiver {
    /// Passes each new signed delivery to `deliver`, which must not block. `health` answers `GET /healthz`, `metrics` answers
    /// `GET /metrics` of clients that may read them; both within a few seconds.
    ///
    /// # Errors
    /// The system has no sockets left, or no directory for the private one.
    pub fn open(
        front: Front,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        health: impl Fn() -> Health + Send + Sync + 'static,
        metrics: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Result<Receiver, Error> {
        let answers = Answers { health: Box::new(health), metrics: Box::new(metrics) };
        let connected = private_socket::connected(LINKS, &front.private);
        let opened = connected.and_then(|over| Receiver::open_over(over, front, secret, deliver, answers));
        opened.map_err(|error| {
            let fix = "let cache_home name a directory that the user who runs lxdrunner can write to";
            Error::new("set up the webhook receiver".to_owned(), error, fix)
        })
    }

    /// The same over a listener for tiny_http and connections to it.
    pub(super) fn open_over(
        (private, links): (UnixListener, Vec<UnixStream>),
        front: Front,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        answers: Answers,
    ) -> io::Result<Receiver> {
        let Front { listener: Listener { socket, local, .. }, tls, peers, limits, ending, .. } = front;
        let server = Server::from_listener(private, None).map_err(io::Error::other)?;
        let log = Arc::new(ThrottledLog::default());
        let handler = Arc::new(Handler {
            server,
            secret,
            deliver: Box::new(deliver),
            answers,
            seen: Mutex::new(Seen::default()),
            log: Arc::clone(&log),
        });
        for n in 0..WORKERS {
            let handler = Arc::clone(&handler);
            threads::spawn(&format!("webhook-{n}"), move || handler.work());
        }
        gate::open(socket, links, ending, gate::Shared { limits, peers, tls, log })?;
        Ok(Receiver { local })
    }

    /// Its address, with the real port if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// The daemon's answers.
pub(super) struct Answers {
    pub(super) health: Box<dyn Fn() -> Health + Send + Sync>,
    /// `None`: the daemon does not answer.
    pub(super) metrics: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What the workers share.
struct Handler {
    server: Server,
    secret: Secret,
    deliver: Box<dyn Fn(Hint) + Send + Sync>,
    answers: Answers,
    seen: Mutex<Seen>,
    log: Arc<ThrottledLog>,
}

/// An answer: its status, its text, and the methods for a 405.
struct Answer {
    status: u16,
    text: Cow<'static, str>,
    allow: Option<&'static str>,
    /// True if the text consists of lines; else a line feed is added.
    lines: bool,
}

impl Answer {
    fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Answer {
        Answer { status, text: text.into(), allow: None, lines: false }
    }

    fn respond(self, request: Request) {
        let text = if self.lines { self.text } else { self.text.replace(['\r', '\n'], " ").into() };
        // tiny_http would send long texts in chunks, which the gate does not relay.
        let response = Response::from_string(escaped_lines(&text) + "\n")
            .with_status_code(self.status)
            .with_chunked_threshold(usize::MAX);
        let allow = self.allow.and_then(|methods| Header::from_bytes("Allow", methods).ok());
        let response = allow.into_iter().fold(response, Response::with_header);
        if let Err(error) = request.respond(response) {
            log::debug!("answer_lost error={error:?}");
        }
    }
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// By the gate's header. A request without it has no rights.
fn caller(request: &Request) -> Caller {
    let nobody = Caller { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), access: Access::Public };
    header(request, Caller::HEADER).and_then(|text| text.parse().ok()).unwrap_or(nobody)
}

impl Handler {
    fn work(&self) {
        loop {
            match self.server.recv() {
                Ok(mut request) => {
                    let answer = match read_body(&mut request) {
                        Ok(body) => self.answer(&request, body.as_deref()),
                        Err(error) => threads::die(&format!("tiny_http cannot read a request of the gate: {error}")),
                    };
                    answer.respond(request);
                }
                // Its accepting thread has ended: no request will come again.
                Err(error) => threads::die(&format!("webhook receiver lost its socket: {error}")),
            }
        }
    }

    fn answer(&self, request: &Request, body: Option<&[u8]>) -> Answer {
        let path = request.url().split('?').next().unwrap_or_default();
        let Caller { address, access } = caller(request);
        match (path, request.method()) {
            ("/healthz", Method::Get | Method::Head) => match (self.answers.health)() {
                Health::Good(words) if access >= Access::Health => Answer::new(200, words),
                Health::Good(_) => Answer::new(200, "ok"),
                Health::Bad(reason) if access >= Access::Health => Answer::new(503, reason),
                Health::Bad(_) => Answer::new(503, "not ok"),
            },
            ("/healthz", _) => Answer { allow: Some("GET, HEAD"), ..Answer::new(405, "healthz is only read") },
            // Hidden from all others.
            ("/metrics", Method::Get | Method::Head) if access == Access::Metrics => match (self.answers.metrics)() {
                Some(text) if text.len() < LONGEST_ANSWER => {
                    Answer { lines: true, ..Answer::new(200, text.trim_end().to_owned()) }
                }
                Some(_) => Answer::new(503, "longer than an answer may be: lxdrunner status --metrics tells"),
                None => Answer::new(503, "metrics unavailable: the main loop does not answer"),
            },
            (HOOK_PATH, Method::Post) => self.delivery(request, body, address),
            (HOOK_PATH, _) => Answer { allow: Some("POST"), ..Answer::new(405, "webhooks are posted here by GitHub") },
            _ => Answer::new(404, format!("nothing here: webhooks go to {HOOK_PATH}, health is at /healthz")),
        }
    }

    fn delivery(&self, request: &Request, body: Option<&[u8]>, peer: IpAddr) -> Answer {
        let refused = |kind, reason: &str| self.log.record(kind, Some(peer), reason);
        let Some(body) = body else {
            return Answer::new(411, "the body's length is missing (Content-Length)");
        };
        if let Some(kind) = header(request, "Content-Type") {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json") {
                let fix = "in the hook's settings, set Content type to application/json";
                refused(Kind::Unsigned, fix);
                return Answer::new(415, fix);
            }
        }
        let signature = header(request, "X-Hub-Signature-256").or_else(|| header(request, "X-Hub-Signature"));
        if let Err(error) = verify(&self.secret, body, signature) {
            refused(Kind::Unsigned, &error.to_string());
            return Answer::new(401, error.to_string());
        }

        // From here on the sender knows the secret.
        let event = header(request, "X-GitHub-Event").unwrap_or_default();
        let id = header(request, "X-GitHub-Delivery").unwrap_or_default();
        if event.is_empty() {
            let missing = "the header X-GitHub-Event is missing";
            refused(Kind::Useless, missing);
            return Answer::new(400, missing);
        }
        let parsed = match parse(event, body) {
            Ok(parsed) => parsed,
            Err(error) => {
                refused(Kind::Useless, &error.to_string());
                log::debug!("delivery_useless event={event:?} delivery={id:?}");
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
}

/// The whole body; `None` where the request has no length.
fn read_body(request: &mut Request) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = request.body_length() else { return Ok(None) };
    if length > LONGEST_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Zeros cost no memory until they are overwritten; `read_to_end` writes zeros ahead of what it reads.
    let mut body = vec![0; length];
    request.as_reader().read_exact(&mut body)?;
    Ok(Some(body))
}

/// A delivery's id and signature. The id alone is not signed: a replay under another id must not suppress the real delivery.
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
    /// True if it is new.
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
}
