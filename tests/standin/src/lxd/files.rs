//! Files of instances, and the logs that executed commands leave.

use std::collections::BTreeMap;

use serde_json::json;

use super::answer::{Answer, Ask};
use super::server::Shared;
use super::state::State;

/// A file system, of which only names, modes and contents matter.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// By absolute path without a closing slash; the root is empty.
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug)]
struct Node {
    /// `None` for a directory.
    content: Option<Vec<u8>>,
    mode: String,
}

impl Tree {
    /// What a small Debian has.
    pub fn new() -> Tree {
        let directories = "/ /bin /etc /home /opt /root /run /srv /tmp /usr /usr/bin /usr/local /usr/local/bin /var /var/log /var/tmp";
        let directory = |path: &str| (normal(path), Node { content: None, mode: "0755".to_owned() });
        Tree { nodes: directories.split(' ').map(directory).collect() }
    }

    pub fn read(&self, path: &str) -> Option<&[u8]> {
        self.nodes.get(&normal(path))?.content.as_deref()
    }

    pub fn mode(&self, path: &str) -> Option<&str> {
        self.nodes.get(&normal(path)).map(|node| node.mode.as_str())
    }

    /// Writes a file and makes its directories.
    pub fn write(&mut self, path: &str, content: &[u8]) {
        let path = normal(path);
        for (at, _) in path.match_indices('/').skip(1) {
            let directory = Node { content: None, mode: "0755".to_owned() };
            self.nodes.entry(path.get(..at).unwrap_or_default().to_owned()).or_insert(directory);
        }
        self.nodes.insert(path, Node { content: Some(content.to_vec()), mode: "0644".to_owned() });
    }

    pub fn remove(&mut self, path: &str) {
        self.nodes.remove(&normal(path));
    }

    /// What a boot does: nothing in memory is left.
    pub fn boot(&mut self) {
        self.nodes.retain(|path, _| !path.starts_with("/run/") && !path.starts_with("/tmp/"));
    }

    fn list(&self, path: &str) -> Vec<&str> {
        let below = format!("{}/", normal(path));
        let names = self.nodes.keys().filter_map(|key| key.strip_prefix(&below));
        names.filter(|name| !name.is_empty() && !name.contains('/')).collect()
    }
}

/// Without doubled and closing slashes.
fn normal(path: &str) -> String {
    path.split('/').filter(|s| !s.is_empty()).fold(String::new(), |path, segment| path + "/" + segment)
}

pub(super) fn get(state: &State, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let instance = state.find(ask.project(), name)?;
    let path = ask.query("path").ok_or_else(missing_path)?;
    let node = instance.files.nodes.get(&normal(path)).ok_or_else(not_found)?;
    let (kind, answer) = match &node.content {
        Some(content) => ("file", ranged(ask, content)),
        None => ("directory", Answer::sync(json!(instance.files.list(path)))),
    };
    let prefix = if state.product == "incus" { "X-Incus" } else { "X-LXD" };
    let answer = answer.with(&format!("{prefix}-type"), kind).with(&format!("{prefix}-mode"), &node.mode);
    Ok(answer.with(&format!("{prefix}-uid"), "0").with(&format!("{prefix}-gid"), "0"))
}

pub(super) fn post(shared: &Shared, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let mut state = shared.lock();
    let instance = state.find_mut(ask.project(), name)?;
    let path = normal(ask.query("path").ok_or_else(missing_path)?);
    let mode = ask.file_header("mode").unwrap_or("0644").to_owned();
    let nodes = &mut instance.files.nodes;
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let failure = |what: &str| Answer::error(500, &format!("sftp: \"open {path}: {what}\" (SSH_FX_FAILURE)"));
    let parent_is_file = nodes.get(&parent).map(|node| node.content.is_some());
    match (ask.file_header("type").unwrap_or("file"), parent_is_file) {
        (kind, _) if !matches!(kind, "file" | "directory") => {
            return Err(Answer::error(400, &format!("Bad file type: {kind}")));
        }
        (_, None) => return Err(not_found()),
        (_, Some(true)) => return Err(failure("not a directory")),
        ("directory", _) => {
            nodes.entry(path).or_insert(Node { content: None, mode });
        }
        _ => match nodes.get_mut(&path) {
            Some(Node { content: None, .. }) => return Err(failure("is a directory")),
            // A file that is there keeps its mode.
            Some(node) => node.content = Some(ask.body.clone()),
            None => drop(nodes.insert(path, Node { content: Some(ask.body.clone()), mode })),
        },
    }
    drop(state);
    shared.changed.notify_all();
    Ok(Answer::sync(json!({})))
}

pub(super) fn get_log(state: &mut State, ask: &Ask, name: &str, log: &str) -> Result<Answer, Answer> {
    let instance = state.find_mut(ask.project(), name)?;
    instance.output_reads += u64::from(log.ends_with(".stdout"));
    let content = instance.logs.get(log).ok_or_else(|| log_missing(log))?;
    Ok(ranged(ask, content))
}

pub(super) fn delete_log(shared: &Shared, ask: &Ask, name: &str, log: &str) -> Result<Answer, Answer> {
    let mut state = shared.lock();
    let instance = state.find_mut(ask.project(), name)?;
    instance.logs.remove(log).ok_or_else(|| log_missing(log))?;
    Ok(Answer::sync(json!({})))
}

/// The content, or its end where that is all that is asked for.
fn ranged(ask: &Ask, content: &[u8]) -> Answer {
    let range = ask.headers.get("range").and_then(|range| range.strip_prefix("bytes=-"));
    let Some(last) = range.and_then(|last| last.parse::<usize>().ok()) else { return Answer::bytes(content.to_vec()) };
    let from = content.len().saturating_sub(last);
    let tail = content.get(from..).unwrap_or_default();
    let end = i64::try_from(content.len()).unwrap_or(i64::MAX) - 1;
    let answer = Answer::bytes(tail.to_vec()).with("Content-Range", &format!("bytes {from}-{end}/{}", content.len()));
    Answer { status: 206, ..answer }
}

fn not_found() -> Answer {
    Answer::error(404, "Not Found")
}

fn missing_path() -> Answer {
    Answer::error(400, "Missing path argument")
}

fn log_missing(log: &str) -> Answer {
    Answer::error(500, &format!("open {log}: no such file or directory"))
}
