//! Sans-I/O HTTP/1.1: heads are encoded, messages are parsed incrementally, every buffer is capped.
//!
//! Nothing in here reads or writes: bytes go in, events come out, so every split point and every truncation can be
//! tested without a socket. One parser serves both directions, because LXD's stand-in must speak what its client
//! speaks. It follows RFC 9112 and is strict where leniency would let two parties disagree on where a message ends:
//! a message with both framings, with two lengths, with a bare line feed or a folded header is refused.
//!
//! ```text
//!              ┌────────── 1xx (not 101) ──────────┐
//!              ▼                                   │
//!  StartLine ──▶ Headers ──▶ [Event::Head] ──▶ no body ─────────────▶ Done ──▶ [Event::End]
//!                                  ├──▶ Sized ──────────────────────▶ Done
//!                                  ├──▶ ChunkSize ⇄ Chunk, ChunkEnd
//!                                  │        └──▶ Trailers ──────────▶ Done
//!                                  └──▶ UntilClose ── end of input ─▶ Done
//! ```

mod encode;
mod parse;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;

pub use encode::encode_request;
pub use parse::Parser;
pub use url::{is_loopback, path_segment, query_value};

/// Bytes of a head, from the start line to the empty line, line ends included.
pub const MAX_HEAD: usize = 64 * 1024;
/// Header lines of a head.
pub const MAX_HEADERS: usize = 128;
/// Bytes of a chunk's size line, its extensions and line end included.
pub const MAX_CHUNK_LINE: usize = 1024;
/// Bytes of the trailers behind the last chunk, line ends included. They are read and dropped.
pub const MAX_TRAILERS: usize = 16 * 1024;
/// Interim (1xx) responses before the one that counts.
pub const MAX_INTERIM: usize = 8;

/// The first line and the headers of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What its first line says.
    pub start: Start,
    /// In the order of arrival.
    pub headers: Headers,
    /// True where the connection may carry another message after this one.
    pub keep_alive: bool,
}

/// What the first line of a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// `GET /path HTTP/1.1`
    Request {
        /// As it was sent; methods are case-sensitive.
        method: String,
        /// As it was sent, still percent-encoded.
        target: String,
    },
    /// `HTTP/1.1 200 OK`
    Response {
        /// 100 to 999.
        status: u16,
    },
}

/// Headers, whose names compare without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every header, in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every comma-separated element of every header of that name.
    fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|e| !e.is_empty())
    }
}

/// What the parser found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All input was taken; there is more to come.
    NeedInput,
    /// The head is complete. Comes once per message; interim responses are passed over.
    Head(Head),
    /// A piece of the body, in order, never empty.
    Body(&'a [u8]),
    /// The message is complete. Bytes behind it were not taken: after a 101 they are the other protocol's.
    End,
}

/// Why bytes are not a message, or why something cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// More than [`MAX_HEAD`] bytes before the empty line.
    HeadTooLong,
    /// More than [`MAX_HEADERS`].
    TooManyHeaders,
    /// More than [`MAX_INTERIM`].
    TooManyInterim,
    /// More than [`MAX_CHUNK_LINE`].
    ChunkLineTooLong,
    /// More than [`MAX_TRAILERS`].
    TrailersTooLong,
    /// Not the first line of an HTTP/1.x message of the expected direction.
    StartLine,
    /// Not a header line.
    Header,
    /// A body length that is no number, is told twice, or contradicts another one.
    Framing,
    /// Not a chunk's size, or no line end behind its bytes.
    Chunk,
    /// The connection ended before the first byte of the message.
    ClosedBefore,
    /// The connection ended inside the message.
    CutOff,
    /// A method, target or header that must not be put on the wire, because it would change the message's form.
    Unencodable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::HeadTooLong => write!(f, "the head is longer than {MAX_HEAD} bytes"),
            Error::TooManyHeaders => write!(f, "more than {MAX_HEADERS} headers"),
            Error::TooManyInterim => write!(f, "more than {MAX_INTERIM} interim responses"),
            Error::ChunkLineTooLong => write!(f, "a chunk's size line is longer than {MAX_CHUNK_LINE} bytes"),
            Error::TrailersTooLong => write!(f, "the trailers are longer than {MAX_TRAILERS} bytes"),
            Error::StartLine => f.write_str("the first line is not HTTP/1.1"),
            Error::Header => f.write_str("a header line is malformed"),
            Error::Framing => f.write_str("the body's length is malformed or told in two ways"),
            Error::Chunk => f.write_str("a chunk is malformed"),
            Error::ClosedBefore => f.write_str("the connection was closed before the first byte"),
            Error::CutOff => f.write_str("the connection was closed inside the message"),
            Error::Unencodable => f.write_str("a method, path or header has characters that must not be sent"),
        }
    }
}

impl std::error::Error for Error {}
