//! Who is let in, directly and through a proxy.

use lxdrunner::config::{Network, WebAllow, WebTls};
use lxdrunner::webhook::Limits;
use lxdrunner::webhook::Peers;
use standin::github::Fault;

use super::door::*;
use super::support::{Plan, Rig, Scratch};

fn networks(list: &[&str]) -> Vec<Network> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn open(proxies: &[&str], github: bool, allowed: &[&str], limits: Limits) -> Door {
    let peers = Peers::of(networks(proxies), Some(WebAllow { github, networks: networks(allowed) }));
    peers.github_is_at(networks(&["140.82.112.0/20"]));
    Door::open(WebTls::Off, peers, limits, Scratch::new())
}

#[test]
fn a_proxy_tells_who_asks() {
    let door = open(&["127.0.0.1"], true, &["192.0.2.0/24"], Limits::default());
    let check = |line: &str, status: &str| {
        let answer = door.ask(&delivery("1", line));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {answer}");
    };
    check("X-Forwarded-For: 140.82.112.1\r\n", "202");
    check("X-Forwarded-For: 192.0.2.7\r\n", "202");
    check("X-Forwarded-For: 198.51.100.7\r\n", "403");
    // What the client made up stands before what the proxy saw.
    check("X-Forwarded-For: 192.0.2.7, 198.51.100.7\r\n", "403");
    check("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 198.51.100.7\r\n", "403");
    // The proxy itself: its own health check.
    check("X-Forwarded-For: 127.0.0.1\r\n", "202");
}

#[test]
fn who_cannot_be_told_is_not_let_in() {
    let door = open(&["127.0.0.1"], true, &[], Limits::default());
    for line in
        [&b""[..], b"X-Forwarded-For: \xff\r\n", b"X-Forwarded-For:\r\n", b"X-Forwarded-For: 140.82.112.1, x\r\n"]
    {
        let answer = door.ask(&[b"GET /healthz HTTP/1.1\r\n", line, b"\r\n"].concat());
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("X-Forwarded-For"), "{line:?} {answer}");
    }
    // A proxy that is not named, by whatever header it adds.
    let door = open(&[], true, &[], Limits::default());
    for line in ["Via: 1.1 x\r\n", "Forwarded: for=192.0.2.7\r\n", "X-Real-IP: 192.0.2.7\r\n"] {
        let answer = door.ask(format!("GET /healthz HTTP/1.1\r\n{line}\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403 "), "{line} {answer}");
    }
}

