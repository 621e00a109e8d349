//! Reads typed values out of the tree. A wrong value is an error in the [`Report`], and reading goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use super::node::{Node, Path};
use super::report::Report;

/// A mapping whose keys were checked.
pub(super) struct Section<'a> {
    entries: &'a [(String, Node)],
    item: Item<'a>,
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) node: &'a Node,
    pub(super) path: Path,
    /// Takes the errors and warnings about the value.
    pub(super) report: &'a Report,
}

impl<'a> Section<'a> {
    /// `item` as a mapping of `known` keys. Other keys and repeated keys are errors; keys that start with `x-` are
    /// ignored, so that YAML anchors have a place.
    pub(super) fn new(item: &Item<'a>, known: &[&str]) -> Option<Section<'a>> {
        let section = Section::free(item)?;
        for (n, (key, _)) in section.entries.iter().enumerate() {
            let first = section.entries.iter().position(|(k, _)| k == key) == Some(n);
            if first && !known.contains(&key.as_str()) && !key.starts_with("x-") {
                let fix = match nearest(key, known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                item.at(key).error("unknown key", fix);
            }
        }
        Some(section)
    }

    /// `item` as a mapping with keys of the user's choice.
    pub(super) fn free(item: &Item<'a>) -> Option<Section<'a>> {
        let Node::Map(entries) = item.node else {
            return item.refuse(format!("is {}", item.node.kind()), "write a mapping, one `key: value` a line");
        };
        for (n, (key, _)) in entries.iter().enumerate() {
            let before = entries.iter().take(n).filter(|(k, _)| k == key).count();
            if before > 0 {
                item.report.error(&item.path.repeated(key, before), "the key is given twice", "keep one of them");
            }
        }
        Some(Section { entries, item: item.clone() })
    }

    /// The place of `key`, for messages.
    pub(super) fn at(&self, key: &str) -> Item<'a> {
        self.item.at(key)
    }

    /// The value of `key`; `None` where it is absent, or written without a value.
    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        self.find(key).filter(|item| *item.node != Node::Null)
    }

    /// The value of `key`, also where it is null.
    pub(super) fn find(&self, key: &str) -> Option<Item<'a>> {
        let (_, node) = self.entries.iter().find(|(k, _)| k == key)?;
        Some(Item { node, ..self.at(key) })
    }

    /// The value of `key` as `read` makes it; `default` where there is none. Also where the value is wrong: `read` has
    /// reported that, and a file with errors is not used.
    pub(super) fn or<T>(&self, key: &str, default: T, read: impl FnOnce(&Item<'a>) -> Option<T>) -> T {
        let Some(item) = self.get(key) else { return default };
        read(&item).unwrap_or_else(|| {
            // Never seen, as `read` reports what it refuses; without it, a default such as "everybody" would be used.
            if !item.report.has_errors() {
                item.error("cannot be used", "compare it with config.yml.example");
            }
            default
        })
    }

    /// Like [`Section::get`]; a missing value is an error.
    pub(super) fn require(&self, key: &str, fix: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            self.at(key).error("is missing", fix);
        }
        item
    }

    /// Reads each entry. `None` where one is wrong, after all were read.
    pub(super) fn each<T>(&self, mut read: impl FnMut(&'a str, &Item<'a>) -> Option<T>) -> Option<BTreeMap<String, T>> {
        all(self.entries().map(|(key, item)| Some((key.to_owned(), read(key, &item)?))))
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> + '_ {
        self.entries.iter().map(|(key, node)| (key.as_str(), Item { node, ..self.at(key) }))
    }
}

