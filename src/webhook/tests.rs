//! tiny_http fails, and the process ends, so that it is started again. Each of these ends happens in a process of its own:
//! this test, run once more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::{self, Shared};
use super::server::{Answers, LINKS};
use super::{Front, Health, Limits, Listener, Peers, Receiver};
use crate::model::Secret;
use crate::private_socket;

const SCENE: &str = "LXDRUNNER_TEST_SCENE";
/// The process ends long before this, if it does.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn check(scene: &str, told: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "webhook::tests::scene", "--nocapture"]).env(SCENE, scene);
    let begun = Instant::now();
    let end = child.output().unwrap();
    let said = String::from_utf8_lossy(&end.stdout);
    assert_eq!(end.status.code(), Some(1), "{scene}: {said}{}", String::from_utf8_lossy(&end.stderr));
    assert!(said.contains(told), "{scene}: {said}");
    assert!(begun.elapsed() < PATIENCE, "{scene}");
}

#[test]
fn the_process_ends_when_tiny_http_does() {
    check("gone", "");
    check("nonsense", "");
    check("cut", "");
    check("deaf", "ok at first");
}

#[test]
fn the_process_ends_when_tiny_http_does_not_answer() {
    // The client gets an answer before.
    check("silent", "502 Bad Gateway");
}

#[test]
fn scene() {
    match std::env::var(SCENE).as_deref() {
        Ok("gone") => drop(open_gate()),
        Ok("nonsense") => {
            let (_client, mut server) = open_gate();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            std::thread::sleep(PATIENCE);
        }
        Ok("cut") => {
            let (mut client, mut server) = open_gate();
            ask(&mut client);
            let _ = server.read(&mut [0; 1024]).unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap();
            drop(server);
            std::thread::sleep(PATIENCE);
        }
        Ok("silent") => {
            let (mut client, _server) = open_gate();
            ask(&mut client);
            print_answer(&mut client);
            std::thread::sleep(PATIENCE);
        }
        Ok("deaf") => open_deaf(),
        _ => return,
    }
    std::thread::sleep(PATIENCE);
    // Had it not been ended.
    std::process::exit(0);
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
}

#[allow(clippy::print_stdout)]
fn print_answer(client: &mut TcpStream) {
    let mut answer = [0; 4096];
    let length = client.read(&mut answer).unwrap();
    println!("{}", String::from_utf8_lossy(&answer[..length]));
}

/// A client of the gate, and tiny_http's end of its connection.
fn open_gate() -> (TcpStream, UnixStream) {
    let Listener { socket, local, .. } = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (link, server) = UnixStream::pair().unwrap();
    let moment = Duration::from_millis(100);
    let limits = Limits { answer_time: moment, server_time: moment * 3, ..Limits::default() };
    let shared = Shared { limits, peers: Arc::default(), tls: None, log: Arc::default() };
    gate::open(socket, vec![link], None, shared).unwrap();
    (TcpStream::connect(local).unwrap(), server)
}

/// tiny_http cannot accept connections any more. It would serve those that it has.
fn open_deaf() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (peers, limits) = (Arc::new(Peers::default()), Limits::default());
    let private = vec![std::env::temp_dir()];
    let (server, links) = private_socket::connected(LINKS, &private).unwrap();
    let held = UnixStream::from(OwnedFd::from(server.try_clone().unwrap()));
    let front = Front { listener, tls: None, peers, limits, private, ending: None };
    let answers = Answers { health: Box::new(|| Health::Good("ok at first".to_owned())), metrics: Box::new(|| None) };
    let receiver = Receiver::open_over((server, links), front, Secret::new("s"), drop, answers).unwrap();
    let mut client = TcpStream::connect(receiver.local_addr()).unwrap();
    ask(&mut client);
    print_answer(&mut client);
    held.shutdown(Shutdown::Both).unwrap();
}
