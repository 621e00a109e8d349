//! Downloads of runner packages, from the host that GitHub names.

use std::io::Read;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::address::{is_loopback, origin_of};
use super::agents::{CONNECT_TIMEOUT, NO_HEADER, USER_AGENT, is_about_certificates, private_roots};
use super::api::GitHub;
use super::error::{Error, ErrorKind};
use super::failure::ureq_failure;
use super::types::Download;

/// Limit until the server begins to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause in the middle of a body.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: u32 = 5;

/// The point at which an interrupted download continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Bytes that were received before.
    pub from: u64,
    /// The strong ETag of the body that they belong to.
    pub etag: String,
}

/// A package that is being downloaded.
pub struct Body {
    /// The offset at which it really starts: zero if the server does not resume.
    pub from: u64,
    /// The whole length in bytes, if the server tells it.
    pub total: Option<u64>,
    /// The body's strong ETag, for a [`Resume`].
    pub etag: Option<String>,
    /// The bytes from `from` on.
    pub reader: Box<dyn Read + Send>,
}

impl GitHub {
    /// Opens the body of a package, resumed if `resume` is given and the server agrees.
    ///
    /// The credential is never sent: a package is on another host. Only a token that came with the download is sent, and not to
    /// another host after a redirect. A minute without a byte is an error.
    pub fn open_download(&self, download: &Download, resume: Option<&Resume>) -> Result<Body, Error> {
        let tried = format!("download {}", download.filename);
        let secure = match origin_of(&download.url) {
            Some(origin) => origin.starts_with("https:"),
            None => return Err(Error::new(tried, ErrorKind::Malformed, "its address is not one of http or https")),
        };
        let agent = |roots: RootCerts| {
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .https_only(secure)
                .user_agent(USER_AGENT)
                .accept("application/octet-stream")
                .accept_encoding(NO_HEADER)
                .max_redirects(MAX_REDIRECTS)
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(ANSWER_TIMEOUT))
                .timeout_per_read(Some(SILENCE_TIMEOUT))
                .tls_config(TlsConfig::builder().root_certs(roots).build());
            let config = if is_loopback(&download.url) { config.proxy(None) } else { config };
            config.build().new_agent()
        };
        let open = |roots: RootCerts| {
            let mut request = agent(roots).get(&download.url);
            if let Some(token) = &download.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
            }
            if let Some(resume) = resume {
                request = request.header(header::RANGE, format!("bytes={}-", resume.from));
                request = request.header(header::IF_RANGE, &resume.etag);
            }
            request.call()
        };
        let response = match (open(RootCerts::WebPki), private_roots(self.http.wire.agents.authorities())) {
            (Err(error), Some(roots)) if is_about_certificates(&error) => open(roots),
            (outcome, _) => outcome,
        };
        let response = response.map_err(|error| ureq_failure(&tried, error))?;
        let (parts, body) = response.into_parts();
        let etag = parts.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let etag = etag.filter(|etag| etag.starts_with('"'));
        let start = match (parts.status, resume) {
            (StatusCode::OK, _) => (0, length(&parts.headers)),
            // A server without If-Range sends a part of its current file.
            (StatusCode::PARTIAL_CONTENT, Some(resume)) if etag.as_ref().is_some_and(|etag| *etag != resume.etag) => {
                return self.open_download(download, None);
            }
            (StatusCode::PARTIAL_CONTENT, Some(resume)) => match content_range(&parts.headers) {
                Some((from, total)) if from == resume.from => (from, total),
                _ => return Err(Error::new(tried, ErrorKind::Malformed, "another part than was asked for")),
            },
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => return self.open_download(download, None),
            (status, _) => return Err(refused(tried, status.as_u16())),
        };
        log::debug!("package_opened file={} from={} total={:?}", download.filename, start.0, start.1);
        Ok(Body { from: start.0, total: start.1, etag, reader: Box::new(body.into_reader()) })
    }
}

fn refused(tried: String, status: u16) -> Error {
    let kind = match status {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        500.. => ErrorKind::Server(status),
        _ => ErrorKind::Refused(status),
    };
    Error::new(tried, kind, "said the server that holds the package")
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte and the whole length of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (span, total) = range.split_once('/')?;
    let (from, _) = span.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}
