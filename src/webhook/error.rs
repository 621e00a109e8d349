//! Why the receiver could not be started.

use std::fmt;
use std::io;

/// The receiver could not be started: what was tried, the cause, and the fix.
#[derive(Debug)]
pub struct Error {
    pub(super) tried: String,
    pub(super) mend: String,
    pub(super) source: io::Error,
}

impl Error {
    pub(super) fn new(tried: impl Into<String>, source: io::Error, mend: impl Into<String>) -> Error {
        Error { tried: tried.into(), mend: mend.into(), source }
    }
}

impl Error {
    /// True if another program has the address.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.tried, self.source)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, " — {}", self.mend) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
