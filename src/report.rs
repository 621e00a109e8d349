//! Texts for people and programs: why a job waits, the state, log lines, metrics. Made from World and plan alone; `narrate` writes
//! its texts to the log.

pub mod explain;
pub mod metrics;
pub mod narrate;
pub mod status;

/// The first line of a reason, at most 300 characters of it: some reasons come with a page of output.
fn shortened(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}
