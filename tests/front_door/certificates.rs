//! Which certificate is shown, which cannot be, and which versions of TLS are spoken.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use lxdrunner::config::WebTls;
use lxdrunner::webhook::Limits;
use lxdrunner::webhook::{Peers, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, SupportedProtocolVersion};
use sha2::{Digest, Sha256};

use super::anybody;
use super::door::*;
use super::support::{PATIENCE, Plan, Rig, Scratch};

fn shown(door: &Door) -> String {
    let stream = door.shake_hands();
    let digest = Sha256::digest(&stream.conn.peer_certificates().unwrap()[0]);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[test]
fn a_bad_pair_is_told_with_the_fix() {
    let scratch = Scratch::new();
    let (cert, key) = make_pair(&scratch.0, "one");
    let (_, other) = make_pair(&scratch.0, "other");
    let empty = scratch.0.join("empty");
    fs::write(&empty, "").unwrap();
    let broken = scratch.0.join("broken");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let no_cert = scratch.0.join("no-cert");
    fs::write(&no_cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let gone = scratch.0.join("gone");
    let check = |cert: &Path, key: &Path, parts: &[&str]| {
        let tls = WebTls::Files { cert: cert.to_owned(), key: key.to_owned() };
        let error = Tls::open(&tls).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && error.contains(" — "), "{error}");
    };
    check(&cert, &other, &["one.crt", "other.key", "key that was made with that certificate"]);
    check(&empty, &key, &["empty", "no certificate in it", "BEGIN CERTIFICATE"]);
    check(&broken, &key, &["broken", "PEM"]);
    check(&no_cert, &key, &["no-cert", "new pair"]);
    check(&key, &key, &["one.key", "no certificate in it"]);
    check(&cert, &cert, &["one.crt", "no private key", "not encrypted"]);
    check(&gone, &key, &["read", "gone", "web_tls"]);
    check(&scratch.0, &key, &["read"]);
}

#[test]
fn a_renewed_pair_is_used_without_dropping_a_connection() {
    let scratch = Scratch::new();
    let (cert, key) = make_pair(&scratch.0, "live");
    let (new_cert, new_key) = make_pair(&scratch.0, "new");
    let tls = WebTls::Files { cert: cert.clone(), key: key.clone() };
    let door = Door::open(tls, Peers::default(), Limits::default(), Scratch::new());
    let before = shown(&door);
    let mut kept = door.shake_hands();
    let mut again = || {
        kept.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // The rest of that answer, however it is cut.
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\nok instances=0\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
    };
    again();
    // The certificate alone does not go with the old key: the old pair is shown until both are there.
    fs::rename(&new_cert, &cert).unwrap();
    assert_eq!(shown(&door), before);
    fs::rename(&new_key, &key).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while shown(&door) == before {
        assert!(std::time::Instant::now() < deadline, "the new certificate is not shown");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    again();
    door.check_delivery("1");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_else() {
    let door = Door::encrypted(Limits::default());
    let check = |version: &'static SupportedProtocolVersion| {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(anybody::client(&[version]), name).unwrap();
        let mut socket = door.connect();
        while client.is_handshaking() {
            client.complete_io(&mut socket).unwrap();
        }
        assert_eq!(client.protocol_version(), Some(version.version));
    };
    check(&rustls::version::TLS12);
    check(&rustls::version::TLS13);
    // A greeting of TLS 1.0: its version, random bytes, no session, one cipher suite, no compression, no extensions.
    let hello = [&[3, 1], [7; 32].as_slice(), &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let old = [&[22, 3, 1, 0, 4 + hello.len() as u8, 1, 0, 0, hello.len() as u8], hello.as_slice()].concat();
    // An alert that is fatal, or what is no TLS at all gets none.
    for garbage in [old.as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00", &[0xff; 5000]] {
        let mut socket = door.connect();
        socket.write_all(garbage).unwrap();
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty() || (answer[0] == 21 && answer[5] == 2), "{answer:?}");
        door.check_delivery("next");
    }
}

#[test]
fn the_daemon_shows_what_it_says() {
    let mut rig = Rig::new(Plan { config: "web_tls: true\n".to_owned(), ..Plan::default() });
    let line = rig.daemon.wait(&["tls=self-signed", "SSL verification"]);
    let said = line.split("fingerprint=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(anybody::client(rustls::ALL_VERSIONS), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, std::net::TcpStream::connect(&rig.address).unwrap());
    stream.write_all(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let digest = Sha256::digest(&stream.conn.peer_certificates().unwrap()[0]);
    let shown: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(shown.join(":"), said);
    let kept = fs::read_dir(rig.scratch.0.join("cache")).unwrap().flatten();
    assert!(!kept.map(|file| file.file_name()).any(|name| name.to_string_lossy().contains("pem")), "no key on disk");
    drop(stream);
    // Each start makes another one.
    rig.restart();
    assert!(!rig.daemon.wait(&["tls=self-signed"]).contains(&said));
}
