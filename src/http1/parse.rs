//! The incremental parser of one message.

use super::{Error, Event, Head, Headers, MAX_CHUNK_LINE, MAX_HEAD, MAX_HEADERS, MAX_INTERIM, MAX_TRAILERS, Start};

/// Parses one message, request or response, from pieces of any size. One message, one parser.
#[derive(Debug)]
pub struct Parser {
    expects: Expects,
    state: State,
    /// The line that is being collected, its line feed not yet seen.
    line: Vec<u8>,
    /// Bytes of the head, chunk line or trailers so far, against the cap that holds for the state.
    taken: usize,
    start: Option<(Start, Version)>,
    headers: Headers,
    interim: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Request,
    /// `bodyless`: the request was a HEAD.
    Response {
        bodyless: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    StartLine,
    Headers,
    Sized(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
    Failed(Error),
}

impl Parser {
    /// Of the request that a client sends.
    pub fn request() -> Parser {
        Parser::new(Expects::Request)
    }

    /// Of the response to a request with that method (a response to HEAD has no body, whatever its headers say).
    pub fn response_to(method: &str) -> Parser {
        Parser::new(Expects::Response { bodyless: method == "HEAD" })
    }

    /// Of a chunked body alone, whose head was read elsewhere.
    pub fn chunks() -> Parser {
        Parser { state: State::ChunkSize, ..Parser::new(Expects::Request) }
    }

    fn new(expects: Expects) -> Parser {
        Parser {
            expects,
            state: State::StartLine,
            line: Vec::new(),
            taken: 0,
            start: None,
            headers: Headers::default(),
            interim: 0,
        }
    }

    /// Takes bytes from the front of `input`: how many, and what they made. To be called again with the rest, and
    /// also with nothing, until it says [`Event::NeedInput`] or [`Event::End`].
    ///
    /// # Errors
    /// When the bytes are not a message; every later call gives the same error.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Error> {
        let result = self.advance(input);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    /// Tells the end of the input.
    ///
    /// # Errors
    /// When the message is not complete; a body that lasts until the connection closes is complete now.
    pub fn end_of_input(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::StartLine if self.line.is_empty() && self.interim == 0 => Err(Error::ClosedBefore),
            _ => Err(Error::CutOff),
        }
    }

    fn advance<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Error> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.state {
                State::Failed(error) => return Err(error),
                State::Done => return Ok((used, Event::End)),
                State::Sized(left) | State::Chunk(left) => {
                    if rest.is_empty() {
                        return Ok((used, Event::NeedInput));
                    }
                    let piece = rest.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(rest);
                    let left = left.saturating_sub(piece.len() as u64);
                    self.state = match (self.state, left) {
                        (State::Sized(_), 0) => State::Done,
                        (State::Sized(_), _) => State::Sized(left),
                        (_, 0) => State::ChunkEnd,
                        (_, _) => State::Chunk(left),
                    };
                    return Ok((used + piece.len(), Event::Body(piece)));
                }
                State::UntilClose if rest.is_empty() => return Ok((used, Event::NeedInput)),
                State::UntilClose => return Ok((used + rest.len(), Event::Body(rest))),
                State::StartLine | State::Headers | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let (took, complete) = self.take_line(rest)?;
                    used += took;
                    if !complete {
                        return Ok((used, Event::NeedInput));
                    }
                    let line = std::mem::take(&mut self.line);
                    if let Some(head) = self.line_complete(&line)? {
                        return Ok((used, Event::Head(head)));
                    }
                }
            }
        }
    }

    /// Collects bytes up to a line end, within the state's cap. A line ends in CR LF; no other control characters
    /// but the tab are let into it.
    fn take_line(&mut self, input: &[u8]) -> Result<(usize, bool), Error> {
        let (cap, too_long, malformed) = match self.state {
            State::StartLine => (MAX_HEAD, Error::HeadTooLong, Error::StartLine),
            State::Headers => (MAX_HEAD, Error::HeadTooLong, Error::Header),
            State::Trailers => (MAX_TRAILERS, Error::TrailersTooLong, Error::Header),
            State::ChunkEnd => (2, Error::Chunk, Error::Chunk),
            _ => (MAX_CHUNK_LINE, Error::ChunkLineTooLong, Error::Chunk),
        };
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = end.and_then(|at| input.get(..=at)).unwrap_or(input);
        if self.taken.saturating_add(piece.len()) > cap {
            return Err(too_long);
        }
        self.taken += piece.len();
        self.line.extend_from_slice(piece);
        if end.is_none() {
            return Ok((piece.len(), false));
        }
        let Some(line) = self.line.strip_suffix(b"\r\n") else { return Err(malformed) };
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(malformed);
        }
        let length = line.len();
        self.line.truncate(length);
        Ok((piece.len(), true))
    }

    fn line_complete(&mut self, line: &[u8]) -> Result<Option<Head>, Error> {
        match self.state {
            State::StartLine => {
                self.start = Some(match self.expects {
                    Expects::Request => request_line(line)?,
                    Expects::Response { .. } => status_line(line)?,
                });
                self.state = State::Headers;
            }
            State::Headers if line.is_empty() => return self.head_complete(),
            State::Headers => {
                if self.headers.0.len() == MAX_HEADERS {
                    return Err(Error::TooManyHeaders);
                }
                self.headers.0.push(header_line(line)?);
            }
            State::ChunkSize => {
                self.taken = 0;
                self.state = match chunk_size(line)? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                };
            }
            State::ChunkEnd if line.is_empty() => {
                self.taken = 0;
                self.state = State::ChunkSize;
            }
            State::Trailers if line.is_empty() => self.state = State::Done,
            State::Trailers => {
                header_line(line)?;
            }
            _ => return Err(Error::Chunk),
        }
        Ok(None)
    }

    fn head_complete(&mut self) -> Result<Option<Head>, Error> {
        let headers = std::mem::take(&mut self.headers);
        let (start, version) = self.start.take().ok_or(Error::StartLine)?;
        self.taken = 0;
        let framed = framing(&headers)?;
        self.state = match (&start, self.expects) {
            (Start::Response { status: 100 | 102..=199 }, _) => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(Error::TooManyInterim);
                }
                self.state = State::StartLine;
                return Ok(None);
            }
            (Start::Response { status: 101 | 204 | 304 }, _) => State::Done,
            (_, Expects::Response { bodyless: true }) => State::Done,
            (Start::Response { .. }, _) => framed.unwrap_or(State::UntilClose),
            (Start::Request { .. }, _) => framed.unwrap_or(State::Done),
        };
        let asks = |what: &str| headers.elements("connection").any(|e| e.eq_ignore_ascii_case(what));
        let keep_alive = match version {
            Version::Http11 => !asks("close"),
            Version::Http10 => asks("keep-alive") && !asks("close"),
        };
        let switched = matches!(start, Start::Response { status: 101 });
        let keep_alive = keep_alive && !switched && self.state != State::UntilClose;
        Ok(Some(Head { start, headers, keep_alive }))
    }
}

