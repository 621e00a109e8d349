//! What is wrong with a config file, and what is merely to be said about it.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use super::node::{Path, line_of};
use super::secret;
use crate::text::escaped;

/// Complaints that are told, each with its line, which costs a walk through the file; who has more has named the wrong
/// file, or will see the others next time.
const MOST_TOLD: usize = 100;

/// Something that the operator should know; the file is usable all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(Entry);

/// Everything that keeps a config file from being used. Prints one complaint a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<Entry>,
    warnings: Vec<Warning>,
    /// How many more there were than are told.
    untold: usize,
    /// True where all of them are files that are there only while the service runs.
    of_service: bool,
}

/// `config.yml:12: runnermap[0].image: what — mend`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    file: PathBuf,
    line: Option<usize>,
    path: String,
    text: String,
}

impl ConfigErrors {
    /// How many complaints there are; at least one.
    pub fn len(&self) -> usize {
        self.errors.len() + self.untold
    }

    /// True where nothing is wrong but that the service does not run: systemd takes its secrets away.
    pub fn is_service_down(&self) -> bool {
        self.of_service
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// What else there is to be said.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// One complaint about the file as a whole, or about one line of it.
    pub(super) fn one(file: &FilePath, line: Option<usize>, what: &str, mend: &str) -> ConfigErrors {
        let entry = Entry { file: file.to_owned(), line, path: String::new(), text: format!("{what} — {mend}") };
        ConfigErrors { errors: vec![entry], warnings: Vec::new(), untold: 0, of_service: false }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!("{line}:")).unwrap_or_default();
        let path = if self.path.is_empty() { String::new() } else { format!(" {}:", self.path) };
        f.write_str(&escaped(&format!("{}:{line}{path} {}", self.file.display(), self.text)))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            entry.fmt(f)?;
        }
        match self.untold {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Gathers complaints and warnings while the file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<(Path, String)>,
    warnings: Vec<(Path, String)>,
    /// Of the errors, how many are of files that are there only while the service runs.
    of_service: usize,
}

impl Report {
    /// A secret's file cannot be read.
    pub(super) fn unreadable(&mut self, path: &Path, file: &FilePath, error: &std::io::Error) {
        self.of_service += usize::from(secret::is_of_service(file, error));
        self.error(path, format!("cannot read {}: {error}", file.display()), secret::file_mend(file, error));
    }

    /// `what` is wrong at `path`, and `mend` says how to put it right.
    pub(super) fn error(&mut self, path: &Path, what: impl fmt::Display, mend: impl fmt::Display) {
        self.errors.push((path.clone(), format!("{what} — {mend}")));
    }

    pub(super) fn warn(&mut self, path: &Path, text: impl fmt::Display) {
        self.warnings.push((path.clone(), text.to_string()));
    }

    /// Looks up the lines and sorts by them. `Err` where anything is wrong.
    pub(super) fn close(self, file: &FilePath, text: &str) -> Result<Vec<Warning>, ConfigErrors> {
        let locate = |entries: Vec<(Path, String)>| {
            let mut found: Vec<Entry> = entries
                .into_iter()
                .take(MOST_TOLD)
                .map(|(path, what)| {
                    let line = line_of(text, &path);
                    Entry { file: file.to_owned(), line, path: path.to_string(), text: what }
                })
                .collect();
            found.sort_by_key(|entry| entry.line);
            found
        };
        let warnings = locate(self.warnings).into_iter().map(Warning).collect();
        let untold = self.errors.len().saturating_sub(MOST_TOLD);
        let of_service = self.of_service == self.errors.len();
        match locate(self.errors) {
            errors if errors.is_empty() => Ok(warnings),
            errors => Err(ConfigErrors { errors, warnings, untold, of_service }),
        }
    }
}
