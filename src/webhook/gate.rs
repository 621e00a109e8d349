//! The gate: what strangers connect to.
//!
//! `tiny_http` trusts its clients: it reads heads of any length, waits for ever, makes as many threads as there are
//! connections, and one failed `accept` ends it. So strangers do not talk to it. One thread holds all connections and
//! waits for none of them: it gathers bytes within bounds of size and time, and hands whole requests, written anew, to
//! `tiny_http` over a few private connections that were made at the start. A slow client costs its bytes and a file
//! descriptor, no thread.
//!
//! ```text
//! clients ══TCP, TLS══▶ gate (deadlines, caps) ──private connections──▶ tiny_http (server.rs)
//! ```
//!
//! What it cannot take it answers itself: 400, 403, 408, 413, 417, 431, 502, 503. When there are too many connections,
//! one of whoever holds most ends, the one that has been at it longest; a real delivery is whole long before that.

mod answer;
mod client;
mod crowd;
mod request;
mod stream;
mod within;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::LONGEST_BODY;
use super::letters::Letters;
use super::peers::Peers;
use super::tally::{Kind, Tally};
use super::tls::Tls;
use crate::threads;
use answer::Refusal;
use client::{Client, Step};
use crowd::Crowd;
use stream::Stream;
use within::Within;

/// Bounds of what strangers may take of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Few enough for the 1,024 file descriptors that a process usually has.
    pub connections: usize,
    /// Connections of one address at once (of one /64, for IPv6).
    pub per_address: usize,
    /// Bytes of request line and headers.
    pub head: usize,
    /// Bytes held of requests, of all connections together, until they are answered: the longest body and a few usual ones.
    pub memory: usize,
    /// From the connection until TLS is agreed upon.
    pub handshake_time: Duration,
    /// From the connection, or a further request's first byte, until the head is there.
    pub head_time: Duration,
    /// From the head until the body is there.
    pub body_time: Duration,
    /// For the answer to be made, and again to be sent.
    pub answer_time: Duration,
    /// From the connection, or a further request's first byte, until the answer is sent.
    pub exchange_time: Duration,
    /// Between an answer and the next request's first byte.
    pub idle_time: Duration,
    /// A server within that has not answered for so long is not going to, and the process ends.
    pub server_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 512,
            per_address: 256,
            head: 16 * 1024,
            memory: LONGEST_BODY + 256 * 1024,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(10),
            exchange_time: Duration::from_secs(45),
            idle_time: Duration::from_secs(30),
            server_time: Duration::from_secs(60),
        }
    }
}

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

/// What all clients are measured by.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) peers: Arc<Peers>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tally: Arc<Tally>,
    pub(super) letters: Arc<Letters>,
}

