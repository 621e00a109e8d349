//! What instances that failed had to say: kept on this host, since the instance itself is destroyed.
//!
//! One file for each, `TIME-INSTANCE.txt`, in a directory that only we can read: a few lines about the instance, then
//! the ends of its set-up log, of the runner's log and of the runner's newest diagnostic logs. Only the newest are kept,
//! and one of each name. Credentials are in none of these logs; what looks like one, for instance because a script of
//! the operator's printed it, is masked.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cache_files;
use super::masks::masked;
use super::provision::SETUP_LOG;
use crate::config::Config;
use crate::lxd::{Instance, Lxd};
use crate::model::{Timestamp, keys};
use crate::text::escaped;

/// Bytes kept of the end of each log.
pub const LOG_TAIL: usize = 64 * 1024;
/// Limit for reading all logs, since the instance's removal waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Logs of the runner's own directory that are kept: its listener's and its worker's.
const DIAGNOSTIC_LOGS: usize = 2;
const LOGS: [&str; 2] = [SETUP_LOG, "/var/log/lxdrunner-runner.log"];
const DIAGNOSTICS: &str = "/opt/lxdrunner/runner/_diag";
/// Characters kept of each value in a file's first lines.
const VALUE: usize = 300;
/// Bytes of a file that are read to list it: its first lines.
const HEAD: u64 = 8 * 1024;
/// A half-written file older than this was left by a crash.
const FORSAKEN: Duration = Duration::from_secs(60);
/// The length of the time in a file's name, and the name's end.
const TIME_SHAPE: &str = "00000000T000000Z";
const TIME: usize = TIME_SHAPE.len();
const ENDING: &str = ".txt";

/// The failures below one directory.
#[derive(Clone, Debug)]
pub struct FailureLogs {
    directory: PathBuf,
    kept: usize,
}

/// One kept failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its file, whose name tells the time and the instance.
    pub path: PathBuf,
    /// `2026-01-02T03:04:05Z`
    pub when: String,
    /// The instance's name.
    pub instance: String,
    /// When LXD made it; empty where LXD did not tell.
    pub made: String,
    /// Empty where the instance did not tell.
    pub class: String,
    /// The job that it was launched for; empty where there is none.
    pub job: String,
    /// The reason.
    pub why: String,
    /// Bytes.
    pub size: u64,
}

/// The result of keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is kept now.
    New,
    /// This instance's logs were kept before.
    Before,
    /// Nothing is kept here.
    Off,
}

