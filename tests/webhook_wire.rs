//! The receiver over real loopback connections, with raw bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, Mac};
use lxdrunner::model::{Hint, Secret};
use lxdrunner::webhook::{Error, Front, Health, LONGEST_BODY, Limits, Listener, Peers, Receiver};
use sha2::Sha256;

const SECRET: &str = "a secret of the tests";
const QUEUED: &[u8] = include_bytes!("fixtures/workflow_job_queued.json");
/// Nothing here takes long; where it does, the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A receiver at `listen`, without TLS.
fn receiver(
    listen: SocketAddr,
    limits: Limits,
    deliver: impl Fn(Hint) + Send + Sync + 'static,
    health: impl Fn() -> Health + Send + Sync + 'static,
) -> Result<Receiver, Error> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("lxdrunner-wire-{}-{n}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    // The first cannot be used.
    let private = vec![folder.join("missing"), folder.clone()];
    let listener = Listener::bind(listen)?;
    let front = Front { listener, tls: None, peers: Arc::new(Peers::default()), limits, private, ending: None };
    let receiver = Receiver::open(front, Secret::new(SECRET), deliver, health, || None);
    // The socket has no name any more once the gate is connected.
    std::fs::remove_dir(folder).unwrap();
    receiver
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

struct World {
    address: SocketAddr,
    hints: crossbeam_channel::Receiver<Hint>,
    healthy: Arc<AtomicBool>,
}

fn start_with(limits: Limits) -> World {
    let (send, hints) = crossbeam_channel::bounded(64);
    let healthy = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&healthy);
    let receiver = receiver(
        anywhere(),
        limits,
        move |hint| drop(send.try_send(hint)),
        move || {
            let well = health.load(Ordering::Relaxed);
            if well { Health::Good("ok instances=0".to_owned()) } else { Health::Bad("LXD does not answer".to_owned()) }
        },
    );
    World { address: receiver.unwrap().local_addr(), hints, healthy }
}

fn start() -> World {
    start_with(Limits::default())
}

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

