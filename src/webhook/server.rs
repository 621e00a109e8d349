//! The receiver: answers what the gate lets through. It never waits for LXD or GitHub.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tiny_http::{Method, Request, Server};

use super::answer::{Answer, Pen};
use super::event::{Parsed, parse, verify};
use super::gate::{self, Limits};
use super::letters::{BUNDLE_HEADER, Bundle, Field, Letter, Letters};
use super::private::Private;
use super::tally::{Kind, Tally};
use super::{Error, HOOK_PATH, LONGEST_ANSWER, Listener, Peers, Tls};
use crate::model::{Hint, Secret};
use crate::threads;

/// Threads that check signatures and parse.
const WORKERS: usize = 2;

/// Connections between the gate and `tiny_http`, which has a thread for each.
const LINKS: usize = 3;

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

/// What strangers meet first.
#[derive(Debug)]
pub struct Front {
    /// Where they arrive.
    pub listener: Listener,
    /// The certificate that they are shown; `None`: they come in plain.
    pub tls: Option<Arc<Tls>>,
    /// Who of them is let in.
    pub peers: Arc<Peers>,
    /// What they may take of us.
    pub limits: Limits,
    /// Something comes from here when the process is to end: who is in is served, nobody else let in, and it ends.
    pub ending: Option<UnixStream>,
}

/// The webhook receiver. Its threads live as long as the process.
#[derive(Debug)]
pub struct Receiver {
    local: SocketAddr,
}

