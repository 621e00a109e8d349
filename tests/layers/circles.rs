//! No two files of `src` import from each other, directly or along a way of several. An import counts for the file that
//! defines the name, not for the module that re-exports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Files by their module path, `world::fold`; the crate's root is the empty path.
struct Files {
    code: BTreeMap<String, String>,
}

impl Files {
    fn read(root: &str) -> Files {
        let code = super::files(root, "rs").into_iter().map(|path| (module(root, &path), without_tests(&path)));
        Files { code: code.filter(|(module, _)| !is_test(module)).collect() }
    }

    /// The file that defines what `path` (from the crate's root) names.
    fn definer(&self, path: &[&str]) -> Option<String> {
        for known in (0..=path.len()).rev() {
            let module = path[..known].join("::");
            let Some(code) = self.code.get(&module) else { continue };
            let Some(name) = path.get(known) else { return Some(module) };
            // Where the file only passes the name on, it is looked for there.
            for statement in statements(code).filter(|(public, _)| *public) {
                for (passed, target) in self.targets(&module, statement.1) {
                    if passed == *name && target.join("::") != path[..=known].join("::") {
                        let target: Vec<&str> = target.iter().map(String::as_str).collect();
                        return self.definer(&target);
                    }
                }
            }
            return Some(module);
        }
        None
    }

    /// What each file imports from.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let of = |(module, code): (&'_ String, &String)| {
            let used = statements(code).filter(|(public, _)| !*public).flat_map(|(_, text)| self.targets(module, text));
            let mut found: BTreeSet<String> = used.filter_map(|(_, path)| self.resolve(&path)).collect();
            found.extend(self.inline(module, code).into_iter().filter_map(|path| self.resolve(&path)));
            found.remove(module);
            found
        };
        self.code.iter().map(|(module, code)| (module.as_str(), of((module, code)))).collect()
    }

    /// Each name that a `use` brings into `module`, and its path from the crate's root; nothing for other crates.
    fn targets(&self, module: &str, statement: &str) -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        spread(statement.trim(), &mut Vec::new(), &mut found);
        let absolute = |(name, path): (String, Vec<String>)| Some((name, self.absolute(module, &path)?));
        found.into_iter().filter_map(absolute).collect()
    }

    /// `crate::a`, `super::a`, `self::a`, and `a` of a module of the same folder, from the crate's root.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut own: Vec<String> = module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => (own, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {}
            Some(first) => {
                // A child of this module, or another crate.
                let child = own.iter().map(String::as_str).chain([first]).collect::<Vec<_>>().join("::");
                if !self.code.contains_key(&child) {
                    return None;
                }
            }
            None => return None,
        }
        while rest.first().is_some_and(|part| part == "super") {
            own.pop();
            rest = &rest[1..];
        }
        own.extend(rest.iter().cloned());
        Some(own)
    }

    /// Paths that are written where they are used: `super::stock::needs(…)`.
    fn inline(&self, module: &str, code: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                let inside_use = statements(code).any(|(_, text)| {
                    let from = text.as_ptr() as usize - code.as_ptr() as usize;
                    (from..from + text.len()).contains(&at)
                });
                let continued = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
                if !inside_use && !continued {
                    let path: String =
                        code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
                    let path: Vec<String> =
                        path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                    found.extend(self.absolute(module, &path));
                }
            }
        }
        found
    }

    fn resolve(&self, path: &[String]) -> Option<String> {
        self.definer(&path.iter().map(String::as_str).collect::<Vec<_>>()).filter(|module| !module.is_empty())
    }
}

fn is_test(module: &str) -> bool {
    module.split("::").any(|part| part == "tests")
}

fn module(root: &str, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts.join("::").trim_end_matches("::mod").trim_start_matches("lib").to_owned()
}

fn without_tests(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The `use` statements: whether others may see what they bring, and what is between `use` and `;`.
fn statements(code: &str) -> impl Iterator<Item = (bool, &str)> {
    code.match_indices("use ").filter_map(|(at, _)| {
        let before = code[..at].rsplit('\n').next().unwrap().trim_start();
        let alone = before.is_empty() || before.starts_with("pub") && before.ends_with(' ');
        alone.then(|| (before.starts_with("pub"), code[at + 4..].split(';').next().unwrap()))
    })
}

/// `a::{b, c as d}` as `a::b` and `a::c`.
fn spread(tree: &str, before: &mut Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(inner) = tree.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    let part = inner[start..at].trim();
                    if !part.is_empty() {
                        spread(part, before, found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    match tree.split_once("::") {
        Some((first, rest)) if !tree.starts_with('{') => {
            before.push(first.trim().to_owned());
            spread(rest.trim(), before, found);
            before.pop();
        }
        _ => {
            let (name, known_as) = tree.split_once(" as ").unwrap_or((tree, tree));
            let path: Vec<String> = before.iter().cloned().chain((name != "self").then(|| name.to_owned())).collect();
            let known_as =
                if known_as == "self" { path.last().cloned().unwrap_or_default() } else { known_as.to_owned() };
            found.push((known_as, path));
        }
    }
}

/// A way that comes back to where it began.
fn circle(imports: &BTreeMap<&str, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
        imports: &BTreeMap<&str, BTreeSet<String>>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|module| module == at) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        way.push(at.to_owned());
        let found = imports[at].iter().find_map(|next| visit(next, way, done, imports));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| visit(module, &mut Vec::new(), &mut done, imports))
}

/// These modules, with their code.
fn files(all: &[(&str, &str)]) -> Files {
    Files { code: all.iter().map(|(module, code)| ((*module).to_owned(), (*code).to_owned())).collect() }
}

#[test]
fn the_statements_of_a_file_are_read() {
    let check = |module: &str, statement: &str, expected: &[&str]| {
        let files = files(&[("github::budget::ledger", "")]);
        let found: Vec<String> =
            files.targets(module, statement).into_iter().map(|(_, path)| path.join("::")).collect();
        assert_eq!(found, expected, "{statement}");
    };
    check("world::fold", "crate::{lxd, model::{Job, JobId as Id}}", &["lxd", "model::Job", "model::JobId"]);
    check("world::fold", "super::doubts::{self, Doubt}", &["world::doubts", "world::doubts::Doubt"]);
    check("github::budget", "ledger::Ledger", &["github::budget::ledger::Ledger"]);
    check("github::budget", "std::fmt", &[]);
}

#[test]
fn a_circle_is_found() {
    let one_way = files(&[("", ""), ("a", "mod b;\npub use b::B;\n"), ("a::b", ""), ("c", "use crate::a::B;\n")]);
    assert_eq!(one_way.imports()["c"], BTreeSet::from(["a::b".to_owned()]));
    assert_eq!(circle(&one_way.imports()), None);
    let back =
        files(&[("", ""), ("a", "use crate::c::C;\n"), ("b", "fn f() { crate::a::g() }\n"), ("c", "use crate::b;\n")]);
    assert_eq!(circle(&back.imports()).unwrap(), ["a", "c", "b"]);
}

#[test]
fn no_files_import_from_each_other() {
    let found = circle(&Files::read("src").imports());
    assert!(found.is_none(), "these import from each other in a circle: {found:?}");
}
