//! The two secrets, given in the file or in files of their own.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path as FilePath;

use super::file;
use super::read::{Item, Section};
use crate::model::Secret;

/// A key, its `_file` twin, and the fix where neither is given.
pub(super) struct Kind {
    pub key: &'static str,
    pub file_key: &'static str,
    pub missing: &'static str,
    /// Shorter than this is worth a warning.
    pub short: usize,
    pub short_fix: &'static str,
}

pub(super) const PAT: Kind = Kind {
    key: "pat",
    file_key: "pat_file",
    missing: "write `pat: TOKEN` or `pat_file: FILE` with a token made at https://github.com/settings/tokens",
    short: 0,
    short_fix: "",
};

pub(super) const HOOKSECRET: Kind = Kind {
    key: "hooksecret",
    file_key: "hooksecret_file",
    missing: "write `hooksecret: TEXT` or `hooksecret_file: FILE` with the secret that GitHub's webhook has",
    short: 16,
    short_fix: "anybody who guesses it can start instances; make a long one: openssl rand -hex 32",
};

/// A file that holds a secret longer than this holds something else.
const LONGEST: u64 = 64 * 1024;

/// Reads the secret from whichever key gives it. `required` is false where something else may stand in for it.
pub(super) fn read(kind: &Kind, top: &Section<'_>, required: bool) -> Option<Secret> {
    // An empty value is no omission: it is most likely a template that was not filled in.
    let inline = top.find(kind.key).filter(|i| top.get(kind.file_key).is_none() || *i.node != super::node::Node::Null);
    match (inline, top.get(kind.file_key)) {
        (Some(_), Some(file)) => file.refuse(format!("given beside {}", kind.key), "keep one of the two"),
        (Some(item), None) => inline_text(kind, &item),
        (None, Some(item)) => from_file(kind, &item),
        (None, None) => {
            if required {
                top.at(kind.key).error("is missing", kind.missing);
            }
            None
        }
    }
}

fn inline_text(kind: &Kind, item: &Item<'_>) -> Option<Secret> {
    if *item.node == super::node::Node::Null {
        return item.refuse("is empty", kind.missing);
    }
    check(kind, item.text("the secret as text")?, "", item)
}

fn from_file(kind: &Kind, item: &Item<'_>) -> Option<Secret> {
    let path = item.file("the name of a file")?;
    let shown = path.display();
    match file::read_text(&path, LONGEST) {
        Ok(text) => {
            item.warn_of_readers(&path, &shown);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text == LEFT_OUT {
                return item.refuse(
                    format!("systemd credential {shown} is empty: /etc/lxdrunner lacks the file"),
                    LEFT_OUT_FIX,
                );
            }
            check(kind, text, &format!("{shown} "), item)
        }
        Err(error) => {
            unreadable(item, &path, &error);
            None
        }
    }
}

/// What `provision/lxdrunner.service` lets systemd write where a secret's file is missing: without it systemd would not start
/// us, and say little of why.
pub(super) const LEFT_OUT: &str = "missing";
pub(super) const LEFT_OUT_FIX: &str = "make the file that LoadCredential= in lxdrunner.service names for it (in /etc/lxdrunner), then restart the service";

/// Reports a secret's file that cannot be read.
pub(super) fn unreadable(item: &Item<'_>, file: &FilePath, error: &io::Error) {
    let (what, fix) = (format!("cannot read {}: {error}", file.display()), file_fix(error));
    if error.kind() == io::ErrorKind::NotFound && file.starts_with("/run/credentials") {
        let fix = "systemd has it there while the service runs (LoadCredential), nobody else and at no other time";
        item.report.error_of_service(&item.path, what, fix);
    } else {
        item.error(what, fix);
    }
}

/// What to do where we may not open a file. A secret is not to be opened to more users.
pub(super) fn cannot_open() -> &'static str {
    match std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0) {
        true => "root may not open it either: look at the file system that it is on, and at the service's restrictions",
        false => {
            "run this command with sudo; to the service, systemd hands it over (LoadCredential= in lxdrunner.service)"
        }
    }
}

/// What to do about a secret's file that cannot be read.
fn file_fix(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make the file, or name the right one",
        io::ErrorKind::PermissionDenied => cannot_open(),
        io::ErrorKind::FileTooLarge => "name the file that holds it and nothing else",
        io::ErrorKind::InvalidData => "it must be text",
        _ => "see whether the file is readable",
    }
}

/// `whose` is empty or names the file, followed by a space. No message contains the text itself.
fn check(kind: &Kind, text: &str, whose: &str, item: &Item<'_>) -> Option<Secret> {
    let lower = text.to_lowercase();
    if text.trim().is_empty() {
        return item.refuse(format!("{whose}is empty"), kind.missing);
    }
    if text.contains('…') || text.contains("...") || matches!(lower.as_str(), "changeme" | "change-me" | "secret") {
        return item.refuse(format!("{whose}is an example's text"), kind.missing);
    }
    if text.chars().any(|c| c.is_control()) || text.trim() != text {
        let what = format!("{whose}has a line break, a control character, or a space at an end");
        return item.refuse(what, "write the secret alone, on one line");
    }
    if kind.key == "pat" && !text.chars().all(|c| c.is_ascii_graphic()) {
        return item.refuse(format!("{whose}contains characters that no token has"), kind.missing);
    }
    if ["fake", "example", "changeme", "xxxx"].iter().any(|word| lower.contains(word)) {
        item.warn(format!("{whose}looks like an example; GitHub will not know it"));
    } else if text.len() < kind.short {
        item.warn(format!("{whose}is shorter than {} characters: {}", kind.short, kind.short_fix));
    }
    Some(Secret::new(text))
}
