//! Config files of the Python daemon that lxdrunner replaces: each key and value is taken with the meaning that it had there,
//! or refused with the line to write instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lxdrunner::config::{Config, ImageRef, WebTls};
use lxdrunner::model::{InstanceType, Product, RunnerArch};

/// A file in the form of its last version, with all that it requires.
const FILE: &str = "\
pat: a-token-for-the-tests
hooksecret: a-secret-for-the-tests
prefix: lxdrunner
max_workers: 10
web_tls: True
remotes:
  main:
    addr:
    protocol: lxd
  images:
    addr: https://images.linuxcontainers.org
    protocol: simplestreams
runnermap:
  - name: one
    labels: [ self-hosted ]
    image: images:debian/11/cloud
    type: container
    runner_arch: x64
    runner_os: linux
";

/// A directory of this test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("lxdrunner-config-original-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What becomes of a value.
enum Fate {
    /// It is taken, and this holds.
    Taken(fn(&Config) -> bool),
    /// It is taken, and a warning starts with the first and has the second in it.
    Warned(&'static str, &'static str),
    /// The only error starts with the first (`LINE: KEY: what`) and says the second.
    Refused(&'static str, &'static str),
}
use Fate::{Refused, Taken, Warned};

/// `text` has its fate; there is no other error.
#[track_caller]
fn check_text(directory: &Directory, text: &str, fate: &Fate) {
    let path = directory.write("config.yml", text);
    let place = format!("{}:", path.display());
    let told = |line: String| line.strip_prefix(&place).unwrap_or(&line).to_owned();
    match (Config::load(&path), fate) {
        (Ok((config, _)), Taken(holds)) => assert!(holds(&config), "{text}\n{config:#?}"),
        (Ok((_, warnings)), Warned(start, part)) => {
            let warnings: Vec<String> = warnings.iter().map(|w| told(w.to_string())).collect();
            assert!(warnings.iter().any(|w| w.starts_with(start) && w.contains(part)), "{text}\n{warnings:#?}");
        }
        (Err(errors), Refused(start, part)) => {
            let errors = errors.to_string();
            let errors: Vec<String> = errors.lines().map(|line| told(line.to_owned())).collect();
            let [one] = errors.as_slice() else { panic!("{text}\n{errors:#?}") };
            assert!(one.starts_with(start) && one.contains(" — ") && one.contains(part), "{text}\n{one}");
        }
        (Ok(_), Refused(start, _)) => panic!("{text}\nis taken, and not refused: {start}"),
        (Err(errors), _) => panic!("{text}\n{errors}"),
    }
}

/// One line of the file replaced by others, and what becomes of it.
type Row = (&'static str, &'static str, Fate);

const TOP: &[Row] = &[
    // Values in quotes, and the words of YAML 1.1: coerced there.
    ("web_tls: True", "web_tls: \"True\"", Taken(|c| c.web_tls == WebTls::SelfSigned)),
    ("web_tls: True", "web_tls: yes", Taken(|c| c.web_tls == WebTls::SelfSigned)),
    ("web_tls: True", "web_tls: 'off'", Taken(|c| c.web_tls == WebTls::Off)),
    ("web_tls: True", "web_tls: 1", Refused("5: web_tls: is a number", "write true, false")),
    ("max_workers: 10", "max_workers: \"7\"", Taken(|c| c.max_workers == 7 && c.classes[0].max_workers == 7)),
    ("max_workers: 10", "max_workers: 10.0", Refused("4: max_workers: is a number", "a whole number")),
    ("prefix: lxdrunner", "prefix: lxdrunner\nweb_port: '8080'", Taken(|c| c.web_port == 8080)),
    // Defaults that were others there.
    ("web_tls: True\n", "", Refused("1: web_tls: is not written: on in the Python daemon", "write web_tls: true")),
    (
        "max_workers: 10",
        "max_workers: 20",
        Refused(
            "14: runnermap[0].max_workers: is not written: 10 in the Python daemon, here all of max_workers (20)",
            "write max_workers: 10",
        ),
    ),
    ("web_tls: True", "web_tls: True", Warned("1: allow_public_repos: is not written", "true or false")),
    ("web_tls: True", "web_tls: True\nallow_public_repos: true", Taken(|c| c.allow_public_repos)),
    // Names of instances.
    ("prefix: lxdrunner", "prefix: CI", Refused("3: prefix: \"CI\"", "write prefix: ci ")),
    ("prefix: lxdrunner", "prefix: my_ci", Refused("3: prefix: \"my_ci\"", "write prefix: my-ci ")),
    // What has no use here.
    (
        "web_tls: True",
        "web_tls: True\nconfig_home: /home/app/.config/lxdrunner",
        Warned("6: config_home: ", "remote LXD"),
    ),
    ("web_tls: True", "web_tls: True\ndirs: {pkgdir: /x}", Warned("6: dirs: ", "did not use")),
    ("web_tls: True", "web_tls: True\ncleanup: true", Warned("6: cleanup: ", "not needed")),
    ("web_tls: True", "web_tls: True\ncleanup: no", Refused("6: cleanup: kept instances", "remove this line")),
    ("web_tls: True", "web_tls: True\nactivecfg: [x]", Warned("6: activecfg: ", "every class")),
    ("web_tls: True", "web_tls: True\nrundelay: 10", Warned("6: rundelay: ", "at once")),
    ("web_tls: True", "web_tls: True\ndef_org_args: {org: x}", Warned("6: def_org_args: ", "targets")),
    ("web_tls: True", "web_tls: True\ndef_repo_args: {org: x}", Warned("6: def_repo_args: ", "targets")),
    ("web_tls: True", "web_tls: True\ncache_home: /x", Taken(|c| c.cache_home == Path::new("/x"))),
    ("web_tls: True", "web_tls: True\npkgdir: /x", Taken(|c| c.cache_home == Path::new("/x"))),
    ("web_tls: True", "web_tls: True\nsetupscript: none.sh", Warned("6: setupscript: ", "set-up is built in")),
    ("web_tls: True", "web_tls: True\nwebtls: True", Refused("6: webtls: unknown key", "web_tls")),
    // Servers.
    ("    addr:\n", "    addr: /run/x.socket\n", Taken(|c| c.socket == Path::new("/run/x.socket"))),
    (
        "    addr:\n",
        "    addr: https://10.0.0.2:8443\n",
        Refused("8: remotes.main.addr: a remote LXD needs `servers`", "write addr: without a value"),
    ),
    ("    addr:\n", "    addr: http://10.0.0.2\n", Refused("8: remotes.main.addr: a remote LXD", "without a value")),
    (
        "addr: https://images.linuxcontainers.org",
        "addr: http://mirror.example/images",
        Refused("11: remotes.images.addr: is not", "write addr: https://mirror.example/images"),
    ),
    (
        "  images:",
        "  local: {addr: 'https://own.example:8443', protocol: lxd}\n  images:",
        Refused("10: remotes.local: local means the server", "another name"),
    ),
    ("    protocol: lxd", "    protocol: lxd\n    public: true", Warned("10: remotes.main.public: ", "ignored")),
];

