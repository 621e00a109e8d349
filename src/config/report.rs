//! Errors and warnings about a config file.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use super::node::{Path, line_of};
use crate::text::escaped;

/// The most errors that are shown: each line number costs one parse of the file. A file with more errors is probably not
/// a config file.
const MOST_TOLD: usize = 100;

/// Something that the operator should know about a file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(Entry);

/// All errors of a config file. Prints one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<Entry>,
    warnings: Vec<Warning>,
    /// The number of errors that are not shown.
    untold: usize,
    /// True where all errors are missing files that exist only while the service runs.
    of_service: bool,
}

/// `config.yml:12: runnermap[0].image: what — fix`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    file: PathBuf,
    line: Option<usize>,
    path: String,
    text: String,
}

impl ConfigErrors {
    /// The number of errors; at least one.
    pub fn count(&self) -> usize {
        self.errors.len() + self.untold
    }

    /// True where the only fault is that the service does not run: systemd removes its secrets then.
    pub fn is_service_down(&self) -> bool {
        self.of_service
    }

    /// The warnings beside the errors.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// One error about the file as a whole, or about one line of it.
    pub(super) fn one(file: &FilePath, line: Option<usize>, what: &str, fix: &str) -> ConfigErrors {
        let entry = Entry { file: file.to_owned(), line, path: String::new(), text: format!("{what} — {fix}") };
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

/// Collects errors and warnings while the file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The directory of the config file.
    directory: PathBuf,
    errors: RefCell<Vec<(Path, String)>>,
    warnings: RefCell<Vec<(Path, String)>>,
    /// The number of errors about files that exist only while the service runs.
    of_service: Cell<usize>,
}

impl Report {
    /// An empty report about `file`.
    pub(super) fn new(file: &FilePath) -> Report {
        Report { directory: file.parent().unwrap_or(FilePath::new("")).to_owned(), ..Report::default() }
    }

    /// A file that the config file names: a relative name starts at the config file's directory.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Adds an error about a file that exists only while the service runs.
    pub(super) fn error_of_service(&self, path: &Path, what: impl fmt::Display, fix: impl fmt::Display) {
        self.of_service.set(self.of_service.get() + 1);
        self.error(path, what, fix);
    }

    /// Adds an error: `what` is wrong at `path`, and `fix` says what to do.
    pub(super) fn error(&self, path: &Path, what: impl fmt::Display, fix: impl fmt::Display) {
        self.errors.borrow_mut().push((path.clone(), format!("{what} — {fix}")));
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    pub(super) fn warn(&self, path: &Path, text: impl fmt::Display) {
        self.warnings.borrow_mut().push((path.clone(), text.to_string()));
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
        let (errors, warnings) = (self.errors.into_inner(), self.warnings.into_inner());
        let warnings = locate(warnings).into_iter().map(Warning).collect();
        let untold = errors.len().saturating_sub(MOST_TOLD);
        let of_service = self.of_service.get() == errors.len();
        match locate(errors) {
            errors if errors.is_empty() => Ok(warnings),
            errors => Err(ConfigErrors { errors, warnings, untold, of_service }),
        }
    }
}
