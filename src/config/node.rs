//! The config file as a tree that forgets nothing: order, repeated keys, and (by asking again) lines.
//!
//! `serde_yaml` parses; it does not tell where a value stood. But an error that is raised while it hands out a node
//! gets that node's location. So [`line_of`] walks the text once more, raises an error at the place that is asked
//! for, and reads where it was. That costs a parse for each complaint, and nothing where there is none.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// More values than any config file has. YAML's anchors make many of a few bytes, and the parser's own limit is far
/// higher.
const MOST_VALUES: usize = 50_000;

/// One value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the file's order, repeated keys included.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for messages: never the value itself, which may be a secret.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "true or false",
            Node::Int(_) | Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }

    /// True or false, also in quotes and in the words that YAML 1.1 has for them.
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Node::Bool(flag) => Some(*flag),
            Node::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// A whole number, also in quotes.
    pub(super) fn whole_number(&self) -> Option<i128> {
        match self {
            Node::Int(number) => Some(*number),
            Node::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of a key; the number says which one where the key is repeated (0 is the first).
    Key(String, usize),
    /// An element of a list.
    Index(usize),
}

/// The way from the top of the file to a value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    pub(super) fn key(&self, key: &str) -> Path {
        self.with(Step::Key(key.to_owned(), 0))
    }

    pub(super) fn repeated(&self, key: &str, occurrence: usize) -> Path {
        self.with(Step::Key(key.to_owned(), occurrence))
    }

    pub(super) fn index(&self, index: usize) -> Path {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

/// `runnermap[0].labels`
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key, _) if n == 0 => f.write_str(key)?,
                Step::Key(key, _) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Why a text is no config file. No value of the file is quoted: it may be a secret.
#[derive(Debug)]
pub(super) enum NotYaml {
    /// The parser's words, or ours.
    Malformed(serde_yaml::Error),
    /// A value does not fit its tag, a key is no text, or the nesting is too deep; on this line.
    Misfit(Option<usize>),
    /// More than one document.
    Documents,
}

/// Parses the whole text.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    let (values, ours) = (Cell::new(0), Cell::new(false));
    let build = Build { values: &values, ours: &ours };
    build.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let mut documents = serde_yaml::Deserializer::from_str(text);
        let first = documents.next().is_some_and(|first| IgnoredAny::deserialize(first).is_ok());
        if first && documents.next().is_some() {
            return NotYaml::Documents;
        }
        match serde_yaml::from_str::<IgnoredAny>(text) {
            // It is YAML, so the error is about a value, and quotes it.
            Ok(_) if !ours.get() => NotYaml::Misfit(error.location().map(|at| at.line())),
            _ => NotYaml::Malformed(error),
        }
    })
}

/// The line (from 1) of what `path` leads to: of the key where it ends in a key, of the element where it ends in a
/// list. Where the last steps are not in the text (they came through a YAML merge), the nearest one above.
pub(super) fn line_of(text: &str, path: &Path) -> Option<usize> {
    let mut steps = path.0.as_slice();
    loop {
        let found = Cell::new(false);
        let probe = Probe { steps, found: &found };
        let outcome = probe.deserialize(serde_yaml::Deserializer::from_str(text));
        if let (Err(error), true) = (outcome, found.get()) {
            return error.location().map(|l| l.line());
        }
        let (_, above) = steps.split_last()?;
        steps = above;
    }
}

/// Builds [`Node`]s.
#[derive(Clone, Copy)]
struct Build<'a> {
    /// How many there are already.
    values: &'a Cell<usize>,
    /// True where the error is raised here: its text quotes nothing.
    ours: &'a Cell<bool>,
}

