//! Printing and logging. A closed standard output (`| head`) is not an error; a log that cannot be written ends the process,
//! and systemd starts it again.

use std::fmt;
use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::text::{escaped, escaped_lines};

/// Like `println!`, but a closed standard output is not an error, and control characters are escaped.
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::output::print(format_args!($($words)*)) };
}

/// Like `eprintln!`, with the same differences.
macro_rules! complain {
    ($($words:tt)*) => { $crate::cli::output::print_error(format_args!($($words)*)) };
}

pub(super) use {complain, say};

pub(super) fn print(words: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{}", escaped_lines(&words.to_string()));
}

/// The journal takes `<0>` at the beginning of a line for a priority: no line begins so.
pub(super) fn print_error(words: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{}", escaped_lines(&words.to_string()).replace("\n<", "\n <"));
}

/// The log, on standard error: a record is one line, whatever text from outside is in it.
struct OneLine(SimpleLogger);

/// Starts the log at `level`; libraries log warnings and errors only.
pub(super) fn set_up_log(level: LevelFilter, times: bool) {
    let logger = SimpleLogger::new().with_level(level.min(LevelFilter::Warn)).with_module_level("lxdrunner", level);
    let logger = if times { logger.with_utc_timestamps() } else { logger.without_timestamps() };
    // Only fails where there is a logger already, as in tests; then that one is used.
    if log::set_boxed_logger(Box::new(OneLine(logger))).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for OneLine {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let words = record.args().to_string();
            let mut line = Record::builder();
            let line = line.level(record.level()).target(target(record));
            self.0.log(&line.args(format_args!("{}", escaped(&words))).build());
        }
    }

    fn flush(&self) {}
}

/// The module that a line comes from is of interest in debug lines only.
fn target<'a>(record: &Record<'a>) -> &'a str {
    let ours = record.target().starts_with("lxdrunner");
    if ours && record.level() <= Level::Info { "lxdrunner" } else { record.target() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs itself as a process of its own, whose standard error is the log.
    #[test]
    fn a_record_is_one_line_and_names_no_module() {
        const LOGS: &str = "LXDRUNNER_TEST_LOGS";
        if std::env::var_os(LOGS).is_some() {
            set_up_log(LevelFilter::Info, false);
            log::info!("labels=a\n<0>lxdrunner[1]: \u{1b}[31m\r\u{202e}");
            log::debug!("not told");
            return;
        }
        let test = concat!(module_path!(), "::a_record_is_one_line_and_names_no_module");
        let (_, test) = test.split_once("::").unwrap();
        let mut logs = std::process::Command::new(std::env::current_exe().unwrap());
        let output = logs.args(["--exact", test, "--nocapture"]).env(LOGS, "1").output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(log, "INFO  [lxdrunner] labels=a\\n<0>lxdrunner[1]: \\x1b[31m\\r\\u{202e}\n");
    }
}