impl Receiver {
    /// Lets everybody in at `listen`, in plain, within the usual limits (see [`Receiver::open`]).
    ///
    /// # Errors
    /// The address cannot be had, or as there.
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
        let listener = Listener::bind(listen)?;
        let front = Front { listener, tls: None, peers: Arc::default(), limits, ending: None };
        Receiver::open(front, secret, deliver, health, || None)
    }

    /// Hands each new signed delivery to `deliver`, which must not block; `health` is asked for `GET /healthz`, `metrics` for
    /// `GET /metrics` of whoever may read them, and must answer within a few seconds.
    ///
    /// # Errors
    /// The system has no sockets left, or no place for a private one.
    pub fn open(
        front: Front,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        health: impl Fn() -> Health + Send + Sync + 'static,
        metrics: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Result<Receiver, Error> {
        let answers = Answers { health: Box::new(health), metrics: Box::new(metrics) };
        let opened =
            Private::listen().and_then(|private| Receiver::open_within(private, front, secret, deliver, answers));
        opened.map_err(|error| Error::new("set up the webhook receiver", error, "see whether /tmp can be written to"))
    }

    pub(super) fn open_within(
        private: Private,
        front: Front,
        secret: Secret,
        deliver: impl Fn(Hint) + Send + Sync + 'static,
        answers: Answers,
    ) -> io::Result<Receiver> {
        let Front { listener: Listener { socket, local, .. }, tls, peers, limits, ending } = front;
        let server = Server::from_listener(private.listener()?, None).map_err(io::Error::other)?;
        let (tally, letters) = (Arc::new(Tally::default()), Arc::new(Letters::default()));
        let desk = Arc::new(Desk {
            server,
            secret,
            deliver: Box::new(deliver),
            answers,
            seen: Mutex::new(Seen::default()),
            tally: Arc::clone(&tally),
            letters: Arc::clone(&letters),
        });
        for n in 0..WORKERS {
            let desk = Arc::clone(&desk);
            threads::spawn(&format!("webhook-{n}"), move || desk.work());
        }
        let links = (0..LINKS).map(|_| private.connect()).collect::<io::Result<Vec<_>>>()?;
        drop(private);
        gate::open(socket, links, ending, gate::Shared { limits, peers, tls, tally, letters })?;
        Ok(Receiver { local })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// What questions are answered with.
pub(super) struct Answers {
    pub(super) health: Box<dyn Fn() -> Health + Send + Sync>,
    /// `None`: nobody tells.
    pub(super) metrics: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What the workers share.
struct Desk {
    server: Server,
    secret: Secret,
    deliver: Box<dyn Fn(Hint) + Send + Sync>,
    answers: Answers,
    seen: Mutex<Seen>,
    tally: Arc<Tally>,
    letters: Arc<Letters>,
}

impl Desk {
    fn work(&self) {
        let mut pen = Pen::default();
        loop {
            match self.server.recv() {
                Ok(request) => {
                    for letter in self.bundle(&request) {
                        pen.write(&self.answer(&request, &letter), request.method());
                        if let Some(bytes) = letter.bytes {
                            self.letters.give_back(bytes);
                        }
                    }
                    pen.send(request);
                }
                // Its accepting thread is gone, and no request will ever come again.
                Err(error) => threads::die(&format!("webhook receiver lost its socket: {error}")),
            }
        }
    }

    /// What the gate has put down for a request: at least one letter, since each request has its answer.
    fn bundle(&self, request: &Request) -> Bundle {
        let number = request.headers().iter().find(|header| header.field.equiv(BUNDLE_HEADER));
        let number = number.and_then(|header| header.value.as_str().parse().ok());
        number.and_then(|number| self.letters.take(number)).unwrap_or_else(|| vec![Letter::default()])
    }

    fn answer(&self, request: &Request, letter: &Letter) -> Answer {
        let path = request.url().split('?').next().unwrap_or_default();
        match (path, request.method()) {
            // Names of targets and LXD's words are for this machine and for those whom web_metrics names.
            ("/healthz", Method::Get | Method::Head) => match (self.answers.health)() {
                Health::Good(words) if letter.measures || letter.is_local => Answer::new(200, words),
                Health::Good(_) => Answer::new(200, "ok"),
                Health::Bad(reason) if letter.measures || letter.is_local => Answer::new(503, reason),
                Health::Bad(_) => Answer::new(503, "not ok"),
            },
            ("/healthz", _) => Answer { allow: Some("GET, HEAD"), ..Answer::new(405, "healthz is only read") },
            // Nobody else is told that there is such a thing.
            ("/metrics", Method::Get | Method::Head) if letter.measures => match (self.answers.metrics)() {
                Some(text) if text.len() < LONGEST_ANSWER => {
                    Answer { lines: true, ..Answer::new(200, text.trim_end().to_owned()) }
                }
                Some(_) => Answer::new(503, "longer than an answer may be: lxdrunner status --metrics tells"),
                None => Answer::new(503, "metrics unavailable: the main loop does not answer"),
            },
            (HOOK_PATH, Method::Post) => self.delivery(letter),
            (HOOK_PATH, _) => Answer { allow: Some("POST"), ..Answer::new(405, "webhooks are posted here by GitHub") },
            _ => Answer::new(404, format!("nothing here: webhooks go to {HOOK_PATH}, health is at /healthz")),
        }
    }

    fn delivery(&self, letter: &Letter) -> Answer {
        let words = &letter.words;
        let refused = |kind, reason: &str| self.tally.note(kind, letter.peer, reason);
        let Some(body) = letter.body() else {
            return Answer::new(411, "the body's length is missing (Content-Length)");
        };
        if let Some(kind) = words.get(Field::ContentType) {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json") {
                let mend = "in the hook's settings, set Content type to application/json";
                refused(Kind::Unsigned, mend);
                return Answer::new(415, mend);
            }
        }
        let signature = words.signature();
        if let Err(error) = verify(&self.secret, body, signature) {
            refused(Kind::Unsigned, &error.to_string());
            return Answer::new(401, error.to_string());
        }

        // From here on it is GitHub that speaks, or whoever else knows the secret.
        let event = words.get(Field::Event).unwrap_or_default();
        let id = words.get(Field::Delivery).unwrap_or_default();
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

/// A poisoned lock means that a thread panicked, which ends the process; in tests it is of no harm.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
