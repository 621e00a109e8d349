//! Every bad input that must get a clear answer and lose nothing, against the built binary. With `--nocapture` the rows
//! come out as a table: the input, and what it got.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod config;
mod controls;
mod credentials;
mod explain;
mod failures;
mod github;
mod host;
mod lxd;
#[path = "../support/mod.rs"]
mod support;
mod webhook;

use std::thread;

use lxdrunner::model::JobId;
use standin::github::Stage;
use support::*;

/// One row: the input, and the check that tells what it got.
type Row = (&'static str, Box<dyn FnOnce() -> String + Send>);

fn row(input: &'static str, check: impl FnOnce() -> String + Send + 'static) -> Row {
    (input, Box::new(check))
}

/// Tries all rows at once, and prints them. A row that fails fails the test.
fn table(kind: &str, rows: Vec<Row>) {
    let under_way: Vec<_> = rows.into_iter().map(|(input, check)| (input, thread::spawn(check))).collect();
    let mut failed = Vec::new();
    let mut text = String::new();
    for (input, thread) in under_way {
        match thread.join() {
            Ok(got) => text += &format!("| {kind} | {input} | {} |\n", got.replace('|', "\\|").trim()),
            Err(_) => failed.push(input),
        }
    }
    print!("{text}");
    assert!(failed.is_empty(), "{kind}: {failed:?}");
}

/// Who says nothing is waited for as long as a call may take: all of them at once.
#[test]
fn silence() {
    thread::scope(|scope| {
        scope.spawn(lxd::silence);
        scope.spawn(|| github::registering(github::silence()));
        scope.spawn(|| github::listing(github::silence()));
    });
}

/// The reason out of a line of the log, without what differs from run to run.
fn reason(rig: &Rig, line: &str) -> String {
    let (_, reason) = line.split_once("reason=\"").unwrap_or_else(|| panic!("no reason in {line}"));
    let reason = reason.strip_suffix('"').unwrap_or(reason).replace("\\\"", "\"");
    let lines: Vec<&str> = reason.split("\\n").collect();
    let text = match lines.as_slice() {
        [first, .., last] => format!("{first} … {last}"),
        _ => lines.concat(),
    };
    tidied(rig, &text)
}

/// Without the names that differ from run to run.
fn tidied(rig: &Rig, text: &str) -> String {
    let scratch = rig.scratch.0.display().to_string();
    text.replace(&scratch, "DIR").replace(&rig.prefix, "PREFIX").replace(&rig.github.api(), "http://GITHUB")
}

#[track_caller]
fn check_parts(text: &str, parts: &[&str]) {
    let unquoted = text.replace("\\\"", "\"");
    for part in parts {
        assert!(unquoted.contains(part), "{part:?} is not in: {text}");
    }
}

#[track_caller]
fn check_queued(rig: &Rig, job: JobId) {
    let stage = rig.github.with(|state| state.jobs[&job].stage);
    assert!(stage == Stage::Queued, "the job was lost:\n{}", rig.daemon.log().join("\n"));
}

/// Something at the config, the host or GitHub makes launches fail: it is told once with these parts and tried again,
/// for one job as for two; the jobs stay queued, and run after the mend.
#[track_caller]
fn check_launch_fails(rig: &Rig, parts: &[&str], mend: impl FnOnce(&Rig)) -> String {
    let jobs = [rig.queue(), rig.queue()];
    let line = rig.daemon.wait(&["ERROR", "launch failed; the job stays queued"]);
    check_parts(&line, parts);
    // Tried again, and not told again.
    rig.daemon.wait(&["DEBUG", "launch failed; the job stays queued"]);
    assert_eq!(rig.complaints(), [line.as_str()], "told once");
    jobs.iter().for_each(|job| check_queued(rig, *job));
    mend(rig);
    jobs.iter().for_each(|job| check_runs(rig, *job));
    reason(rig, &line)
}

/// The job runs now, and nothing is left of it.
#[track_caller]
fn check_runs(rig: &Rig, job: JobId) {
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
    let log = rig.daemon.log().join("\n");
    let token = rig.github.token();
    assert!(!log.contains(token.expose()) && !log.contains(HOOK_SECRET), "a secret is in the log");
}
