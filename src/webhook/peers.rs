//! The addresses that may connect, and clients behind proxies.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::{Config, Network, WebAllow};
use crate::threads::lock;

/// How long the first connections wait for GitHub's list of its addresses. GitHub waits ten seconds for the answer to a
/// delivery.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client may read beyond the status code of `/healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Public,
    /// The text of `/healthz`: for this machine.
    Health,
    /// That and `/metrics`: for the addresses of `web_metrics`.
    Metrics,
}

const ACCESS: [(Access, &str); 3] =
    [(Access::Public, "public"), (Access::Health, "health"), (Access::Metrics, "metrics")];

/// The client of a request. The gate writes it into the header [`Caller::HEADER`] of the request for tiny_http.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    pub(super) access: Access,
}

impl Caller {
    pub(super) const HEADER: &str = "Lxdrunner-Caller";
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ACCESS.iter().find(|(access, _)| *access == self.access).map_or("", |(_, name)| name);
        write!(f, "{} {name}", self.address)
    }
}

impl FromStr for Caller {
    type Err = ();

    fn from_str(text: &str) -> Result<Caller, ()> {
        let (address, name) = text.split_once(' ').ok_or(())?;
        let (access, _) = *ACCESS.iter().find(|(_, known)| *known == name).ok_or(())?;
        Ok(Caller { address: address.parse().map_err(drop)?, access })
    }
}

/// The address that a connection is counted under: for IPv6 its /64, which one subscriber has.
pub(super) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// The addresses that may connect, and the trusted proxies.
#[derive(Debug, Default)]
pub struct Peers {
    proxies: Vec<Network>,
    allow: Option<WebAllow>,
    metrics: Vec<Network>,
    github: Mutex<GitHubs>,
}

/// GitHub's addresses.
#[derive(Debug, Default)]
struct GitHubs {
    networks: Vec<Network>,
    /// Connections wait until then; `None` if they do not.
    awaited_until: Option<Instant>,
}

impl Peers {
    /// As the config says.
    pub fn new(config: &Config) -> Peers {
        Peers::of(config.web_trusted_proxies.clone(), config.web_allow.clone()).measured_by(config.web_metrics.clone())
    }

    /// Sets the trusted proxies and the only addresses that may connect.
    pub fn of(proxies: Vec<Network>, allow: Option<WebAllow>) -> Peers {
        let github = allow.as_ref().is_some_and(|allow| allow.github);
        let awaited_until = github.then(|| Instant::now() + PATIENCE);
        let github = Mutex::new(GitHubs { networks: Vec::new(), awaited_until });
        Peers { proxies, allow, metrics: Vec::new(), github }
    }

    /// Adds addresses that may read the metrics; they may connect, too.
    pub fn measured_by(self, metrics: Vec<Network>) -> Peers {
        Peers { metrics, ..self }
    }

    /// True if GitHub must be asked for its addresses.
    pub fn want_github(&self) -> bool {
        self.allow.as_ref().is_some_and(|allow| allow.github)
    }

    /// Replaces GitHub's addresses.
    pub fn github_is_at(&self, networks: Vec<Network>) {
        *lock(&self.github) = GitHubs { networks, awaited_until: None };
    }

    /// GitHub did not answer; its last answer holds, or nothing.
    pub fn github_did_not_say(&self) {
        lock(&self.github).awaited_until = None;
    }

    /// False while the first connections must wait.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        if !self.want_github() {
            return true;
        }
        let github = lock(&self.github);
        github.awaited_until.is_none_or(|until| until <= now)
    }

    pub(super) fn has_proxies(&self) -> bool {
        !self.proxies.is_empty()
    }

    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    pub(super) fn is_restricted(&self) -> bool {
        self.allow.is_some()
    }

    /// Whether this address may connect. This machine always may.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let Some(allow) = &self.allow else { return true };
        let named = allow.networks.iter().any(|network| network.contains(address));
        if address.is_loopback() || named || self.may_measure(address) {
            return true;
        }
        let github = lock(&self.github);
        allow.github && github.networks.iter().any(|network| network.contains(address))
    }

    /// What a client at `address` may read; `None`: unknown, since a proxy does not name its client.
    pub(super) fn access(&self, address: Option<IpAddr>) -> Access {
        match address {
            Some(address) if self.may_measure(address) => Access::Metrics,
            Some(address) if address.is_loopback() => Access::Health,
            _ => Access::Public,
        }
    }

    /// Whether `web_metrics` names the address.
    fn may_measure(&self, address: IpAddr) -> bool {
        self.metrics.iter().any(|network| network.contains(address))
    }

    /// The client of a proxy's request: the last address in the header that is not a trusted proxy. Earlier ones are claims of
    /// the client. `None` if the header does not tell.
    pub(super) fn behind(&self, forwarded_for: Option<&str>) -> Option<IpAddr> {
        let mut last = None;
        for text in forwarded_for?.rsplit(',') {
            let address = address(text.trim())?;
            last = Some(address);
            if !self.is_proxy(address) {
                break;
            }
        }
        last
    }
}

