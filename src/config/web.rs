//! The webhook port: TLS, trusted proxies, and which addresses are accepted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::node::Node;
use super::read::{Item, Section};

/// Whether the webhook port speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebTls {
    /// No: a reverse proxy does.
    Off,
    /// With a self-signed certificate, made at each start.
    SelfSigned,
    /// With that of these PEM files.
    Files {
        /// The certificate and those that vouch for it, in that order.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// The clients that are accepted besides this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebAllow {
    /// The addresses that GitHub publishes for its webhooks.
    pub github: bool,
    /// These.
    pub networks: Vec<Network>,
}

/// A range of addresses, as `192.0.2.0/24`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

const NOT_A_NETWORK: &str = "is not an address, or ADDRESS/BITS";

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, &'static str> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NOT_A_NETWORK)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or(NOT_A_NETWORK)?
            }
            Some(_) => return Err(NOT_A_NETWORK),
        };
        Ok(Network { address: masked(address, bits), bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    /// True where `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

pub(super) fn tls(item: &Item<'_>) -> Option<WebTls> {
    match (item.node.flag(), item.node) {
        (Some(false), _) => Some(WebTls::Off),
        (Some(true), _) => Some(WebTls::SelfSigned),
        (None, Node::Map(_)) => {
            let files = Section::new(item, &["cert", "key"])?;
            let file = |key: &str| {
                let item = files.require(key, "write the name of a PEM file")?;
                let path = item.file("the name of a PEM file")?;
                if !path.exists() {
                    return item.refuse(format!("there is no file {}", path.display()), "name the right file");
                }
                if key == "key" {
                    item.warn_of_readers(&path, path.display());
                }
                Some(path)
            };
            let (cert, key) = (file("cert"), file("key"));
            Some(WebTls::Files { cert: cert?, key: key? })
        }
        (None, other) => item.refuse(format!("is {}", other.kind()), "write true, false or {cert: FILE, key: FILE}"),
    }
}

const NETWORK_FIX: &str = "write an address such as 192.0.2.7, or a range such as 192.0.2.0/24 or 2001:db8::/32";

pub(super) fn trusted_proxies(top: &Section<'_>) -> Vec<Network> {
    let fix = "name only the proxies: a trusted proxy decides which client address is used";
    networks(top, "web_trusted_proxies", ("trusts everybody", fix))
}

pub(super) fn metrics(top: &Section<'_>) -> Vec<Network> {
    let fix = "name only the hosts that collect metrics: the metrics show the names of classes and their load";
    networks(top, "web_metrics", ("shows the metrics to everybody", fix))
}

/// A list of addresses and ranges, empty by default; `everybody` is the fault and the fix where it includes all addresses.
fn networks(top: &Section<'_>, key: &str, everybody: (&str, &str)) -> Vec<Network> {
    let one = |item: &Item<'_>| match network(item, NETWORK_FIX)? {
        network if network.bits == 0 => item.refuse(everybody.0, everybody.1),
        network => Some(network),
    };
    top.or(key, Vec::new(), |item| item.each("a list of addresses and ranges", one))
}

/// The outer `None` is an error.
pub(super) fn allow(item: &Item<'_>) -> Option<Option<WebAllow>> {
    let fix = format!("write github, or {}", NETWORK_FIX.trim_start_matches("write "));
    // `None` within the list is `github`.
    let list = item.each("a list of `github`, addresses and ranges", |item| match item.node {
        Node::Text(text) if text == "github" => Some(None),
        _ => network(item, &fix).map(Some),
    })?;
    if list.is_empty() {
        return item.refuse("lets nobody in", "leave it out to let everybody in, or write [github]");
    }
    Some(Some(WebAllow { github: list.contains(&None), networks: list.into_iter().flatten().collect() }))
}

fn network(item: &Item<'_>, fix: &str) -> Option<Network> {
    let text = item.text("an address or a range")?;
    match text.parse::<Network>() {
        Ok(network) => {
            let written = text.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
            if written.is_some_and(|written| written != network.address) {
                item.warn(format!("{text} is read as {network}"));
            }
            Some(network)
        }
        Err(error) => item.refuse(format!("{text:?} {error}"), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        #[track_caller]
        fn check(network: &str, address: &str, inside: bool) {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        check("192.0.2.0/24", "192.0.2.255", true);
        check("192.0.2.0/24", "192.0.3.0", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("0.0.0.0/0", "255.1.1.1", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("192.0.2.0/24", "::ffff:192.0.2.1", true);
        check("2001:db8::/33", "2001:db8:7fff::1", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
        check("192.0.2.77/24", "192.0.2.1", true);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "github", "192.0.2.0/33", "::/129", "192.0.2/24", "192.0.2.0/", "192.0.2.0/+1", "1.2.3.4/0000"]
        {
            assert_eq!(text.parse::<Network>(), Err(NOT_A_NETWORK), "{text}");
        }
    }
}