/// A delivery as GitHub sends it; each line of `more` is one more header.
fn delivery(event: &str, id: &str, body: &[u8], more: &str) -> Vec<u8> {
    let head = format!(
        "POST /hooks/lxdrunner HTTP/1.1\r\nHost: example.test\r\nContent-Type: application/json\r\nUser-Agent: GitHub-Hookshot/0\r\n\
         X-GitHub-Event: {event}\r\nX-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: sha256={}\r\n{more}Content-Length: {}\r\n\r\n",
        signature(body),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl World {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All answers to `request`. The receiver may stop reading when it knows its answer.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        read_answer(&mut stream)
    }

    #[track_caller]
    fn check(&self, request: impl AsRef<[u8]>, status: u16, part: &str) {
        let request = request.as_ref();
        let answer = self.ask(request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n→ {answer}");
        assert!(answer.contains(part), "{shown}\n→ {answer}");
    }

    #[track_caller]
    fn check_hints(&self, expected: usize) {
        let found: Vec<Hint> = self.hints.try_iter().collect();
        assert_eq!(found.len(), expected, "{found:?}");
    }
}

fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is none of our business.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let head = String::from_utf8(delivery("workflow_job", "c", body, "Transfer-Encoding: chunked\r\n")).unwrap();
    let head = head.split("Content-Length").next().unwrap().to_owned() + "\r\n";
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_signed_job_is_delivered() {
    let world = start();
    world.check(delivery("workflow_job", "1", QUEUED, ""), 202, "accepted");
    assert!(matches!(world.hints.try_recv(), Ok(Hint::Job(job)) if job.id.0 == 61_234_567_890));
    world.check(delivery("ping", "2", b"{\"zen\":\"\"}", ""), 202, "pong");
    world.check_hints(1);
    let query = String::from_utf8(delivery("workflow_job", "3", QUEUED, "")).unwrap();
    world.check(query.replacen("/hooks/lxdrunner ", "/hooks/lxdrunner?from=acme ", 1), 202, "accepted");
    world.check_hints(1);
}

#[test]
fn a_delivery_that_comes_twice_changes_nothing() {
    let world = start();
    world.check(delivery("workflow_job", "same", QUEUED, ""), 202, "accepted\n");
    world.check(delivery("workflow_job", "same", QUEUED, ""), 202, "accepted before");
    world.check_hints(1);
    // Another body under that id is another delivery, and so is the body under another id.
    world.check(delivery("ping", "same", b"{}", ""), 202, "pong");
    world.check(delivery("workflow_job", "other", QUEUED, ""), 202, "accepted\n");
    world.check_hints(2);
    // A forged one makes nobody deaf.
    let forged = String::from_utf8(delivery("workflow_job", "third", QUEUED, "")).unwrap();
    world.check(forged.replacen("sha256=", "sha256=0", 1), 401, "hexadecimal");
    world.check(delivery("workflow_job", "third", QUEUED, ""), 202, "accepted\n");
    world.check_hints(1);
}

#[test]
fn what_is_not_signed_right_is_refused() {
    let world = start();
    let text = String::from_utf8(delivery("workflow_job", "1", QUEUED, "")).unwrap();
    let line = format!("X-Hub-Signature-256: sha256={}\r\n", signature(QUEUED));
    world.check(text.replacen(&line, "", 1), 401, "no X-Hub-Signature-256");
    world.check(text.replacen(&line, "X-Hub-Signature: sha1=00112233\r\n", 1), 401, "sha1");
    world.check(text.replacen(&line, "X-Hub-Signature-256: sha256=zz\r\n", 1), 401, "hexadecimal");
    world.check(text.replacen("acme", "evil", 1), 401, "wrong signature");
    // Not parsed before it is believed.
    world.check(text.replacen("{", "[", 1), 401, "wrong signature");
    world.check_hints(0);
}

#[test]
fn what_is_signed_and_wrong_is_refused() {
    let world = start();
    world.check(delivery("workflow_job", "1", b"{", ""), 400, "too early");
    world.check(delivery("workflow_job", "2", b"\xff\xfe", ""), 400, "not JSON");
    world.check(delivery("workflow_job", "3", b"{}", ""), 400, "shape");
    world.check(delivery("workflow_job", "4", "[".repeat(100_000).as_bytes(), ""), 400, "workflow_job");
    world.check(delivery("", "5", b"{}", ""), 400, "X-GitHub-Event");
    world.check(delivery("push", "6", b"{}", ""), 204, "");
    world.check(
        delivery("check_run", "7", br#"{"check_run":{"id":1,"status":"queued"},"repository":{"full_name":"a/b"}}"#, ""),
        204,
        "",
    );
    world.check_hints(0);
}

#[test]
fn http_means_what_it_means() {
    let world = start();
    world.check("GET /hooks/lxdrunner HTTP/1.1\r\n\r\n", 405, "Allow: POST\r\n");
    world.check("DELETE /healthz HTTP/1.1\r\n\r\n", 405, "Allow: GET, HEAD\r\n");
    world.check("GET / HTTP/1.1\r\n\r\n", 404, "/hooks/lxdrunner");
    world.check("POST /hooks/lxdrunner/../x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404, "/hooks/lxdrunner");
    world.check("POST /hooks/lxdrunner HTTP/1.1\r\n\r\n", 411, "Content-Length");
    let form = String::from_utf8(delivery("ping", "1", b"x=", "")).unwrap();
    world.check(
        form.replacen("application/json", "application/x-www-form-urlencoded", 1),
        415,
        "set Content type to application/json",
    );
    world.check("not http at all\r\n\r\n", 400, "HTTP");
    world.check("GET / HTTP/3.0\r\n\r\n", 400, "HTTP");
    world.check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400, "HTTP");
    world.check("GET /\u{e9} HTTP/1.1\r\n\r\n", 400, "HTTP");
    world.check("GET /healthz HTTP/1.0\r\n\r\n", 200, "ok instances=0");
    world.check(
        "POST /hooks/lxdrunner HTTP/1.1\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\n{}",
        417,
        "100-continue",
    );
    let both = "POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}";
    world.check(both, 400, "invalid Content-Length");
    world.check("POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "invalid Content-Length");
    world.check("POST / HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}", 400, "invalid Content-Length");
    world.check("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n{}", 400, "invalid Content-Length");
    world.check_hints(0);
}

#[test]
fn health_is_told() {
    let world = start();
    world.check("GET /healthz HTTP/1.1\r\n\r\n", 200, "\r\n\r\nok instances=0\n");
    world.check("GET /healthz?x=y HTTP/1.1\r\n\r\n", 200, "ok");
    let head = world.ask(b"HEAD /healthz HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    world.healthy.store(false, Ordering::Relaxed);
    world.check("GET /healthz HTTP/1.1\r\n\r\n", 503, "LXD does not answer");
}

#[test]
fn bodies_are_counted_not_believed() {
    // Without optimisation, a busy machine takes seconds to hash 25 MB.
    let world = start_with(Limits { answer_time: PATIENCE, ..Limits::default() });
    let declared = |n: &str| {
        let text = String::from_utf8(delivery("workflow_job", "1", QUEUED, "")).unwrap();
        text.replacen(&format!("Content-Length: {}", QUEUED.len()), &format!("Content-Length: {n}"), 1)
    };
    world.check(declared(&(LONGEST_BODY + 1).to_string()), 413, "25 MB");
    world.check(declared("18446744073709551615"), 413, "25 MB");
    world.check(declared("99999999999999999999999999"), 413, "25 MB");
    // At the limit exactly: taken, and as spaces no JSON.
    world.check(delivery("workflow_job", "2", &vec![b' '; LONGEST_BODY], ""), 400, "too early");
    world.check(chunked(&vec![b' '; LONGEST_BODY], 1 << 20), 400, "too early");
    world.check(chunked(&vec![b' '; LONGEST_BODY + 1], 1 << 20), 413, "25 MB");
    // What comes behind the declared end is another request.
    world.check([delivery("workflow_job", "3", QUEUED, "").as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat(), 202, "404");
    world.check_hints(1);
}

#[test]
fn chunks_are_put_together() {
    let world = start();
    world.check(chunked(QUEUED, 100), 202, "accepted");
    world.check(chunked(QUEUED, 1).as_slice(), 202, "accepted before");
    world.check_hints(1);
    let mut bad = chunked(QUEUED, 100);
    let at = bad.windows(4).position(|w| w == b"\r\n64").unwrap();
    bad[at + 2] = b'z';
    world.check(bad, 400, "a chunk of the body is malformed");
    world.check(&chunked(QUEUED, 100)[..600], 400, "shorter");
}

#[test]
fn who_hangs_up_early_disturbs_nobody() {
    let world = start();
    let whole = delivery("workflow_job", "1", QUEUED, "");
    for length in [0, 1, 20, whole.len() - QUEUED.len() - 1, whole.len() - QUEUED.len(), whole.len() - 1] {
        let mut stream = world.connect();
        stream.write_all(&whole[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
        drop(stream);
        let mut gone = world.connect();
        gone.write_all(&whole[..length]).unwrap();
    }
    world.check_hints(0);
    world.check(whole, 202, "accepted");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let world = start();
    let whole = delivery("workflow_job", "1", QUEUED, "Expect: 100-continue\r\n");
    let (head, body) = whole.split_at(whole.len() - QUEUED.len());
    let mut stream = world.connect();
    stream.write_all(head).unwrap();
    let mut go = [0; 25];
    stream.read_exact(&mut go).unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

#[test]
fn heads_are_bounded() {
    let limits = Limits::default();
    let world = start_with(limits);
    let long = |n: usize| {
        let rest = "GET /healthz HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(n - rest))
    };
    world.check(long(limits.head - 1), 200, "ok");
    world.check(long(limits.head + 1), 431, "headers");
    world.check(format!("GET /{}", "x".repeat(limits.head * 2)), 431, "headers");
    world.check(format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), 431, "headers");
    world.check(format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)), 200, "ok");
}

#[test]
fn slow_and_silent_clients_are_cut_off() {
    let short = Duration::from_millis(50);
    let world = start_with(Limits { head_time: short, body_time: short, ..Limits::default() });
    let mut silent = world.connect();
    assert!(read_answer(&mut silent).starts_with("HTTP/1.1 408 "));
    let mut slow = world.connect();
    let whole = delivery("ping", "1", b"{}", "");
    slow.write_all(&whole[..whole.len() - 1]).unwrap();
    assert!(read_answer(&mut slow).starts_with("HTTP/1.1 408 "));
}

#[test]
fn who_only_holds_a_place_loses_it_to_who_comes() {
    for limits in [
        Limits { connections: 1, ..Limits::default() },
        Limits { per_address: 1, ..Limits::default() },
        Limits { memory: 1000, ..Limits::default() },
    ] {
        let world = start_with(limits);
        let mut holds = world.connect();
        let whole = delivery("ping", "1", b"{}", "");
        let (head, rest) = whole.split_at(whole.len() / 2);
        holds.write_all(head).unwrap();
        let mut also = world.connect();
        also.write_all(&"GET / HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 900)).collect::<Vec<_>>())
            .unwrap();
        // One of them is told so, and the one that comes next is served in either case.
        world.check("GET /healthz HTTP/1.1\r\n\r\n", 200, "ok");
        also.shutdown(Shutdown::Write).unwrap();
        let _ = holds.write_all(rest);
        let _ = holds.shutdown(Shutdown::Write);
        let answers = [read_answer(&mut holds), read_answer(&mut also)];
        assert!(answers.iter().any(|a| a.contains("503") || a.is_empty()), "{limits:?} {answers:?}");
        let again = delivery("ping", "2", b"{}", "");
        world.check(again, 202, "pong");
    }
}

#[test]
fn what_is_too_much_for_the_memory_is_told_so() {
    let world = start_with(Limits { memory: 500, ..Limits::default() });
    let whole = delivery("workflow_job", "1", QUEUED, "");
    let mut stream = world.connect();
    // Not whole, so that it is to be kept.
    let _ = stream.write_all(&whole[..whole.len() - 1]);
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry later"), "{answer}");
    world.check(delivery("ping", "1", b"{}", ""), 202, "pong");
    world.check_hints(1);
}

#[test]
fn what_cannot_be_signed_is_refused_before_its_body_comes() {
    let world = start();
    for (signature, part) in [
        ("", "no X-Hub-Signature-256"),
        ("X-Hub-Signature-256: sha256=00\r\n", "hexadecimal"),
        ("X-Hub-Signature: sha1=0123456789012345678901234567890123456789\r\n", "sha1"),
    ] {
        let head = format!("POST /hooks/lxdrunner HTTP/1.1\r\n{signature}Content-Length: {LONGEST_BODY}\r\n\r\n");
        let mut stream = world.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains(part), "{signature} {answer}");
    }
}

#[test]
fn whole_requests_count_as_memory_until_they_are_answered() {
    let (entered, begun) = crossbeam_channel::bounded(2);
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let deliver = move |_| {
        entered.send(()).unwrap();
        let _ = wait.recv();
    };
    let whole = delivery("workflow_job", "1", QUEUED, "");
    let limits = Limits { memory: whole.len() * 5 / 2, ..Limits::default() };
    let health = || Health::Good("ok".to_owned());
    let address = receiver(anywhere(), limits, deliver, health).unwrap().local_addr();
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Two are being answered: there is room for half another.
    let two = ["1", "2"].map(|id| {
        let stream = send(&delivery("workflow_job", id, QUEUED, "Connection: close\r\n"));
        begun.recv_timeout(PATIENCE).unwrap();
        stream
    });
    let answer = read_answer(&mut send(&whole[..whole.len() - 1]));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(go_on);
    for mut stream in two {
        assert!(read_answer(&mut stream).starts_with("HTTP/1.1 202 "));
    }
    // Then for another whole one.
    let mut third = send(&whole[..whole.len() - 1]);
    third.shutdown(Shutdown::Write).unwrap();
    assert!(read_answer(&mut third).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_worker_that_hangs_costs_its_client_an_answer_and_nobody_else() {
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let deliver = move |hint| {
        if !matches!(hint, Hint::Ping) {
            wait.recv().unwrap();
        }
    };
    let limits = Limits { answer_time: Duration::from_millis(100), ..Limits::default() };
    let health = || Health::Good("ok".to_owned());
    let address = receiver(anywhere(), limits, deliver, health).unwrap().local_addr();
    let ask = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        read_answer(&mut stream)
    };
    let close = "Connection: close\r\n";
    let answer = ask(&delivery("workflow_job", "1", QUEUED, close));
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("internal timeout, see the daemon's log"),
        "{answer}"
    );
    // The late answer goes to nobody: not to the client that has its place, nor to the next of its connection.
    for n in 0..8 {
        if n == 4 {
            go_on.send(()).unwrap();
        }
        let answer = ask(&delivery("ping", &format!("p{n}"), b"{}", close));
        assert!(answer.starts_with("HTTP/1.1 202 ") && answer.ends_with("\r\n\r\npong\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[test]
fn a_body_is_never_a_request() {
    let world = start();
    let inner = "GET /healthz HTTP/1.1\r\n\r\n".repeat(100);
    for request in ["POST / HTTP/1.1", "PUT /hooks/lxdrunner HTTP/1.1", "GET /healthz HTTP/1.1", "DELETE /x HTTP/1.1"] {
        let whole = format!("{request}\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        assert_eq!(world.ask(whole.as_bytes()).matches("HTTP/1.1 ").count(), 1, "{request}");
    }
    world.check(delivery("ping", "1", inner.as_bytes(), ""), 400, "not JSON");
    let answer = world.ask(&delivery("ping", "2", inner.as_bytes(), ""));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    // Headers that frame the request for tiny_http are the gate's own.
    let more = "Connection: upgrade\r\nUpgrade: x\r\nTE: chunked\r\nLxdrunner-Caller: ::1 metrics\r\n";
    world.check(delivery("ping", "3", b"{}", more), 202, "pong");
    let metrics = format!("GET /metrics HTTP/1.1\r\n{more}\r\n");
    world.check(metrics, 404, "nothing here");
}

#[test]
fn many_at_once_are_all_served() {
    let world = start();
    std::thread::scope(|scope| {
        for n in 0..24 {
            let world = &world;
            scope.spawn(move || world.check(delivery("workflow_job", &n.to_string(), QUEUED, ""), 202, "accepted"));
        }
    });
    world.check_hints(24);
}

#[test]
fn an_address_in_use_is_told_with_the_mend() {
    let world = start();
    let again = receiver(world.address, Limits::default(), |_| {}, || Health::Good(String::new()));
    let error = again.unwrap_err();
    assert!(
        error.to_string().contains(&world.address.to_string()) && error.to_string().contains("web_port"),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
}
