//! TLS 1.2 and 1.3 with rustls: which certificate, and that it is the newest.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::error::Error;
use crate::config::WebTls;

/// Between looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// No PEM file of a certificate is longer.
const LONGEST_FILE: u64 = 1024 * 1024;
/// The self-signed pair, below `cache_home`.
const KEPT: &str = "web-tls.pem";
/// What to do at GitHub, which cannot know a certificate that we signed ourselves.
pub const AT_GITHUB: &str = "in the hook's settings at GitHub, under SSL verification, choose Disable";

/// The certificate that strangers are shown. Files are read again when they change.
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

/// What tells that a file is another one than before: where it lies, when it was written, how long it is.
type Stamps = [Option<(u64, u64, i64, i64, u64)>; 2];

/// A certificate with its key, ready to be served.
struct Pair {
    config: Arc<ServerConfig>,
    fingerprint: String,
}

impl Tls {
    /// As the config says; `None` where webhooks come in plain. Makes the self-signed pair where there is none.
    ///
    /// # Errors
    /// There is no usable pair.
    pub fn open(tls: &WebTls, cache_home: &Path) -> Result<Option<Tls>, Error> {
        let (files, pair) = match tls {
            WebTls::Off => return Ok(None),
            WebTls::SelfSigned => (None, keep_self_signed(cache_home)?),
            WebTls::Files { cert, key } => (Some((cert.clone(), key.clone())), pair(cert, key)?),
        };
        let stamps = files.as_ref().map(stamps).unwrap_or_default();
        let Pair { config, fingerprint } = pair;
        let current = Mutex::new(Current { config, fingerprint, stamps, looked: Instant::now() });
        Ok(Some(Tls { files, current }))
    }

    /// The SHA-256 fingerprint of the certificate that [`Tls::open`] would serve; makes nothing. `None` where there is
    /// no TLS, or the self-signed pair is still to be made.
    ///
    /// # Errors
    /// There is no usable pair.
    pub fn look(tls: &WebTls, cache_home: &Path) -> Result<Option<String>, Error> {
        let file = cache_home.join(KEPT);
        match tls {
            WebTls::Off => Ok(None),
            WebTls::SelfSigned if !file.exists() => Ok(None),
            WebTls::SelfSigned => pair(&file, &file).map(|pair| Some(pair.fingerprint)),
            WebTls::Files { cert, key } => pair(cert, key).map(|pair| Some(pair.fingerprint)),
        }
    }

    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it.
    pub fn fingerprint(&self) -> String {
        self.lock().fingerprint.clone()
    }

    /// What a new connection is served with. Those that are under way go on with what they have.
    pub(super) fn config(&self, now: Instant) -> Arc<ServerConfig> {
        let mut current = self.lock();
        if let Some(files) = &self.files
            && now.saturating_duration_since(current.looked) >= LOOK
        {
            current.looked = now;
            current.renew(files);
        }
        Arc::clone(&current.config)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
            // Often only one of both is written yet: the other one's change makes us look again.
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
            let mend = match source.kind() {
                ErrorKind::PermissionDenied => {
                    "let the user that runs lxdrunner read it, with systemd through LoadCredential="
                }
                _ => "see web_tls",
            };
            Err(Error::new(format!("read {}", file.display()), source, mend))
        }
    }
}

fn pair(cert: &Path, key: &Path) -> Result<Pair, Error> {
    let unusable = |file: &Path, why: String, mend: &str| {
        let tried = format!("serve TLS with {}", file.display());
        Err(Error::new(tried, io::Error::new(ErrorKind::InvalidData, why), mend))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => {
            let mend = "web_tls.cert is the PEM file that begins with -----BEGIN CERTIFICATE-----";
            return unusable(cert, "there is no certificate in it".to_owned(), mend);
        }
        Err(error) => return unusable(cert, format!("is not PEM: {error}"), "give the certificate as PEM"),
    };
    let private = match PrivateKeyDer::from_pem_slice(&read(key)?) {
        Ok(private) => private,
        Err(_) => {
            let mend = "web_tls.key is the PEM file with the private key, not encrypted: -----BEGIN PRIVATE KEY-----";
            return unusable(key, "there is no private key in it that can be read".to_owned(), mend);
        }
    };
    serve(chain, private).or_else(|error| {
        let mend = match &error {
            rustls::Error::InconsistentKeys(_) => "name the key that was made with that certificate",
            _ => "make a new pair, with an RSA key of 2048 to 4096 bits or an ECDSA key of P-256 or P-384",
        };
        unusable(cert, format!("with the key {}: {error}", key.display()), mend)
    })
}

fn serve(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Pair, rustls::Error> {
    let fingerprint = chain.first().map(|cert| fingerprint(cert)).unwrap_or_default();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // GitHub makes a connection for each delivery and resumes none: what is kept for it would be memory for nothing.
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

/// The pair that is kept in `cache_home`, made where there is none, or where a power cut left half of one.
fn keep_self_signed(cache_home: &Path) -> Result<Pair, Error> {
    let file = cache_home.join(KEPT);
    match pair(&file, &file) {
        Ok(pair) => {
            // Another umask, or a copy, may have opened it to others.
            let _ = fs::set_permissions(&file, Permissions::from_mode(0o600));
            return Ok(pair);
        }
        Err(error) if error.source.kind() == ErrorKind::NotFound => {}
        Err(error) if error.source.kind() == ErrorKind::InvalidData => {
            log::warn!("reason={:?} msg=\"the self-signed certificate is made anew\"", error.to_string());
        }
        Err(error) => return Err(error),
    }
    let failed = |source: io::Error| {
        let tried = format!("keep a self-signed certificate in {}", file.display());
        Error::new(tried, source, "let cache_home name a directory that the user who runs lxdrunner can write to")
    };
    let pem = self_signed().map_err(|error| failed(io::Error::other(error)))?;
    write_private(&file, pem.as_bytes()).map_err(failed)?;
    pair(&file, &file)
}

/// Key and certificate as PEM, in one file, so that one cannot be there without the other.
fn self_signed() -> Result<String, rcgen::Error> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let names = [host.trim(), "localhost"].into_iter().filter(|name| plain(name)).map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names.collect::<Vec<_>>())?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "lxdrunner");
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(pem("PRIVATE KEY", key.serialized_der()) + &pem("CERTIFICATE", certificate.der()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = BASE64_STANDARD.encode(der);
    while !rest.is_empty() {
        let next = rest.split_off(rest.len().min(64));
        text.push_str(&rest);
        text.push('\n');
        rest = next;
    }
    text + "-----END " + label + "-----\n"
}

/// Writes a file that only we can read, whole or not at all.
fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = file.with_extension(format!("pem.{}", std::process::id()));
    let written = || {
        let _ = fs::remove_file(&fresh);
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        open.write_all(bytes)?;
        open.sync_all()?;
        fs::rename(&fresh, file)
    };
    written().inspect_err(|_| drop(fs::remove_file(&fresh)))
}
