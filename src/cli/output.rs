//! What we print and log: a reader that has gone (`| head`), or a disk that is full, must not end the process. The
//! daemon would leave jobs unserved, and the demo its instances behind.

use std::fmt;
use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

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

/// The log, on standard error.
struct StandardError {
    /// For what is ours.
    level: LevelFilter,
    /// Whether lines begin with the time.
    times: bool,
}

/// Begins to log what is `level` or worse, from libraries at most warnings.
pub(super) fn set_up_log(level: LevelFilter, times: bool) {
    // Only fails where there is a logger already, as in tests; then that one is used.
    if log::set_boxed_logger(Box::new(StandardError { level, times })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let ours = metadata.target().starts_with("lxdrunner");
        metadata.level() <= if ours { self.level } else { self.level.min(LevelFilter::Warn) }
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            // In one piece, so that lines of several threads or processes do not mix.
            let _ = std::io::stderr().write_all(self.line(record).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Where a line comes from helps who reads the code, not who runs it.
fn place(record: &Record) -> String {
    let plain = record.level() <= Level::Info && record.target().starts_with("lxdrunner");
    if plain { String::new() } else { format!("[{}] ", record.target()) }
}

impl StandardError {
    /// A record is one line, whatever text from outside is in it.
    fn line(&self, record: &Record) -> String {
        let words = record.args().to_string();
        format!("{}{:<5} {}{}\n", self.time(), record.level(), place(record), escaped(&words))
    }

    fn time(&self) -> String {
        if !self.times {
            return String::new();
        }
        let now = time::OffsetDateTime::now_utc();
        let (date, (hour, minute, second, ms)) = (now.date(), now.time().as_hms_milli());
        format!("{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let log = StandardError { level: LevelFilter::Info, times: false };
        let words = format_args!("labels=a\n<0>lxdrunner[1]: \u{1b}[31m\r\u{202e}");
        let record = Record::builder().level(Level::Info).target("lxdrunner").args(words).build();
        assert_eq!(log.line(&record), "INFO  labels=a\\n<0>lxdrunner[1]: \\x1b[31m\\r\\u{202e}\n");
    }
}
