//! The connections to tiny_http, over a private unix socket: made at the start and kept. Each has one request at a
//! time, so that an answer can only be that request's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::answer::{Form, relay};
use super::body::Body;

/// A whole request, and the client that its answer goes to.
pub(super) struct Exchange {
    /// The client's place, and its number there.
    pub(super) slot: usize,
    pub(super) serial: u64,
    pub(super) head: Vec<u8>,
    pub(super) body: Body,
    pub(super) is_delivery: bool,
    pub(super) form: Form,
}

/// An answer for the client of that place and number.
pub(super) struct Answered {
    pub(super) slot: usize,
    pub(super) serial: u64,
    pub(super) keep_alive: bool,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Backend {
    /// The first is for health and metrics, which may take a while; deliveries do not wait behind them.
    links: Vec<Link>,
    waiting: VecDeque<Exchange>,
    held: usize,
}

struct Link {
    stream: UnixStream,
    current: Option<Current>,
    answer: Vec<u8>,
}

/// A request that was sent, or is being sent.
struct Current {
    exchange: Exchange,
    since: Instant,
    /// Its bytes, which count as memory until the answer, first here and then in tiny_http.
    held: usize,
    /// Bytes sent of the piece that is being sent. Pieces that are sent are freed.
    sent: usize,
}

impl Backend {
    /// Uses these connections, whose events have the tokens from `first` on.
    pub(super) fn new(streams: Vec<UnixStream>, registry: &Registry, first: usize) -> io::Result<Backend> {
        let mut links = Vec::with_capacity(streams.len());
        for (n, mut stream) in streams.into_iter().enumerate() {
            registry.register(&mut stream, Token(first + n), Interest::READABLE | Interest::WRITABLE)?;
            links.push(Link { stream, current: None, answer: Vec::new() });
        }
        Ok(Backend { links, waiting: VecDeque::new(), held: 0 })
    }

    /// Sends a request as soon as a connection is free.
    ///
    /// # Errors
    /// tiny_http closed the connection.
    pub(super) fn submit(&mut self, exchange: Exchange, now: Instant) -> io::Result<()> {
        self.held += exchange.size();
        self.waiting.push_back(exchange);
        self.send_waiting(now)
    }

    /// Bytes of requests that are not answered yet, also of disconnected clients.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Drops the request of a disconnected client if it was not sent yet.
    pub(super) fn forget(&mut self, serial: u64) {
        let held = &mut self.held;
        self.waiting.retain(|exchange| {
            let stays = exchange.serial != serial;
            *held -= if stays { 0 } else { exchange.size() };
            stays
        });
    }

    /// A connection is readable or writable. Returns the answer once it is complete.
    ///
    /// # Errors
    /// tiny_http closed the connection, or sent anything but an answer.
    pub(super) fn on_ready(&mut self, n: usize, now: Instant, scratch: &mut [u8]) -> io::Result<Option<Answered>> {
        let Some(link) = self.links.get_mut(n) else { return Ok(None) };
        link.send()?;
        let Some(bytes) = link.receive(scratch)? else { return Ok(None) };
        let Some(Current { exchange: Exchange { slot, serial, form, .. }, held, .. }) = link.current.take() else {
            return Err(ErrorKind::InvalidData.into());
        };
        self.held -= held;
        self.send_waiting(now)?;
        Ok(Some(Answered { slot, serial, keep_alive: form.keep_alive, bytes }))
    }

    /// When the oldest unanswered request was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| Some(link.current.as_ref()?.since)).min()
    }

    fn send_waiting(&mut self, now: Instant) -> io::Result<()> {
        for (n, link) in self.links.iter_mut().enumerate() {
            if link.current.is_none()
                && let Some(at) = self.waiting.iter().position(|exchange| exchange.is_delivery == (n > 0))
                && let Some(exchange) = self.waiting.remove(at)
            {
                let held = exchange.size();
                link.current = Some(Current { exchange, since: now, held, sent: 0 });
                link.send()?;
            }
        }
        Ok(())
    }
}

impl Link {
    fn send(&mut self) -> io::Result<()> {
        let Some(Current { exchange, sent, .. }) = &mut self.current else { return Ok(()) };
        while let Some(piece) = exchange.next_piece() {
            match self.stream.write(piece.get(*sent..).unwrap_or_default()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if *sent >= piece.len() {
                exchange.drop_piece();
                *sent = 0;
            }
        }
        Ok(())
    }

    /// The answer, if it is complete and the request was sent.
    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answer.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.answer.is_empty() {
            return Ok(None);
        }
        let Some(Current { exchange, .. }) = &self.current else { return Err(ErrorKind::InvalidData.into()) };
        let answer = relay(&self.answer, exchange.form).map_err(|()| ErrorKind::InvalidData)?;
        match answer {
            Some(answer) if exchange.next_piece().is_none() => {
                self.answer = Vec::new();
                Ok(Some(answer))
            }
            _ => Ok(None),
        }
    }
}

impl Exchange {
    fn size(&self) -> usize {
        self.head.len() + self.body.held()
    }

    /// The first bytes that are not sent: the head, then the pieces of the body.
    fn next_piece(&self) -> Option<&Vec<u8>> {
        if self.head.is_empty() { self.body.pieces.front() } else { Some(&self.head) }
    }

    fn drop_piece(&mut self) {
        if self.head.is_empty() {
            self.body.pieces.pop_front();
        } else {
            self.head = Vec::new();
        }
    }
}
