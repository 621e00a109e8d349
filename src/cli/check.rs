//! `lxdrunner check`: whether everything that the config names is in order.

use std::path::PathBuf;
use std::process::ExitCode;

/// Runs all checks.
pub fn run(config_path: PathBuf) -> ExitCode {
    match super::load_config(&config_path) {
        Ok((_, warnings)) => {
            for warning in warnings {
                println!("warn {warning}");
            }
            println!("ok   {}", config_path.display());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
