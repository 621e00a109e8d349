//! The demo, as a newcomer runs it: it says what happens, and leaves nothing behind, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use lxdrunner::lxd::Lxd;
use lxdrunner::model::keys;
use standin::testing::{Scratch, real_lxd};

/// Long enough for a loaded machine; nothing waits for its end when all is well.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

fn demo(temp: &Path, arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let daemon = program.with_file_name("lxdrunner");
    assert!(daemon.exists(), "there is no {}: cargo build", daemon.display());
    let mut command = Command::new(program);
    command.args(arguments).env("TMPDIR", temp).env_remove("LXDRUNNER_LOG").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn check_story(output: &Output, temp: &Path) {
    let said = text(output);
    assert!(output.status.success(), "{said}");
    let steps = [
        "is queued at GitHub",
        "accepted",
        "registered",
        "its runner is started",
        "runs and asks for a job",
        "ends: success",
        "removed by GitHub",
        "no instance and no registration is left",
        "Nothing is left",
    ];
    // That a standby's runner is started is noted a moment after, when the stand-in's jobs are over already.
    let told = |step: &&str| *step != "its runner is started" || !said.contains("claimed, which waited frozen");
    for step in steps.into_iter().filter(told) {
        assert!(said.contains(step), "no {step:?} in:\n{said}");
    }
    assert_eq!(std::fs::read_dir(temp).unwrap().count(), 0, "files are left");
}

#[test]
fn with_a_stand_in_it_says_so_and_tells_the_whole_story() {
    let temp = Scratch::new();
    let output = demo(&temp.0, &["--standin", "--jobs", "3", "--rounds", "2"]).output().unwrap();
    check_story(&output, &temp.0);
    let said = text(&output);
    assert!(said.contains("stand-in, as asked for: no container is started"), "{said}");
    assert_eq!(said.matches("ends: success").count(), 6);
    assert!(said.contains("median of 2 rounds with 3 jobs"), "{said}");
}

#[test]
fn standbys_are_claimed_round_after_round() {
    let temp = Scratch::new();
    let output = demo(&temp.0, &["--standin", "--from", "standby", "--jobs", "2", "--rounds", "2"]).output().unwrap();
    check_story(&output, &temp.0);
    let said = text(&output);
    assert_eq!(said.matches("claimed, which waited frozen").count(), 4, "{said}");
}

#[test]
fn on_a_real_lxd() {
    let Some((socket, image)) = real_lxd() else { return };
    let temp = Scratch::new();
    let mut command = demo(&temp.0, &["--socket", socket.to_str().unwrap(), "--image", &image]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let prefix = format!("demo-{}", child.id());
    let output = child.wait_with_output().unwrap();
    check_story(&output, &temp.0);
    assert!(text(&output).contains("made, a copy of the template"), "{}", text(&output));
    assert!(text(&output).contains("Real containers"), "{}", text(&output));
    // In a cluster its template was one.
    let images = Lxd::new(&socket).images("default").unwrap();
    let left = images.iter().find(|image| image.properties.get(keys::OWNER) == Some(&prefix));
    assert_eq!(left, None);
}

#[test]
fn an_image_that_is_not_there_is_named_with_the_mend() {
    let Some((socket, _)) = real_lxd() else { return };
    let temp = Scratch::new();
    let output = demo(&temp.0, &["--socket", socket.to_str().unwrap(), "--image", "no-such"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("no image \"no-such\"") && text(&output).contains("lxc image copy"),
        "{}",
        text(&output)
    );
}

/// Ends the process with a signal when its output says something, and returns its pid.
fn end_at(mut child: Child, line: &str, signal: &str) -> u32 {
    let pid = child.id();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|said| said.contains(line)).unwrap_or_else(|| panic!("it never said {line:?}"));
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    // The rest of what it says; the end of it is the end of the process.
    lines.for_each(drop);
    let status = child.wait().unwrap();
    assert!(!status.success(), "{status}");
    pid
}

/// Waits until the process's daemon, its only child, is gone too.
#[track_caller]
fn wait_no_daemon(temp: &Path) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let ours = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(temp.to_str().unwrap())
    };
    while std::fs::read_dir("/proc").unwrap().flatten().any(ours) {
        assert!(std::time::Instant::now() < deadline, "the daemon is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let Some((socket, image)) = real_lxd() else { return };
    let temp = Scratch::new();
    let mut command = demo(&temp.0, &["--jobs", "2", "--socket", socket.to_str().unwrap(), "--image", &image]);
    let pid = end_at(command.stdout(Stdio::piped()).spawn().unwrap(), "registered", "-INT");
    assert_eq!(std::fs::read_dir(&temp.0).unwrap().count(), 0, "files are left");
    let left = Lxd::new(&socket).instances("default", &format!("demo-{pid}")).unwrap();
    assert_eq!(left.len(), 0, "{left:?}");
    wait_no_daemon(&temp.0);
}

#[test]
fn even_a_kill_takes_the_daemon_along() {
    let temp = Scratch::new();
    let mut command = demo(&temp.0, &["--standin", "--rounds", "100"]);
    end_at(command.stdout(Stdio::piped()).spawn().unwrap(), "Round 2", "-KILL");
    wait_no_daemon(&temp.0);
}
