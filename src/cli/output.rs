//! What we print and log: a reader that has gone (`| head`), or a disk that is full, must not end the process. The
//! daemon would leave jobs unserved, and the demo its instances behind.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Like `println!`, but who does not listen is left alone.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// Like `eprintln!`, but who does not listen is left alone.
macro_rules! complain {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub(super) use {complain, say};

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
            let line = format!("{}{:<5} {}{}\n", self.time(), record.level(), place(record), record.args());
            // In one piece, so that lines of several threads or processes do not mix.
            let _ = std::io::stderr().write_all(line.as_bytes());
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
    fn time(&self) -> String {
        if !self.times {
            return String::new();
        }
        let now = time::OffsetDateTime::now_utc();
        let (date, (hour, minute, second, ms)) = (now.date(), now.time().as_hms_milli());
        format!("{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z ")
    }
}