const CLASS: &[Row] = &[
    ("type: container", "type: virtual-machine", Taken(|c| c.classes[0].kind == InstanceType::VirtualMachine)),
    ("runner_arch: x64", "runner_arch: arm64", Taken(|c| c.classes[0].arch == RunnerArch::Arm64)),
    ("runner_os: linux", "runner_os: win", Refused("19: runnermap[0].runner_os: win runners", "write linux")),
    ("runner_os: linux", "runner_os: linux\n    max_workers: '3'", Taken(|c| c.classes[0].max_workers == 3)),
    (
        "runner_os: linux",
        "runner_os: linux\n    comment: mine",
        Warned("20: runnermap[0].comment: unknown key", "ignored"),
    ),
    ("runner_os: linux", "runner_os: linux\n    standby: 1", Taken(|c| c.classes[0].standby == 1)),
    ("runner_os: linux", "runner_os: linux\n    setup_script:", Taken(|c| c.classes[0].inside.instead.is_none())),
    ("[ self-hosted ]", "[ vm ]", Warned("15: runnermap[0].labels: lack self-hosted", "uses it")),
    (
        "image: images:debian/11/cloud",
        "image: debian",
        Taken(|c| c.classes[0].image == ImageRef::Local("debian".into())),
    ),
    (
        "image: images:debian/11/cloud",
        "image: images:debian/11/cloud",
        Taken(|c| {
            let origin = c.classes[0].image.origin(Product::Lxd).unwrap();
            origin.server == "https://images.linuxcontainers.org" && origin.alias == "debian/11/cloud"
        }),
    ),
    (
        "runner_os: linux",
        "runner_os: linux\n  - {name: two, labels: [self-hosted], image: x, type: container, runner_arch: x64, runner_os: linux}",
        Refused("20: runnermap[1].labels: classes \"one\" and \"two\" have the same labels", "remove one, or"),
    ),
    (
        "runner_os: linux",
        "runner_os: linux\n  - {name: two, labels: [self-hosted, linux, x64], image: x, type: container, runner_arch: x64, runner_os: linux}",
        Refused(
            "20: runnermap[1].labels: classes \"one\" and \"two\" have the same labels",
            "a label of its own: every runner has",
        ),
    ),
];

#[test]
fn each_value_is_taken_with_its_meaning_or_refused_with_the_line_to_write() {
    let directory = Directory::new("rows");
    check_text(&directory, FILE, &Taken(|_| true));
    for (from, to, fate) in TOP.iter().chain(CLASS) {
        assert!(FILE.contains(from), "{from}");
        check_text(&directory, &FILE.replacen(from, to, 1), fate);
    }
}

