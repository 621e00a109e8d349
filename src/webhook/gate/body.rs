//! A request body: its bytes in pieces, and the decoder of chunked ones. Pure.

use std::collections::VecDeque;

use super::answer::Refusal;
use crate::webhook::limits::LONGEST_BODY;

/// Bytes of a piece. Each is freed as soon as it is sent to tiny_http; musl gives blocks of this size back to the system at
/// once, and adds a page to each, which smaller ones would make felt.
const PIECE: usize = 256 * 1024;
/// Bytes of a chunk's size line, and of the trailers behind the last chunk.
const LONGEST_SIZE_LINE: usize = 1024;
const LONGEST_TRAILERS: usize = 16 * 1024;
const MOST_TRAILERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) pieces: VecDeque<Vec<u8>>,
    length: usize,
    /// The expected length, or the longest possible.
    expected: usize,
}

impl Body {
    /// A body of `expected` bytes; `None`: chunked, of unknown length.
    pub(super) fn new(expected: Option<usize>) -> Body {
        Body { expected: expected.unwrap_or(LONGEST_BODY), ..Body::default() }
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes that it takes in memory.
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = match self.pieces.back_mut().filter(|piece| piece.len() < PIECE) {
                Some(last) => last,
                None => {
                    // Allocate once: growing blocks would fragment the heap.
                    let room = self.expected.saturating_sub(self.length).min(PIECE);
                    self.pieces.push_back(Vec::with_capacity(room));
                    continue;
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - last.len()));
            last.extend_from_slice(now);
            self.length += now.len();
            bytes = later;
        }
    }
}

/// The meaning of the next bytes of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

#[derive(Debug)]
pub(super) struct Chunks {
    next: Next,
    /// Bytes read of the wire.
    taken: usize,
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { next: Next::Size, taken: 0 }
    }

    /// Decodes `buffer` into `body`; true at the end of the body. Bytes behind it stay in `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut Vec<u8>, body: &mut Body) -> Result<bool, Refusal> {
        let mut rest = buffer.as_slice();
        let done = loop {
            let (used, next) = match self.next {
                Next::Size => match size(rest)? {
                    Some((used, 0)) => (used, Some(Next::Trailers)),
                    Some((used, size)) => (used, Some(Next::Data(size))),
                    None => break false,
                },
                Next::Data(left) => {
                    let used = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if used == 0 {
                        break false;
                    }
                    if body.len() + used > LONGEST_BODY {
                        return Err(Refusal::LONG_BODY);
                    }
                    body.push(rest.get(..used).unwrap_or_default());
                    let left = left - used as u64;
                    (used, Some(if left == 0 { Next::DataEnd } else { Next::Data(left) }))
                }
                Next::DataEnd if rest.starts_with(b"\r\n") => (2, Some(Next::Size)),
                Next::DataEnd if b"\r\n".starts_with(rest) => break false,
                Next::DataEnd => return Err(Refusal::CHUNKS),
                Next::Trailers => match trailers(rest)? {
                    Some(used) => (used, None),
                    None => break false,
                },
            };
            rest = rest.get(used..).unwrap_or_default();
            match next {
                Some(next) => self.next = next,
                None => break true,
            }
        };
        let used = buffer.len() - rest.len();
        // Between two reads only the body takes memory.
        *buffer = rest.to_vec();
        self.taken += used;
        // Chunks of one byte take six each. An honest client does not double a long body by its chunks.
        if self.taken > LONGEST_BODY * 2 { Err(Refusal::LONG_BODY) } else { Ok(done) }
    }
}

/// The bytes of a size line, and the size; `None` where it is not complete.
fn size(bytes: &[u8]) -> Result<Option<(usize, u64)>, Refusal> {
    // httparse reads a line without a digit as 0.
    if bytes.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(Refusal::CHUNKS);
    }
    match httparse::parse_chunk_size(bytes) {
        Ok(httparse::Status::Complete((used, size))) if used <= LONGEST_SIZE_LINE => Ok(Some((used, size))),
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_SIZE_LINE => Ok(None),
        _ => Err(Refusal::CHUNKS),
    }
}

/// The bytes of the trailers with their empty line; `None` where they are not complete.
fn trailers(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    match httparse::parse_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete((used, _))) if used <= LONGEST_TRAILERS => Ok(Some(used)),
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_TRAILERS => Ok(None),
        _ => Err(Refusal::CHUNKS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and what is left behind it, decoded in two reads at every split.
    #[track_caller]
    fn check(text: &str, expected: Result<Option<(&str, &str)>, Refusal>) {
        for at in 0..=text.len() {
            let (mut chunks, mut body, mut buffer) = (Chunks::new(), Body::default(), Vec::new());
            let mut found = Ok(false);
            for part in [&text.as_bytes()[..at], &text.as_bytes()[at..]] {
                buffer.extend_from_slice(part);
                if found == Ok(false) {
                    found = chunks.decode(&mut buffer, &mut body);
                }
            }
            let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let bytes = text_of(body.pieces.iter().flatten().copied().collect());
            let rest = text_of(buffer);
            let found = found.map(|done| done.then_some((bytes.as_str(), rest.as_str())));
            assert_eq!(found, expected, "{text:?} at {at}");
        }
    }

    #[test]
    fn chunks_are_decoded_at_every_split() {
        check("3\r\nabc\r\n1;x=\"y\"\r\nd\r\n0\r\n\r\nGET", Ok(Some(("abcd", "GET"))));
        check("0\r\nA: b\r\nC: d\r\n\r\n", Ok(Some(("", ""))));
        check("2\r\nab", Ok(None));
        check("2\r\nab\r\n0\r\nA: b\r\n", Ok(None));
        for wrong in
            ["\r\nabc", " 2\r\nab", "-1\r\n", "zz\r\n", "2\r\nabc\r\n", "fffffffffffffffff\r\n", "0\r\n \u{0}\r\n\r\n"]
        {
            check(wrong, Err(Refusal::CHUNKS));
        }
    }

    #[test]
    fn lines_are_bounded() {
        let line = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 4));
        assert_eq!(size(line(LONGEST_SIZE_LINE).as_bytes()), Ok(Some((LONGEST_SIZE_LINE, 0))));
        assert_eq!(size(line(LONGEST_SIZE_LINE + 1).as_bytes()), Err(Refusal::CHUNKS));
        let line = |length: usize| format!("a:{}\r\n\r\n", "x".repeat(length - 6));
        assert_eq!(trailers(line(LONGEST_TRAILERS).as_bytes()), Ok(Some(LONGEST_TRAILERS)));
        assert_eq!(trailers(line(LONGEST_TRAILERS + 1).as_bytes()), Err(Refusal::CHUNKS));
    }

    #[test]
    fn a_body_is_kept_in_pieces() {
        let mut body = Body::default();
        (0..3).for_each(|_| body.push(&vec![b'x'; PIECE - 1]));
        assert_eq!(body.pieces.iter().map(Vec::len).collect::<Vec<_>>(), [PIECE, PIECE, PIECE - 3]);
        assert_eq!(body.len(), 3 * (PIECE - 1));
    }

    #[test]
    fn a_piece_has_room_at_once() {
        let check = |expected: Option<usize>, room: usize| {
            let mut body = Body::new(expected);
            body.push(b"x");
            assert_eq!(body.pieces.iter().map(Vec::capacity).collect::<Vec<_>>(), [room], "{expected:?}");
        };
        check(Some(20_000), 20_000);
        check(Some(LONGEST_BODY), PIECE);
        check(None, PIECE);
    }
}
