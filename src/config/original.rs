//! Recognises config files of the Python daemon that lxdrunner replaces, and reports what has another meaning here.
//!
//! A file is one where it has a key that only that daemon knows. That changes the meaning of no value. What would be taken with
//! another meaning is an error that says what to write, and keys that the Python daemon ignored are ignored.

use std::collections::BTreeSet;

use super::node::{Node, Path};
use super::report::Report;
use super::{class, script};

/// Keys at the top that lxdrunner does not need; `remotes.main` is the other sign of such a file.
const KEYS: [&str; 9] = [
    "pkgdir",
    "setupscript",
    "activecfg",
    "rundelay",
    "cleanup",
    "def_repo_args",
    "def_org_args",
    "config_home",
    "dirs",
];

/// Keys that the Python daemon took from the environment, whatever the case, before it looked into the file.
const FROM_ENVIRONMENT: [&str; 8] =
    ["pat", "hooksecret", "prefix", "max_workers", "web_host", "web_port", "web_tls", "cache_home"];

/// The Python daemon's default for the number of instances of a class at once.
const MAX_WORKERS: i128 = 10;

/// The tree without the keys that only the Python daemon knows; `None` where the file is not one of the Python daemon's.
pub(super) fn translate(tree: &Node, report: &Report) -> Option<Node> {
    let Node::Map(entries) = tree else { return None };
    let of_original = |key: &str, value: &Node| match value {
        Node::Map(remotes) if key == "remotes" => remotes.iter().any(|(name, _)| name == "main"),
        _ => KEYS.contains(&key),
    };
    if !entries.iter().any(|(key, value)| of_original(key, value)) {
        return None;
    }
    let top = Path::default();
    retired(tree, report);
    environment(tree, report);
    defaults(tree, report);
    let kept = entries.iter().filter(|(key, _)| !KEYS.contains(&key.as_str()) || key == "pkgdir");
    let translated = kept.map(|(key, value)| {
        let path = top.key(key);
        let value = match (key.as_str(), value) {
            ("remotes", Node::Map(remotes)) => Node::Map(
                remotes
                    .iter()
                    .map(|(name, one)| (name.clone(), known(one, &path.key(name), &["addr", "protocol"], report)))
                    .collect(),
            ),
            ("runnermap", Node::List(classes)) => {
                twins(classes, &path, report);
                let of_class = |(n, one): (usize, &Node)| one_class(tree, one, &path.index(n), report);
                Node::List(classes.iter().enumerate().map(of_class).collect())
            }
            _ => value.clone(),
        };
        (key.clone(), value)
    });
    Some(Node::Map(translated.collect()))
}

/// The value of a key of a mapping; `None` where it is absent or written without a value.
fn find<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Node::Map(entries) = node else { return None };
    entries.iter().find(|(k, _)| k == key).map(|(_, value)| value).filter(|value| **value != Node::Null)
}

/// A mapping without the keys that are not `known`, which the Python daemon did not look at.
fn known(node: &Node, path: &Path, known: &[&str], report: &Report) -> Node {
    let Node::Map(entries) = node else { return node.clone() };
    let mut kept = Vec::new();
    for (key, value) in entries {
        if known.contains(&key.as_str()) || key.starts_with("x-") {
            kept.push((key.clone(), value.clone()));
        } else {
            report.warn(&path.key(key), "unknown key, ignored as the Python daemon ignored it: remove it");
        }
    }
    Node::Map(kept)
}

/// Classes with one set of labels are an error in `class`; the Python daemon used the last of them.
fn twins(classes: &[Node], path: &Path, report: &Report) {
    let labels = |class: &Node| match find(class, "labels") {
        Some(Node::List(labels)) => labels.iter().map(|label| format!("{label:?}")).collect::<BTreeSet<_>>(),
        _ => BTreeSet::new(),
    };
    for (n, class) in classes.iter().enumerate().filter(|(_, class)| !labels(class).is_empty()) {
        if classes.iter().skip(n + 1).any(|later| labels(later) == labels(class)) {
            let text = "a later class has the same labels, so the Python daemon never used this one: remove it";
            report.warn(&path.index(n), text);
        }
    }
}

