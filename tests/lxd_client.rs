//! The LXD client against a daemon that misbehaves: broken, late, lying, gone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lxdrunner::lxd::{Error, ErrorKind, Exec, Lxd, NewInstance, Patience, Progress, RemoteImage, Source};
use lxdrunner::model::InstanceType;
use standin::lxd::{Download, ExecOutcome, Fault, ImageEntry, LxdStandin, Options};

const PATIENCE: Duration = Duration::from_secs(30);
/// A time that passes, in the tests that are about time passing.
const MOMENT: Duration = Duration::from_millis(50);

struct TempDir(PathBuf);

impl TempDir {
    fn new(case: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("lxdrunner-client-{}-{case}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn standin(case: &str) -> (TempDir, LxdStandin, Lxd) {
    let dir = TempDir::new(case);
    let standin = LxdStandin::start(&dir.0).unwrap();
    let lxd = Lxd::new(standin.socket());
    (dir, standin, lxd)
}

fn new_instance(name: &str) -> NewInstance {
    NewInstance {
        name: name.to_owned(),
        kind: InstanceType::Container,
        source: Source::Alias("dev".to_owned()),
        profiles: vec!["default".to_owned()],
        config: Default::default(),
        devices: Default::default(),
        ephemeral: true,
    }
}

#[track_caller]
fn fails_with<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Err(error) => {
            assert_eq!(error.kind, kind, "{error}");
            error
        }
        Ok(value) => panic!("{value:?} instead of {kind:?}"),
    }
}

/// A daemon of one's own: each connection is handled by `serve`, one after another, with its number.
fn daemon(case: &str, connections: usize, serve: impl Fn(usize, UnixStream) + Send + 'static) -> (TempDir, Lxd) {
    let dir = TempDir::new(case);
    let socket = dir.0.join("unix.socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().take(connections).enumerate() {
            serve(number, stream.unwrap());
        }
    });
    (dir, Lxd::new(socket))
}

