//! The config file as a tree that keeps the order of keys and repeated keys, and the line of each value.
//!
//! `serde_yaml` parses. Its own `Value` cannot hold a repeated key: it stops at the first one, and each is an error of
//! the file that has a line. `serde_yaml` has no lines either, but an error that is raised while it visits a node gets
//! that node's location. So [`line_of`] reads the text again and raises an error at the wanted place. That costs one
//! parse for each error of the file, and nothing for a file without errors.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

/// More values than any config file has. A few bytes of YAML anchors expand to many values, and the parser's own limit
/// is far higher.
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
    /// The type, for messages. They never show the value, which may be a secret.
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

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of a key; the number says which one where the key is repeated (0 is the first).
    Key(String, usize),
    /// An element of a list.
    Index(usize),
}

/// The path from the top of the file to a value.
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

/// Why a text is not a config file. No value of the file is quoted: it may be a secret.
#[derive(Debug)]
pub(super) enum NotYaml {
    /// The error of the parser or of [`Walk`].
    Malformed(serde_yaml::Error),
    /// On this line a value does not fit its tag, a key is not text, or the nesting is too deep.
    Misfit(Option<usize>),
    /// More than one document.
    Documents,
}

/// Parses the whole text.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    let state = State::default();
    Walk::new(None, &state).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let mut documents = serde_yaml::Deserializer::from_str(text);
        let first = documents.next().is_some_and(|first| IgnoredAny::deserialize(first).is_ok());
        if first && documents.next().is_some() {
            return NotYaml::Documents;
        }
        match serde_yaml::from_str::<IgnoredAny>(text) {
            // The text is YAML, so the error is about a value, and quotes it.
            Ok(_) if !state.raised.get() => NotYaml::Misfit(error.location().map(|at| at.line())),
            _ => NotYaml::Malformed(error),
        }
    })
}

/// The line (from 1) of the value at `path`: of its key, or of the element of a list. A value that is not in the text
/// (it came through a YAML merge, or is missing) has the line of the nearest value above it.
pub(super) fn line_of(text: &str, path: &Path) -> Option<usize> {
    let mut wanted = path.clone();
    loop {
        let state = State::default();
        let outcome = Walk::new(Some(&wanted), &state).deserialize(serde_yaml::Deserializer::from_str(text));
        if let (Err(error), true) = (outcome, state.raised.get()) {
            return error.location().map(|at| at.line());
        }
        wanted.0.pop()?;
    }
}

#[derive(Default)]
struct State {
    /// How many values were read.
    values: Cell<usize>,
    /// True where this file raised the error: its text quotes nothing.
    raised: Cell<bool>,
}

/// Reads one value or key into a [`Node`]; raises an error at the place that is wanted.
struct Walk<'a> {
    /// Where the value is. For a key: where the mapping is.
    path: Path,
    /// The place whose line is wanted.
    wanted: Option<&'a Path>,
    /// For a key: the entries of the mapping before it.
    before: Option<&'a [(String, Node)]>,
    state: &'a State,
}

impl<'a> Walk<'a> {
    fn new(wanted: Option<&'a Path>, state: &'a State) -> Walk<'a> {
        Walk { path: Path::default(), wanted, before: None, state }
    }

    fn value(&self, path: Path) -> Walk<'a> {
        Walk { path, wanted: self.wanted, before: None, state: self.state }
    }

    fn error<E: Error>(&self, message: impl fmt::Display) -> E {
        self.state.raised.set(true);
        E::custom(message)
    }

    /// Must be called within a `visit_` method: only an error that is raised there gets the location of the node.
    fn at<E: Error>(&self, path: &Path) -> Result<(), E> {
        if self.wanted == Some(path) { Err(self.error("here")) } else { Ok(()) }
    }

    fn scalar<E: Error>(&self, node: Node) -> Result<Node, E> {
        match self.before {
            None => self.at(&self.path)?,
            Some(before) => {
                let key = key_text(&node);
                self.at(&self.path.repeated(&key, occurrences(before, &key)))?;
            }
        }
        Ok(node)
    }

    /// A YAML merge: the mapping's own keys win over those of the merged mapping.
    fn merge<E: Error>(&self, entries: &mut Vec<(String, Node)>, value: Node) -> Result<(), E> {
        match value {
            Node::Map(others) => {
                for (key, node) in others {
                    if occurrences(entries, &key) == 0 {
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

fn occurrences(entries: &[(String, Node)], key: &str) -> usize {
    entries.iter().filter(|(other, _)| other == key).count()
}

fn key_text(node: &Node) -> String {
    match node {
        Node::Bool(flag) => flag.to_string(),
        Node::Int(number) => number.to_string(),
        Node::Float(number) => number.to_string(),
        Node::Text(text) => text.clone(),
        Node::Null | Node::List(_) | Node::Map(_) => "null".to_owned(),
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let values = self.state.values.get() + usize::from(self.before.is_none());
        self.state.values.set(values);
        if values > MOST_VALUES {
            let message = format!("more than {MOST_VALUES} values; does an anchor (&x, *x) repeat itself?");
            return Err(self.error(message));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.before.is_some() {
            "a key that is plain text"
        } else {
            "a plain value, a list or a mapping"
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Node::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Node::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Node::Int(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        self.scalar(i128::try_from(value).map_or(Node::Float(f64::INFINITY), Node::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Node::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.scalar(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        if self.before.is_some() {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.at(&self.path)?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self.value(self.path.index(nodes.len())))? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        if self.before.is_some() {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        }
        self.at(&self.path)?;
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some(key) = map.next_key_seed(Walk { before: Some(&entries), ..self.value(self.path.clone()) })? {
            let key = key_text(&key);
            let path = self.path.repeated(&key, occurrences(&entries, &key));
            let value = map.next_value_seed(self.value(path))?;
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