impl FailureLogs {
    /// Those in the config's `cache_home`.
    pub fn new(config: &Config) -> FailureLogs {
        FailureLogs { directory: config.cache_home.join("failures"), kept: config.failures_kept }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the logs of an instance, running or stopped. A log that cannot be read is noted in its place. `why`: the reason, of
    /// which the first line counts, and a script's output.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, lxd: &Lxd, instance: &Instance, why: (&str, &str), now: Timestamp) -> io::Result<Kept> {
        if self.kept == 0 {
            return Ok(Kept::Off);
        }
        let of_name = self.names()?.into_iter().filter(|name| instance_of(name) == Some(&instance.name));
        let earlier: Vec<Failure> = of_name.filter_map(|name| self.head(&name)).collect();
        let made = instance.created_at.map(Timestamp::to_rfc3339).unwrap_or_default();
        if !made.is_empty() && earlier.iter().any(|failure| failure.made == made) {
            return Ok(Kept::Before);
        }
        let when = now.to_rfc3339();
        let key = |key: &str| instance.config.get(key).map_or("", String::as_str);
        let (class, job) = (key(keys::CLASS), key(keys::JOB));
        let (why, output) = (why.0.lines().next().unwrap_or_default(), why.1);
        // Without the words that announce the output.
        let why = why.strip_suffix(':').and_then(|why| Some(why.rsplit_once("; ")?.0)).unwrap_or(why);
        let mut text = String::new();
        for (key, value) in [
            ("when", when.as_str()),
            ("instance", &instance.name),
            ("made", &made),
            ("class", class),
            ("job", job),
            ("why", why),
        ] {
            let value: String = masked(value).chars().take(VALUE).collect();
            text.push_str(&format!("{key}: {}\n", escaped(&value)));
        }
        let mut section = |title: &str, content: &str| text.push_str(&format!("\n==> {title}\n{content}\n"));
        let deadline = Instant::now() + PATIENCE;
        for path in logs(lxd, instance, deadline) {
            match lxd.pull_file_tail(&instance.project, &instance.name, &path, LOG_TAIL, left(deadline)) {
                Ok(Some(log)) => section(&path, &masked(end_of(&log))),
                // A script of the operator's own need not write a log.
                Ok(None) if path == SETUP_LOG && !output.is_empty() => {
                    section("what it printed", &masked(end_of(output)));
                }
                Ok(None) => section(&path, "(there is none)"),
                Err(error) => section(&path, &format!("(could not be read: {error})")),
            }
        }
        self.write(&format!("{}-{}{ENDING}", when.replace([':', '-'], ""), instance.name), &text)?;
        for failure in earlier {
            drop(fs::remove_file(failure.path));
        }
        self.prune();
        Ok(Kept::New)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        cache_files::make_directory(&self.directory)?;
        // Whole or not at all: the name comes last.
        let unfinished = self.directory.join(format!(".{name}.part"));
        let mut file = cache_files::create(&unfinished)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&unfinished, self.directory.join(name)));
        if written.is_err() {
            drop(fs::remove_file(&unfinished));
        }
        written
    }

    /// The names of the files, newest first.
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| instance_of(name).is_some()).collect();
        names.sort_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Removes the oldest, and half-written files of a crash.
    fn prune(&self) {
        let old = self.names().unwrap_or_default().into_iter().skip(self.kept);
        old.for_each(|name| drop(fs::remove_file(self.directory.join(name))));
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if entry.file_name().to_string_lossy().ends_with(".part") && age().is_some_and(|age| age > FORSAKEN) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// All kept failures, newest first.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn list(&self) -> io::Result<Vec<Failure>> {
        Ok(self.names()?.iter().filter_map(|name| self.head(name)).collect())
    }

    fn head(&self, name: &str) -> Option<Failure> {
        let path = self.directory.join(name);
        let file = fs::File::open(&path).ok()?;
        let size = file.metadata().ok()?.len();
        let mut head = Vec::new();
        file.take(HEAD).read_to_end(&mut head).ok()?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let value = |key: &str| {
            let mut lines = head.lines().take_while(|line| !line.is_empty());
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).unwrap_or_default().to_owned()
        };
        let (when, instance, made) = (when_of(name), instance_of(name)?.to_owned(), value("made"));
        let (class, job, why) = (value("class"), value("job"), value("why"));
        Some(Failure { path, when, instance, made, class, job, why, size })
    }

    /// The whole text of one.
    ///
    /// # Errors
    /// It cannot be read (any more).
    pub fn read(&self, failure: &Failure) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&failure.path)?).into_owned())
    }
}

/// The instance that a file of this name is about.
fn instance_of(name: &str) -> Option<&str> {
    let (time, rest) = name.split_at_checked(TIME)?;
    let shape = time.bytes().zip(TIME_SHAPE.bytes());
    let ours = shape.into_iter().all(|(byte, like)| if like == b'0' { byte.is_ascii_digit() } else { byte == like });
    rest.strip_prefix('-')?.strip_suffix(ENDING).filter(|_| ours)
}

/// RFC 3339 again, from the form that it has in a file's name.
fn when_of(name: &str) -> String {
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    let date = [part(0, 4), part(4, 6), part(6, 8)].join("-");
    format!("{date}T{}Z", [part(9, 11), part(11, 13), part(13, 15)].join(":"))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The end of a log, starting with a whole line: half a credential would not be masked.
fn end_of(log: &str) -> &str {
    if log.len() < LOG_TAIL {
        return log;
    }
    let from = log.len() - LOG_TAIL;
    let line = log.bytes().enumerate().skip(from).find(|(_, byte)| matches!(byte, b'\n' | b'\r'));
    line.and_then(|(at, _)| log.get(at + 1..)).unwrap_or("(one line that is too long)")
}

/// The logs to read: those of our scripts, and the runner's newest.
fn logs(lxd: &Lxd, instance: &Instance, deadline: Instant) -> Vec<String> {
    let mut logs: Vec<String> = LOGS.map(str::to_owned).to_vec();
    let mut names = match lxd.list_directory(&instance.project, &instance.name, DIAGNOSTICS, left(deadline)) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            log::debug!("instance={} msg=\"its diagnostic logs are not listed\" error=\"{error}\"", instance.name);
            Vec::new()
        }
    };
    // `Runner_20260102-030405-utc.log`: the name tells the age. From inside: only what is plainly a log's name.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    names.retain(|name| name.ends_with(".log") && name.chars().all(plain));
    let age = |name: &String| name.split_once('_').map(|(_, time)| time.to_owned());
    names.sort_by_key(|name| std::cmp::Reverse(age(name)));
    logs.extend(names.iter().take(DIAGNOSTIC_LOGS).map(|name| format!("{DIAGNOSTICS}/{name}")));
    logs
}
