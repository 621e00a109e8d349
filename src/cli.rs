//! The command line: parses the arguments, runs a command, returns its exit code.

pub mod args;
pub mod bake;
pub mod check;
pub mod explain;
pub mod failures;
mod help;
pub mod hooks;
mod output;
pub mod placeholders;
pub mod serve;
pub mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use log::LevelFilter;

use args::{Command, Invocation};
use output::{complain, say};

use crate::config::{Config, ConfigErrors, Warning, passed_over};

/// Something failed that may work next time.
pub const EXIT_FAILURE: u8 = 1;
/// The command line was wrong.
pub const EXIT_USAGE: u8 = 2;
/// The config file is wrong: starting again does not help (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Runs the command that the arguments (without the program's own name) ask for.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let invocation = match args::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            complain!("lxdrunner: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match invocation {
        Invocation::Print(text) => {
            say!("{text}");
            ExitCode::SUCCESS
        }
        Invocation::Run { command, config, verbose } => {
            set_up_log(verbose, &command);
            if matches!(command, Command::Serve { .. }) {
                crate::threads::exit_on_panic();
            }
            with_config_path(config, |path| match command {
                Command::Serve { trace } => serve::run(path, trace),
                Command::Check => check::run(path),
                Command::Status { metrics } => status::run(path, metrics),
                Command::Explain { job } => explain::run(path, &job),
                Command::Hooks { verb, url } => hooks::run(path, verb, url),
                Command::RemovePlaceholders => placeholders::run(path),
                Command::Bake { class } => bake::run(path, class.as_deref()),
                Command::Failures { instance } => failures::run(path, instance.as_deref()),
            })
        }
    }
}

fn with_config_path(explicit: Option<PathBuf>, command: impl FnOnce(PathBuf) -> ExitCode) -> ExitCode {
    let named = explicit.is_some() || std::env::var_os("LXDRCFG").is_some();
    match Config::find(explicit) {
        Ok(path) => {
            if let Some(words) = passed_over(&path).filter(|_| !named) {
                complain!("lxdrunner: {words}");
            }
            command(path)
        }
        Err(error) => {
            complain!("lxdrunner: {error}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Loads the config file; complaints go to standard error, where nothing but the exit code is left to do.
pub fn load_config(path: &std::path::Path) -> Result<(Config, Vec<Warning>), ExitCode> {
    Config::load(path).map_err(|errors| match errors.is_service_down() {
        true => {
            let path = path.display();
            complain!(
                "lxdrunner: the service does not run, and {path} names secrets that systemd hands over only while it does: \
                 systemctl status lxdrunner"
            );
            ExitCode::from(EXIT_FAILURE)
        }
        false => complain_of(&errors),
    })
}

/// Prints the errors and warnings of a config file.
fn complain_of(errors: &ConfigErrors) -> ExitCode {
    for warning in errors.warnings() {
        complain!("warning: {warning}");
    }
    complain!("{errors}");
    let many = if errors.count() == 1 { "one error".to_owned() } else { format!("{} errors", errors.count()) };
    complain!("lxdrunner: {many} in the config file; nothing was started");
    ExitCode::from(EXIT_CONFIG)
}

/// The log goes to standard error; under systemd without a time, which the journal has.
fn set_up_log(verbose: bool, command: &Command) {
    let level = match std::env::var("LXDRUNNER_LOG").ok().and_then(|v| v.parse::<LevelFilter>().ok()) {
        _ if verbose => LevelFilter::Debug,
        Some(level) => level,
        // The other commands speak for themselves.
        None if matches!(command, Command::Serve { .. }) => LevelFilter::Info,
        None => LevelFilter::Warn,
    };
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    output::set_up_log(level, !under_systemd);
}