/// An address as proxies write it: bare, in brackets, and with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(bare).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_ipv6_subscriber_has_a_network() {
        let check = |address: &str, expected: &str| {
            assert_eq!(subscriber(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{address}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:3::1", "2001:db8:1:3::");
    }

    #[test]
    fn a_caller_is_read_as_it_is_written() {
        for text in ["192.0.2.7 public", "::1 health", "2001:db8::1 metrics"] {
            assert_eq!(text.parse::<Caller>().unwrap().to_string(), text);
        }
        for text in ["", "192.0.2.7", "metrics", "192.0.2.7 all", "192.0.2.7  metrics", "192.0.2.7 metrics x"] {
            assert_eq!(text.parse::<Caller>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_proxy_tells_whom_it_speaks_for() {
        let peers = Peers::of(networks(&["127.0.0.1", "10.0.0.0/8"]), None);
        let check = |said: Option<&str>, expected: &str| {
            let told = peers.behind(said).map_or("unknown".to_owned(), |address| address.to_string());
            assert_eq!(told, expected, "{said:?}");
        };
        check(None, "unknown");
        check(Some(""), "unknown");
        check(Some("192.0.2.1, "), "unknown");
        check(Some("127.0.0.1"), "127.0.0.1");
        check(Some("192.0.2.1,\u{fffd}"), "unknown");
        check(Some("192.0.2.1"), "192.0.2.1");
        // What the client itself wrote stands first, and is not believed.
        check(Some("1.1.1.1, 192.0.2.1"), "192.0.2.1");
        check(Some("1.1.1.1,192.0.2.1, 10.1.1.1"), "192.0.2.1");
        check(Some("nonsense, 10.1.1.1"), "unknown");
        check(Some("192.0.2.1:4711"), "192.0.2.1");
        check(Some("[2001:db8::1]:4711"), "2001:db8::1");
        check(Some("[2001:db8::1]"), "2001:db8::1");
        check(Some("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn only_who_is_named_is_let_in() {
        let allow = |github, list: &[&str]| Some(WebAllow { github, networks: networks(list) });
        let check = |peers: &Peers, address: &str, allowed: bool| {
            assert_eq!(peers.allows(address.parse().unwrap()), allowed, "{address}");
        };
        check(&Peers::default(), "192.0.2.1", true);
        let peers = Peers::of(Vec::new(), allow(false, &["192.0.2.0/24"]));
        check(&peers, "192.0.2.1", true);
        check(&peers, "192.0.3.1", false);
        check(&peers, "::1", true);
        assert!(peers.is_ready(Instant::now()));

        let peers = Peers::of(Vec::new(), allow(false, &["192.0.2.0/24"])).measured_by(networks(&["198.51.100.7"]));
        check(&peers, "198.51.100.7", true);
        check(&peers, "198.51.100.8", false);
        assert!(peers.may_measure("198.51.100.7".parse().unwrap()) && !peers.may_measure("192.0.2.1".parse().unwrap()));

        let peers = Peers::of(Vec::new(), allow(true, &[]));
        let now = Instant::now();
        assert!(!peers.is_ready(now) && peers.is_ready(now + PATIENCE * 2));
        check(&peers, "192.0.2.1", false);
        peers.github_is_at(networks(&["192.0.2.0/24"]));
        assert!(peers.is_ready(now));
        check(&peers, "192.0.2.1", true);
        // What it said holds when it does not answer later.
        peers.github_did_not_say();
        check(&peers, "192.0.2.1", true);
        peers.github_is_at(networks(&["192.0.3.0/24"]));
        check(&peers, "192.0.2.1", false);
    }
}
