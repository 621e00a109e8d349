//! The way to `tiny_http`: a few connections over a private unix socket, made once and kept. Only method, path and
//! a number go over it (see [`Letters`]).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::answer::relay;
use crate::webhook::letters::{BUNDLE_HEADER, Bundle, Letter, Letters};

/// Deliveries under way over one link. They are answered at once, and in a row.
const DEPTH: usize = 16;

/// A whole request on its way within, and where its answer goes.
pub(super) struct Exchange {
    /// The client's place, and its number there.
    pub(super) slot: usize,
    pub(super) serial: u64,
    /// Method and path.
    pub(super) line: Vec<u8>,
    /// Bytes of its body, which are in memory until it is answered.
    pub(super) held: usize,
    pub(super) letter: Letter,
    pub(super) bodyless: bool,
    pub(super) keep_alive: bool,
}

/// An answer for the client whose exchange it was.
pub(super) struct Answered {
    pub(super) exchange: Exchange,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Within {
    /// The first is for what may take a while (health), one at a time; deliveries do not wait behind it.
    links: Vec<Link>,
    waiting: VecDeque<Exchange>,
    letters: Arc<Letters>,
    /// Bundles so far.
    count: u64,
    /// Bytes of bodies that are not answered yet.
    held: usize,
}

struct Link {
    stream: UnixStream,
    token: Token,
    registry: Registry,
    /// True where we are told when there is room again. Otherwise we are not: the system would say so, and wake us,
    /// whenever the server takes anything.
    full: bool,
    depth: usize,
    /// In the order in which they are answered, each with when it was handed in.
    exchanges: VecDeque<(Instant, Exchange)>,
    /// Letters of the last ones, and their method and path: not handed on yet.
    bundle: Bundle,
    line: Vec<u8>,
    out: Vec<u8>,
    answers: Vec<u8>,
}

impl Exchange {
    /// True for what the server answers without asking anybody.
    fn is_delivery(&self) -> bool {
        self.letter.bytes.is_some()
    }
}

impl Within {
    /// Uses these connections, which it hears of under the tokens from `first` on.
    pub(super) fn new(
        streams: Vec<UnixStream>,
        registry: &Registry,
        first: usize,
        letters: Arc<Letters>,
    ) -> io::Result<Within> {
        let mut links = Vec::with_capacity(streams.len());
        for (n, mut stream) in streams.into_iter().enumerate() {
            let token = Token(first + n);
            registry.register(&mut stream, token, Interest::READABLE)?;
            links.push(Link {
                stream,
                token,
                registry: registry.try_clone()?,
                full: false,
                depth: if n == 0 { 1 } else { DEPTH },
                exchanges: VecDeque::new(),
                bundle: Bundle::new(),
                line: Vec::new(),
                out: Vec::new(),
                answers: Vec::new(),
            });
        }
        Ok(Within { links, waiting: VecDeque::new(), letters, count: 0, held: 0 })
    }

    /// Takes a request, to be handed on by [`Within::send`] when it is its turn.
    pub(super) fn submit(&mut self, exchange: Exchange, now: Instant) {
        self.held += exchange.held;
        self.place(exchange, now);
    }

    /// Bytes of bodies that are not answered yet, also of clients that are gone.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    fn place(&mut self, mut exchange: Exchange, now: Instant) {
        let lanes = if exchange.is_delivery() { 1..self.links.len() } else { 0..1 };
        let lane = self.links.get_mut(lanes).into_iter().flatten().min_by_key(|link| link.exchanges.len());
        match lane.filter(|link| link.exchanges.len() < link.depth) {
            Some(link) => {
                if link.line != exchange.line {
                    link.seal(&self.letters, &mut self.count);
                    link.line = std::mem::take(&mut exchange.line);
                }
                link.bundle.push(std::mem::take(&mut exchange.letter));
                link.exchanges.push_back((now, exchange));
            }
            None => self.waiting.push_back(exchange),
        }
    }

    /// Hands on what has come together: the server is woken, and `tiny_http` does its work, once for all.
    ///
    /// # Errors
    /// The server within is gone.
    pub(super) fn send(&mut self) -> io::Result<()> {
        for link in &mut self.links {
            link.seal(&self.letters, &mut self.count);
            if !link.out.is_empty() && !link.full {
                link.send()?;
            }
        }
        Ok(())
    }

    /// The client does not wait any more.
    pub(super) fn forget(&mut self, serial: u64) {
        let held = &mut self.held;
        self.waiting.retain(|exchange| {
            let stays = exchange.serial != serial;
            *held -= if stays { 0 } else { exchange.held };
            stays
        });
    }

    /// A link has bytes for us, or room for ours. Adds the answers that are whole.
    ///
    /// # Errors
    /// The server within is gone.
    pub(super) fn stirred(
        &mut self,
        n: usize,
        now: Instant,
        scratch: &mut [u8],
        answered: &mut Vec<Answered>,
    ) -> io::Result<()> {
        let Some(link) = self.links.get_mut(n) else { return Ok(()) };
        let before = answered.len();
        link.go_on(scratch, answered)?;
        self.held -= answered.iter().skip(before).map(|answered| answered.exchange.held).sum::<usize>();
        while let Some(at) = self.waiting.iter().position(|exchange| exchange.is_delivery() == (n > 0)) {
            let has_room = self.links.get(n).is_some_and(|link| link.exchanges.len() < link.depth);
            let Some(next) = has_room.then(|| self.waiting.remove(at)).flatten() else { break };
            self.place(next, now);
        }
        Ok(())
    }

    /// When that request was handed on which has waited longest for its answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| link.exchanges.front().map(|(begun, _)| *begun)).min()
    }
}

impl Link {
    /// Puts the bundle down under the next number.
    fn seal(&mut self, letters: &Letters, count: &mut u64) {
        if self.bundle.is_empty() {
            return;
        }
        *count += 1;
        letters.put(*count, std::mem::take(&mut self.bundle));
        self.out.extend_from_slice(&self.line);
        // Writing to memory does not fail.
        let _ = write!(self.out, "{BUNDLE_HEADER}: {count}\r\n\r\n");
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.listen(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.listen(false)
    }

    fn listen(&mut self, full: bool) -> io::Result<()> {
        if full == self.full {
            return Ok(());
        }
        self.full = full;
        let interest = if full { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.registry.reregister(&mut self.stream, self.token, interest)
    }

    fn go_on(&mut self, scratch: &mut [u8], answered: &mut Vec<Answered>) -> io::Result<()> {
        self.send()?;
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.answers.extend_from_slice(scratch.get(..count).unwrap_or_default());
            while !self.answers.is_empty() {
                let (_, exchange) = self.exchanges.front().ok_or(ErrorKind::InvalidData)?;
                let answer = relay(&self.answers, exchange.bodyless, exchange.keep_alive);
                let Some((bytes, used)) = answer.map_err(|()| ErrorKind::InvalidData)? else { break };
                self.answers.drain(..used);
                answered.extend(self.exchanges.pop_front().map(|(_, exchange)| Answered { exchange, bytes }));
            }
        }
    }
}
