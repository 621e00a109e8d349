//! `lxdrunner demo`: the whole story on one machine.

use std::process::ExitCode;

pub use super::args::DemoOptions;

/// Runs the demo.
pub fn run(options: DemoOptions) -> ExitCode {
    log::error!("demo not built in yet; jobs={}", options.jobs);
    ExitCode::from(super::EXIT_FAILURE)
}