/// Reads a request's head, byte by byte so that nothing behind it is taken.
fn read_head(stream: &mut UnixStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

fn answer(json: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced_without_a_word() {
    let (_dir, standin, lxd) = standin("idle");
    lxd.server().unwrap();
    standin.close_connections();
    lxd.server().unwrap();
    standin.close_connections();
    // Also where a repeat would not be harmless: nothing was sent on the closed one.
    let operation = lxd.create("default", "", &new_instance("a")).unwrap();
    lxd.wait(&operation, PATIENCE).unwrap();
    assert_eq!(standin.faults().count("POST", "/1.0/instances"), 1);
}

#[test]
fn only_a_get_on_a_kept_connection_is_repeated_and_only_once() {
    let (_dir, standin, lxd) = standin("repeat");
    let faults = standin.faults();
    let count = || faults.count("GET", "/1.0");

    // On a fresh connection nothing can be stale.
    faults.next("GET", "/1.0", Fault::Close);
    fails_with(lxd.server(), ErrorKind::Unreachable);
    assert_eq!(count(), 1);

    lxd.server().unwrap();
    faults.next("GET", "/1.0", Fault::Close);
    lxd.server().unwrap();
    assert_eq!(count(), 4);

    faults.add("GET", "/1.0", 0, 2, Fault::Close);
    fails_with(lxd.server(), ErrorKind::Unreachable);
    assert_eq!(count(), 6);

    // Once a byte of the answer was there, it is no stale connection.
    lxd.server().unwrap();
    faults.next("GET", "/1.0", Fault::CutAfter(1));
    fails_with(lxd.server(), ErrorKind::Unreachable);
    assert_eq!(count(), 8);

    // What changes something is never sent twice.
    lxd.server().unwrap();
    faults.next("POST", "/1.0/instances", Fault::Close);
    fails_with(lxd.create("default", "", &new_instance("a")), ErrorKind::Unreachable);
    assert_eq!(faults.count("POST", "/1.0/instances"), 1);
    assert!(standin.instance_names("default").is_empty());
}

#[test]
fn an_answer_that_is_cut_off_anywhere_is_an_error() {
    let (_dir, standin, lxd) = standin("cut");
    lxd.wait(&lxd.create("default", "", &new_instance("a")).unwrap(), PATIENCE).unwrap();
    let mut most = 0;
    loop {
        standin.faults().next("GET", "/1.0/instances/a", Fault::CutAfter(most));
        // A client of its own each time: on a kept connection a cut before the first byte is repeated.
        let result = Lxd::new(standin.socket()).instance("default", "a");
        if result.is_ok() {
            break;
        }
        fails_with(result, ErrorKind::Unreachable);
        most += 1;
    }
    assert!(most > 1000, "{most}");
}

#[test]
fn what_is_done_before_the_connection_breaks_is_done() {
    let (_dir, standin, lxd) = standin("done");
    standin.faults().next("POST", "/1.0/instances", Fault::CutAfter(0));
    fails_with(lxd.create("default", "", &new_instance("a")), ErrorKind::Unreachable);
    assert!(standin.wait_until("default", PATIENCE, |names| names == ["a"]));
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_at_the_deadline() {
    let (_dir, standin, lxd) = standin("stall");
    standin.faults().next("POST", "/1.0/instances/a/files", Fault::Stall);
    let pushed = lxd.push_file("default", "a", "/x", 0o644, &mut &b"x"[..], 1, MOMENT);
    fails_with(pushed, ErrorKind::Timeout);
    // The connection on which an answer is outstanding is not used again.
    assert_eq!(lxd.instance("default", "a").unwrap(), None);
    standin.faults().next("POST", "/1.0/instances/a/files", Fault::Delay(PATIENCE));
    let pushed = lxd.push_file("default", "a", "/x", 0o644, &mut &b"x"[..], 1, MOMENT);
    fails_with(pushed, ErrorKind::Timeout);
}

#[test]
fn a_deadline_is_for_the_call_and_not_for_each_byte() {
    let (_dir, lxd) = daemon("drip", 1, |_, mut stream| {
        read_head(&mut stream);
        // Ends when the client has hung up.
        for byte in answer("{}").iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    fails_with(lxd.push_file("default", "a", "/x", 0o644, &mut &b""[..], 0, MOMENT), ErrorKind::Timeout);
}

#[test]
fn a_deadline_holds_while_the_daemon_does_not_take_what_is_sent() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let holder = Arc::clone(&held);
    let (_dir, lxd) = daemon("full", 1, move |_, mut stream| {
        read_head(&mut stream);
        // Kept open, and never read from again.
        holder.lock().unwrap().push(stream);
    });
    let mut endless = std::io::repeat(b'x');
    let pushed = lxd.push_file("default", "a", "/x", 0o644, &mut endless, u64::MAX, MOMENT);
    fails_with(pushed, ErrorKind::Timeout);
}

#[test]
fn a_refusal_that_comes_before_all_was_sent_is_heard() {
    let (_dir, lxd) = daemon("early", 1, |_, mut stream| {
        read_head(&mut stream);
        let body = r#"{"type":"error","error":"Not Found","error_code":404,"metadata":null}"#;
        let head = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).unwrap();
    });
    let mut endless = std::io::repeat(b'x');
    let pushed = lxd.push_file("default", "a", "/x", 0o644, &mut endless, 1 << 40, PATIENCE);
    let error = fails_with(pushed, ErrorKind::NotFound);
    assert!(error.message.contains("Not Found"), "{error}");
}

#[test]
fn bytes_that_nobody_asked_for_end_the_connection() {
    let (_dir, lxd) = daemon("smuggled", 2, |number, mut stream| {
        while read_head(&mut stream).is_some() {
            let json = format!(r#"{{"type":"sync","metadata":[{{"name":"of-connection-{number}"}}]}}"#);
            let evil = answer(r#"{"type":"sync","metadata":[{"name":"evil"}]}"#);
            let extra = if number == 0 { evil } else { Vec::new() };
            if stream.write_all(&[answer(&json), extra].concat()).is_err() {
                return;
            }
        }
    });
    let names = || -> Vec<String> { lxd.projects().unwrap().into_iter().map(|project| project.name).collect() };
    assert_eq!(names(), ["of-connection-0"]);
    assert_eq!(names(), ["of-connection-1"]);
    assert_eq!(names(), ["of-connection-1"]);
}

#[test]
fn what_is_not_http_is_malformed() {
    for garbage in ["SSH-2.0-OpenSSH\r\n", "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "\u{0}\u{1}\n"]
    {
        let (_dir, lxd) = daemon("garbage", 1, move |_, mut stream| {
            read_head(&mut stream);
            stream.write_all(garbage.as_bytes()).unwrap();
        });
        let error = fails_with(lxd.server(), ErrorKind::Malformed);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn the_listing_of_a_directory_in_an_instance_has_a_cap_of_its_own() {
    let check = |names: usize, expected: Option<usize>| {
        let names = vec!["name".to_owned(); names];
        let json = serde_json::json!({"type": "sync", "metadata": names}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nX-LXD-type: directory\r\nContent-Length: {}\r\n\r\n", json.len());
        let (_dir, lxd) = daemon("listing", 1, move |_, mut stream| {
            read_head(&mut stream);
            // Who stops reading at the cap closes the connection.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(json.as_bytes()));
        });
        let listed = lxd.list_directory("default", "a", "/x", PATIENCE);
        assert_eq!(listed.ok().map(|names| names.unwrap().len()), expected);
    };
    check(100_000, Some(100_000));
    check(200_000, None);
}

#[test]
fn answers_mean_what_their_status_says_and_bodies_are_not_trusted() {
    let (_dir, standin, lxd) = standin("status");
    let check = |status: u16, body: &str, kind: ErrorKind| {
        standin.faults().next("GET", "/1.0", Fault::Status(status, body.to_owned()));
        let shown: String = body.chars().take(60).collect();
        assert_eq!(lxd.server().map_err(|error| error.kind), Err(kind), "{status} {shown:?}");
    };
    let refusal = |code: u16| format!(r#"{{"type":"error","error":"why","error_code":{code},"metadata":null}}"#);
    check(400, &refusal(400), ErrorKind::Refused(400));
    check(401, &refusal(401), ErrorKind::Forbidden);
    check(403, &refusal(403), ErrorKind::Forbidden);
    check(404, &refusal(404), ErrorKind::NotFound);
    check(409, &refusal(409), ErrorKind::Conflict);
    check(412, &refusal(412), ErrorKind::PreconditionFailed);
    check(500, &refusal(500), ErrorKind::Refused(500));
    check(503, "", ErrorKind::Refused(503));
    check(500, "<html>proxy</html>", ErrorKind::Refused(500));
    check(404, "\u{fffd}{", ErrorKind::NotFound);
    // A long poll has sent its 200 before it knows better.
    check(200, &refusal(404), ErrorKind::NotFound);
    check(200, &refusal(500), ErrorKind::Refused(500));
    check(200, "", ErrorKind::Malformed);
    check(200, "<html>", ErrorKind::Malformed);
    check(200, "{}", ErrorKind::Malformed);
    check(200, "[]", ErrorKind::Malformed);
    check(200, r#"{"type":"sync"}"#, ErrorKind::Malformed);
    check(200, r#"{"type":"sync","metadata":null}"#, ErrorKind::Malformed);
    check(200, r#"{"type":"sync","metadata":"text"}"#, ErrorKind::Malformed);
    check(200, r#"{"type":"sync","metadata":{"environment":7}}"#, ErrorKind::Malformed);
    check(200, r#"{"type":"sync","metadata":{"auth":"trusted"}"#, ErrorKind::Malformed);
    check(200, &"[".repeat(1_000_000), ErrorKind::Malformed);
    check(200, &format!(r#"{{"type":"sync","metadata":{{"x":{}"#, "[".repeat(100_000)), ErrorKind::Malformed);
    // And the next call is none the worse for it.
    lxd.server().unwrap();
}

#[test]
fn an_error_names_what_was_tried_what_came_back_and_the_fix() {
    let dir = TempDir::new("mend");
    let missing = Lxd::new(dir.0.join("absent.socket"));
    let error = fails_with(missing.server(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("absent.socket") && error.message.contains("running?"), "{error}");
    assert!(std::error::Error::source(&error).is_some());

    let refusing = dir.0.join("refusing.socket");
    drop(UnixListener::bind(&refusing).unwrap());
    let error = fails_with(Lxd::new(&refusing).server(), ErrorKind::Unreachable);
    assert!(error.message.contains("running?"), "{error}");

    let file = dir.0.join("file");
    std::fs::write(&file, "").unwrap();
    fails_with(Lxd::new(file).server(), ErrorKind::Unreachable);
    let long = dir.0.join("x".repeat(200));
    fails_with(Lxd::new(long).server(), ErrorKind::Unreachable);

    let standin = LxdStandin::start(&dir.0).unwrap();
    let lxd = Lxd::new(standin.socket());
    let error = fails_with(lxd.delete("default", "gone-1"), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "delete instance gone-1: Instance not found (HTTP 404)");
    lxd.wait(&lxd.create("default", "", &new_instance("a")).unwrap(), PATIENCE).unwrap();
    let clash = lxd.create("default", "", &new_instance("a")).and_then(|operation| lxd.wait(&operation, PATIENCE));
    let error = fails_with(clash, ErrorKind::OperationFailed);
    assert!(error.to_string().starts_with("create instance a: "), "{error}");
}

#[test]
fn content_that_cannot_be_read_is_told_apart_and_its_cause_kept() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let (_dir, standin, lxd) = standin("content");
    lxd.wait(&lxd.create("default", "", &new_instance("a")).unwrap(), PATIENCE).unwrap();
    let pushed = lxd.push_file("default", "a", "/opt/x", 0o644, &mut Broken, 10, PATIENCE);
    let error = fails_with(pushed, ErrorKind::Content);
    assert!(error.message.contains("the disk is gone"), "{error}");
    // Half a file does not count: the stand-in, like LXD, makes nothing of a request that is not whole.
    assert_eq!(standin.instance("default", "a").unwrap().read_file("/opt/x"), None);
    assert_eq!(lxd.pull_file_tail("default", "a", "/opt/x", 10, Duration::from_secs(5)).unwrap(), None);
}

#[test]
fn many_threads_share_one_client() {
    let (_dir, standin, lxd) = standin("shared");
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let lxd = &lxd;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("t{thread}-{round}");
                    lxd.wait(&lxd.create("default", "", &new_instance(&name)).unwrap(), PATIENCE).unwrap();
                    assert_eq!(lxd.instance("default", &name).unwrap().unwrap().0.name, name);
                }
            });
        }
    });
    assert_eq!(standin.instance_names("default").len(), 160);
}

/// No progress for a second is too long, a minute is too long in all.
fn impatience<'a>(whole: Duration, seen: &'a dyn Fn(&Progress)) -> Patience<'a> {
    Patience { quiet: Duration::from_secs(1), until: Instant::now() + whole, seen }
}

#[test]
fn an_image_is_waited_for_while_lxd_gets_on_with_it() {
    let (_dir, standin, lxd) = standin("fetch");
    standin.serve_image(ImageEntry::container("big"));
    let image = RemoteImage {
        server: "https://images.example",
        protocol: "simplestreams",
        alias: "big",
        kind: InstanceType::Container,
    };
    let fetch = |whole: Duration, seen: &dyn Fn(&Progress)| {
        lxd.fetch_image("default", &image, &impatience(whole, seen)).map_err(|error| (error.kind, error.message))
    };
    // Each look finds it further on, for longer than a second.
    standin.set_downloads(Download::Slow(4));
    let told = Mutex::new(Vec::new());
    assert!(fetch(PATIENCE, &|progress| told.lock().unwrap().push(progress.clone())).is_ok());
    let told = told.into_inner().unwrap();
    assert_eq!(told.first(), Some(&Progress { status: "rootfs: 97% (1.49MB/s)".to_owned(), made: true }), "{told:?}");
    // It stands still; or gets on for too long.
    standin.set_downloads(Download::Slow(50));
    assert_eq!(fetch(Duration::from_secs(3), &|_| {}).unwrap_err().0, ErrorKind::Timeout);
    let (_dir, standin, lxd) = self::standin("stall");
    standin.serve_image(ImageEntry::container("big"));
    standin.set_downloads(Download::Stalls);
    let error = fails_with(lxd.fetch_image("default", &image, &impatience(PATIENCE, &|_| {})), ErrorKind::Stalled);
    let told = "no progress for 1 s, its status stays \"rootfs: 43% (1.49MB/s)\"";
    assert_eq!(error.to_string(), format!("fetch image big from https://images.example: {told}"));
}

#[test]
fn who_waits_for_an_image_that_another_operation_fetches_sees_the_progress_of_that_one() {
    let (_dir, standin, lxd) = standin("fetch-two");
    standin.serve_image(ImageEntry::container("big"));
    standin.set_downloads(Download::Slow(20));
    let (server, kind) = ("https://images.example", InstanceType::Container);
    let image = RemoteImage { server, protocol: "simplestreams", alias: "big", kind };
    let fetch = || lxd.fetch_image("default", &image, &impatience(PATIENCE, &|_| {}));
    std::thread::scope(|scope| {
        let both = [scope.spawn(fetch), scope.spawn(fetch)];
        both.into_iter().for_each(|fetched| assert!(fetched.join().unwrap().is_ok()));
    });
}

#[test]
fn a_command_is_waited_for_while_it_prints() {
    let dir = TempDir::new("prints");
    let exec = |view: &_, command: &[String], _: &_| {
        let view: &standin::lxd::InstanceView = view;
        let lines = command[1].parse().unwrap();
        // The last line is followed by silence.
        match (0..lines).all(|_| view.print("a line\n")) && command[0] == "prints" {
            true => ExecOutcome::code(0),
            false => {
                view.wait_for_stop();
                ExecOutcome::code(137)
            }
        }
    };
    let standin = LxdStandin::start_with(&dir.0, Options { exec: Box::new(exec), ..Options::default() }).unwrap();
    let lxd = Lxd::new(standin.socket());
    lxd.wait(&lxd.create("default", "", &new_instance("a")).unwrap(), PATIENCE).unwrap();
    lxd.wait(&lxd.set_state("default", "a", "start", false).unwrap(), PATIENCE).unwrap();
    let run = |command: [&str; 2], whole: Duration| {
        let exec = Exec { command: command.map(str::to_owned).to_vec(), environment: Default::default(), record: true };
        let running = lxd.start_exec("default", "a", &exec).unwrap();
        lxd.end_exec(("default", "a"), &running, &impatience(whole, &|_| {})).map(|ended| ended.code)
    };
    assert_eq!(run(["prints", "4"], PATIENCE).unwrap(), 0);
    fails_with(run(["hangs", "0"], PATIENCE), ErrorKind::Stalled);
    fails_with(run(["hangs", "3"], PATIENCE), ErrorKind::Stalled);
    fails_with(run(["prints", "1000"], Duration::from_secs(3)), ErrorKind::Timeout);
}
