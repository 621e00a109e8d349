//! A look into an instance.

use std::time::Duration;

use crate::lxd::{Exec, Lxd};
use crate::model::ConfigMap;
use crate::steps::removal::Inside;

/// Looks for a worker process inside, which exists exactly while a job runs: GitHub sometimes lists a busy runner as idle.
pub fn look_inside(lxd: &Lxd, project: &str, name: &str) -> Inside {
    // The pattern does not match its own command line.
    let look = "grep -la 'Runner[.]Worker' /proc/[0-9]*/cmdline 2>/dev/null | grep -q .";
    let command = ["sh", "-c", look].map(str::to_owned).to_vec();
    let exec = Exec { command, environment: ConfigMap::new(), record: false };
    match lxd.exec(project, name, &exec, Duration::from_secs(10)) {
        Ok(result) if result.code == 0 => Inside::Working,
        Ok(result) if result.code == 1 => Inside::Quiet,
        _ => Inside::Unknown,
    }
}
