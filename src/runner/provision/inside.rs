//! A look into an instance.

use std::time::Duration;

use crate::lxd::{Exec, Instance, Lxd};
use crate::model::ConfigMap;

/// What a look into an instance found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A `Runner.Worker` process: a job runs.
    Working,
    /// None.
    Quiet,
    /// The look did not work.
    Unknown,
}

/// Looks for a worker process inside: GitHub is known to call a busy runner idle now and then, and the worker exists
/// exactly while a job runs.
pub fn look_inside(lxd: &Lxd, instance: &Instance) -> Inside {
    // The pattern does not match its own command line.
    let look = "grep -la 'Runner[.]Worker' /proc/[0-9]*/cmdline 2>/dev/null | grep -q .";
    let command = ["sh", "-c", look].map(str::to_owned).to_vec();
    let exec = Exec { command, environment: ConfigMap::new(), record: false };
    match lxd.exec(&instance.project, &instance.name, &exec, Duration::from_secs(10)) {
        Ok(result) if result.code == 0 => Inside::Working,
        Ok(result) if result.code == 1 => Inside::Quiet,
        _ => Inside::Unknown,
    }
}
