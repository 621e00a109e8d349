//! What instances that failed had to say: kept by the built daemon before it destroys them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use lxdrunner::runner::failure_logs::LOG_TAIL;
use standin::farm::Setup;
use standin::lxd::Fault;
use support::*;

/// Where the scripts and the runner in an instance write.
const RUNNER_LOG: &str = "/var/log/lxdrunner-runner.log";
const DIAGNOSTICS: &str = "/opt/lxdrunner/runner/_diag";

fn kept(rig: &Rig) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(rig.scratch.0.join("cache/failures")).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The one file that is kept of instance `name`. Of a later launch for the same job there may be another one by now.
#[track_caller]
fn kept_of(rig: &Rig, name: &str) -> (PathBuf, String) {
    let mut files = kept(rig);
    files.retain(|file| file.to_str().unwrap().ends_with(&format!("Z-{name}.txt")));
    let [file] = files.as_slice() else { panic!("{name}: {files:?}\n{}", rig.daemon.log().join("\n")) };
    (file.clone(), std::fs::read_to_string(file).unwrap())
}

#[test]
fn of_a_set_up_that_fails_the_log_is_kept_and_the_operator_is_led_there() {
    let rig = Rig::new(Plan::default());
    rig.insides.set_setup(Setup::Fails(
        7,
        "E: no such package \u{1b}[31mghp_0123456789abcdefghijABCDEFGHIJ012345\n".to_owned(),
    ));
    let job = rig.queue();
    let line = rig.daemon.wait(&["ERROR", "launch failed", "ended with code 7"]);
    let name = line.split("instance=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(line.contains(&format!(" see=\"lxdrunner failures {name}\" ")), "{line}");
    rig.daemon.wait(&[&format!("instance={name} "), "msg=removed", "see="]);
    let (file, text) = kept_of(&rig, &name);
    let starts = [format!("instance: {name}\n"), format!("job: {job}\n"), "class: small\n".to_owned()];
    assert!(starts.iter().all(|line| text.contains(line)), "{text}");
    assert!(text.contains("why: setup-runner.sh ended with code 7"), "{text}");
    assert!(text.contains("==> /var/log/lxdrunner-setup.log\nE: no such package \\x1b[31m***\n"), "{text}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    // The next one comes up, and nothing is kept of it.
    rig.insides.set_setup(Setup::Works);
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
    assert_eq!(kept(&rig), [file]);
}

/// Starts its arguments under a filter that kills for each call of the chown family, as `provision/lxdrunner.service` does.
const NO_CHOWN: &str = r#"
#include <stddef.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#define FORBID(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
int main(int count, char **arguments) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef SYS_chown
        FORBID(SYS_chown),
        FORBID(SYS_lchown),
#endif
        FORBID(SYS_fchown),
        FORBID(SYS_fchownat),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 125;
    execv(arguments[1], arguments + 1);
    return 126;
}
"#;

