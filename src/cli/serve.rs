//! `lxdrunner serve`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FAILURE, complain_of};
use crate::cli::output::complain;
use crate::config::Config;
use crate::daemon;

/// Set by a parent that keeps our standard input open for as long as it lives.
pub(super) const END_WITH_STDIN: &str = "LXDRUNNER_END_WITH_STDIN";

/// Set to 1, as good as `--trace`.
const TRACE: &str = "LXDRUNNER_TRACE";

/// Runs until the process is ended; returns only where it could not start.
pub fn run(config_path: PathBuf, trace: bool) -> ExitCode {
    let (config, warnings) = match Config::load(&config_path) {
        Ok(loaded) => loaded,
        Err(errors) => return complain_of(&errors),
    };
    for warning in warnings {
        log::warn!("config {warning}");
    }
    if std::env::var_os(END_WITH_STDIN).is_some() {
        daemon::end_with_stdin();
    }
    match daemon::run(config, trace || std::env::var_os(TRACE).is_some_and(|value| value == "1")) {
        Ok(never) => match never {},
        Err(error) => {
            complain!("lxdrunner: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
