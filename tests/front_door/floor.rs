//! The floor that the front door is measured against: bounded threads that accept, read, hash and answer, and nothing
//! else. `floor ADDRESS SECRET [PEM]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use hmac::{Hmac, Mac};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::Sha256;

const THREADS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let secret: Arc<str> = arguments[2].as_str().into();
    let tls = arguments.get(3).map(|pem| config(&std::fs::read(pem).unwrap()));
    // The standard library's own would keep 128 connections waiting, which is too few for the measurement.
    let listener = mio::net::TcpListener::bind(arguments[1].parse().unwrap()).unwrap();
    let listener = Arc::new(TcpListener::from(std::os::fd::OwnedFd::from(listener)));
    listener.set_nonblocking(false).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, secret, tls) = (Arc::clone(&listener), Arc::clone(&secret), tls.clone());
            let work = move || {
                let mut buffer = Vec::with_capacity(64 * 1024);
                for stream in listener.incoming().flatten() {
                    let _ = match &tls {
                        None => serve(stream, &secret, &mut buffer),
                        Some(tls) => encrypted(stream, tls, &secret, &mut buffer),
                    };
                }
            };
            std::thread::Builder::new().stack_size(128 * 1024).spawn(work).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn config(pem: &[u8]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap();
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn encrypted(stream: TcpStream, tls: &Arc<ServerConfig>, secret: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    serve(&mut stream, secret, buffer)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn serve(mut stream: impl Read + Write, secret: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(buffer).map_err(io::Error::other)? {
            let value = |name: &str| {
                let header = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                header.and_then(|h| std::str::from_utf8(h.value).ok()).unwrap_or_default().to_owned()
            };
            let length: usize = value("content-length").parse().unwrap_or(0);
            if buffer.len() >= head + length {
                let close = value("connection").eq_ignore_ascii_case("close");
                let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
                mac.update(&buffer[head..head + length]);
                let hash: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
                let right = value("x-hub-signature-256").strip_prefix("sha256=") == Some(&hash);
                let status = if right { "202 Accepted" } else { "401 Unauthorized" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\naccepted\n");
                stream.write_all(answer.as_bytes())?;
                buffer.drain(..head + length);
                if close {
                    return Ok(());
                }
                continue;
            }
        }
        let filled = buffer.len();
        buffer.resize(filled + 32 * 1024, 0);
        let count = stream.read(&mut buffer[filled..])?;
        buffer.truncate(filled + count);
        if count == 0 {
            return Ok(());
        }
    }
}