fn one_class(top: &Node, class: &Node, path: &Path, report: &Report) -> Node {
    let most = find(top, "max_workers").and_then(Node::whole_number).unwrap_or(MAX_WORKERS);
    if most > MAX_WORKERS && matches!(class, Node::Map(_)) && find(class, "max_workers").is_none() {
        let what = format!("is not written: {MAX_WORKERS} in the Python daemon, here all of max_workers ({most})");
        report.error(&path.key("max_workers"), what, format!("write max_workers: {MAX_WORKERS}, or another number"));
    }
    if let Some(Node::List(labels)) = find(class, "labels")
        && !labels.contains(&Node::Text("self-hosted".to_owned()))
    {
        let text = "lack self-hosted, so the Python daemon never used this class; lxdrunner uses it";
        report.warn(&path.key("labels"), text);
    }
    known(class, path, class::KEYS, report)
}

/// Missing values that had another default in the Python daemon.
fn defaults(top: &Node, report: &Report) {
    let path = Path::default();
    if find(top, "web_tls").is_none() && in_environment("web_tls").is_none() {
        let what = "is not written: on in the Python daemon, off here";
        let fix = "write web_tls: true (a self-signed certificate, as there), or web_tls: false behind a reverse proxy";
        report.error(&path.key("web_tls"), what, fix);
    }
    if find(top, "allow_public_repos").is_none() {
        let text = "is not written: jobs of public repositories, which the Python daemon served, are refused; write \
                    allow_public_repos: true or false";
        report.warn(&path.key("allow_public_repos"), text);
    }
}

fn in_environment(key: &str) -> Option<(String, String)> {
    let text = |name: std::ffi::OsString| name.into_string().unwrap_or_default();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).find(|(name, _)| name.eq_ignore_ascii_case(key))
}

/// Environment variables that went before the file. Their values may be secrets and are not printed.
fn environment(top: &Node, report: &Report) {
    for key in FROM_ENVIRONMENT {
        let Some((name, value)) = in_environment(key) else { continue };
        let written = match find(top, key) {
            Some(Node::Text(text)) => text.clone(),
            Some(Node::Int(number)) => number.to_string(),
            Some(Node::Bool(flag)) => flag.to_string(),
            _ => String::new(),
        };
        if !written.eq_ignore_ascii_case(&value) {
            let what = format!(
                "the environment has {name}, which the Python daemon took first; lxdrunner reads this file only"
            );
            let fix = match key {
                "pat" | "hooksecret" => format!("put its value into a file, write {key}_file: FILE, and unset {name}"),
                _ => format!("write its value here, as {key}: VALUE, and unset {name}"),
            };
            report.error(&Path::default().key(key), what, fix);
        }
    }
}

/// Reports keys that are not needed.
fn retired(top: &Node, report: &Report) {
    let path = |key: &str| Path::default().key(key);
    if find(top, "pkgdir").is_some() {
        let used =
            if find(top, "cache_home").is_some() { "cache_home is used" } else { "its value is used as cache_home" };
        report.warn(&path("pkgdir"), format!("is called cache_home now; {used}"));
    }
    if let Some(script) = find(top, "setupscript") {
        setupscript(script, report);
    }
    if find(top, "cleanup").and_then(Node::flag) == Some(false) {
        let what = "kept instances whose start failed; lxdrunner removes them all and keeps their logs";
        report.error(&path("cleanup"), what, "remove this line, and see failures_kept and lxdrunner failures");
    }
    let others = [
        ("activecfg", "is not needed: every class of runnermap is active, each job goes to the one that fits"),
        ("rundelay", "is not needed: a job is started at once, and once, however often it is announced"),
        ("cleanup", "is not needed: every instance is removed when it is done"),
        ("def_repo_args", "is not needed: see targets"),
        ("def_org_args", "is not needed: see targets"),
        ("config_home", "is not needed: it held the client certificate for a remote LXD, which is not used here"),
        ("dirs", "is not needed: the Python daemon did not use its value either"),
    ];
    for (key, text) in others {
        if find(top, key).is_some() {
            report.warn(&path(key), text);
        }
    }
}

/// The key at the top; a class's `setup_script` is read in `class`.
fn setupscript(script: &Node, report: &Report) {
    let path = Path::default().key("setupscript");
    let file = match script {
        Node::Text(name) => Some(report.beside(name)).filter(|file| file.exists()),
        _ => None,
    };
    match file {
        None => report.warn(&path, "is not needed: set-up is built in, and there is no such file"),
        Some(file) if script::is_own_script(&file) => {
            report.warn(&path, "is not needed: it is the Python daemon's own script, and set-up is built in");
        }
        Some(_) => {
            let fix = "remove this line, and where jobs need what you changed in the script, write setup_script: {after: \
                       FILE} in the classes (README, Coming from the Python daemon)";
            report.error(&path, "is not used: set-up is built in, and this script was changed", fix);
        }
    }
}
