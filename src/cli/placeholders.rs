//! `lxdrunner placeholders remove`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::check::Findings;
use super::{EXIT_FAILURE, load_config};
use crate::github::GitHub;
use crate::upkeep::remove_placeholders;

/// Removes the placeholders of all targets; goes on after a failure.
pub fn run(config_path: PathBuf) -> ExitCode {
    let (config, _) = match load_config(&config_path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let github = GitHub::of_config(&config.github);
    let mut out = io::stdout().lock();
    let mut findings = Findings::new(&mut out);
    let targets = match config.targets.is_empty() {
        false => Ok(config.targets.clone()),
        true => github.discover(),
    };
    match targets {
        Ok(targets) => {
            for scope in &targets {
                match remove_placeholders(&github, scope) {
                    Ok(count) => findings.ok(format!("{scope}: {count} removed")),
                    Err(error) => findings.fail_as_told(format!("{scope}: {error}")),
                }
            }
        }
        Err(error) => findings.fail_as_told(error),
    }
    if config.placeholders {
        findings.warn("placeholders: true stands in the config file: a running daemon makes them anew");
    }
    if findings.failed() { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}
