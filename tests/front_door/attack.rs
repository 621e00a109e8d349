//! That nobody's being slow, many or wrong keeps real deliveries out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use lxdrunner::webhook::Limits;

use super::door::*;
use super::support::{HOOK_SECRET, PATIENCE, Plan, Rig};

#[test]
fn slow_clients_refuse_nobody() {
    let limits = Limits { connections: 40, per_address: 30, ..Limits::default() };
    for door in [Door::plain(limits), Door::encrypted(limits)] {
        let whole = delivery("slow", "");
        let mut held: Vec<TcpStream> = Vec::new();
        for n in 0..300 {
            let mut slow = door.connect();
            // Of a head, of a body, of a TLS handshake, and nothing at all.
            let part = [20, whole.len() - 10, 0][n % 3];
            let _ = slow.write_all(&whole[..part]);
            held.push(slow);
            if n % 10 == 0 {
                // These keep their places for as long as they can, too.
                for slow in &mut held {
                    let _ = slow.write(b"x");
                }
                door.check_delivery(&n.to_string());
            }
        }
        assert_eq!(door.hints.len(), 30);
    }
}

/// The daemon's answer to a request of one connection.
fn ask(rig: &Rig, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(&rig.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_flood_of_bad_signatures_is_a_line_a_second_with_a_count() {
    let rig = Rig::new(Plan::default());
    let began = Instant::now();
    let forged = delivery("1", "Connection: close\r\n");
    assert_ne!(SECRET, HOOK_SECRET);
    for _ in 0..500 {
        assert!(ask(&rig, &forged).unwrap().starts_with("HTTP/1.1 401 "));
    }
    let count = |line: &String| -> Option<u64> { line.split("count=").nth(1)?.split(' ').next()?.parse().ok() };
    let lines = || -> Vec<String> {
        rig.daemon.log().into_iter().filter(|line| line.contains("delivery_refused peer=127.0.0.1 count=")).collect()
    };
    while lines().iter().filter_map(count).sum::<u64>() < 500 {
        assert!(began.elapsed() < PATIENCE, "{:?}", lines());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let said = lines();
    assert!(said.len() as u64 <= began.elapsed().as_secs() + 2, "{said:#?}");
    assert_eq!(said.iter().filter_map(count).sum::<u64>(), 500);
}

#[test]
fn used_up_file_descriptors_lose_nothing() {
    let rig = Rig::new(Plan::default());
    let limit = |limit: &str| {
        let pid = rig.daemon.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status().unwrap();
        assert!(done.success());
    };
    assert!(ask(&rig, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap().starts_with("HTTP/1.1 404 "));
    // No number below that is free: standard input alone is below 1.
    limit("1");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(&rig.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
            stream
        })
        .collect();
    rig.daemon.wait(&["WARN", "accept_failed"]);
    limit("1024");
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    rig.daemon.wait(&["connections are accepted again"]);
    assert_eq!(rig.daemon.count(&["accept_failed"]), 1, "it is said once");
}
