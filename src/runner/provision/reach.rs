//! Failures to reach GitHub from inside an instance, for instance because of the host's firewall.

use std::time::Duration;

use super::hand_over::RUNNER_LOG;
use super::{Failure, Provision};
use crate::config::Class;
use crate::lxd::Lxd;
use crate::model::Devices;
use crate::runner::masks::masked;

/// The exit code of scripts in the instance without a network or a route to GitHub (EHOSTUNREACH).
pub(super) const NO_NETWORK: i64 = 113;
/// Characters kept of a reason.
const REASON: usize = 1024;
/// Bytes of the runner's log that are searched for a reason.
const LOG: usize = 64 * 1024;
/// Limit for reading it, since the instance's removal waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// `SCHEME://HOST:PORT` of an API's address.
pub(super) fn endpoint(api: &str) -> Option<String> {
    let uri = api.parse::<ureq::http::Uri>().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    Some(format!("{scheme}://{host}:{port}"))
}

impl Provision<'_> {
    /// The failure in the last lines of a script's output.
    pub(super) fn no_network(&self, output: String) -> Failure {
        let told = failure_in(self.lxd, self.class, &output).unwrap_or_else(|| shortened(&output));
        Failure::NoNetwork { told, output }
    }
}

/// Why the runner of a running instance of the class does not come online, if `start-runner.sh` logged it.
pub fn why_not_online(lxd: &Lxd, class: &Class, name: &str) -> Option<String> {
    let log = lxd.pull_file_tail(&class.project, name, RUNNER_LOG, LOG, PATIENCE).ok().flatten()?;
    failure_in(lxd, class, &log)
}

/// The last failure that the scripts wrote into a log, with the network's name on this host.
fn failure_in(lxd: &Lxd, class: &Class, log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.starts_with("lxdrunner-") && line.contains("FAILED: "))?;
    let told = shortened(line.rsplit("FAILED: ").next()?);
    Some(match bridge(lxd, class) {
        Some(bridge) => told.replace("BRIDGE", &bridge),
        None => told,
    })
}

fn shortened(told: &str) -> String {
    masked(told).chars().take(REASON).collect()
}

/// The network of the class's instances, by its name on the host.
fn bridge(lxd: &Lxd, class: &Class) -> Option<String> {
    let mut devices = Devices::new();
    for profile in &class.profiles {
        devices.extend(lxd.profile(&class.project, profile).ok().flatten()?.devices);
    }
    devices.extend(class.devices.clone());
    devices.values().find_map(|device| device.get("network").or(device.get("parent")).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apis_address_is_told_as_what_is_connected_to() {
        let check = |api: &str, to: &str| assert_eq!(endpoint(api).as_deref(), Some(to));
        check("https://api.github.com", "https://api.github.com:443");
        check("https://ghe.example:8443/api/v3", "https://ghe.example:8443");
        check("http://127.0.0.1:5000", "http://127.0.0.1:5000");
        check("http://[::1]/api", "http://[::1]:80");
    }
}
