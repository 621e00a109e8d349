//! Control characters in what GitHub, LXD and jobs say: no record of the log, and no line of a command, is theirs.

use std::process::Command;

use serde_json::json;
use standin::farm::Setup;
use standin::github::{Fault, JobSpec};
use standin::lxd::Fault as LxdFault;

use super::support::*;
use super::webhook::signed;

const HOSTILE: &str = "x\n<0>lxdrunner[1]: forged \r\u{1b}[31m\u{7}\u{202e}\u{2028}\u{9b}y";

#[track_caller]
fn check(what: &str, text: &str, forged: bool) {
    let raw = |c: &char| c.is_control() && *c != '\n' || matches!(*c, '\u{202e}' | '\u{2028}');
    assert_eq!(text.chars().find(raw), None, "{what}: {text:?}");
    let line = text.split('\n').find(|line| line.starts_with("<0>"));
    assert!(line.is_none() || forged, "{what}: {text}");
}

/// A command's output on both streams.
fn run(rig: &Rig, arguments: &[&str]) -> String {
    let config = rig.scratch.0.join("config.yml");
    let run = Command::new(env!("CARGO_BIN_EXE_lxdrunner")).args(arguments).arg("-c").arg(config).output().unwrap();
    [run.stdout, run.stderr].map(|out| String::from_utf8(out).unwrap()).concat()
}

fn deliver(rig: &Rig, action: &str, runner: Option<&str>) {
    let job = json!({"id": 4711, "run_id": 1, "status": action, "labels": ["self-hosted"], "runner_name": runner, "name": HOSTILE});
    let body = json!({"action": action, "workflow_job": job, "repository": {"full_name": "acme/app", "private": true}});
    let body = body.to_string();
    let head = format!(
        "POST /hooks/lxdrunner HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-GitHub-Event: workflow_job\r\n\
         X-GitHub-Delivery: {action}\r\n{}\r\nContent-Length: {}\r\n\r\n{body}",
        signed(body.as_bytes()),
        body.len()
    );
    assert!(rig.send(head.as_bytes()).contains(" 202 "));
}

#[test]
fn no_line_is_written_by_somebody_else() {
    let rig = Rig::prepared(Plan::with("web_metrics: [127.0.0.1]"), |before| {
        before.insides.set_setup(Setup::Fails(3, format!("{HOSTILE}\nand more\n")));
        before.lxd.unwrap().faults().next("POST", "/1.0/instances", LxdFault::Status(500, error()));
        before.github.inject(Fault::status("/orgs/acme/actions/runners/generate-jitconfig", 403, HOSTILE).times(1));
    });
    let job =
        rig.github.queue(&repo(), JobSpec { name: HOSTILE.to_owned(), ..JobSpec::new(&["self-hosted", HOSTILE]) });
    rig.daemon.wait(&[&format!("job={job} "), "not launched", "forged"]);
    deliver(&rig, "queued", None);
    rig.daemon.wait(&["ERROR", "launch failed", "LXD says", "forged"]);
    rig.daemon.wait(&["launch failed", "ended with code 3", "forged"]);
    // GitHub is asked when the set-up has ended.
    rig.insides.set_setup(Setup::Works);
    rig.daemon.wait(&["launch failed", "403", "forged"]);
    let failures = run(&rig, &["failures"]);
    check("failures", &failures, false);
    let instance = failures.split_whitespace().find(|word| word.starts_with(&rig.prefix)).unwrap().to_owned();
    for arguments in [&["status"][..], &["explain", "4711"], &["explain", &format!("acme/app#{job}")], &["check"]] {
        check(arguments[0], &run(&rig, arguments), false);
    }
    // A log is shown line by line.
    let kept = run(&rig, &["failures", &instance]);
    assert!(kept.contains("forged"), "{kept}");
    check("failures", &kept, true);
    let file = std::fs::read_dir(rig.scratch.0.join("cache/failures")).unwrap().next().unwrap().unwrap().path();
    check("file", &std::fs::read_to_string(file).unwrap(), true);
    for path in ["/healthz", "/metrics"] {
        check(path, rig.get(path).1.split_once("\r\n\r\n").unwrap().1, false);
    }
    deliver(&rig, "in_progress", Some(HOSTILE));
    rig.daemon.wait(&["job=4711", "forged"]);
    rig.daemon.wait(&["job=4711", "runner=", "forged"]);
    for line in rig.daemon.log() {
        check("log", &line, false);
        assert!(line.starts_with("20"), "not a record of ours: {line}");
    }
}

fn error() -> String {
    json!({"type": "error", "error": format!("LXD says {HOSTILE}"), "error_code": 500, "metadata": null}).to_string()
}
