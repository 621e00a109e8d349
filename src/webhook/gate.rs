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
//! 5. Above a limit the gate answers itself (400, 401, 403, 408, 413, 417, 431, 502, 503) and closes.
//! 6. At a limit of connections, the oldest connection of the address with the most connections is closed. At the limit
//!    of memory, the connection that holds most. Neither is one whose request is being answered.
//! 7. Each phase of a connection has a deadline. A request that tiny_http does not answer in time gets a 502.
//! 8. The process ends where tiny_http closes a connection, sends something else than an answer, or is silent for a minute.
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
use super::tally::Kind;
use crate::threads;
use answer::Refusal;
use backend::{Answered, Backend};
use client::{Client, Step};
use connections::Connections;
use stream::Stream;

pub(super) use shared::Shared;

/// Connections that are let in before those that are in have their turn.
const ARRIVALS: usize = 64;
/// The pause after the system let us have no connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Who is being served when the process is to end is served for so long.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes that are read at once.
const SCRATCH: usize = 64 * 1024;

const LISTENER: usize = 0;
const ENDING: usize = 1;
const FIRST_LINK: usize = 2;
const FIRST_CLIENT: usize = 1024;

/// Serves the clients of `listener` in a thread of its own, over `links` to tiny_http. A byte from `ending` ends the
/// process (see the module).
///
/// # Errors
/// The system refuses to poll the sockets.
pub(super) fn open(
    mut listener: TcpListener,
    links: Vec<UnixStream>,
    ending: Option<UnixStream>,
    shared: Shared,
) -> io::Result<()> {
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
    let ending = ending.map(|ending| ending.set_nonblocking(true).map(|()| mio::net::UnixStream::from_std(ending)));
    let mut ending = ending.transpose()?;
    if let Some(ending) = &mut ending {
        poll.registry().register(ending, Token(ENDING), Interest::READABLE)?;
    }
    let links = links.into_iter().map(|link| {
        link.set_nonblocking(true)?;
        Ok(mio::net::UnixStream::from_std(link))
    });
    let backend = Backend::new(links.collect::<io::Result<_>>()?, poll.registry(), FIRST_LINK)?;
    let gate = Gate {
        poll,
        listener,
        _ending: ending,
        ends_at: None,
        shared,
        backend,
        connections: Connections::default(),
        again: VecDeque::new(),
        arrivals: Arrivals::Waiting,
        troubled: false,
        serial: 0,
        alarm: None,
        scratch: vec![0; SCRATCH],
    };
    threads::spawn("gate", move || gate.run());
    Ok(())
}

/// Whether there are connections to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrivals {
    /// Not that we know.
    None,
    Waiting,
    /// Not before then: the system has none to give, or there is no place.
    Later(Instant),
}

