//! The command line.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that the arguments name.
pub fn run(_args: Vec<OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
