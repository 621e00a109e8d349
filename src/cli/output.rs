//! What we print and log. A reader of standard output that has gone (`| head`) is no error; a log that cannot be written ends
//! the process, and systemd starts it again.

use std::fmt;
use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::text::{escaped, escaped_lines};

/// Like `println!`, but a reader that has gone is no error, and what a terminal would obey is escaped.
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

/// Begins to log what is `level` or worse, from libraries at most warnings.
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

/// Which module a line comes from helps to read the code, not to run it.
fn target<'a>(record: &Record<'a>) -> &'a str {
    let ours = record.target().starts_with("lxdrunner");
    if ours && record.level() <= Level::Info { "lxdrunner" } else { record.target() }
}
