//! The gate: the buffering reverse proxy between clients and tiny_http.
//!
//! tiny_http reads heads of any length, has no timeouts, needs a thread for each connection and stops when one `accept`
//! fails. Therefore clients do not reach it. One thread holds all client connections without blocking, buffers each
//! request until it is whole, and sends it to tiny_http over one of a few private connections.
//!
//! ```text
//! clients ══TCP, TLS══▶ gate (deadlines, caps) ──unix socket──▶ tiny_http (server.rs)
//! ```
//!
//! 1. tiny_http gets whole, checked requests only: a slow client costs its bytes and a file descriptor, no thread.
//! 2. No byte of a client's head is passed on. The head is parsed and written anew: method, path, five headers in
//!    printable ASCII, `Content-Length` as counted here, and the caller, which no client can write.
//! 3. A private connection has one request at a time, so an answer is always that of its request.
//! 4. A request counts as memory until it is answered, also when its client is gone.
//! 5. Bad requests and those above a limit are answered by the gate (400, 401, 403, 408, 413, 417, 431, 502, 503) and closes.
//! 6. At a limit of connections, the oldest connection of the address with the most connections is closed. At the limit
//!    of memory, the connection that holds most. Neither is one whose request is being answered.
//! 7. Each phase of a connection has a deadline. A request that tiny_http does not answer in time gets a 502.
//! 8. The process ends if tiny_http closes a connection, sends anything but an answer, or is silent for a minute.
//! 9. On SIGTERM no connection is accepted any more, and requests that have begun are answered, for at most three seconds.

mod answer;
mod backend;
mod body;
mod client;
mod connections;
mod request;
mod shared;
mod stream;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::peers::subscriber;
use super::throttled_log::Kind;
use crate::threads;
use answer::Refusal;
use backend::{Answered, Backend};
use client::{Client, Step};
use connections::Connections;
use stream::Stream;

pub(super) use shared::Shared;

/// Connections that are accepted before the open ones go on.
const ARRIVALS: usize = 64;
/// The pause after a failed `accept`.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests that have begun are still served after SIGTERM.
const SHUTDOWN_TIME: Duration = Duration::from_secs(3);
/// Bytes that are read at once.
const SCRATCH: usize = 64 * 1024;

const LISTENER: usize = 0;
const SHUTDOWN: usize = 1;
const FIRST_LINK: usize = 2;
const FIRST_CLIENT: usize = 1024;

/// Serves the clients of `listener` in a thread of its own, over `links` to tiny_http. A byte from `shutdown` ends
/// the process (see the module).
///
/// # Errors
/// The system refuses to poll the sockets.
pub(super) fn open(
    mut listener: TcpListener,
    links: Vec<UnixStream>,
    shutdown: Option<UnixStream>,
    shared: Shared,
) -> io::Result<()> {
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
    let shutdown = shutdown.map(|end| end.set_nonblocking(true).map(|()| mio::net::UnixStream::from_std(end)));
    let mut shutdown = shutdown.transpose()?;
    if let Some(shutdown) = &mut shutdown {
        poll.registry().register(shutdown, Token(SHUTDOWN), Interest::READABLE)?;
    }
    let links = links.into_iter().map(|link| {
        link.set_nonblocking(true)?;
        Ok(mio::net::UnixStream::from_std(link))
    });
    let backend = Backend::new(links.collect::<io::Result<_>>()?, poll.registry(), FIRST_LINK)?;
    let gate = Gate {
        poll,
        listener,
        _shutdown: shutdown,
        exits_at: None,
        shared,
        backend,
        connections: Connections::default(),
        ready_queue: VecDeque::new(),
        arrivals: Arrivals::Waiting,
        accept_failing: false,
        serial: 0,
        next_deadline: None,
        scratch: vec![0; SCRATCH],
    };
    threads::spawn("gate", move || gate.run());
    Ok(())
}

/// Whether connections wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrivals {
    None,
    Waiting,
    /// Do not accept before then: `accept` failed, or all places are taken.
    Later(Instant),
}

struct Gate {
    poll: Poll,
    listener: TcpListener,
    /// SIGTERM writes a byte here.
    _shutdown: Option<mio::net::UnixStream>,
    /// After SIGTERM: when the process ends at the latest.
    exits_at: Option<Instant>,
    shared: Shared,
    backend: Backend,
    connections: Connections,
    /// Places of clients that have more to do without a further event.
    ready_queue: VecDeque<usize>,
    arrivals: Arrivals,
    accept_failing: bool,
    serial: u64,
    /// No deadline is before this.
    next_deadline: Option<Instant>,
    scratch: Vec<u8>,
}

