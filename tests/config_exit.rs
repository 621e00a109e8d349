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

#[test]
fn while_the_service_is_down_its_secrets_are_away() {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("of-the-service.yml");
    let text = |more: &str| {
        format!(
            "pat_file: /run/credentials/none.service/pat\nhooksecret_file: /run/credentials/none.service/hooksecret\n{more}\
             socket: /nowhere\nrunnermap: [{{name: one, labels: [self-hosted], image: any}}]\n"
        )
    };
    let path = config.to_str().unwrap();
    std::fs::write(&config, text("")).unwrap();
    for command in [&["status"][..], &["check"], &["explain", "7"], &["hooks", "status"], &["bake"]] {
        check(&[command, &["-c", path]].concat(), 1, "the service does not run");
        check(&[command, &["-c", path]].concat(), 1, "systemctl status lxdrunner");
    }
    // The service itself says what it lacks, and so does everybody where something else is wrong, too.
    check(&["serve", "-c", path], 78, "LoadCredential");
    std::fs::write(&config, text("prefix: '-'\n")).unwrap();
    check(&["status", "-c", path], 78, "prefix");
}

#[test]
fn a_secret_is_never_to_be_opened_to_more_users() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let home = std::env::temp_dir().join(format!("lxdrunner-secret-{}", std::process::id()));
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (binary, config, pat) = (home.join("lxdrunner"), home.join("config.yml"), home.join("pat"));
    // Not by this process: a child that another test forks meanwhile would keep the copy open for writing ("Text file busy").
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_lxdrunner")).arg(&binary).status().unwrap().success());
    std::fs::write(&config, "pat_file: pat\nhooksecret: s\nrunnermap: []\n").unwrap();
    std::fs::write(&pat, "x").unwrap();
    std::fs::set_permissions(&pat, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(&binary);
    // Root reads it all the same.
    if std::fs::metadata("/proc/self").is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0) {
        command.uid(65_534).gid(65_534);
    }
    let output = command.args(["status", "-c"]).arg(&config).current_dir("/").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    assert!(said.contains("run this command with sudo") && !said.contains("let the user"), "{said}");
}

/// Runs with standard output and standard error on a full disk, and returns the exit code.
fn unheard(arguments: &[&str]) -> Option<i32> {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    command.args(arguments).stdout(full()).stderr(full()).status().unwrap().code()
}

#[test]
fn a_command_whose_output_has_no_reader_goes_on_and_a_daemon_without_its_log_ends() {
    assert_eq!(unheard(&["--help"]), Some(0));
    assert_eq!(unheard(&["--nonsense"]), Some(2));
    assert_eq!(unheard(&["check", "-c", "/dev/null"]), Some(78));
    // This logs a warning of its config, before it would find its port taken and end with 1.
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
    assert_eq!(unheard(&["serve", "-c", config.to_str().unwrap()]), None, "it does not end by itself");
}
