//! `lxdrunner check`: whether everything that the config names is in order, one line each.

mod cache;
mod forbidden;
mod github;
mod images;
mod lxd;
mod web;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FAILURE, load_config};
use crate::config::Config;
use crate::text::escaped;

/// Runs all checks; the file's own errors end it, as nothing can be asked then.
pub fn run(config_path: PathBuf) -> ExitCode {
    let (config, warnings) = match load_config(&config_path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    let mut findings = Findings::new(&mut out);
    for warning in &warnings {
        findings.warn(warning);
    }
    findings.ok(format!(
        "{}: {} in runnermap",
        config_path.display(),
        counted(config.classes.len(), "class", "classes")
    ));
    ask(&config, &mut findings);
    if findings.failed { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

/// Asks LXD and GitHub, and looks at the cache and at where webhooks come in; does not stop at the first thing that is wrong.
pub fn ask(config: &Config, findings: &mut Findings<'_>) {
    cache::check(config, findings);
    lxd::check(config, findings);
    github::check(config, findings);
    web::check(config, findings);
}

/// Prints the findings, one a line: `ok`, `warn` or `FAIL`.
pub struct Findings<'a> {
    out: &'a mut dyn Write,
    /// Stands before each finding.
    about: String,
    failed: bool,
}

impl<'a> Findings<'a> {
    /// Nothing found yet.
    pub fn new(out: &'a mut dyn Write) -> Findings<'a> {
        Findings { out, about: String::new(), failed: false }
    }

    /// True where anything failed.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// What the findings from here on are about; it stands before each of them.
    fn about(&mut self, about: String) {
        self.about = about;
    }

    pub(super) fn ok(&mut self, what: impl Display) {
        self.line("ok  ", &what);
    }

    pub(super) fn warn(&mut self, what: impl Display) {
        self.line("warn", &what);
    }

    pub(super) fn fail(&mut self, what: impl Display, fix: impl Display) {
        self.failed = true;
        self.line("FAIL", &format_args!("{what} — {fix}"));
    }

    /// A failure whose text says the fix itself.
    pub(super) fn fail_as_told(&mut self, what: impl Display) {
        self.failed = true;
        self.line("FAIL", &what);
    }

    /// The object that was asked for; a failure where it does not exist (`missing`, with its fix) or nobody answers.
    fn found<T, E: Display>(&mut self, answer: Result<Option<T>, E>, missing: String, fix: String) -> Option<T> {
        match answer {
            Ok(Some(found)) => return Some(found),
            Ok(None) => self.fail(missing, fix),
            Err(error) => self.fail_as_told(error),
        }
        None
    }

    fn line(&mut self, mark: &str, what: &dyn Display) {
        let text = format!("{}{what}", self.about).replace(['\n', '\r'], " ");
        let text = escaped(&text);
        // A reader that has gone (`| head`) does not change what the exit code says.
        let _ = writeln!(self.out, "{mark} {text}");
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
