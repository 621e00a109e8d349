//! The built binary: what it prints, and the exit codes that service managers act on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    // An empty directory, so that no config file of this machine is found.
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = ("HOME", nowhere.as_os_str());
    command.args(arguments).current_dir(nowhere).env_remove("XDG_CONFIG_HOME").envs([home]).output().unwrap()
}

#[track_caller]
fn check(arguments: &[&str], code: i32, part: &str) {
    let output = run(arguments);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part), "{arguments:?}: {said}");
}

#[test]
fn exit_codes_tell_what_to_do() {
    check(&["--version"], 0, concat!("lxdrunner ", env!("CARGO_PKG_VERSION")));
    check(&["check", "--help"], 0, "Usage: lxdrunner check");
    check(&["--nonsense"], 2, "--help");
    check(&["-c", "/nowhere/config.yml"], 78, "cannot read the config file");
    check(&["serve", "-c", "/dev/null"], 78, "is empty");
    check(&["check", "-c", "/dev/null"], 78, "nothing was started");
}

/// Runs with standard output and standard error on a full disk, and returns the exit code.
fn unheard(arguments: &[&str]) -> Option<i32> {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    command.args(arguments).stdout(full()).stderr(full()).status().unwrap().code()
}

#[test]
fn who_cannot_be_heard_goes_on() {
    assert_eq!(unheard(&["--help"]), Some(0));
    assert_eq!(unheard(&["--nonsense"]), Some(2));
    assert_eq!(unheard(&["check", "-c", "/dev/null"]), Some(78));
    assert_eq!(unheard(&["demo", "--standin"]), Some(0));
    // The log too: this logs a warning of its config, then finds its port taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unheard.yml");
    let port = taken.local_addr().unwrap().port();
    std::fs::write(
        &config,
        format!(
            "pat: fake\nhooksecret: fake\nsocket: /nowhere\nweb_host: 127.0.0.1\nweb_port: {port}\nrunnermap:\n  \
             - {{name: one, labels: [self-hosted], image: any}}\n"
        ),
    )
    .unwrap();
    assert_eq!(unheard(&["serve", "-c", config.to_str().unwrap()]), Some(1));
}