impl Build<'_> {
    fn error<E: Error>(self, message: impl fmt::Display) -> E {
        self.ours.set(true);
        E::custom(message)
    }

    /// A YAML merge: what is written here wins over what is merged in.
    fn merge<E: Error>(self, entries: &mut Vec<(String, Node)>, value: Node) -> Result<(), E> {
        match value {
            Node::Map(others) => {
                for (key, node) in others {
                    if !entries.iter().any(|(mine, _)| *mine == key) {
                        entries.push((key, node));
                    }
                }
                Ok(())
            }
            Node::List(list) if list.iter().all(|n| matches!(n, Node::Map(_))) => {
                list.into_iter().try_for_each(|one| self.merge(entries, one))
            }
            _ => Err(self.error("`<<` merges a mapping, or a list of mappings")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > MOST_VALUES {
            let message = format!("more than {MOST_VALUES} values; does an anchor (&x, *x) repeat itself?");
            return Err(self.error(message));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(i128::try_from(value).map_or(Node::Float(f64::INFINITY), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some(key) = map.next_key_seed(KeyText)? {
            let value = map.next_value_seed(self)?;
            if key == "<<" {
                merged.push(value);
            } else {
                entries.push((key, value));
            }
        }
        for value in merged {
            self.merge(&mut entries, value)?;
        }
        Ok(Node::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _tagged: A) -> Result<Node, A::Error> {
        Err(self.error("YAML tags (!name) have no meaning here; remove it"))
    }
}

/// A mapping's key, as text.
struct KeyText;

impl<'de> DeserializeSeed<'de> for KeyText {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is plain text")
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

/// Walks to a place and raises an error there.
#[derive(Clone, Copy)]
struct Probe<'a> {
    steps: &'a [Step],
    /// Set when the place was reached, to tell that error from others.
    found: &'a Cell<bool>,
}

impl Probe<'_> {
    fn here<E: Error>(self) -> E {
        self.found.set(true);
        E::custom("here")
    }
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place that is looked for")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.here())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Err(self.here()) };
        let mut at = 0;
        loop {
            let wanted = *step == Step::Index(at);
            let more = if wanted {
                list.next_element_seed(Probe { steps: rest, ..self })?.is_some()
            } else {
                list.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Err(self.here()) };
        let mut seen = 0;
        loop {
            let key = ProbeKey { step, seen: &mut seen, last: rest.is_empty(), found: self.found };
            match map.next_key_seed(key)? {
                None => return Ok(()),
                Some(true) => map.next_value_seed(Probe { steps: rest, ..self })?,
                Some(false) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// Tells whether a key is the one that is looked for; raises the error on it where the way ends there.
struct ProbeKey<'a> {
    step: &'a Step,
    seen: &'a mut usize,
    last: bool,
    found: &'a Cell<bool>,
}

impl ProbeKey<'_> {
    fn judge<E: Error>(self, key: &str) -> Result<bool, E> {
        let Step::Key(wanted, occurrence) = self.step else { return Ok(false) };
        if key != wanted {
            return Ok(false);
        }
        *self.seen += 1;
        if *self.seen != occurrence + 1 {
            return Ok(false);
        }
        if self.last {
            self.found.set(true);
            return Err(E::custom("here"));
        }
        Ok(true)
    }
}

impl<'de> DeserializeSeed<'de> for ProbeKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ProbeKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is plain text")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.judge("null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        self.judge(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.judge(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.judge(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.judge(&value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
        self.judge(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
a: 1
b:
  - x
  - c: 2
    d:
c: {e: [1,
  2], e: 3}
7: seven
";

    #[track_caller]
    fn check(path: Path, line: Option<usize>) {
        assert_eq!(line_of(TEXT, &path), line, "{path}");
    }

    #[test]
    fn every_place_has_its_line() {
        let top = Path::default();
        check(top.clone(), Some(1));
        check(top.key("a"), Some(1));
        check(top.key("b"), Some(2));
        check(top.key("b").index(0), Some(3));
        check(top.key("b").index(1), Some(4));
        check(top.key("b").index(1).key("c"), Some(4));
        check(top.key("b").index(1).key("d"), Some(5));
        check(top.key("c").key("e"), Some(6));
        check(top.key("c").key("e").index(1), Some(7));
        check(top.key("c").repeated("e", 1), Some(7));
        check(top.key("7"), Some(8));
    }

    #[test]
    fn what_is_not_in_the_text_has_the_line_of_what_it_would_be_in() {
        let top = Path::default();
        check(top.key("zzz"), Some(1));
        check(top.key("b").index(1).key("zzz"), Some(4));
        check(top.key("b").index(9), Some(2));
    }

    #[test]
    fn merges_are_resolved_and_what_is_written_wins() {
        let node = parse("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\n").unwrap();
        let Node::Map(entries) = node else { panic!() };
        let expected = vec![("y".to_owned(), Node::Int(3)), ("x".to_owned(), Node::Int(1))];
        assert_eq!(entries[1].1, Node::Map(expected));
    }

    #[test]
    fn bombs_and_deep_nesting_are_refused() {
        let links = "bcdefghijk".chars().zip("abcdefghij".chars());
        let line = |(next, last): (char, char)| format!("{next}: &{next} [{}]\n", format!("*{last},").repeat(9));
        let bomb: String = std::iter::once("a: &a [x]\n".to_owned()).chain(links.map(line)).collect();
        assert!(parse(&bomb).is_err());
        let many = |values: usize| format!("[{}]", "1,".repeat(values - 1));
        assert!(parse(&many(MOST_VALUES)).is_ok());
        assert!(
            matches!(parse(&many(MOST_VALUES + 1)), Err(NotYaml::Malformed(error)) if error.to_string().contains("anchor"))
        );
        assert!(parse(&format!("a: {}", "[".repeat(1000))).is_err());
        assert!(parse(&format!("a: {}{}", "[".repeat(1000), "]".repeat(1000))).is_err());
    }
}
