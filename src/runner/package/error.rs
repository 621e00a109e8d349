//! Why there is no package.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::github;
use crate::model::RunnerArch;

/// Why there is no package.
#[derive(Debug)]
pub enum Error {
    /// GitHub or the package's server did not answer.
    GitHub(github::Error),
    /// The wanted version is not a version.
    Version(String),
    /// GitHub has no package for this processor.
    NotOffered { arch: RunnerArch, offered: Vec<String> },
    /// The address of another version cannot be derived from the newest one's.
    NoPattern { url: String, wanted: String },
    /// The checksum differs from GitHub's; the file was deleted.
    Checksum { file: String, expected: String, found: String },
    /// Not a gzip file: perhaps a web page.
    NotAPackage { file: String },
    /// The body repeatedly ended early without progress.
    Cut { file: String, done: u64, total: Option<u64> },
    /// Longer than any package.
    TooLong { file: String, most: u64 },
    /// A file could not be read or written.
    Io { tried: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    pub(super) fn io(tried: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { tried, path: path.to_owned(), source }
    }
}

impl From<github::Error> for Error {
    fn from(error: github::Error) -> Error {
        Error::GitHub(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::GitHub(error) => error.fmt(f),
            Error::Version(text) => {
                write!(f, "{text:?} is no version of the runner; write one like 2.330.0 or latest as runner_version")
            }
            Error::NotOffered { arch, offered } => write!(
                f,
                "GitHub offers no Linux runner for {arch}, only: {}; check runner_arch of the class",
                if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") }
            ),
            Error::NoPattern { url, wanted } => write!(
                f,
                "cannot tell where runner version {wanted} lies: the address of the newest one, {url}, does not \
                 contain its version; use runner_version: latest"
            ),
            Error::Checksum { file, expected, found } => write!(
                f,
                "the runner package {file} is damaged: its SHA-256 should be {expected} and is {found}; it was deleted \
                 and is downloaded again; look for a proxy that changes downloads if it stays"
            ),
            Error::NotAPackage { file } => write!(
                f,
                "what came for {file} is no packed archive, perhaps a proxy's web page; it was deleted; try its address \
                 by hand from this machine"
            ),
            Error::Cut { file, done, total } => {
                write!(f, "the download of {file} was cut after {done}")?;
                match total {
                    Some(total) => write!(f, " of {total} bytes; it goes on from there"),
                    None => write!(f, " bytes; it is tried again"),
                }
            }
            Error::TooLong { file, most } => {
                write!(f, "the download of {file} is longer than {most} bytes; it is no runner package")
            }
            Error::Io { tried, path, source } => {
                write!(f, "could not {tried} {}: {source}; {}", path.display(), mend(source.kind()))
            }
        }
    }
}

fn mend(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there (two packages of each architecture need about 600 MB) or set cache_home to another place"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "give it to the daemon's user or set cache_home to a place where it may write"
        }
        _ => "set cache_home to a directory where the daemon may write",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::GitHub(error) => std::error::Error::source(error),
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_errors_say_what_to_do() {
        let check = |kind: io::ErrorKind, mend: &str| {
            let error = Error::io("write", Path::new("/c/x.part"), kind.into());
            assert!(error.to_string().contains(mend) && error.to_string().contains("/c/x.part"), "{error}");
            assert!(std::error::Error::source(&error).is_some());
        };
        check(io::ErrorKind::StorageFull, "make room");
        check(io::ErrorKind::PermissionDenied, "daemon's user");
        check(io::ErrorKind::ReadOnlyFilesystem, "cache_home");
        check(io::ErrorKind::NotADirectory, "cache_home");
    }
}
