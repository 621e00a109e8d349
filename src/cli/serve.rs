//! `lxdrunner serve`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FAILURE, load_config};

/// Runs until something fails.
pub fn run(config_path: PathBuf) -> ExitCode {
    let Ok((config, warnings)) = load_config(&config_path) else { return ExitCode::from(super::EXIT_CONFIG) };
    for warning in warnings {
        log::warn!("config {warning}");
    }
    log::error!("daemon not built in yet; classes={}", config.classes.len());
    ExitCode::from(EXIT_FAILURE)
}