/// In a file that is none of the Python daemon's, what is not written has lxdrunner's defaults, and a key that is misspelt is
/// an error.
#[test]
fn a_file_without_keys_of_the_python_daemon_is_lxdrunners() {
    let directory = Directory::new("new");
    let main = "  main:\n    addr:\n    protocol: lxd\n";
    let text = FILE.replacen(main, "", 1).replacen("web_tls: True\n", "", 1).replacen("workers: 10", "workers: 20", 1);
    check_text(&directory, &text, &Taken(|c| c.web_tls == WebTls::Off && c.classes[0].max_workers == 20));
    let misspelt = text.replacen("runner_os: linux", "runner_os: linux\n    comment: mine", 1);
    check_text(&directory, &misspelt, &Refused("16: runnermap[0].comment: unknown key", "known here"));
}

#[test]
fn of_two_classes_with_one_set_of_labels_the_one_that_was_not_used_is_named() {
    let directory = Directory::new("twins");
    let last =
        "  - {name: two, labels: [self-hosted], image: x, type: container, runner_arch: x64, runner_os: linux}\n";
    let path = directory.write("config.yml", &format!("{FILE}{last}"));
    let errors = Config::load(&path).unwrap_err();
    let told: Vec<String> = errors.warnings().iter().map(ToString::to_string).collect();
    let start = format!("{}:14: runnermap[0]: a later class has the same labels", path.display());
    assert!(told.iter().any(|w| w.starts_with(&start) && w.ends_with("remove it")), "{told:#?}");
}

#[test]
fn set_up_scripts_of_the_python_daemon_are_refused_and_its_own_is_not_needed() {
    let directory = Directory::new("scripts");
    let check = |script: &str, fate: Fate| {
        directory.write("setup.sh", script);
        let text = FILE.replacen("runner_os: linux", "runner_os: linux\n    setup_script: setup.sh", 1);
        check_text(&directory, &text, &fate);
    };
    let refused = |word: &'static str| Refused("20: runnermap[0].setup_script: ", word);
    check("#!/bin/bash\n. /opt/runner/setupvars.conf\n./run.sh\n", refused("names setupvars.conf"));
    check(
        "#!/bin/bash\n./config.sh --url \"$GHA_URL\" --name $GHA_NAME\n",
        refused("take out what unpacks, registers"),
    );
    check("#!/bin/bash\ntar xf /opt/runner/actions-runner.tgz\n", refused("names actions-runner.tgz"));
    check(
        "#!/bin/sh\n# no GHA_TOKEN is needed any more\necho mine\n",
        Taken(|c| c.classes[0].inside.instead.is_some()),
    );
    directory.write("setup.sh", "#!/bin/bash\necho changed\n");
    let text = FILE.replacen("web_tls: True", "web_tls: True\nsetupscript: setup.sh", 1);
    check_text(&directory, &text, &Refused("6: setupscript: is not used", "remove this line"));
}

/// The built binary, in an environment of its own.
#[track_caller]
fn check_run(directory: &Directory, arguments: &[&str], environment: &[(&str, &str)], expected: (i32, &str)) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    command.args(arguments).current_dir(&directory.0).env_clear().env("HOME", &directory.0);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let (code, part) = expected;
    assert!(output.status.code() == Some(code) && said.contains(part), "{arguments:?} {environment:?}: {said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_environment_of_the_python_daemon_is_not_passed_over() {
    let directory = Directory::new("environment");
    // The last line of the good file is spoilt, so that nothing is asked of LXD and GitHub.
    let spoilt = FILE.replacen("runner_os: linux", "runner_os: osx", 1);
    let file = directory.write("mine.yml", &spoilt);
    let file = file.to_str().unwrap();
    let told = |line: &str| format!("{file}:{line}");
    let check = |arguments: &[&str], environment: &[(&str, &str)], part: &str| {
        check_run(&directory, arguments, environment, (78, part));
    };
    check(&["check"], &[("LXDRCFG", file)], &told("19: runnermap[0].runner_os: osx runners"));
    check(&["check", "-c", file], &[("LXDRCFG", file)], &told("19: "));
    check(&["check", "-c", file], &[("LXDRCFG", "/other.yml")], "unset LXDRCFG");
    check(&["check", "-c", file], &[("PAT", "hunter2")], &told("1: pat: the environment has PAT"));
    check(&["check", "-c", file], &[("PAT", "hunter2")], "write pat_file: FILE, and unset PAT");
    check(&["check", "-c", file], &[("hooksecret", "hunter2")], &told("2: hooksecret: the environment has hooksecret"));
    check(&["check", "-c", file], &[("WEB_PORT", "80")], &told("1: web_port: the environment has WEB_PORT"));
    // The same value in both is no question.
    let errors = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    let mut errors = errors;
    errors.args(["check", "-c", file]).env_clear().envs([("PREFIX", "lxdrunner"), ("MAX_WORKERS", "10")]);
    let said = String::from_utf8(errors.output().unwrap().stderr).unwrap();
    assert!(!said.contains("the environment has"), "{said}");
    check_run(&directory, &["-l", "DEBUG"], &[], (2, "write -v for DEBUG"));
}
