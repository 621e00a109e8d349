//! A client's connection: it buffers a request until it is whole, and sends the answer.
//!
//! ```text
//!  Handshake ──▶ Head ──▶ Body ──▶ AwaitingResponse ──▶ Answer ──▶ Idle ──▶ Head …
//!      │          └────────┴─ refused ────────────────────▲  └─────▶ Linger ──▶ over
//!      └──▶ over
//! ```

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::answer::{Form, Refusal};
use super::backend::Exchange;
use super::body::{Body, Chunks};
use super::request::{Framing, Head, may_be_complete, parse_head};
use super::shared::Shared;
use super::stream::Stream;
use crate::webhook::limits::Limits;
use crate::webhook::peers::{Access, Caller, subscriber};
use crate::webhook::throttled_log::Kind;

/// Steps of one client before the others go on and the memory is counted again. A full read ends them, too.
const TURN: usize = 16;
/// How long, and how much, is still read of a client that was refused: closing with unread bytes makes the system
/// send a reset, which can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// What a client's connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    /// The first byte of another request.
    Idle,
    Head,
    Body,
    /// tiny_http's answer.
    AwaitingResponse,
    /// The end of sending the answer.
    Answer {
        close: bool,
    },
    /// The client's end.
    Linger {
        left: usize,
    },
}

/// What the event loop does with a client next.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(super) enum Step {
    /// Nothing until its next event, or its deadline.
    Wait,
    /// It can go on at once, after the others.
    Again,
    /// Its request is complete.
    Ask(Exchange),
    /// Its connection is over.
    Over,
}

pub(super) struct Client {
    stream: Stream,
    /// Distinguishes it from earlier clients in the same place.
    pub(super) serial: u64,
    /// The client's address, as far as it is known.
    pub(super) peer: IpAddr,
    /// The address that its place is counted against; `None` for a proxy until the head names the client.
    pub(super) holder: Option<IpAddr>,
    from_proxy: bool,
    access: Access,
    phase: Phase,
    /// When its phase began.
    since: Instant,
    pub(super) deadline: Instant,
    /// When the whole exchange must be over.
    last: Instant,
    /// Bytes that were read and not parsed yet.
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer in which no head ends.
    scanned: usize,
    head: Option<Head>,
    body: Body,
    chunks: Option<Chunks>,
    out: Vec<u8>,
    sent: usize,
    /// True if the socket may be readable.
    readable: bool,
    /// True once the system has reported the end of input, which it does only once.
    ended: bool,
    eof: bool,
    /// True after a refusal: input is still read, so that the refusal arrives.
    refused: bool,
}

impl Client {
    pub(super) fn new(
        stream: Stream,
        serial: u64,
        (peer, from_proxy): (IpAddr, bool),
        now: Instant,
        limits: &Limits,
    ) -> Client {
        let plain = stream.is_plain();
        let phase = if plain { Phase::Head } else { Phase::Handshake };
        Client {
            stream,
            serial,
            peer,
            holder: (!from_proxy).then(|| subscriber(peer)),
            from_proxy,
            access: Access::Public,
            phase,
            since: now,
            deadline: now + if plain { limits.head_time } else { limits.handshake_time },
            last: now + limits.exchange_time,
            buffer: Vec::new(),
            scanned: 0,
            head: None,
            body: Body::default(),
            chunks: None,
            out: Vec::new(),
            sent: 0,
            readable: true,
            ended: false,
            eof: false,
            refused: false,
        }
    }

    pub(super) fn socket(&mut self) -> &mut mio::net::TcpStream {
        &mut self.stream.socket
    }

    /// The socket can be read or written. `ended`: the client has sent its last byte.
    pub(super) fn on_ready(&mut self, ended: bool) {
        self.readable = true;
        self.ended |= ended;
    }

    /// Bytes held of its request.
    pub(super) fn held(&self) -> usize {
        self.buffer.len() + self.head.as_ref().map_or(0, Head::size) + self.body.held()
    }

