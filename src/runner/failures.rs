//! What instances that failed had to say: kept on this host, since the instance itself is destroyed.
//!
//! One file for each, `TIME-INSTANCE.txt`, in a directory that only we can read: a few lines about the instance, then
//! the ends of its set-up log, of the runner's log and of the runner's newest diagnostic logs. Only the newest are kept.
//! What a script prints is its author's; credentials are in none of these logs.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::lxd::{Instance, Lxd};
use crate::model::{Timestamp, keys};

/// Bytes that are kept of each log's end.
pub const LOG_TAIL: usize = 64 * 1024;
/// Logs of the runner's own directory that are kept: its listener's and its worker's.
const DIAGNOSTIC_LOGS: usize = 2;
const LOGS: [&str; 2] = ["/var/log/lxdrunner-setup.log", "/var/log/lxdrunner-runner.log"];
const DIAGNOSTICS: &str = "/opt/lxdrunner/runner/_diag";
/// Of a file's head, what is read to list it.
const HEAD: usize = 2048;

/// The failures below one directory.
#[derive(Clone, Debug)]
pub struct Failures {
    directory: PathBuf,
    kept: usize,
}

/// One that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its file.
    pub path: PathBuf,
    /// `2026-01-02T03:04:05Z`
    pub when: String,
    pub instance: String,
    /// Empty where the instance did not tell.
    pub class: String,
    pub job: String,
    /// Why it was removed.
    pub why: String,
}

impl Failures {
    /// Those in `cache_home`; `kept` is how many there may be, 0 keeps none.
    pub fn new(cache_home: &Path, kept: usize) -> Failures {
        Failures { directory: cache_home.join("failures"), kept }
    }

    /// Takes down what the instance's logs say, running or stopped. What cannot be had is said in its place: whoever
    /// removes the instance goes on.
    ///
    /// # Errors
    /// Only where nothing can be written here.
    pub fn keep(&self, lxd: &Lxd, instance: &Instance, why: &str, now: Timestamp) -> io::Result<()> {
        if self.kept == 0 {
            return Ok(());
        }
        let when = now.to_rfc3339();
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            let value = value.replace(char::is_control, " ");
            text.push_str(&format!("{key}: {value}\n"));
        };
        line("when", &when);
        line("instance", &instance.name);
        line("class", key(instance, keys::CLASS));
        line("job", key(instance, keys::JOB));
        line("why", why);
        for path in logs(lxd, instance) {
            text.push_str(&format!("\n==> {path}\n"));
            match lxd.pull_file_tail(&instance.project, &instance.name, &path, LOG_TAIL) {
                Ok(Some(log)) => text.push_str(&log),
                Ok(None) => text.push_str("(there is none)"),
                Err(error) => text.push_str(&format!("(could not be read: {error})")),
            }
            text.push('\n');
        }
        self.write(&format!("{}-{}.txt", when.replace([':', '-'], ""), instance.name), &text)?;
        self.prune();
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        // Whole or not at all: the name comes last.
        let unfinished = self.directory.join(format!(".{name}.part"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
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
        let mut names: Vec<String> = names.filter(|n| n.ends_with(".txt") && !n.starts_with('.')).collect();
        names.sort_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Removes the oldest, and what a crash left half-written.
    fn prune(&self) {
        let old = self.names().unwrap_or_default().into_iter().skip(self.kept);
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let unfinished = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.ends_with(".part"));
        for name in old.chain(unfinished) {
            drop(fs::remove_file(self.directory.join(name)));
        }
    }

    /// All that are kept, newest first.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn list(&self) -> io::Result<Vec<Failure>> {
        Ok(self.names()?.iter().filter_map(|name| self.head(name)).collect())
    }

    fn head(&self, name: &str) -> Option<Failure> {
        use std::io::Read;

        let path = self.directory.join(name);
        let mut head = Vec::new();
        fs::File::open(&path).ok()?.take(HEAD as u64).read_to_end(&mut head).ok()?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let value = |key: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let (when, instance, class, job, why) =
            (value("when"), value("instance"), value("class"), value("job"), value("why"));
        Some(Failure { path, when, instance, class, job, why })
    }

    /// The whole text of one.
    ///
    /// # Errors
    /// It cannot be read (any more).
    pub fn read(&self, failure: &Failure) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&failure.path)?).into_owned())
    }
}

fn key<'a>(instance: &'a Instance, key: &str) -> &'a str {
    instance.config.get(key).map_or("", String::as_str)
}

/// The logs to read: those of our scripts, and the runner's newest.
fn logs(lxd: &Lxd, instance: &Instance) -> Vec<String> {
    let mut logs: Vec<String> = LOGS.map(str::to_owned).to_vec();
    let mut names = match lxd.list_directory(&instance.project, &instance.name, DIAGNOSTICS) {
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
