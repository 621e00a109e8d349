//! The way to `tiny_http`: a few connections over a private unix socket, made once and kept.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::answer::relay;

/// A server that has not answered for so long is not going to.
const DEAD: Duration = Duration::from_secs(60);

/// A whole request on its way within, and where its answer goes.
pub(super) struct Exchange {
    /// The client's place, and its number there.
    pub(super) slot: usize,
    pub(super) serial: u64,
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) bodyless: bool,
    pub(super) keep_alive: bool,
}

/// An answer for the client whose exchange it was.
pub(super) struct Answered {
    pub(super) exchange: Exchange,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Within {
    links: Vec<Link>,
    /// Links without an exchange.
    free: Vec<usize>,
    waiting: VecDeque<Exchange>,
}

struct Link {
    stream: UnixStream,
    exchange: Option<Exchange>,
    begun: Instant,
    sent: usize,
    answer: Vec<u8>,
}

impl Within {
    /// Uses these connections, which it hears of under the tokens from `first` on.
    pub(super) fn new(streams: Vec<UnixStream>, registry: &Registry, first: usize) -> io::Result<Within> {
        let mut links = Vec::with_capacity(streams.len());
        for (n, mut stream) in streams.into_iter().enumerate() {
            registry.register(&mut stream, Token(first + n), Interest::READABLE | Interest::WRITABLE)?;
            links.push(Link { stream, exchange: None, begun: Instant::now(), sent: 0, answer: Vec::new() });
        }
        let free = (0..links.len()).rev().collect();
        Ok(Within { links, free, waiting: VecDeque::new() })
    }

    /// Hands a request on, now or when it is its turn.
    ///
    /// # Errors
    /// The server within is gone.
    pub(super) fn submit(&mut self, exchange: Exchange, now: Instant) -> io::Result<()> {
        match self.free.pop().and_then(|n| Some((n, self.links.get_mut(n)?))) {
            Some((_, link)) => link.begin(exchange, now),
            None => {
                self.waiting.push_back(exchange);
                Ok(())
            }
        }
    }

    /// The client does not wait any more.
    pub(super) fn forget(&mut self, serial: u64) {
        self.waiting.retain(|exchange| exchange.serial != serial);
    }

    /// A link has bytes for us, or room for ours. Returns the answer when it is whole.
    ///
    /// # Errors
    /// The server within is gone.
    pub(super) fn stirred(&mut self, n: usize, now: Instant, scratch: &mut [u8]) -> io::Result<Option<Answered>> {
        let Some(link) = self.links.get_mut(n) else { return Ok(None) };
        let Some(answered) = link.go_on(scratch)? else { return Ok(None) };
        match self.waiting.pop_front() {
            Some(next) => link.begin(next, now)?,
            None => self.free.push(n),
        }
        Ok(Some(answered))
    }

    /// True where a request has had no answer for very long.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.links.iter().any(|l| l.exchange.is_some() && now.saturating_duration_since(l.begun) > DEAD)
    }

    /// True while anything is asked.
    pub(super) fn is_busy(&self) -> bool {
        self.links.iter().any(|link| link.exchange.is_some())
    }
}

impl Link {
    fn begin(&mut self, exchange: Exchange, now: Instant) -> io::Result<()> {
        self.exchange = Some(exchange);
        self.begun = now;
        self.sent = 0;
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(exchange) = &self.exchange else { return Ok(()) };
        let (head, body) = (exchange.head.as_slice(), exchange.body.as_slice());
        while self.sent < head.len() + body.len() {
            let head_left = head.get(self.sent..).unwrap_or_default();
            let body_left = body.get(self.sent.saturating_sub(head.len())..).unwrap_or_default();
            match self.stream.write_vectored(&[IoSlice::new(head_left), IoSlice::new(body_left)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn go_on(&mut self, scratch: &mut [u8]) -> io::Result<Option<Answered>> {
        self.send()?;
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.answer.extend_from_slice(scratch.get(..count).unwrap_or_default());
            let Some(exchange) = &self.exchange else { return Err(ErrorKind::InvalidData.into()) };
            let answer = relay(&self.answer, exchange.bodyless, exchange.keep_alive);
            if let Some(bytes) = answer.map_err(|()| io::Error::from(ErrorKind::InvalidData))? {
                self.answer.clear();
                return Ok(self.exchange.take().map(|exchange| Answered { exchange, bytes }));
            }
        }
    }
}
