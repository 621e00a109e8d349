//! Whether a runner reaches GitHub from inside its instance, which its network may be kept from by the host's firewall.

use super::{Failure, Provision};
use crate::model::Devices;
use crate::runner::masks::masked;

/// What scripts in the instance end with where there is no network, or no way to GitHub (EHOSTUNREACH).
pub(super) const NO_NETWORK: i64 = 113;
/// Bytes of a reason that are kept.
const REASON: usize = 1024;

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
        let last = output.lines().rev().find(|line| line.contains("FAILED: ")).unwrap_or(&output);
        let told: String = masked(last.rsplit("FAILED: ").next().unwrap_or(last)).chars().take(REASON).collect();
        let told = match self.bridge() {
            Some(bridge) => told.replace("BRIDGE", &bridge),
            None => told,
        };
        Failure::NoNetwork { told, output }
    }

    /// The network of the class's instances, as its host calls it.
    fn bridge(&self) -> Option<String> {
        let mut devices = Devices::new();
        for profile in &self.class.profiles {
            devices.extend(self.lxd.profile(&self.class.project, profile).ok().flatten()?.devices);
        }
        devices.extend(self.class.devices.clone());
        devices.values().find_map(|device| device.get("network").or(device.get("parent")).cloned())
    }
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