#[test]
fn a_failure_is_kept_where_the_unit_forbids_to_change_owners() {
    let mut rig = Rig::new(Plan::default());
    let (source, shim) = (rig.scratch.0.join("shim.c"), rig.scratch.0.join("shim"));
    std::fs::write(&source, NO_CHOWN).unwrap();
    // The build needs it, too.
    assert!(std::process::Command::new("cc").arg("-o").arg(&shim).arg(&source).status().unwrap().success());
    rig.restart_with(|config| Daemon::start_under(&shim, config));
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    // As `systemctl clean --what=cache` does.
    std::fs::remove_dir_all(rig.scratch.0.join("cache")).unwrap();
    rig.insides.set_setup(Setup::Fails(7, "no\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait(&["msg=removed", "see="]);
    assert!(!kept(&rig).is_empty());
    rig.insides.set_setup(Setup::Works);
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn what_root_left_in_the_cache_does_not_stop_the_daemons_user() {
    let mut rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.daemon.kill();
    let cache = rig.scratch.0.join("cache");
    if std::fs::metadata(&cache).unwrap().uid() != 0 {
        return;
    }
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let packages = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let packages: Vec<PathBuf> = packages.filter(|path| path.to_str().unwrap().ends_with(".tar.gz")).collect();
    let [package] = packages.as_slice() else { panic!("{packages:?}") };
    let part = PathBuf::from(format!("{}.part", package.display()));
    std::fs::write(&part, "half").unwrap();
    set_mode(package, 0o600);
    set_mode(&part, 0o600);
    std::fs::create_dir(cache.join("failures")).unwrap();
    for path in [&cache, &rig.scratch.0.join("config.yml")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    set_mode(rig.standin().socket(), 0o666);
    rig.restart_with(|config| Daemon::start_as(65534, config));
    rig.insides.set_setup(Setup::Fails(7, "no\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait(&["msg=removed", "see="]);
    assert!(!kept(&rig).is_empty());
    rig.insides.set_setup(Setup::Works);
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn of_a_start_that_lxd_refuses_lxds_own_log_is_kept() {
    let classes = Plan::default()
        .classes
        .replace("template: false", "template: false, config: {raw.idmap: both 4000000000 1000}");
    let rig = Rig::new(Plan { classes, ..Plan::default() });
    rig.queue();
    let line = rig.daemon.wait(&["ERROR", "launch failed"]);
    assert!(line.contains("forkstart the instance") && line.contains("/<instance>/lxc.conf: exit status 1"), "{line}");
    assert!(line.contains("LXD's log of the start:") && line.contains("newuidmap"), "{line}");
    rig.daemon.wait(&["msg=removed"]);
    let text = std::fs::read_to_string(&kept(&rig)[0]).unwrap();
    assert!(text.contains("exit status 1") && text.contains("ERROR    conf - newuidmap failed"), "{text}");
}

#[test]
fn of_a_runner_that_never_comes_online_the_diagnostics_are_kept_without_its_secrets() {
    let rig = Rig::new(Plan::with("provision_timeout: 2"));
    rig.insides.mute_runners(true);
    rig.queue();
    let name = rig.wait_instances(|names| names.len() == 1).remove(0);
    rig.daemon.wait(&["msg=\"runner started\""]);
    let inside = rig.standin().instance("default", &name).unwrap();
    // As long as one that is chatty for days, and all that must not be told.
    // What the start script says of the network by then, as where it was lost while a standby was frozen.
    let cut_off = "lxdrunner-start: 7.1 FAILED: cannot connect to github.example:443 from inside: \u{1b}no; try BRIDGE";
    let chatty = format!("{}\n{cut_off}\nthe runner's last line\n", "blah ".repeat(LOG_TAIL));
    inside.write_file(RUNNER_LOG, chatty.as_bytes());
    let token = "ghs_0123456789abcdefghijABCDEFGHIJ012345";
    let jit = format!("eyJ{}", "aB3/".repeat(500));
    let diagnostics = format!("ACTIONS_RUNNER_INPUT_JITCONFIG={jit}==\nAuthorization: {token}\nTLS handshake failed\n");
    for (file, text) in [
        ("Runner_20260101-000000-utc.log", "the oldest"),
        ("Runner_20260102-000000-utc.log", &diagnostics),
        ("Worker_20260102-000001-utc.log", "Bad \u{1}bytes"),
        ("../../x.log", "not a log's name"),
        ("blocks.dat", "not a log"),
    ] {
        inside.write_file(&format!("{DIAGNOSTICS}/{file}"), text.as_bytes());
    }
    let line = rig.daemon.wait(&[
        "WARN",
        &format!("instance={name} "),
        "come online within provision_timeout: cannot connect to github.example:443 from inside: ",
        "msg=removed",
        &format!("see=\"lxdrunner failures {name}\""),
    ]);
    assert!(!line.contains("BRIDGE") && !line.contains('\u{1b}'), "{line}");
    let (_, text) = kept_of(&rig, &name);
    let why = "why: its runner did not come online within provision_timeout: cannot connect to github.example:443 ";
    assert!(text.contains(why), "{text}");
    assert!(!text.contains("blah"), "a line is kept whole or not at all: half a credential would not be known for one");
    assert!(text.contains("the runner's last line\n") && text.contains("TLS handshake failed"), "{text}");
    assert!(text.contains("Worker_20260102") && !text.contains("the oldest") && !text.contains("not a log"), "{text}");
    for secret in ["aB3/aB3", token, HOOK_SECRET] {
        assert!(!text.contains(secret), "{secret} was kept: {text}");
    }
    assert!(text.len() < 2 * LOG_TAIL + 4096, "{} bytes", text.len());
}

#[test]
fn only_the_newest_are_kept_and_one_of_each_name() {
    let rig = Rig::new(Plan::with("failures_kept: 3"));
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let directory = rig.scratch.0.join("cache/failures");
    std::fs::create_dir(&directory).unwrap();
    for old in ["20260102T030405Z-ci-7-1.txt", "20260103T030405Z-ci-8-1.txt", "20260101T030405Z-ci-9-1.txt"] {
        std::fs::write(directory.join(old), "when: long ago\n").unwrap();
    }
    rig.insides.set_setup(Setup::Fails(1, "no\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait_count(&["msg=removed", &format!("-{job}-"), "see="], 2);
    let files: Vec<String> = kept(&rig).iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let [first, second, new] = files.as_slice() else { panic!("{files:?}") };
    assert!(first.contains("ci-7-1") && second.contains("ci-8-1") && new.contains(&format!("-{job}-")), "{files:?}");
}

#[test]
fn a_cache_that_cannot_be_written_to_and_0_keep_nothing_and_nothing_from_going_on() {
    for (config, told) in [("failures_kept: 0", 0), ("", 1)] {
        let rig = Rig::new(Plan::with(config));
        rig.insides.set_setup(Setup::Fails(1, "no\n".to_owned()));
        rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
        std::fs::write(rig.scratch.0.join("cache/failures"), "in the way").unwrap();
        let job = rig.queue();
        rig.daemon.wait(&["launch failed"]);
        rig.daemon.wait(&["msg=removed"]);
        rig.insides.set_setup(Setup::Works);
        assert_eq!(rig.wait_done(job), "success");
        assert_eq!(rig.daemon.count(&["see="]), told);
        assert_eq!(rig.daemon.count(&["INFO", "could not be kept in"]) > 0, told > 0);
    }
}

/// What the command says: the exit code, standard output and standard error.
fn ask(rig: &Rig, arguments: &[&str]) -> (i32, String, String) {
    let config = rig.scratch.0.join("config.yml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    let run = command.arg("failures").args(arguments).arg("-c").arg(config).output().unwrap();
    let [out, err] = [run.stdout, run.stderr].map(|said| String::from_utf8(said).unwrap());
    (run.status.code().unwrap(), out, err)
}

#[test]
fn the_command_lists_them_and_shows_one_and_nothing_in_it_is_an_order_to_a_terminal() {
    let rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let place = rig.scratch.0.join("cache/failures");
    let (code, out, err) = ask(&rig, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("no instance has failed, as far as {} tells\n", place.display()));
    let (code, out, err) = ask(&rig, &["x-7-1"]);
    assert!(
        code == 1 && out.is_empty() && err.starts_with("lxdrunner: of x-7-1 nothing is kept: no instance"),
        "{err}"
    );

    rig.insides.set_setup(Setup::Fails(7, "Get:1 …\rGet:2 \u{1b}]0;owned\u{7}\nE: disk on fire\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait(&["msg=removed", "see="]);
    rig.insides.set_setup(Setup::Works);
    rig.wait_done(job);
    let name = format!("{}-{job}-1", rig.prefix);
    let (code, out, _) = ask(&rig, &[]);
    let [head, row] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert!(code == 0 && head.starts_with("WHEN ") && head.ends_with("  WHY"), "{out}");
    assert_eq!(columns[1..6], [&name, "small", &job.to_string(), "1", "KiB"]);
    assert!(row.ends_with("setup-runner.sh ended with code 7"), "{row}");
    for asked in [name.as_str(), &job.to_string()] {
        let (code, out, err) = ask(&rig, &[asked]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(
            out.contains("Get:1 …\nGet:2 \\x1b]0;owned\\x07\nE: disk on fire\n") && !out.contains('\u{1b}'),
            "{out}"
        );
    }
    let (code, out, err) = ask(&rig, &["nobody"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, format!("lxdrunner: of nobody nothing is kept; there are: {name}\n"));
}

#[test]
fn an_instance_that_cannot_be_removed_is_named_until_it_is_gone_and_the_others_go_on() {
    let rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.insides.set_setup(Setup::Fails(1, "no\n".to_owned()));
    let faults = rig.standin().faults();
    let refused =
        |what: &str| Fault::Status(500, format!(r#"{{"type":"error","error_code":500,"error":"Failed to {what}"}}"#));
    rig.github.hook_by_itself(false);
    let job = rig.queue();
    let name = format!("{}-{job}-1", rig.prefix);
    // The first change of its state is the start.
    faults.add("PUT", &format!("/1.0/instances/{name}/state"), 1, usize::MAX, refused("stop"));
    faults.add("DELETE", &format!("/1.0/instances/{name}"), 0, usize::MAX, refused("delete"));
    rig.github.hook_by_itself(true);
    rig.github.deliver(job, "queued");
    let about = format!("instance={name} ");
    let first = rig.daemon.wait(&["INFO", &about, "could not be removed", "failures=1", "next_try="]);
    // Why it is not deleted is that it runs.
    assert!(first.contains("Failed to stop"), "{first}");
    assert!(!rig.health().1.contains("stuck="), "a hiccup is none: {}", rig.health().1);
    rig.insides.set_setup(Setup::Works);
    rig.daemon.wait(&["ERROR", &about, "could not be removed", "failures=5", "next_try=", "Failed to stop"]);
    let (status, health) = rig.health();
    assert_eq!(status, 200, "it serves: {health}");
    let told = format!(" stuck=1 stuck_instances=\"{name}: 5 tries: stop instance {name}: Failed to stop");
    assert!(health.contains(&told), "{health}");
    // Jobs go on meanwhile, the one that it was launched for included.
    assert_eq!(rig.wait_done(job), "success");
    assert_eq!(rig.daemon.count(&[&about, "could not be removed", "failures=2", "DEBUG"]), 1);
    faults.clear();
    rig.daemon.wait(&["WARN", &about, "msg=\"removed after failed attempts\""]);
    rig.wait_instances(|names| !names.contains(&name));
    assert!(!rig.health().1.contains("stuck"), "{}", rig.health().1);
    // Its logs are kept once, however often it was tried.
    kept_of(&rig, &name);
}
