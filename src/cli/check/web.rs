//! Checks the webhook port: the certificate, the port, and the clients that are accepted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Findings, counted};
use crate::config::{Config, WebTls};
use crate::github::GitHub;
use crate::webhook::{AT_GITHUB, Listener, Tls};

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    if !config.listens {
        return;
    }
    certificate(config, findings);
    port(config, findings);
    if config.web_allow.as_ref().is_some_and(|allow| allow.github) {
        addresses(config, findings);
    }
}

fn certificate(config: &Config, findings: &mut Findings<'_>) {
    match (Tls::open(&config.web_tls), &config.web_tls) {
        (Err(error), _) => findings.fail_as_told(format!("web_tls: {error}")),
        (Ok(Some(tls)), WebTls::Files { cert, .. }) => {
            let (cert, fingerprint) = (cert.display(), tls.fingerprint());
            findings.ok(format!("web_tls: {cert} and its key belong together; SHA-256 {fingerprint}"));
        }
        (Ok(Some(_)), _) => {
            findings.ok(format!("web_tls: a self-signed certificate, made at each start; {AT_GITHUB}"));
        }
        (Ok(None), _) => findings.ok("web_tls: webhooks come in plain, as from a reverse proxy with a certificate"),
    }
}

fn port(config: &Config, findings: &mut Findings<'_>) {
    let listen = config.listen();
    let Err(error) = Listener::bind(listen) else {
        findings.ok(format!("webhooks: {listen} is free"));
        return;
    };
    // A running daemon, or the socket that systemd holds for it, is as it should be.
    let at = SocketAddr::new(reachable(listen.ip()), listen.port());
    if error.is_in_use() && std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_secs(2)).is_ok() {
        findings.ok(format!("webhooks: {listen} is listened on; by lxdrunner itself, if it runs"));
    } else {
        findings.fail_as_told(format!("webhooks: {error}"));
    }
}

/// The address that a socket on `ip` is reached at from this machine.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn addresses(config: &Config, findings: &mut Findings<'_>) {
    match GitHub::of_config(&config.github).hook_networks() {
        Ok(networks) => {
            let count = counted(networks.len(), "range of addresses", "ranges of addresses");
            findings.ok(format!("web_allow: GitHub sends its webhooks from {count}"));
        }
        Err(error) => findings.fail_as_told(format!("web_allow: {error}")),
    }
}
