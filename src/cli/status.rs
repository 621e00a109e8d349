//! `lxdrunner status`: the current state, from the running daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FAILURE, load_config};
use crate::cli::output::{complain, say};
use crate::control::{self, Question};

/// Shows it, for people or as metrics.
pub fn run(config_path: PathBuf, metrics: bool) -> ExitCode {
    let config = match load_config(&config_path) {
        Ok((config, _)) => config,
        Err(code) => return code,
    };
    let question = if metrics { Question::Metrics } else { Question::Status };
    match control::ask(&control::socket(&config), &question) {
        Ok(answer) => {
            say!("{}", answer.text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) if error.is_absence() => {
            complain!(
                "lxdrunner: {error}: start it (systemctl start lxdrunner), or name the config file that it runs with (-c)"
            );
            ExitCode::from(EXIT_FAILURE)
        }
        Err(error) => {
            complain!("lxdrunner: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
