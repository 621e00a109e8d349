//! The binary: parse the arguments, run a command, map its end to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lxdrunner::cli::run(std::env::args_os().skip(1).collect())
}
