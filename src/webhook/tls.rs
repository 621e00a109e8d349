//! TLS 1.2 and 1.3 with rustls: the certificate, read again when its files change.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::error::Error;
use crate::config::WebTls;
use crate::threads::lock;

/// Between looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// No PEM file of a certificate is longer.
const LONGEST_FILE: u64 = 1024 * 1024;
/// The setting at GitHub, which cannot verify a self-signed certificate.
pub const AT_GITHUB: &str = "in the hook's settings at GitHub, under SSL verification, choose Disable";

/// The certificate for new connections. Files are read again when they change.
#[derive(Debug)]
pub struct Tls {
    files: Option<(PathBuf, PathBuf)>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: String,
    stamps: Stamps,
    looked: Instant,
}

/// Device, inode, time of the last write and length of both files: different ones mean that a file has changed.
type Stamps = [Option<(u64, u64, i64, i64, u64)>; 2];

/// A certificate with its key, ready to be served.
struct Pair {
    config: Arc<ServerConfig>,
    fingerprint: String,
}

impl Tls {
    /// The certificate that the config names, or a new self-signed one; `None` without TLS.
    ///
    /// # Errors
    /// There is no usable pair.
    pub fn open(tls: &WebTls) -> Result<Option<Tls>, Error> {
        let (files, pair) = match tls {
            WebTls::Off => return Ok(None),
            WebTls::SelfSigned => (None, self_signed()?),
            WebTls::Files { cert, key } => (Some((cert.clone(), key.clone())), pair(cert, key)?),
        };
        let stamps = files.as_ref().map(stamps).unwrap_or_default();
        let Pair { config, fingerprint } = pair;
        let current = Mutex::new(Current { config, fingerprint, stamps, looked: Instant::now() });
        Ok(Some(Tls { files, current }))
    }

    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it.
    pub fn fingerprint(&self) -> String {
        lock(&self.current).fingerprint.clone()
    }

    /// The config for a new connection.
    pub(super) fn config(&self, now: Instant) -> Arc<ServerConfig> {
        let mut current = lock(&self.current);
        if let Some(files) = &self.files
            && now.saturating_duration_since(current.looked) >= LOOK
        {
            current.looked = now;
            current.renew(files);
        }
        Arc::clone(&current.config)
    }
}

impl Current {
    fn renew(&mut self, files: &(PathBuf, PathBuf)) {
        let stamps = stamps(files);
        if stamps == self.stamps {
            return;
        }
        self.stamps = stamps;
        match pair(&files.0, &files.1) {
            Ok(Pair { fingerprint, .. }) if fingerprint == self.fingerprint => {}
            Ok(Pair { config, fingerprint }) => {
                log::info!("cert={} fingerprint={fingerprint} msg=\"the new certificate is used\"", files.0.display());
                self.config = config;
                self.fingerprint = fingerprint;
            }
            // Often only one of the two files is written yet; the other's change leads to the next attempt.
            Err(error) => {
                let reason = error.to_string();
                log::warn!("msg=\"the new certificate cannot be used; the old one is\" reason={reason:?}");
            }
        }
    }
}

fn stamps((cert, key): &(PathBuf, PathBuf)) -> Stamps {
    [cert, key].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => {
            let fix = match source.kind() {
                ErrorKind::PermissionDenied => {
                    "let the user that runs lxdrunner read it, with systemd through LoadCredential="
                }
                _ => "see web_tls",
            };
            Err(Error::new(format!("read {}", file.display()), source, fix))
        }
    }
}

fn pair(cert: &Path, key: &Path) -> Result<Pair, Error> {
    let unusable = |file: &Path, why: String, fix: &str| {
        let tried = format!("serve TLS with {}", file.display());
        Err(Error::new(tried, io::Error::new(ErrorKind::InvalidData, why), fix))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => {
            let fix = "web_tls.cert is the PEM file that begins with -----BEGIN CERTIFICATE-----";
            return unusable(cert, "there is no certificate in it".to_owned(), fix);
        }
        Err(error) => return unusable(cert, format!("is not PEM: {error}"), "give the certificate as PEM"),
    };
    let private = match PrivateKeyDer::from_pem_slice(&read(key)?) {
        Ok(private) => private,
        Err(_) => {
            let fix = "web_tls.key is the PEM file with the private key, not encrypted: -----BEGIN PRIVATE KEY-----";
            return unusable(key, "there is no private key in it that can be read".to_owned(), fix);
        }
    };
    serve(chain, private).or_else(|error| {
        let fix = match &error {
            rustls::Error::InconsistentKeys(_) => "name the key that was made with that certificate",
            _ => "make a new pair, with an RSA key of 2048 to 4096 bits or an ECDSA key of P-256 or P-384",
        };
        unusable(cert, format!("with the key {}: {error}", key.display()), fix)
    })
}

fn serve(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Pair, rustls::Error> {
    let fingerprint = chain.first().map(|cert| fingerprint(cert)).unwrap_or_default();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // GitHub makes a connection for each delivery and never resumes a session.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Pair { config: Arc::new(config), fingerprint })
}

fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::new();
    for (n, byte) in Sha256::digest(certificate).iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{byte:02X}", if n > 0 { ":" } else { "" });
    }
    text
}

/// Makes a new key and a certificate for it. Neither is kept: GitHub cannot verify the certificate, so nobody relies on it.
fn self_signed() -> Result<Pair, Error> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let names: Vec<_> = [host.trim(), "localhost"].into_iter().filter(|name| plain(name)).map(str::to_owned).collect();
    let made = || {
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "lxdrunner");
        let key = rcgen::KeyPair::generate()?;
        Ok((params.self_signed(&key)?.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der())))
    };
    let failed = |error: &dyn fmt::Display| {
        Error::new(
            "make a self-signed certificate",
            io::Error::other(error.to_string()),
            "give web_tls a cert and a key",
        )
    };
    let (certificate, key) = made().map_err(|error: rcgen::Error| failed(&error))?;
    serve(vec![certificate], key.into()).map_err(|error| failed(&error))
}
