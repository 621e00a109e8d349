//! `lxdrunner failures`: the kept logs of failed instances.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FAILURE, load_config};
use crate::cli::output::{complain, say};
use crate::config::Config;
use crate::runner::failure_logs::{Failure, FailureLogs};
use crate::table::columns;

/// Names that an error lists, at most.
const NAMED: usize = 10;

/// Lists all, or prints one.
pub fn run(config_path: PathBuf, instance: Option<&str>) -> ExitCode {
    let config = match load_config(&config_path) {
        Ok((config, _)) => config,
        Err(code) => {
            // Secrets that systemd hands over are there only while the daemon runs, and it may be down for just this.
            complain!(
                "lxdrunner: what was kept can be read without it: CACHE_HOME/failures, by default /var/cache/lxdrunner/failures"
            );
            return code;
        }
    };
    let told = match instance {
        None => list(&config),
        Some(instance) => show(&config, instance),
    };
    match told {
        Ok(text) => {
            say!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain!("lxdrunner: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn list(config: &Config) -> Result<String, String> {
    let failures = FailureLogs::new(config);
    let all = all(&failures)?;
    if all.is_empty() {
        return Ok(nothing(config, &failures));
    }
    let mut rows = vec![["WHEN", "INSTANCE", "CLASS", "JOB", "SIZE", "WHY"].map(str::to_owned).to_vec()];
    let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    rows.extend(all.iter().map(|failure| {
        let Failure { when, instance, class, job, why, size, .. } = failure;
        let size = format!("{} KiB", size.div_ceil(1024));
        vec![shown(when), shown(instance), shown(class), shown(job), size, shown(why)]
    }));
    Ok(columns(&rows))
}

fn show(config: &Config, wanted: &str) -> Result<String, String> {
    let failures = FailureLogs::new(config);
    let all = all(&failures)?;
    let of_job = || all.iter().find(|failure| failure.job == wanted);
    let Some(failure) = all.iter().find(|failure| failure.instance == wanted).or_else(of_job) else {
        let kept: Vec<&str> = all.iter().map(|failure| failure.instance.as_str()).collect();
        let more = if kept.len() > NAMED { ", … (lxdrunner failures lists all)" } else { "" };
        let kept = kept.get(..NAMED).unwrap_or(&kept).join(", ");
        return Err(match kept.is_empty() {
            true => format!("of {wanted} nothing is kept: {}", nothing(config, &failures)),
            false => format!("of {wanted} nothing is kept; there are: {kept}{more}"),
        });
    };
    failures.read(failure).map_err(|error| cannot_read(&failures, &error))
}

fn all(failures: &FailureLogs) -> Result<Vec<Failure>, String> {
    failures.list().map_err(|error| cannot_read(failures, &error))
}

fn cannot_read(failures: &FailureLogs, error: &io::Error) -> String {
    let place = failures.directory().display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{place} is not yours to read: run this as root, or as the daemon's user")
        }
        ErrorKind::NotADirectory => format!("{place} is not a directory: remove it, the daemon makes one"),
        _ => format!("{place} cannot be read: {error}"),
    }
}

fn nothing(config: &Config, failures: &FailureLogs) -> String {
    match config.failures_kept {
        0 => "failures_kept is 0 in the config file".to_owned(),
        _ => format!("no instance has failed, as far as {} tells", failures.directory().display()),
    }
}
