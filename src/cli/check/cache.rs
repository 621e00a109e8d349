//! Checks that files can be written to `cache_home`.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::Findings;
use crate::config::Config;

/// Bytes that are written as a test: a full disk often has room for an empty file.
const PROBE: usize = 1024 * 1024;

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let home = &config.cache_home;
    let shown = home.display();
    let there = fs::metadata(home);
    if there.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        findings.ok(format!("cache_home: {shown} is made at the first start"));
        return;
    }
    match there.and_then(|_| probe(home)) {
        Ok(()) => findings.ok(format!("cache_home: {shown} can be written to")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            findings
                .warn(format!("cache_home: {shown} is closed to this user: check as root, or as the daemon's user"));
        }
        Err(error) => {
            let fix = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "make room: two runner packages of each architecture need about 600 MB"
                }
                _ => "name a directory that the daemon may write to",
            };
            findings.fail(format!("cache_home: cannot write to {shown}: {error}"), fix);
        }
    }
}

/// Writes a file there and removes it.
fn probe(home: &Path) -> io::Result<()> {
    let path = home.join(format!(".check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(&vec![0; PROBE]).and_then(|()| file.sync_data());
    let removed = fs::remove_file(&path);
    written.and(removed)
}
