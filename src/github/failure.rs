//! Failures below HTTP.

use super::agents::{CALL_TIMEOUT, is_about_certificates};
use super::error::{Error, ErrorKind};

/// The largest answer that is read, in bytes, after unpacking.
pub const MAX_ANSWER: usize = 16 << 20;

/// A failure below HTTP.
pub(super) enum Failure {
    Ureq(ureq::Error),
    Io(std::io::Error),
    TooLong,
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Failure {
        Failure::Ureq(error)
    }
}

impl From<std::io::Error> for Failure {
    /// A body's reader wraps ureq's own errors; this unwraps them.
    fn from(error: std::io::Error) -> Failure {
        Failure::Io(error)
    }
}

pub(super) fn failure(tried: &str, failure: Failure) -> Error {
    match failure {
        Failure::Ureq(error) => ureq_failure(tried, error),
        Failure::Io(error) => io_failure(tried, error),
        Failure::TooLong => {
            Error::new(tried, ErrorKind::Malformed, format!("it is longer than {} MiB", MAX_ANSWER >> 20))
        }
    }
}

/// Converts a failure of ureq.
pub(super) fn ureq_failure(tried: &str, error: ureq::Error) -> Error {
    let kind = match &error {
        ureq::Error::Timeout(_) => ErrorKind::Timeout,
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) | ureq::Error::Decompress(..) => {
            ErrorKind::Malformed
        }
        _ => ErrorKind::Unreachable,
    };
    let message = match &error {
        ureq::Error::Timeout(ureq::Timeout::Global) => format!("the call may take {} s", CALL_TIMEOUT.as_secs()),
        ureq::Error::Timeout(step) => format!("at the step: {step}"),
        other => other.to_string(),
    };
    let fix = match &error {
        ureq::Error::ConnectProxyFailed(_) => Some(proxy_fix()),
        error if is_about_certificates(error) => Some(
            "its certificate is not believed: where it is of your own organisation's authority, or a proxy's, name the \
             authority's certificate in ca_file"
                .to_owned(),
        ),
        _ => None,
    };
    let failure = Error::new(tried, kind, message).with_source(error);
    match fix {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}

/// The fix for a proxy that refuses. Never contains its user and password.
fn proxy_fix() -> String {
    let proxy = ureq::Proxy::try_from_env();
    let name =
        proxy.map_or_else(|| "of the environment".to_owned(), |proxy| format!("{}:{}", proxy.host(), proxy.port()));
    format!(
        "proxy {name} refused the tunnel (407: it requires a user and password, \
         HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT); let it pass this host, or name the host in NO_PROXY"
    )
}

/// Converts a failure while a body was read.
pub(super) fn io_failure(tried: &str, error: std::io::Error) -> Error {
    match error.downcast::<ureq::Error>() {
        Ok(inner) => ureq_failure(tried, inner),
        Err(error) => {
            let timed_out = matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock);
            let kind = if timed_out { ErrorKind::Timeout } else { ErrorKind::Unreachable };
            Error::new(tried, kind, error.to_string()).with_source(error)
        }
    }
}
