//! A webhook port and a client of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use lxdrunner::config::WebTls;
use lxdrunner::model::{Hint, Secret};
use lxdrunner::webhook::{Front, Health, Limits, Listener, Peers, Receiver, Tls};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConnection, StreamOwned};
use sha2::Sha256;

use super::anybody;
use super::support::{PATIENCE, Scratch};

pub const SECRET: &str = "a secret of the tests";
pub const QUEUED: &[u8] = include_bytes!("../fixtures/workflow_job_queued.json");
pub struct Door {
    pub address: SocketAddr,
    pub encrypted: bool,
    pub hints: crossbeam_channel::Receiver<Hint>,
    _scratch: Scratch,
}

impl Door {
    pub fn plain(limits: Limits) -> Door {
        Door::open(WebTls::Off, Peers::default(), limits, Scratch::new())
    }

    pub fn encrypted(limits: Limits) -> Door {
        Door::open(WebTls::SelfSigned, Peers::default(), limits, Scratch::new())
    }

    pub fn open(tls: WebTls, peers: Peers, limits: Limits, scratch: Scratch) -> Door {
        Door::open_measured(tls, peers, limits, scratch, "a 1\n".to_owned())
    }

    /// Whose metrics are these.
    pub fn open_measured(tls: WebTls, peers: Peers, limits: Limits, scratch: Scratch, metrics: String) -> Door {
        let (send, hints) = crossbeam_channel::bounded(4096);
        let front = Front {
            listener: Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            tls: Tls::open(&tls).unwrap().map(Arc::new),
            peers: Arc::new(peers),
            limits,
            private: vec![scratch.0.clone()],
            ending: None,
        };
        let deliver = move |hint| send.try_send(hint).unwrap();
        let health = || Health::Good("ok instances=0".to_owned());
        let metrics = move || Some(metrics.clone());
        let receiver = Receiver::open(front, Secret::new(SECRET), deliver, health, metrics).unwrap();
        Door { address: receiver.local_addr(), encrypted: tls != WebTls::Off, hints, _scratch: scratch }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection, encrypted where the door wants that.
    pub fn enter(&self) -> Box<dyn Connection> {
        if self.encrypted { Box::new(self.shake_hands()) } else { Box::new(self.connect()) }
    }

    pub fn shake_hands(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(anybody::client(ALL_VERSIONS), name).unwrap();
        let mut stream = StreamOwned::new(connection, self.connect());
        stream.flush().unwrap();
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// All that comes back for `request`, when nothing follows it.
    pub fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.enter();
        let _ = stream.write_all(request).and_then(|()| stream.flush());
        stream.end();
        read_all(&mut *stream)
    }

    /// The answer to a delivery like GitHub's.
    #[track_caller]
    pub fn check_delivery(&self, id: &str) {
        let answer = self.ask(&delivery(id, ""));
        assert!(answer.starts_with("HTTP/1.1 202 "), "{id}: {answer}");
    }
}

pub trait Connection: Read + Write {
    /// Nothing more comes.
    fn end(&mut self);
}

impl Connection for TcpStream {
    fn end(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Connection for StreamOwned<ClientConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
}

pub fn read_all(stream: &mut dyn Connection) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is none of our business.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

pub fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

/// A delivery's head up to what tells its length; each line of `more` is one more header.
pub fn head(id: &str, more: &str) -> String {
    format!(
        "POST /hooks/lxdrunner HTTP/1.1\r\nHost: example.test\r\nContent-Type: application/json\r\nX-GitHub-Event: workflow_job\r\n\
         X-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: sha256={}\r\n{more}",
        signature(QUEUED)
    )
}

pub fn delivery(id: &str, more: &str) -> Vec<u8> {
    let head = format!("{}Content-Length: {}\r\n\r\n", head(id, more), QUEUED.len());
    [head.as_bytes(), QUEUED].concat()
}

/// Makes a certificate of its own in `directory`; the names of both files.
pub fn make_pair(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    };
    let files = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
    std::fs::write(&files.0, pem("CERTIFICATE", certificate.der())).unwrap();
    std::fs::write(&files.1, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    files
}