impl<'a> Item<'a> {
    /// The place of `key` in this mapping, for messages.
    pub(super) fn at(&self, key: &str) -> Item<'a> {
        Item { path: self.path.key(key), ..self.clone() }
    }

    /// Reports that the value is wrong: `what` is the fault, `fix` what to do.
    pub(super) fn error(&self, what: impl fmt::Display, fix: impl fmt::Display) {
        self.report.error(&self.path, what, fix);
    }

    /// Like [`Item::error`]; returns no value.
    pub(super) fn refuse<T>(&self, what: impl fmt::Display, fix: impl fmt::Display) -> Option<T> {
        self.error(what, fix);
        None
    }

    /// Warns of the value, which is used.
    pub(super) fn warn(&self, text: impl fmt::Display) {
        self.report.warn(&self.path, text);
    }

    /// Warns of a secret's file that every user of this machine can read. `what` is the file, or what is in it.
    pub(super) fn warn_of_readers(&self, file: &FilePath, what: impl fmt::Display) {
        if std::fs::metadata(file).is_ok_and(|about| about.permissions().mode() & 0o004 != 0) {
            self.warn(format!("everybody on this machine can read {what}: chmod 600 {}", file.display()));
        }
    }

    /// Reads each element of a list. `None` where one is wrong, after all were read.
    pub(super) fn each<T>(&self, wanted: &str, read: impl FnMut(&Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        all(self.list(wanted)?.iter().map(read))
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        self.refuse(format!("is {}", self.node.kind()), format!("write {wanted}"))
    }

    /// Text as it was written; a number would have lost its form (`0x10`, `1e3`) and must be quoted.
    pub(super) fn text(&self, wanted: &str) -> Option<&'a str> {
        match self.node {
            Node::Text(text) => Some(text),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) => {
                self.wrong(&format!("{wanted}; quote it if this is meant: \"…\""))
            }
            _ => self.wrong(wanted),
        }
    }

    /// The path of a file; a relative one starts at the config file's directory.
    pub(super) fn file(&self, wanted: &str) -> Option<PathBuf> {
        Some(self.report.beside(self.text(wanted)?))
    }

    /// Text that may have been written as a whole number or as true or false, as LXD's config values often are.
    pub(super) fn scalar(&self) -> Option<String> {
        match self.node {
            Node::Text(text) => Some(text.clone()),
            Node::Int(number) => Some(number.to_string()),
            Node::Bool(flag) => Some(flag.to_string()),
            Node::Float(_) => self.wrong("it in quotes, so that it keeps its form: \"…\""),
            _ => self.wrong("text"),
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.node.flag();
        if flag.is_none() { self.wrong("true or false") } else { flag }
    }

    /// A whole number within `least..=most`.
    pub(super) fn number(&self, least: u32, most: u32) -> Option<u32> {
        match self.node.whole_number() {
            Some(number) => {
                let fit = u32::try_from(number).ok().filter(|n| (least..=most).contains(n));
                if fit.is_none() {
                    self.error(format!("{number} does not fit"), format!("write {least} to {most}"));
                }
                fit
            }
            _ => self.wrong(&format!("a whole number, {least} to {most}")),
        }
    }

    /// Whole seconds, or `30s`, `10m`, `24h`, `7d`.
    pub(super) fn duration(&self, least: Duration, most: Duration) -> Option<Duration> {
        let wanted = "seconds, or a number with s, m, h or d: 90, 30s, 10m, 24h";
        let found = match self.node {
            Node::Int(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Node::Text(text) => parse_duration(text),
            _ => return self.wrong(wanted),
        };
        let Some(duration) = found else {
            return self.refuse("is not a duration", format!("write {wanted}"));
        };
        if duration < least || duration > most {
            let fix = format!("write {}s to {}s", least.as_secs(), most.as_secs());
            return self.refuse(format!("{}s does not fit", duration.as_secs()), fix);
        }
        Some(duration)
    }

    /// The elements of a list.
    pub(super) fn list(&self, wanted: &str) -> Option<Vec<Item<'a>>> {
        match self.node {
            Node::List(nodes) => {
                let item = |(n, node)| Item { node, path: self.path.index(n), report: self.report };
                Some(nodes.iter().enumerate().map(item).collect())
            }
            _ => self.wrong(wanted),
        }
    }

    /// A name that goes into addresses of LXD's API or its commands.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.text("a name")?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '&' | ',' | '\\');
        if name.is_empty() || name.len() > 100 || name.contains(odd) {
            return self.refuse(
                format!("{name:?} is not a name"),
                "write 1 to 100 characters without spaces, commas or slashes",
            );
        }
        Some(name.to_owned())
    }
}

/// Takes all of `found`, so that each wrong one is reported, before it says that one is wrong.
fn all<T, C: FromIterator<T>>(found: impl Iterator<Item = Option<T>>) -> Option<C> {
    found.collect::<Vec<_>>().into_iter().collect()
}

/// `30s`, `10m`, `24h`, `7d`, or seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().last()? {
        (at, 's') => (text.get(..at)?, 1),
        (at, 'm') => (text.get(..at)?, 60),
        (at, 'h') => (text.get(..at)?, 3600),
        (at, 'd') => (text.get(..at)?, 86400),
        _ => (text, 1),
    };
    let digits = digits.trim_end();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

/// The one of `known` that `word` was probably meant to be.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase().replace('-', "_");
    let (distance, best) = known.iter().map(|k| (edit_distance(&word, k), *k)).min()?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// How many letters must be put in, taken out or replaced to get from one word to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n, letter) in from.chars().enumerate() {
        let mut left = n + 1;
        let mut diagonal = n;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            *cell = replaced.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = n + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parse_duration(text), seconds.map(Duration::from_secs), "{text}");
        };
        check("90", Some(90));
        check("30s", Some(30));
        check("10m", Some(600));
        check("24h", Some(86400));
        check("7d", Some(604_800));
        check("24 h", Some(86400));
        check("", None);
        check("h", None);
        check("-1s", None);
        check("1.5h", None);
        check("ten", None);
        check("99999999999999999999", None);
        check("9999999999999999999d", None);
    }

    #[test]
    fn misspelt_keys_find_their_neighbour() {
        let known = ["max_workers", "prefix", "pat", "pat_file", "web_port"];
        let check = |word: &str, near: Option<&str>| assert_eq!(nearest(word, &known), near, "{word}");
        check("max_worker", Some("max_workers"));
        check("max-workers", Some("max_workers"));
        check("Prefix", Some("prefix"));
        check("perfix", Some("prefix"));
        check("webport", Some("web_port"));
        check("something_else", None);
        check("", None);
    }
}