#[test]
fn strangers_hear_of_health_no_more_than_whether_it_is_good() {
    let check = |line: &str, details: bool| {
        let door = measured(&["127.0.0.1"], &["192.0.2.7"], String::new());
        let answer = door.ask(format!("GET /healthz HTTP/1.1\r\n{line}\r\n").as_bytes());
        let told = if details { "\r\n\r\nok instances=0\n" } else { "\r\n\r\nok\n" };
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(told), "{line} {answer}");
    };
    check("X-Forwarded-For: 192.0.2.8\r\n", false);
    check("X-Forwarded-For: x\r\n", false);
    check("", false);
    check("X-Forwarded-For: 192.0.2.7\r\n", true);
    check("X-Forwarded-For: 127.0.0.1\r\n", true);
    let door = measured(&[], &[], String::new());
    assert!(door.ask(b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok instances=0\n"), "this machine");
}

fn measured(proxies: &[&str], by: &[&str], metrics: String) -> Door {
    let peers = Peers::of(networks(proxies), None).measured_by(networks(by));
    Door::open_measured(WebTls::Off, peers, Limits::default(), Scratch::new(), metrics)
}

#[test]
fn metrics_are_for_those_who_are_named() {
    // The proxies, who may read, what a proxy says, and whether they are shown.
    let check = |proxies: &[&str], by: &[&str], line: &str, shown: bool| {
        let door = measured(proxies, by, "a 1\n".to_owned());
        let answer = door.ask(format!("GET /metrics HTTP/1.1\r\n{line}\r\n").as_bytes());
        let expected = if shown { "HTTP/1.1 200 " } else { "HTTP/1.1 404 " };
        assert!(
            answer.starts_with(expected) && answer.contains("\na 1\n") == shown,
            "{proxies:?} {by:?} {line} {answer}"
        );
    };
    check(&[], &[], "", false);
    check(&[], &["127.0.0.1"], "", true);
    check(&[], &["192.0.2.7"], "", false);
    // A proxy on this machine that the config does not name speaks for anybody.
    check(&[], &["127.0.0.1"], "X-Forwarded-For: 127.0.0.1\r\n", false);
    check(&[], &["192.0.2.7"], "X-Forwarded-For: 192.0.2.7\r\n", false);
    check(&["127.0.0.1"], &["192.0.2.7"], "X-Forwarded-For: 192.0.2.7\r\n", true);
    check(&["127.0.0.1"], &["192.0.2.7"], "X-Forwarded-For: 192.0.2.7, 192.0.2.8\r\n", false);
    check(&["127.0.0.1"], &["192.0.2.7"], "", false);
    check(&["127.0.0.1"], &["127.0.0.1"], "", false);
    check(&["127.0.0.1"], &["127.0.0.1"], "X-Forwarded-For: x\r\n", false);
}

#[test]
fn metrics_may_be_long_but_not_without_end() {
    let head = "GET /metrics HTTP/1.1\r\n\r\n".as_bytes();
    let long = "a 1\n".repeat(250_000);
    let door = measured(&[], &["127.0.0.1"], long.clone());
    assert!(door.ask(head).ends_with(&long));
    let door = measured(&[], &["127.0.0.1"], "a 1\n".repeat(300_000));
    let answer = door.ask(head);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("status --metrics"), "{answer}");
    door.check_delivery("1");
}

#[test]
fn a_proxy_that_is_not_named_does_not_open_the_door() {
    let door = open(&[], true, &[], Limits::default());
    let answer = door.ask(&delivery("1", "X-Forwarded-For: 140.82.112.1\r\n"));
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("web_trusted_proxies"), "{answer}");
    door.check_delivery("2");
}

#[test]
fn places_behind_a_proxy_are_counted_by_who_asks() {
    let door = open(&["127.0.0.1"], false, &["192.0.2.0/24"], Limits { per_address: 2, ..Limits::default() });
    let part = |n: u32| {
        let whole = delivery("slow", &format!("X-Forwarded-For: 192.0.2.{n}\r\n"));
        whole[..whole.len() - 1].to_vec()
    };
    let mut held: Vec<_> = (0..2).map(|_| door.connect()).collect();
    for stream in &mut held {
        use std::io::Write;
        stream.write_all(&part(1)).unwrap();
    }
    // The third of that one has no place; another one's has.
    let answer = door.ask(&part(1));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let answer = door.ask(&part(2));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn the_daemon_asks_github_where_its_webhooks_come_from() {
    let allowing = || Plan::with("web_allow: [github]\nweb_trusted_proxies: [127.0.0.1]");
    let from = |rig: &Rig, address: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&rig.address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nConnection: close\r\nX-Forwarded-For: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let rig = Rig::new(allowing());
    rig.daemon.wait(&["web_allow=github networks=3"]);
    assert_eq!([from(&rig, "140.82.112.1"), from(&rig, "198.51.100.7")], ["404", "403"]);
    assert_eq!(from(&rig, "127.0.0.1"), "404");

    let rig = Rig::prepared(allowing(), |before| before.github.inject(Fault::status("/meta", 500, "later").times(100)));
    rig.daemon.wait(&["WARN", "web_allow=github", "nobody is let in from there until it does"]);
    assert_eq!(from(&rig, "140.82.112.1"), "403");
    assert_eq!(from(&rig, "127.0.0.1"), "404");

    let rig = Rig::prepared(allowing(), |before| before.github.with(|state| state.hook_networks.clear()));
    rig.daemon.wait(&["WARN", "this server does not tell: name its address in web_allow"]);
}
