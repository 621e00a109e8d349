//! Sans-I/O websocket frames (RFC 6455) as a client takes them: bytes go in, messages come out, every buffer capped.
//!
//! Only what LXD's event stream needs: text messages, whole or in fragments, pings that are to be answered, and the end.

use std::fmt;

/// Bytes of one message, its fragments together. An event of LXD has some hundred.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// RFC 6455, 5.5: bytes of a control frame's payload.
const MAX_CONTROL: usize = 125;

/// Something that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole text or binary message.
    Data(Vec<u8>),
    /// To be answered with [`pong`].
    Ping(Vec<u8>),
    /// The server closed the stream.
    Close,
}

/// A violation of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A frame that the protocol does not allow, or not at this point.
    Frame(&'static str),
    /// A message beyond [`MAX_MESSAGE`].
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Frame(what) => write!(f, "no websocket frame: {what}"),
            Error::TooLong => write!(f, "a message of more than {MAX_MESSAGE} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// Parses bytes as they arrive.
#[derive(Debug, Default)]
pub struct Reader {
    /// Unparsed bytes: at most one frame and what was fed last.
    pending: Vec<u8>,
    /// Fragments of an unfinished message; `None` between messages.
    fragments: Option<Vec<u8>>,
}

/// A parsed frame head.
struct Head {
    end: bool,
    opcode: u8,
    /// Bytes of the head itself, and of the payload behind it.
    length: usize,
    payload: usize,
}

impl Reader {
    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next message; `None` where more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no websocket frame, or too long; the connection must be closed.
    pub fn take(&mut self) -> Result<Option<Message>, Error> {
        while let Some(head) = head(&self.pending)? {
            let whole = head.length + head.payload;
            if self.pending.len() < whole {
                return Ok(None);
            }
            let payload: Vec<u8> = self.pending.drain(..whole).skip(head.length).collect();
            if let Some(message) = self.understand(&head, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn understand(&mut self, head: &Head, payload: Vec<u8>) -> Result<Option<Message>, Error> {
        match head.opcode {
            0 => {
                let mut message = self.fragments.take().ok_or(Error::Frame("a continuation of nothing"))?;
                if message.len() + payload.len() > MAX_MESSAGE {
                    return Err(Error::TooLong);
                }
                message.extend(payload);
                Ok(self.finish(head.end, message))
            }
            1 | 2 if self.fragments.is_some() => Err(Error::Frame("a message within a message")),
            1 | 2 => Ok(self.finish(head.end, payload)),
            8 => Ok(Some(Message::Close)),
            9 => Ok(Some(Message::Ping(payload))),
            10 => Ok(None),
            _ => Err(Error::Frame("an unknown opcode")),
        }
    }

    fn finish(&mut self, end: bool, message: Vec<u8>) -> Option<Message> {
        if end {
            return Some(Message::Data(message));
        }
        self.fragments = Some(message);
        None
    }
}

/// `None` where the head is incomplete.
fn head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    let (end, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(Error::Frame("reserved bits"));
    }
    if second & 0x80 != 0 {
        return Err(Error::Frame("masked by the server"));
    }
    let short = usize::from(second & 0x7f);
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if opcode >= 8 && (!end || short > MAX_CONTROL) {
        return Err(Error::Frame("a control frame that is long or in fragments"));
    }
    let Some(more) = bytes.get(2..2 + extended) else { return Ok(None) };
    let payload = match extended {
        0 => short,
        _ => {
            let length = more.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
            usize::try_from(length).unwrap_or(usize::MAX)
        }
    };
    if payload > MAX_MESSAGE {
        return Err(Error::TooLong);
    }
    Ok(Some(Head { end, opcode, length: 2 + extended, payload }))
}

/// The answer to a ping. Clients mask frames (RFC 6455, 5.3) to protect proxies; on a unix socket there are none, so the
/// mask is zero.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..payload.len().min(MAX_CONTROL)).unwrap_or_default();
    let length = u8::try_from(payload.len()).unwrap_or(0);
    let mut frame = vec![0x8a, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// A text message as a server sends it; for the stand-in.
pub fn server_text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(u8::try_from(short).unwrap_or(0)),
        Ok(medium) => {
            frame.push(126);
            frame.extend(medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], piece: usize) -> Result<Vec<Message>, Error> {
        let mut reader = Reader::default();
        let mut messages = Vec::new();
        for part in bytes.chunks(piece.max(1)) {
            reader.feed(part);
            while let Some(message) = reader.take()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_out_however_the_bytes_are_split() {
        let long = vec![b'x'; 70_000];
        let mut stream = server_text(b"one");
        stream.extend([0x89, 2, b'h', b'i']);
        stream.extend([0x01, 2, b'a', b'b']);
        // Control frames may come between fragments.
        stream.extend([0x8a, 0]);
        stream.extend([0x00, 1, b'c']);
        stream.extend([0x80, 1, b'd']);
        stream.extend(server_text(&[b'm'; 300]));
        stream.extend(server_text(&long));
        stream.extend([0x88, 2, 3, 232]);
        let expected = [
            Message::Data(b"one".to_vec()),
            Message::Ping(b"hi".to_vec()),
            Message::Data(b"abcd".to_vec()),
            Message::Data(vec![b'm'; 300]),
            Message::Data(long),
            Message::Close,
        ];
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            assert_eq!(all(&stream, piece).unwrap(), expected, "{piece}");
        }
        for end in 0..400 {
            assert!(all(&stream[..end], end).is_ok(), "{end}");
        }
    }

    #[test]
    fn what_the_protocol_does_not_know_is_refused() {
        #[track_caller]
        fn check(bytes: &[u8], expected: Error) {
            assert_eq!(all(bytes, bytes.len()), Err(expected), "{bytes:?}");
        }
        check(&[0xc1, 0], Error::Frame("reserved bits"));
        check(&[0x81, 0x80], Error::Frame("masked by the server"));
        check(&[0x80, 0], Error::Frame("a continuation of nothing"));
        check(&[0x01, 0, 0x81, 0], Error::Frame("a message within a message"));
        check(&[0x83, 0], Error::Frame("an unknown opcode"));
        check(&[0x09, 0], Error::Frame("a control frame that is long or in fragments"));
        check(&[0x89, 126], Error::Frame("a control frame that is long or in fragments"));
        check(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Error::TooLong);
    }

    #[test]
    fn the_cap_is_for_the_message_with_all_its_fragments() {
        let check = |first: usize, second: usize, fits: bool| {
            let mut stream = server_text(&vec![0; first]);
            stream[0] = 0x01;
            let mut more = server_text(&vec![0; second]);
            more[0] = 0x80;
            stream.extend(more);
            assert_eq!(all(&stream, stream.len()).is_ok(), fits, "{first} + {second}");
        };
        check(MAX_MESSAGE, 0, true);
        check(MAX_MESSAGE - 1, 1, true);
        check(MAX_MESSAGE, 1, false);
        check(MAX_MESSAGE + 1, 0, false);
    }

    #[test]
    fn a_pong_is_masked_and_echoes() {
        assert_eq!(pong(b"hi"), [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(pong(&[1; 200]).len(), 6 + MAX_CONTROL);
    }
}
