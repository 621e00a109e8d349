//! What strangers send to the webhook port, and what anybody who may open it sends to the control socket: over real
//! connections, to the threads that really serve them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use lxdrunner::config::{Network, WebAllow, WebTls};
use lxdrunner::control::{self, Answer, Question};
use lxdrunner::model::{JobId, Secret};
use lxdrunner::webhook::{Front, Health, Limits, Listener, Peers, Receiver, Tls};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConnection};

use crate::anybody;
use crate::targets::{RemovedWithUs, Run, scratch};

/// Deliveries of the corpus are signed with it.
const SECRET: &str = "secret";
/// Far more than any answer takes: whoever waits for so long was forgotten.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port as it is without a proxy. However the bytes are cut, the answers must be the same.
pub fn plain() -> Run {
    let door = open(Peers::default(), &WebTls::Off);
    Box::new(move |input| {
        let whole = answers(&exchange(door, input, input.len())?)?;
        // Each piece is a round for the system, so long inputs come in few.
        let pieces = answers(&exchange(door, input, 7 + input.len() / 8)?)?;
        match pieces == whole {
            true => well(door, ""),
            false => Err(format!("whole: {whole:?}, in pieces: {pieces:?}")),
        }
    })
}

/// Behind a proxy that is believed, and with only few addresses let in.
pub fn proxied() -> Run {
    let networks = |text: &str| vec![text.parse::<Network>().unwrap()];
    let allow = WebAllow { github: false, networks: networks("203.0.113.0/24") };
    let door = open(Peers::of(networks("127.0.0.0/8"), Some(allow)), &WebTls::Off);
    Box::new(move |input| {
        answers(&exchange(door, input, input.len())?)?;
        well(door, "X-Forwarded-For: 203.0.113.7\r\n")
    })
}

/// With TLS: first of all the hello.
pub fn encrypted() -> Run {
    let door = open(Peers::default(), &WebTls::SelfSigned);
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(anybody::client(ALL_VERSIONS), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    Box::new(move |input| {
        exchange(door, input, input.len())?;
        let answer = exchange(door, &hello, hello.len())?;
        // A handshake message (RFC 8446, 5.1).
        if answer.first() == Some(&22) { Ok(()) } else { Err(format!("no hands are shaken any more: {answer:?}")) }
    })
}

/// The control socket.
pub fn control() -> Run {
    let socket = scratch().join("control.sock");
    let folder = RemovedWithUs(socket.parent().unwrap().to_owned());
    let answer = |question: Question| Some(Answer { repo: None, text: format!("{question:?}") });
    control::listen(socket.clone(), answer).unwrap();
    Box::new(move |input| {
        let _ = &folder;
        let mut stream = UnixStream::connect(&socket).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(input);
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream)?;
        let question = Question::Job { job: JobId(7), told: None };
        let answer = control::ask(&socket, &question).map_err(|error| error.to_string())?;
        if answer.text == format!("{question:?}") { Ok(()) } else { Err(answer.text) }
    })
}

fn open(peers: Peers, tls: &WebTls) -> SocketAddr {
    let tls = Tls::open(tls).unwrap().map(Arc::new);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (peers, private) = (Arc::new(peers), vec![std::env::temp_dir()]);
    let front = Front { listener, tls, peers, limits: Limits::default(), private, ending: None };
    let open = Receiver::open(front, Secret::new(SECRET), drop, || Health::Good("ok".to_owned()), || None);
    open.unwrap().local_addr()
}

/// All that comes back for `input`, sent in pieces of `size`, when nothing follows it.
fn exchange(door: SocketAddr, input: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(door).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in input.chunks(size.max(1)) {
        // It may have heard enough.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream)
}

fn read_all(stream: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("neither answered nor ended within {PATIENCE:?}"))
        }
        _ => Ok(answer),
    }
}

/// The statuses of the answers, which must be whole ones.
fn answers(bytes: &[u8]) -> Result<Vec<u16>, String> {
    let mut rest = bytes;
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = answer.parse(rest) else {
            return Err(format!("not an answer: {:?}", String::from_utf8_lossy(rest)));
        };
        let status = answer.code.unwrap();
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |header| std::str::from_utf8(header.value).unwrap().parse().unwrap());
        // To HEAD a length is told, and no body follows.
        rest = &rest[head..];
        if !rest.starts_with(b"HTTP/1.1 ") {
            rest = rest.get(length..).unwrap_or_default();
        }
        // Whether it is told to go on depends on what has come by then.
        if status != 100 {
            // A head that is both malformed and too long is found to be what shows first.
            statuses.push(if status == 431 { 400 } else { status });
        }
    }
    Ok(statuses)
}

/// The next request, with these headers, is served.
fn well(door: SocketAddr, headers: &str) -> Result<(), String> {
    let answer = exchange(door, format!("GET /healthz HTTP/1.1\r\n{headers}\r\n").as_bytes(), 1024)?;
    if answers(&answer)? == [200] { Ok(()) } else { Err(format!("not well: {}", String::from_utf8_lossy(&answer))) }
}