/// Lets strangers in from `listener` and hands their requests on over `links`, to a server that answers in a row on
/// each. When something comes from `ending`, who is in is served and nobody else let in, and the process ends
/// well.
///
/// # Errors
/// The system has nothing to wait with.
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
    let mut within = Vec::with_capacity(links.len());
    for link in links {
        link.set_nonblocking(true)?;
        within.push(mio::net::UnixStream::from_std(link));
    }
    let within = Within::new(within, poll.registry(), FIRST_LINK, Arc::clone(&shared.letters))?;
    let gate = Gate {
        poll,
        listener,
        _ending: ending,
        ends_at: None,
        shared,
        within,
        crowd: Crowd::default(),
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
    /// Where we hear that the process is to end.
    _ending: Option<mio::net::UnixStream>,
    /// When it ends at the latest, once it is to.
    ends_at: Option<Instant>,
    shared: Shared,
    within: Within,
    crowd: Crowd,
    /// Those that have more to do, without a further word from the system.
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
                    link @ FIRST_LINK..FIRST_CLIENT => self.link_stirred(link - FIRST_LINK, now),
                    token => self.client_stirred(token - FIRST_CLIENT, event.is_read_closed(), now),
                }
            }
            for _ in 0..self.again.len() {
                let Some(at) = self.again.pop_front() else { break };
                self.turn(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
            }
            match self.ends_at {
                None => self.let_in(now),
                Some(at) if at <= now || !self.crowd.is_served() => {
                    self.shared.tally.flush(now + Duration::from_secs(1));
                    log::info!("msg=\"shutting down on SIGTERM; running jobs are not affected\"");
                    std::process::exit(0);
                }
                Some(_) => {}
            }
            if let Err(error) = self.within.send() {
                self.die(&error);
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
        let Some(mut client) = self.crowd.take(at) else { return };
        let mut step = act(&mut client, &self.shared, &mut self.scratch);
        if let Some(holder) = client.holder
            && self.shared.peers.has_proxies()
            && self.crowd.held_by(holder) >= self.shared.limits.per_address
            && !client.is_within()
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
                self.within.submit(exchange, now);
            }
        }
        self.alarm = Some(self.alarm.map_or(client.deadline, |alarm| alarm.min(client.deadline)));
        self.crowd.put_back(at, client);
        while self.crowd.memory + self.within.held() > self.shared.limits.memory {
            let Some(heaviest) = self.crowd.heaviest() else { break };
            self.shed(heaviest, "too much memory for requests");
        }
    }

    fn end(&mut self, at: usize, client: Box<Client>) {
        self.within.forget(client.serial);
        self.crowd.leave(at);
        if let Arrivals::Later(_) = self.arrivals {
            self.arrivals = Arrivals::Waiting;
        }
    }

    fn shed(&mut self, at: usize, why: &str) {
        if let Some(mut client) = self.crowd.take(at) {
            self.shared.tally.note(Kind::Crowded, Some(client.peer), why);
            client.shed();
            self.end(at, client);
        }
    }

    fn link_stirred(&mut self, link: usize, now: Instant) {
        let ending = self.ends_at.is_some();
        let mut answered = Vec::new();
        if let Err(error) = self.within.stirred(link, now, &mut self.scratch, &mut answered) {
            self.die(&error);
        }
        for within::Answered { exchange, bytes } in answered {
            self.turn(exchange.slot, now, |client, shared, scratch| {
                // Who stopped waiting has been told so, and may be somebody else by now.
                if client.serial == exchange.serial && client.is_within() {
                    let keep_alive = exchange.keep_alive && client.wants_more() && !ending;
                    client.answer(bytes, keep_alive, now, &shared.limits);
                }
                client.advance(now, shared, scratch)
            });
        }
    }

    fn die(&self, error: &io::Error) -> ! {
        threads::die(&format!("the webhook server within is gone: {error}"))
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
            if self.is_full() && self.crowd.most_dispensable(None, now).is_none() {
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
            && let Some(at) = self.crowd.most_dispensable(None, long_ago)
        {
            self.shed(at, "the system has no connections left");
        }
        self.arrivals = Arrivals::Later(now + PAUSE);
    }

    fn is_full(&self) -> bool {
        self.crowd.count() >= self.shared.limits.connections
    }

    fn make_place(&mut self, of: Option<IpAddr>, now: Instant) -> bool {
        let Some(at) = self.crowd.most_dispensable(of, now) else { return false };
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
        let holder = crowd::holder(peer);
        if !from_proxy && self.crowd.held_by(holder) >= shared.limits.per_address && !self.make_place(Some(holder), now)
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
        let at = self.crowd.next_place();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(client.socket(), Token(FIRST_CLIENT + at), interest) {
            self.shared.tally.note(Kind::Crowded, Some(peer), &error.to_string());
            return;
        }
        self.crowd.enter(client);
        // Its request is often there already.
        self.turn(at, now, |client, shared, scratch| client.advance(now, shared, scratch));
    }

    /// Ends what has taken too long.
    fn ring(&mut self, now: Instant) {
        if self.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        for at in self.crowd.late(now) {
            self.turn(at, now, |client, shared, scratch| client.expire(now, shared, scratch));
        }
        let dead_at = self.within.oldest().map(|begun| begun + self.shared.limits.server_time);
        if dead_at.is_some_and(|at| at <= now) {
            self.die(&ErrorKind::TimedOut.into());
        }
        self.alarm = [self.crowd.next_deadline(), dead_at].into_iter().flatten().min();
    }
}