impl Gate {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let wait = self.wait();
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => threads::die(&format!("the gate cannot wait for connections: {error}")),
            }
            let now = Instant::now();
            for event in &events {
                match event.token().0 {
                    LISTENER if self.arrivals == Arrivals::None => self.arrivals = Arrivals::Waiting,
                    LISTENER => {}
                    SHUTDOWN => self.exits_at = Some(now + SHUTDOWN_TIME),
                    link @ FIRST_LINK..FIRST_CLIENT => self.link_ready(link - FIRST_LINK, now),
                    token => self.client_ready(token - FIRST_CLIENT, event.is_read_closed(), now),
                }
            }
            for _ in 0..self.ready_queue.len() {
                let Some(at) = self.ready_queue.pop_front() else { break };
                self.drive(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
            }
            match self.exits_at {
                None => self.accept_waiting(now),
                Some(at) if at <= now || !self.connections.is_served() => {
                    self.shared.log.flush(now + Duration::from_secs(1));
                    log::info!("msg=\"shutting down on SIGTERM; running jobs are not affected\"");
                    std::process::exit(0);
                }
                Some(_) => {}
            }
            self.expire_overdue(now);
        }
    }

    /// How long to wait for events.
    fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let log_due = self.shared.log.flush(now);
        let (busy, later) = match self.arrivals {
            _ if self.exits_at.is_some() => (false, self.exits_at),
            Arrivals::Waiting => (true, None),
            Arrivals::Later(at) => (false, Some(at)),
            Arrivals::None => (false, None),
        };
        if busy || !self.ready_queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let first = [self.next_deadline, log_due, later].into_iter().flatten().min();
        first.map(|at| at.saturating_duration_since(now))
    }

    fn client_ready(&mut self, at: usize, ended: bool, now: Instant) {
        self.drive(at, now, |client, shared, scratch| {
            client.on_ready(ended);
            client.advance(now, shared, scratch)
        });
    }

    /// Advances a client and carries out its next step.
    fn drive(&mut self, at: usize, now: Instant, act: impl FnOnce(&mut Client, &Shared, &mut [u8]) -> Step) {
        let Some(mut client) = self.connections.take(at) else { return };
        let mut step = act(&mut client, &self.shared, &mut self.scratch);
        if let Some(holder) = client.holder
            && self.shared.peers.has_proxies()
            && self.connections.held_by(holder) >= self.shared.limits.per_address
            && !client.awaits_response()
        {
            // It came through a proxy, and the head has just named the client.
            self.shared.log.record(Kind::Crowded, Some(client.peer), "too many connections of one address");
            client.shed();
            step = Step::Over;
        }
        match step {
            Step::Over => {
                self.end(at, client);
                return;
            }
            Step::Wait => {}
            Step::Again => self.ready_queue.push_back(at),
            Step::Ask(mut exchange) => {
                exchange.slot = at;
                if let Err(error) = self.backend.submit(exchange, now) {
                    self.die(&error);
                }
            }
        }
        self.next_deadline = Some(self.next_deadline.map_or(client.deadline, |alarm| alarm.min(client.deadline)));
        self.connections.put_back(at, client);
        while self.connections.memory + self.backend.held() > self.shared.limits.memory {
            let Some(heaviest) = self.connections.heaviest() else { break };
            self.shed(heaviest, "too much memory for requests");
        }
    }

    fn end(&mut self, at: usize, client: Box<Client>) {
        self.backend.forget(client.serial);
        self.connections.leave(at);
        if let Arrivals::Later(_) = self.arrivals {
            self.arrivals = Arrivals::Waiting;
        }
    }

    fn shed(&mut self, at: usize, why: &str) {
        if let Some(mut client) = self.connections.take(at) {
            self.shared.log.record(Kind::Crowded, Some(client.peer), why);
            client.shed();
            self.end(at, client);
        }
    }

    fn link_ready(&mut self, link: usize, now: Instant) {
        let shutting_down = self.exits_at.is_some();
        match self.backend.on_ready(link, now, &mut self.scratch) {
            Ok(None) => {}
            Ok(Some(Answered { slot, serial, keep_alive, bytes })) => {
                self.drive(slot, now, |client, shared, scratch| {
                    // After a timeout, another client may have that place.
                    if client.serial == serial && client.awaits_response() {
                        let keep_alive = keep_alive && client.wants_more() && !shutting_down;
                        client.answer(bytes, keep_alive, now, &shared.limits);
                    }
                    client.advance(now, shared, scratch)
                })
            }
            Err(error) => self.die(&error),
        }
    }

    fn die(&self, error: &io::Error) -> ! {
        threads::die(&format!("tiny_http, the webhook server behind the gate, failed: {error}"))
    }

    /// Accepts connections.
    fn accept_waiting(&mut self, now: Instant) {
        match self.arrivals {
            Arrivals::None => return,
            Arrivals::Later(at) if at > now => return,
            _ => {}
        }
        if !self.shared.peers.is_ready(now) {
            // They wait in the system's backlog.
            self.arrivals = Arrivals::Later(now + PAUSE);
            return;
        }
        self.arrivals = Arrivals::Waiting;
        for _ in 0..ARRIVALS {
            if self.is_full() && self.connections.most_dispensable(None, now).is_none() {
                // All are being served. The next one that ends makes room.
                self.arrivals = Arrivals::Later(now + PAUSE);
                return;
            }
            match self.listener.accept() {
                Ok((socket, from)) => self.admit(socket, from, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.arrivals = Arrivals::None;
                    return;
                }
                // The client is gone already.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    self.no_connection(&error, now);
                    return;
                }
            }
        }
    }

    /// `accept` failed: most likely the system, or this process, is out of file descriptors. The system keeps the
    /// connections that wait; an open one without a complete request is closed.
    fn no_connection(&mut self, error: &io::Error, now: Instant) {
        if !self.accept_failing {
            self.accept_failing = true;
            log::warn!("accept_failed error={error:?} msg=\"no connection can be accepted; retrying\"");
        }
        if let Some(long_ago) = now.checked_sub(Duration::from_secs(1))
            && let Some(at) = self.connections.most_dispensable(None, long_ago)
        {
            self.shed(at, "the system has no connections left");
        }
        self.arrivals = Arrivals::Later(now + PAUSE);
    }

    fn is_full(&self) -> bool {
        self.connections.count() >= self.shared.limits.connections
    }

    fn make_place(&mut self, of: Option<IpAddr>, now: Instant) -> bool {
        let Some(at) = self.connections.most_dispensable(of, now) else { return false };
        self.shed(at, if of.is_some() { "too many connections of one address" } else { "too many connections" });
        true
    }

    fn admit(&mut self, mut socket: TcpStream, from: SocketAddr, now: Instant) {
        if self.accept_failing {
            self.accept_failing = false;
            log::warn!("msg=\"connections are accepted again\"");
        }
        let shared = &self.shared;
        let peer = from.ip().to_canonical();
        let from_proxy = shared.peers.is_proxy(peer);
        if !from_proxy && !shared.peers.allows(peer) {
            shared.log.record(Kind::NotAllowed, Some(peer), "web_allow does not name this address");
            return;
        }
        let holder = subscriber(peer);
        if !from_proxy
            && self.connections.held_by(holder) >= shared.limits.per_address
            && !self.make_place(Some(holder), now)
        {
            self.shared.log.record(Kind::Crowded, Some(peer), "too many requests of one address at once");
            let _ = io::Write::write(&mut socket, &Refusal::BUSY.encode());
            return;
        }
        if self.is_full() {
            self.make_place(None, now);
        }
        let stream = match &self.shared.tls {
            None => Stream::plain(socket),
            Some(tls) => match Stream::encrypted(socket, tls.config(now)) {
                Ok(stream) => stream,
                Err(error) => {
                    self.shared.log.record(Kind::Handshake, Some(peer), &error.to_string());
                    return;
                }
            },
        };
        self.serial += 1;
        let mut client = Box::new(Client::new(stream, self.serial, (peer, from_proxy), now, &self.shared.limits));
        let at = self.connections.next_place();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(client.socket(), Token(FIRST_CLIENT + at), interest) {
            self.shared.log.record(Kind::Crowded, Some(peer), &error.to_string());
            return;
        }
        self.connections.enter(client);
        // Its request is often there already.
        self.drive(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
    }

    /// Ends requests and connections whose deadline has passed.
    fn expire_overdue(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|alarm| alarm > now) {
            return;
        }
        for at in self.connections.overdue(now) {
            self.drive(at, now, |client, shared, scratch| client.expire(now, shared, scratch));
        }
        let dead_at = self.backend.oldest().map(|begun| begun + self.shared.limits.server_time);
        if dead_at.is_some_and(|at| at <= now) {
            self.die(&ErrorKind::TimedOut.into());
        }
        self.next_deadline = [self.connections.next_deadline(), dead_at].into_iter().flatten().min();
    }
}
