//! Escapes text from outside. Texts of GitHub, LXD, a job or a config file may contain control characters: a terminal obeys them,
//! and a line feed would forge a log record.
//!
//! Names and messages are escaped where they are read; `cli::output` escapes everything it writes.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Deref;

use serde::{Deserialize, Deserializer};

/// A text from outside as one line that is safe to show.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line(String);

impl From<String> for Line {
    fn from(text: String) -> Line {
        Line(one_line(text))
    }
}

impl From<Line> for String {
    fn from(line: Line) -> String {
        line.0
    }
}

impl Deref for Line {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<&str> for Line {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Line, D::Error> {
        String::deserialize(input).map(Line::from)
    }
}

/// The same for a field of type `String`: `#[serde(deserialize_with = "text::line")]`.
///
/// # Errors
/// It is no text.
pub fn line<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Line::deserialize(input).map(String::from)
}

/// Controls (C0, DEL, C1), line and paragraph separators, and marks that change the reading order.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` in one line: each unsafe character as `\n`, `\x1b` or `\u{202e}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push(&mut shown, c));
    Cow::Owned(shown)
}

/// The same, but line feeds and tabs stay, and a carriage return begins a line.
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    let stays = |c: char| matches!(c, '\n' | '\t') || !is_unsafe(c);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            // Progress bars use it to draw over themselves.
            '\r' => shown.push('\n'),
            c if stays(c) => shown.push(c),
            c => push(&mut shown, c),
        }
    }
    Cow::Owned(shown)
}

/// `text` as one line; no copy where it is one already.
pub fn one_line(text: String) -> String {
    match escaped(&text) {
        Cow::Owned(shown) => shown,
        Cow::Borrowed(_) => text,
    }
}

fn push(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        // Writing to a String does not fail.
        c if c < '\u{100}' && is_unsafe(c) => drop(write!(shown, "\\x{:02x}", u32::from(c))),
        c if is_unsafe(c) => shown.extend(c.escape_unicode()),
        c => shown.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_characters_are_shown_escaped() {
        #[track_caller]
        fn check(text: &str, line: &str, lines: &str) {
            assert_eq!((escaped(text).as_ref(), escaped_lines(text).as_ref()), (line, lines), "{text:?}");
            assert_eq!(one_line(text.to_owned()), line);
            assert_eq!(escaped(line), line, "escaping twice changes nothing");
        }
        check("plain é 👩‍👧 \\n \"x\"", "plain é 👩‍👧 \\n \"x\"", "plain é 👩‍👧 \\n \"x\"");
        check("a\n\tb\n", "a\\n\\tb\\n", "a\n\tb\n");
        check("10%\r20%\r\n", "10%\\r20%\\r\\n", "10%\n20%\n");
        check("\u{1b}[31m\u{7}\u{9b}2J\0\u{7f}", "\\x1b[31m\\x07\\x9b2J\\x00\\x7f", "\\x1b[31m\\x07\\x9b2J\\x00\\x7f");
        let marks = "\\u{202e}\\u{2066}\\u{200f}\\u{61c}\\u{2028}\\u{2029}\\u{feff}";
        check("\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}\u{feff}", marks, marks);
    }
}
