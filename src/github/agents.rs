//! Connections to GitHub: trusted certificates, and the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use ureq::config::AutoHeaderValue;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::address::is_loopback;

/// The User-Agent; GitHub refuses requests without one.
pub(super) const USER_AGENT: &str = concat!("lxdrunner/", env!("CARGO_PKG_VERSION"));
/// Limit for connecting, TLS included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for a whole call, up to the last byte of the answer.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Sends no such header.
pub(super) const NO_HEADER: AutoHeaderValue = AutoHeaderValue::None;

/// Two connection pools: one trusts the public certificate authorities, the other the organisation's own (`ca_file`). A failed
/// handshake makes the call try the other pool; nothing was sent by then.
#[derive(Clone)]
pub(super) struct Agents {
    public: ureq::Agent,
    private: Option<ureq::Agent>,
    authorities: Arc<[CertificateDer<'static>]>,
    /// The last answer came over the private pool.
    is_private: Arc<AtomicBool>,
}

impl Agents {
    pub fn new(base: &str, deadline: Duration, authorities: Vec<CertificateDer<'static>>) -> Agents {
        Agents::with(base, deadline, authorities.into(), Arc::default())
    }

    /// The same with another deadline for a whole call.
    pub fn with_deadline(&self, base: &str, deadline: Duration) -> Agents {
        Agents::with(base, deadline, Arc::clone(&self.authorities), Arc::clone(&self.is_private))
    }

    fn with(
        base: &str,
        deadline: Duration,
        authorities: Arc<[CertificateDer<'static>]>,
        is_private: Arc<AtomicBool>,
    ) -> Agents {
        let agent = |roots: RootCerts| agent(base, deadline, roots);
        let private = private_roots(&authorities).map(agent);
        Agents { public: agent(RootCerts::WebPki), private, authorities, is_private }
    }

    /// The organisation's own authorities, for other pools.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Makes one request; a POST has a body, even if empty.
    pub fn run(
        &self,
        request: ureq::http::request::Builder,
        body: Option<String>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = request.body(body)?;
        let Some(private) = &self.private else { return run(&self.public, request) };
        let first = self.is_private.load(Ordering::Relaxed);
        let (one, other) = if first { (private, &self.public) } else { (&self.public, private) };
        match run(one, request.clone()) {
            Err(error) if is_about_certificates(&error) => {
                let answer = run(other, request)?;
                self.is_private.store(!first, Ordering::Relaxed);
                Ok(answer)
            }
            outcome => outcome,
        }
    }
}

fn run(agent: &ureq::Agent, request: Request<Option<String>>) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let (parts, body) = request.into_parts();
    match body {
        Some(body) => agent.run(Request::from_parts(parts, body)),
        None => agent.run(Request::from_parts(parts, ())),
    }
}

/// The organisation's own authorities as roots; `None` without any.
pub(super) fn private_roots(authorities: &[CertificateDer<'static>]) -> Option<RootCerts> {
    let certificates: Vec<Certificate<'static>> =
        authorities.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
    (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
}

/// True if the server's certificate was not trusted.
pub(super) fn is_about_certificates(error: &ureq::Error) -> bool {
    let refused = |error: &rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
    match error {
        ureq::Error::Rustls(error) => refused(error),
        // The handshake is made while the first bytes are written.
        ureq::Error::Io(io) => io.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(refused),
        _ => false,
    }
}

fn agent(base: &str, deadline: Duration, roots: RootCerts) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(USER_AGENT)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT.min(deadline)))
        .timeout_global(Some(deadline))
        .max_idle_connections(8)
        .max_idle_connections_per_host(8)
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    let config = if is_loopback(base) { config.proxy(None) } else { config };
    config.build().new_agent()
}
