//! The webhook port by the config: socket, certificate, allowed addresses.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use crate::config::{Config, WebTls};
use crate::github::GitHub;
use crate::threads;
use crate::webhook::{AT_GITHUB, Error, Front, Limits, Listener, Peers, Tls};

/// Between two questions for GitHub's addresses.
const REFRESH: Duration = Duration::from_secs(24 * 3600);
/// The same after a failed one, doubling from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// Opens the port, and begins to ask GitHub for its addresses if `web_allow` needs them.
///
/// # Errors
/// The address cannot be bound, or there is no usable certificate.
pub(super) fn front(config: &Config, github: &Arc<GitHub>) -> Result<Front, Error> {
    let listener = Listener::open(config.listen())?;
    if listener.is_activated() {
        info!("listen={} msg=\"systemd holds the socket; web_host and web_port are not used\"", listener.local_addr());
    }
    let tls = Tls::open(&config.web_tls)?.map(Arc::new);
    if let Some(tls) = &tls {
        let fingerprint = tls.fingerprint();
        match &config.web_tls {
            WebTls::Files { cert, .. } => info!("tls=on cert={} fingerprint={fingerprint}", cert.display()),
            _ => info!("tls=self-signed fingerprint={fingerprint} msg=\"{AT_GITHUB}\""),
        }
    }
    let peers = Arc::new(Peers::new(config));
    if peers.want_github() {
        let (peers, github) = (Arc::clone(&peers), Arc::clone(github));
        threads::spawn("github-hooks", move || ask_for_ever(&peers, &github));
    }
    let private = vec![std::env::temp_dir(), config.cache_home.clone()];
    Ok(Front { listener, tls, peers, limits: Limits::default(), private, ending: ending() })
}

/// A pipe that SIGTERM writes to. If it cannot be set up, SIGTERM ends the process at once and cuts answers off.
fn ending() -> Option<UnixStream> {
    let (heard, told) = UnixStream::pair().ok()?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, told).ok()?;
    Some(heard)
}

/// Keeps GitHub's addresses up to date.
fn ask_for_ever(peers: &Peers, github: &GitHub) {
    let mut known = false;
    let mut pause = RETRY_FIRST;
    loop {
        match github.hook_networks() {
            Ok(texts) => {
                let networks: Vec<_> = texts.iter().filter_map(|text| text.parse().ok()).collect();
                info!(
                    "web_allow=github networks={} msg=\"webhooks are let in from where GitHub sends them\"",
                    networks.len()
                );
                peers.github_is_at(networks);
                known = true;
                pause = RETRY_FIRST;
                std::thread::sleep(REFRESH);
            }
            Err(error) => {
                peers.github_did_not_say();
                let now = match known {
                    true => "the addresses that it told last hold",
                    false => "nobody is let in from there until it does; queues are looked at all the same",
                };
                warn!(
                    "web_allow=github next_try_in={}s msg=\"GitHub did not tell where its webhooks come from: {now}\" reason={:?}",
                    pause.as_secs(),
                    error.to_string()
                );
                std::thread::sleep(pause);
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
}