/// How the headers say that the body ends; `None` where they say nothing.
fn framing(headers: &Headers) -> Result<Option<State>, Error> {
    let mut lengths = headers.elements("content-length");
    let mut codings = headers.elements("transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(Error::Framing);
    }
    match (length, coding) {
        (None, None) => Ok(None),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(State::ChunkSize)),
        (Some(length), None) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: u64 = length.parse().map_err(|_| Error::Framing)?;
            Ok(Some(if length == 0 { State::Done } else { State::Sized(length) }))
        }
        _ => Err(Error::Framing),
    }
}

fn version(text: &[u8]) -> Result<Version, Error> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => Err(Error::StartLine),
    }
}

fn request_line(line: &[u8]) -> Result<(Start, Version), Error> {
    let line = std::str::from_utf8(line).map_err(|_| Error::StartLine)?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(last), None) if is_token(method) && is_target(target) => {
            let start = Start::Request { method: method.to_owned(), target: target.to_owned() };
            Ok((start, version(last.as_bytes())?))
        }
        _ => Err(Error::StartLine),
    }
}

fn status_line(line: &[u8]) -> Result<(Start, Version), Error> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let version = version(words.next().unwrap_or_default())?;
    let code = words.next().unwrap_or_default();
    let digits = code.len() == 3 && code.iter().all(u8::is_ascii_digit);
    let status = std::str::from_utf8(code).ok().filter(|_| digits).and_then(|code| code.parse().ok());
    match status {
        Some(status @ 100..=999) => Ok((Start::Response { status }, version)),
        _ => Err(Error::StartLine),
    }
}

fn header_line(line: &[u8]) -> Result<(String, String), Error> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Error::Header)?;
    let (name, value) = line.split_at(colon);
    let name = std::str::from_utf8(name).ok().filter(|name| is_token(name)).ok_or(Error::Header)?;
    let value = value.get(1..).unwrap_or_default();
    Ok((name.to_owned(), String::from_utf8_lossy(value).trim_matches([' ', '\t']).to_owned()))
}

fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let end = line.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let after = extension.iter().find(|byte| !blank(byte));
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) && matches!(after, None | Some(b';'));
    let text = std::str::from_utf8(digits).ok().filter(|_| plain).ok_or(Error::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Error::Chunk)
}

/// RFC 9110's `token`: what methods and header names are made of.
pub(super) fn is_token(text: &str) -> bool {
    let sign = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || sign(b))
}

/// A request's target in the one form that is spoken here: a path, without blanks and controls, in ASCII.
pub(super) fn is_target(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic())
}
