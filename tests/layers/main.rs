//! The floors of the house: a room imports from lower floors only, and what decides touches nothing outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod circles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, lowest floor first. Rooms of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["text"],
    &["model", "http1", "table", "threads", "identity", "private_socket", "websocket"],
    &["trace", "config", "clock"],
    &["lxd", "github"],
    &["world"],
    &["plan", "steps"],
    &["report"],
    &["runner"],
    &["control", "execute", "observe", "upkeep", "webhook"],
    &["daemon"],
    &["cli"],
    &["lib", "main"],
];

/// The stand-ins speak the wire's protocols; they must not share the daemon's view of them.
const STANDIN_MAY_USE: &[&str] = &["model", "http1", "websocket"];

/// Files that only decide, and what they must not as much as name.
const PURE: &[&str] = &["src/world", "src/plan", "src/steps", "src/observe/queues.rs"];
const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::env",
    "std::process",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "log::",
    "thread",
    "ureq",
    "tiny_http",
];

/// Who may read the wall clock: what people see, what is compared with somebody else's clock, and what lives for a moment.
/// Whoever counts time goes by `clock`: where a clock is set back by hours, what is due would not be for hours.
const WALL_CLOCK: &[(&str, &str)] = &[
    ("src/clock.rs", "reads it once"),
    ("src/cli/check/github.rs", "is over in a moment"),
    ("src/cli/explain.rs", "is over in a moment"),
    ("src/execute/failure_logs.rs", "names a file for people"),
    ("src/github/api.rs", "compares it with GitHub's"),
    ("src/github/app.rs", "signs, for GitHub's clock"),
    ("src/github/wire.rs", "compares it with GitHub's"),
    ("src/model.rs", "has the type"),
    ("src/observe/lxd.rs", "compares LXD's dates with when this host booted"),
    ("src/runner/provision/stages.rs", "sets a virtual machine's"),
];

/// Longer files have more than one job.
const LONGEST: usize = 600;

fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from(directory)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The room that a file is in: its name, or the folder's, right below `src`.
fn room(path: &Path) -> String {
    let first = path.components().nth(1).unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// A file's code without its comments and its tests; empty for files that are tests as a whole.
fn code(path: &Path) -> String {
    if path.file_stem().unwrap() == "tests" {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The rooms that `code` names: `crate::lxd::…`, `use crate::{config, lxd::Lxd}`, and in `main.rs` `lxdrunner::…`.
fn imports(code: &str) -> BTreeSet<String> {
    &rooms_after("crate::", code) | &rooms_after("lxdrunner::", code)
}

/// The rooms that `code` names behind `start`.
fn rooms_after(start: &str, code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for rest in code.split(start).skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && c.is_alphabetic() => {
                    rooms.insert(word(&group[at..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn imports_are_found() {
    let check = |code: &str, expected: &[&str]| {
        assert_eq!(imports(code).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{code}");
    };
    check("use crate::lxd::Lxd;\nfn f() { crate::threads::die(\"\") }", &["lxd", "threads"]);
    check("use crate::{\n    config::{Config, Class},\n    lxd, model,\n};", &["config", "lxd", "model"]);
    check("lxdrunner::cli::run()", &["cli"]);
    check("use std::fs;", &[]);
}

#[test]
fn every_room_has_a_floor_and_imports_from_below() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let room = room(&path);
        let Some(own) = floor(&room) else {
            wrong.push(format!("{}: room {room} is on no floor: add it to FLOORS", path.display()));
            continue;
        };
        for other in imports(&code(&path)) {
            if other == room {
                continue;
            }
            let allowed = match floor(&other) {
                None => false,
                Some(floor) => floor < own,
            };
            if !allowed {
                wrong.push(format!("{}: {room} imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_stand_ins_do_not_share_the_daemons_view_of_the_wire() {
    let mut wrong = Vec::new();
    let all = files("tests/standin/src", "rs").into_iter();
    for path in all.filter(|path| !path.starts_with("tests/standin/src/bin")) {
        let others = rooms_after("lxdrunner::", &code(&path)).into_iter();
        let shared = others.filter(|other| !STANDIN_MAY_USE.contains(&other.as_str()));
        wrong.extend(shared.map(|other| format!("{} imports {other}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_decides_touches_nothing_outside() {
    let mut wrong = Vec::new();
    for path in files("src", "rs")
        .into_iter()
        .filter(|path| PURE.iter().any(|pure| path.starts_with(pure) || path.with_extension("") == Path::new(pure)))
    {
        for (line, text) in code(&path).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| text.contains(**word)) {
                wrong.push(format!("{}, about line {}: {word}", path.display(), line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_counts_time_by_the_wall_clock() {
    let reads = |path: &PathBuf| {
        let code = code(path);
        ["Timestamp::now()", "SystemTime::now()"].iter().any(|read| code.contains(read))
    };
    let found: Vec<PathBuf> = files("src", "rs").into_iter().filter(reads).collect();
    let mut allowed: Vec<PathBuf> = WALL_CLOCK.iter().map(|(path, _)| PathBuf::from(path)).collect();
    allowed.sort();
    assert_eq!(found, allowed);
}

#[test]
fn files_are_short() {
    let all = [files("src", "rs"), files("tests", "rs"), files("provision", "sh")].concat();
    let long: Vec<String> = all
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "split these: {long:#?}");
}