struct Gate {
    poll: Poll,
    listener: TcpListener,
    /// SIGTERM writes a byte here.
    _ending: Option<mio::net::UnixStream>,
    /// After SIGTERM: when the process ends at the latest.
    ends_at: Option<Instant>,
    shared: Shared,
    backend: Backend,
    connections: Connections,
    /// Places of clients that have more to do without a further event.
    again: VecDeque<usize>,
    arrivals: Arrivals,
    /// True while the system has no connections to give.
    troubled: bool,
    serial: u64,
    /// No deadline is before this.
    alarm: Option<Instant>,
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
                    ENDING => self.ends_at = Some(now + FAREWELL),
                    link @ FIRST_LINK..FIRST_CLIENT => self.link_ready(link - FIRST_LINK, now),
                    token => self.client_stirred(token - FIRST_CLIENT, event.is_read_closed(), now),
                }
            }
            for _ in 0..self.again.len() {
                let Some(at) = self.again.pop_front() else { break };
                self.turn(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
            }
            match self.ends_at {
                None => self.let_in(now),
                Some(at) if at <= now || !self.connections.is_served() => {
                    self.shared.tally.flush(now + Duration::from_secs(1));
                    log::info!("msg=\"shutting down on SIGTERM; running jobs are not affected\"");
                    std::process::exit(0);
                }
                Some(_) => {}
            }
            self.ring(now);
        }
    }

    /// How long nothing is to be done.
    fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let unsaid = self.shared.tally.flush(now);
        let (busy, later) = match self.arrivals {
            _ if self.ends_at.is_some() => (false, self.ends_at),
            Arrivals::Waiting => (true, None),
            Arrivals::Later(at) => (false, Some(at)),
            Arrivals::None => (false, None),
        };
        if busy || !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let first = [self.alarm, unsaid, later].into_iter().flatten().min();
        first.map(|at| at.saturating_duration_since(now))
    }

    fn client_stirred(&mut self, at: usize, ended: bool, now: Instant) {
        self.turn(at, now, |client, shared, scratch| {
            client.stirred(ended);
            client.advance(now, shared, scratch)
        });
    }

    /// Gives a client its turn, and does what it comes to.
    fn turn(&mut self, at: usize, now: Instant, act: impl FnOnce(&mut Client, &Shared, &mut [u8]) -> Step) {
        let Some(mut client) = self.connections.take(at) else { return };
        let mut step = act(&mut client, &self.shared, &mut self.scratch);
        if let Some(holder) = client.holder
            && self.shared.peers.has_proxies()
            && self.connections.held_by(holder) >= self.shared.limits.per_address
            && !client.awaits_response()
        {
            // It came through a proxy, and only now is it known for whom.
            self.shared.tally.note(Kind::Crowded, Some(client.peer), "too many connections of one address");
            client.shed();
            step = Step::Over;
        }
        match step {
            Step::Over => {
                self.end(at, client);
                return;
            }
            Step::Wait => {}
            Step::Again => self.again.push_back(at),
            Step::Ask(mut exchange) => {
                exchange.slot = at;
                if let Err(error) = self.backend.submit(exchange, now) {
                    self.die(&error);
                }
            }
        }
        self.alarm = Some(self.alarm.map_or(client.deadline, |alarm| alarm.min(client.deadline)));
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
            self.shared.tally.note(Kind::Crowded, Some(client.peer), why);
            client.shed();
            self.end(at, client);
        }
    }

    fn link_ready(&mut self, link: usize, now: Instant) {
        let ending = self.ends_at.is_some();
        match self.backend.on_ready(link, now, &mut self.scratch) {
            Ok(None) => {}
            Ok(Some(Answered { slot, serial, keep_alive, bytes })) => {
                self.turn(slot, now, |client, shared, scratch| {
                    // After a timeout, another client may have that place.
                    if client.serial == serial && client.awaits_response() {
                        let keep_alive = keep_alive && client.wants_more() && !ending;
                        client.answer(bytes, keep_alive, now, &shared.limits);
                    }
                    client.advance(now, shared, scratch)
                })
            }
            Err(error) => self.die(&error),
        }
    }

    fn die(&self, error: &io::Error) -> ! {
        threads::die(&format!("tiny_http, the webhook server behind the gate, does not work: {error}"))
    }

    /// Lets in who has arrived.
    fn let_in(&mut self, now: Instant) {
        match self.arrivals {
            Arrivals::None => return,
            Arrivals::Later(at) if at > now => return,
            _ => {}
        }
        if !self.shared.peers.is_ready(now) {
            // The system keeps them for us.
            self.arrivals = Arrivals::Later(now + PAUSE);
            return;
        }
        self.arrivals = Arrivals::Waiting;
        for _ in 0..ARRIVALS {
            if self.is_full() && self.connections.most_dispensable(None, now).is_none() {
                // All are being served. One of them is over soon, and says so.
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

    /// The system has no connection for us: most likely it, or this process, is out of file descriptors. Those who
    /// wait are kept by the system; who merely holds a place loses it.
    fn no_connection(&mut self, error: &io::Error, now: Instant) {
        if !self.troubled {
            self.troubled = true;
            log::warn!("accept_failed error={error:?} msg=\"no connection can be let in; tried again until it can\"");
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
        if self.troubled {
            self.troubled = false;
            log::warn!("msg=\"connections can be let in again\"");
        }
        let shared = &self.shared;
        let peer = from.ip().to_canonical();
        let from_proxy = shared.peers.is_proxy(peer);
        if !from_proxy && !shared.peers.allows(peer) {
            shared.tally.note(Kind::NotAllowed, Some(peer), "web_allow does not name this address");
            return;
        }
        let holder = subscriber(peer);
        if !from_proxy
            && self.connections.held_by(holder) >= shared.limits.per_address
            && !self.make_place(Some(holder), now)
        {
            self.shared.tally.note(Kind::Crowded, Some(peer), "too many requests of one address at once");
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
                    self.shared.tally.note(Kind::Handshake, Some(peer), &error.to_string());
                    return;
                }
            },
        };
        self.serial += 1;
        let mut client = Box::new(Client::new(stream, self.serial, (peer, from_proxy), now, &self.shared.limits));
        let at = self.connections.next_place();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(client.socket(), Token(FIRST_CLIENT + at), interest) {
            self.shared.tally.note(Kind::Crowded, Some(peer), &error.to_string());
            return;
        }
        self.connections.enter(client);
        // Its request is often there already.
        self.turn(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
    }

    /// Ends what has taken too long.
    fn ring(&mut self, now: Instant) {
        if self.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        for at in self.connections.late(now) {
            self.turn(at, now, |client, shared, scratch| client.expire(now, shared, scratch));
        }
        let dead_at = self.backend.oldest().map(|begun| begun + self.shared.limits.server_time);
        if dead_at.is_some_and(|at| at <= now) {
            self.die(&ErrorKind::TimedOut.into());
        }
        self.alarm = [self.connections.next_deadline(), dead_at].into_iter().flatten().min();
    }
}
