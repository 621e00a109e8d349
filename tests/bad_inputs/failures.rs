//! `lxdrunner failures`: whatever is typed in place of an instance, and whatever lies where they are kept.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::support::*;
use super::{Row, check_parts, row, table};

/// A config and what it keeps; no daemon is needed.
struct Place(Scratch);

impl Place {
    fn new(config: &str) -> Place {
        let scratch = Scratch::new();
        let text = format!(
            "pat: a-token-for-the-tests\nhooksecret: {HOOK_SECRET}\nsocket: /lxd.socket\ncache_home: cache\n{config}\n\
             runnermap: [{{name: one, labels: [a], image: dev}}]\n"
        );
        fs::write(scratch.0.join("config.yml"), text).unwrap();
        fs::create_dir(scratch.0.join("cache")).unwrap();
        Place(scratch)
    }

    fn failures(&self) -> PathBuf {
        self.0.0.join("cache/failures")
    }

    /// With one file in it.
    fn with(name: &str, text: &[u8]) -> Place {
        let place = Place::new("");
        fs::create_dir(place.failures()).unwrap();
        fs::write(place.failures().join(name), text).unwrap();
        place
    }

    #[track_caller]
    fn check(&self, instance: &str, user: Option<u32>, code: i32, parts: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
        if let Some(user) = user {
            let copy = self.0.0.join("lxdrunner");
            fs::copy(env!("CARGO_BIN_EXE_lxdrunner"), &copy).unwrap();
            command = Command::new(copy);
            command.uid(user).gid(user);
        }
        command.arg("failures").args(Some(instance).filter(|name| !name.is_empty()));
        let run = command.arg("-c").arg(self.0.0.join("config.yml")).current_dir("/").output().unwrap();
        let said = [run.stdout, run.stderr].map(|out| String::from_utf8(out).unwrap()).concat();
        let said: String = said.lines().filter(|line| !line.contains("warning")).collect::<Vec<_>>().join("\n");
        assert_eq!(run.status.code(), Some(code), "{said}");
        check_parts(&said, parts);
        assert!(!said.contains(HOOK_SECRET) && !said.contains('\u{1b}'), "{said}");
        let shown = said.replace(&self.0.0.display().to_string(), "DIR");
        format!("exit {code}: {}", shown.lines().last().unwrap_or_default())
    }
}

const GOOD: &[u8] =
    b"when: 2026-01-02T03:04:05Z\ninstance: ci-7-1\nmade: \nclass: one\njob: 7\nwhy: older\n\n==> log\n\x1b[2J\n";
const FILE: &str = "20260102T030405Z-ci-7-1.txt";

fn bad(input: &'static str, instance: &'static str, parts: &'static [&'static str]) -> Row {
    row(input, move || Place::with(FILE, GOOD).check(instance, None, 1, parts))
}

#[test]
fn what_is_no_failure() {
    let mut rows = vec![
        bad("an instance that nothing is kept of", "ci-8-1", &["of ci-8-1 nothing is kept; there are: ci-7-1"]),
        bad("a path", "../../../etc/passwd", &["of ../../../etc/passwd nothing is kept; there are: ci-7-1"]),
        bad("an order to the terminal", "\u{1b}[2J", &["of \\x1b[2J nothing is kept"]),
        row("nothing has failed", || {
            let place = Place::new("");
            place.check("", None, 0, &["no instance has failed, as far as", "cache/failures tells"]);
            place.check("ci-7-1", None, 1, &["of ci-7-1 nothing is kept: no instance has failed"])
        }),
        row("none are kept", || Place::new("failures_kept: 0").check("", None, 0, &["failures_kept is 0"])),
        row("a file in place of the directory", || {
            let place = Place::new("");
            fs::write(place.failures(), "").unwrap();
            place.check("", None, 1, &["is not a directory: remove it"])
        }),
        row("a file that is damaged", || {
            let place = Place::with(FILE, b"\xff\xfe\x00 when: \n\x1b[31m\ninstance: no\n");
            place.check("", None, 0, &["2026-01-02T03:04:05Z  ci-7-1"])
        }),
        row("a file that is not ours", || Place::with("notes.txt", b"mine").check("", None, 0, &["no instance has"])),
        row("a config that cannot be used", || {
            let place = Place::new("pat_file: /run/credentials/none.service/pat");
            place.check("", None, 78, &["given beside pat", "can be read without it: CACHE_HOME/failures"])
        }),
        row("a file that is good", || {
            let place = Place::with(FILE, GOOD);
            place.check("7", None, 0, &["==> log\n\\x1b[2J"]);
            place.check("", None, 0, &["2026-01-02T03:04:05Z  ci-7-1    one    7    1 KiB  older"])
        }),
    ];
    if fs::metadata("/proc/self").is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0) {
        rows.push(row("another user's", || {
            let place = Place::with(FILE, GOOD);
            fs::set_permissions(place.failures(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            place.check("", Some(65_534), 1, &["is not yours to read: run this as root, or as the daemon's user"])
        }));
    }
    table("failures", rows);
}