    /// Since when it has its place without a complete request; `None` while it is served.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::AwaitingResponse | Phase::Answer { .. } => None,
            _ => Some(self.since),
        }
    }

    /// True between requests, and when the answer is sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Linger { .. })
    }

    pub(super) fn awaits_response(&self) -> bool {
        self.phase == Phase::AwaitingResponse
    }

    /// Advances as far as possible.
    pub(super) fn advance(&mut self, now: Instant, shared: &Shared, scratch: &mut [u8]) -> Step {
        for _ in 0..TURN {
            if !self.send() {
                return Step::Over;
            }
            let step = match self.phase {
                Phase::Handshake => self.shake(now, shared),
                Phase::Idle | Phase::Head => self.take_head(now, shared, scratch),
                Phase::Body => self.take_body(now, shared, scratch),
                Phase::AwaitingResponse => Some(Step::Wait),
                Phase::Answer { .. } if !self.out.is_empty() => Some(Step::Wait),
                Phase::Answer { close } => self.answered(close, now, &shared.limits),
                Phase::Linger { left } => self.linger(left, scratch),
            };
            if let Some(step) = step {
                return step;
            }
        }
        Step::Again
    }

    /// Its deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, shared: &Shared, scratch: &mut [u8]) -> Step {
        match self.phase {
            Phase::Handshake => shared.log.record(Kind::Late, Some(self.peer), "the TLS handshake took too long"),
            Phase::Head | Phase::Body => {
                self.refuse(Refusal::LATE, now, shared);
                return self.advance(now, shared, scratch);
            }
            Phase::AwaitingResponse => {
                self.refuse(Refusal::NO_SERVER, now, shared);
                return self.advance(now, shared, scratch);
            }
            Phase::Answer { .. } => {
                shared.log.record(Kind::Late, Some(self.peer), "the answer was not taken in time");
            }
            Phase::Idle | Phase::Linger { .. } => {}
        }
        Step::Over
    }

    /// Its place is needed: it gets a 503 if it has sent something, and ends.
    pub(super) fn shed(&mut self) {
        if matches!(self.phase, Phase::Head | Phase::Body) && self.out.is_empty() {
            let _ = self.stream.write(&Refusal::BUSY.encode());
            self.stream.finish();
        }
    }

    /// tiny_http's answer.
    pub(super) fn answer(&mut self, answer: Vec<u8>, keep_alive: bool, now: Instant, limits: &Limits) {
        self.out = answer;
        self.sent = 0;
        self.enter(Phase::Answer { close: !keep_alive }, now, limits.answer_time);
    }

    /// True where the connection may be kept behind the answer.
    pub(super) fn wants_more(&self) -> bool {
        !self.eof
    }

    fn enter(&mut self, phase: Phase, now: Instant, time: Duration) {
        self.phase = phase;
        self.since = now;
        self.deadline = (now + time).min(self.last);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, now: Instant, shared: &Shared) {
        shared.log.record(refusal.kind, Some(self.peer), refusal.text);
        self.head = None;
        self.chunks = None;
        self.buffer = Vec::new();
        self.body = Body::default();
        // A "100 Continue" that is half sent must be sent to its end.
        let mut rest = self.out.split_off(self.sent.min(self.out.len()));
        rest.extend_from_slice(&refusal.encode());
        self.last = now + shared.limits.answer_time;
        self.answer(rest, false, now, &shared.limits);
        self.refused = true;
    }

    /// Sends pending bytes; false if the client takes no more.
    fn send(&mut self) -> bool {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        match self.stream.flush() {
            Ok(()) if !self.out.is_empty() => self.out = Vec::new(),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
        self.sent = 0;
        true
    }

    fn shake(&mut self, now: Instant, shared: &Shared) -> Option<Step> {
        match self.stream.handshake() {
            Ok(true) => {
                self.enter(Phase::Head, now, shared.limits.head_time);
                None
            }
            Ok(false) => Some(Step::Wait),
            Err(error) => {
                // A client that only tests whether the port is open is not logged.
                if error.kind() == ErrorKind::InvalidData {
                    shared.log.record(Kind::Handshake, Some(self.peer), &error.to_string());
                }
                Some(Step::Over)
            }
        }
    }

    fn take_head(&mut self, now: Instant, shared: &Shared, scratch: &mut [u8]) -> Option<Step> {
        let limits = &shared.limits;
        if self.phase == Phase::Idle && !self.buffer.is_empty() {
            self.last = now + limits.exchange_time;
            self.enter(Phase::Head, now, limits.head_time);
        }
        if self.scanned < self.buffer.len() {
            if may_be_complete(&self.buffer, self.scanned) {
                match parse_head(&self.buffer, limits.head) {
                    Ok(Some((head, length))) => return self.head_complete(head, length, now, shared),
                    Ok(None) => {}
                    Err(refusal) => {
                        self.refuse(refusal, now, shared);
                        return None;
                    }
                }
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() >= limits.head {
                self.refuse(Refusal::LONG_HEAD, now, shared);
                return None;
            }
        }
        if self.eof {
            // Some send empty lines behind their last request.
            if self.buffer.iter().all(|b| matches!(b, b'\r' | b'\n')) {
                return Some(Step::Over);
            }
            self.refuse(Refusal::CUT_HEAD, now, shared);
            return None;
        }
        self.read(scratch)
    }

    fn head_complete(&mut self, head: Head, length: usize, now: Instant, shared: &Shared) -> Option<Step> {
        self.scanned = 0;
        if let Err(refusal) = self.identify(&head, shared).and_then(|()| head.check_signature()) {
            self.refuse(refusal, now, shared);
            return None;
        }
        if head.too_long() {
            self.refuse(Refusal::LONG_BODY, now, shared);
            return None;
        }
        if head.expects_continue
            && self.buffer.len() == length
            && !matches!(head.body, Framing::None | Framing::Length(0))
        {
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.buffer.drain(..length);
        self.chunks = (head.body == Framing::Chunked).then(Chunks::new);
        self.body = Body::new(match head.body {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        });
        self.head = Some(head);
        self.enter(Phase::Body, now, shared.limits.body_time);
        None
    }

    /// Finds the client behind a trusted proxy, and checks whether it may connect.
    fn identify(&mut self, head: &Head, shared: &Shared) -> Result<(), Refusal> {
        let peers = &shared.peers;
        let known = match self.from_proxy {
            true => peers.behind(head.forwarded_for.as_deref()),
            // An unknown proxy may pass on anybody's requests.
            false => (!head.proxied).then_some(self.peer),
        };
        self.peer = known.unwrap_or(self.peer);
        self.holder = Some(subscriber(self.peer));
        // A proxy that is not trusted was judged by its own address.
        let hidden = known.is_none() && (self.from_proxy || self.peer.is_loopback());
        match () {
            () if hidden && peers.is_restricted() => return Err(Refusal::HIDDEN),
            () if self.from_proxy && !peers.allows(self.peer) => return Err(Refusal::NOT_ALLOWED),
            () => {}
        }
        self.access = peers.access(known);
        Ok(())
    }

    fn take_body(&mut self, now: Instant, shared: &Shared, scratch: &mut [u8]) -> Option<Step> {
        let whole = match (&mut self.chunks, self.head.as_ref().map(|head| head.body)) {
            (Some(chunks), _) => match chunks.decode(&mut self.buffer, &mut self.body) {
                Ok(done) => done,
                Err(refusal) => {
                    self.refuse(refusal, now, shared);
                    return None;
                }
            },
            (None, Some(Framing::Length(length))) => {
                let count = self.buffer.len().min(length - self.body.len());
                self.body.push(self.buffer.get(..count).unwrap_or_default());
                self.buffer = self.buffer.split_off(count);
                self.body.len() == length
            }
            (None, _) => true,
        };
        if whole {
            let exchange = self.exchange()?;
            self.enter(Phase::AwaitingResponse, now, shared.limits.answer_time);
            return Some(Step::Ask(exchange));
        }
        if self.eof {
            self.refuse(Refusal::CUT, now, shared);
            return None;
        }
        self.read(scratch)
    }

    /// The complete request. tiny_http gets the body of a delivery only.
    fn exchange(&mut self) -> Option<Exchange> {
        let head = self.head.take()?;
        let is_delivery = head.is_delivery;
        let body = Some(std::mem::take(&mut self.body)).filter(|_| is_delivery).unwrap_or_default();
        self.chunks = None;
        self.scanned = 0;
        let form = Form { bodyless: head.bodyless, keep_alive: head.keep_alive };
        let head = head.encode(&Caller { address: self.peer, access: self.access }, body.len());
        Some(Exchange { slot: 0, serial: self.serial, head, body, is_delivery, form })
    }

    /// `None` if bytes or the end of input were read.
    fn read(&mut self, scratch: &mut [u8]) -> Option<Step> {
        if !self.readable {
            return Some(Step::Wait);
        }
        match self.stream.read(scratch) {
            Ok(0) => self.eof = true,
            Ok(count) => {
                let full = count == scratch.len();
                // A short read: the socket is drained.
                self.readable = full || self.ended || !self.stream.is_plain();
                self.buffer.extend_from_slice(scratch.get(..count).unwrap_or_default());
                if full {
                    return Some(Step::Again);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Some(Step::Wait);
            }
            Err(_) => return Some(Step::Over),
        }
        None
    }

    /// The answer is sent.
    fn answered(&mut self, close: bool, now: Instant, limits: &Limits) -> Option<Step> {
        if !close && (!self.eof || !self.buffer.is_empty()) {
            self.last = now + limits.idle_time;
            self.enter(Phase::Idle, now, limits.idle_time);
            return None;
        }
        self.stream.finish();
        if self.eof || (!self.refused && self.buffer.is_empty()) {
            return Some(Step::Over);
        }
        self.buffer = Vec::new();
        self.last = now + LINGER;
        self.enter(Phase::Linger { left: LINGER_BYTES }, now, LINGER);
        None
    }

    fn linger(&mut self, left: usize, scratch: &mut [u8]) -> Option<Step> {
        let step = self.read(scratch);
        let left = left.saturating_sub(self.buffer.len());
        self.buffer.clear();
        self.phase = Phase::Linger { left };
        if self.eof || left == 0 { Some(Step::Over) } else { step }
    }
}
