//! Whether a runner reaches GitHub from inside its instance, which its network may be kept from by the host's firewall.

use std::time::Duration;

use super::hand_over::RUNNER_LOG;
use super::{Failure, Provision};
use crate::config::Class;
use crate::lxd::Lxd;
use crate::model::Devices;
use crate::runner::masks::masked;

/// What scripts in the instance end with where there is no network, or no way to GitHub (EHOSTUNREACH).
pub(super) const NO_NETWORK: i64 = 113;
/// Characters of a reason that are kept.
const REASON: usize = 1024;
/// Bytes of the runner's log that a reason is looked for in.
const LOG: usize = 64 * 1024;
/// How long reading it may take: the instance is to go.
const PATIENCE: Duration = Duration::from_secs(3);

/// `SCHEME://HOST:PORT` of an API's address.
pub(super) fn endpoint(api: &str) -> Option<String> {
    let uri = api.parse::<ureq::http::Uri>().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    Some(format!("{scheme}://{host}:{port}"))
}

impl Provision<'_> {
    /// The failure that a script told of in its last words.
    pub(super) fn no_network(&self, output: String) -> Failure {
        let told = failure_in(self.lxd, self.class, &output).unwrap_or_else(|| shortened(&output));
        Failure::NoNetwork { told, output }
    }
}

/// Why the runner of a running instance of the class does not come online, where `start-runner.sh` says it in its log.
pub fn why_not_online(lxd: &Lxd, class: &Class, name: &str) -> Option<String> {
    let log = lxd.pull_file_tail(&class.project, name, RUNNER_LOG, LOG, PATIENCE).ok().flatten()?;
    failure_in(lxd, class, &log)
}

/// The last failure that our scripts tell of in a log, with the name of the network on this host.
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

/// The network of the class's instances, as its host calls it.
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
