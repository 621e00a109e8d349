//! Finds LXD's or Incus's socket.

use std::env;
use std::path::{Path, PathBuf};

/// Where an LXD or Incus daemon may listen, in the order of `socket: auto`: what the environment of the `lxc` and
/// `incus` clients says, the LXD snap, LXD from a Debian package, Incus.
pub fn socket_candidates() -> Vec<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let named = [
        set("LXD_SOCKET"),
        set("LXD_DIR").map(|d| d.join("unix.socket")),
        set("INCUS_SOCKET"),
        set("INCUS_DIR").map(|d| d.join("unix.socket")),
    ];
    let usual = ["/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket", "/var/lib/incus/unix.socket"];
    named.into_iter().flatten().chain(usual.into_iter().map(PathBuf::from)).collect()
}

/// The first of `candidates` that is there. Whether anybody listens is seen when it is used.
pub fn find_socket(candidates: &[PathBuf]) -> Option<&Path> {
    candidates.iter().map(PathBuf::as_path).find(|p| p.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_socket_that_is_there_is_taken() {
        let here = std::env::temp_dir();
        let candidates = ["/nowhere/socket".into(), here.clone(), "/".into()];
        assert_eq!(find_socket(&candidates), Some(here.as_path()));
        assert_eq!(find_socket(&candidates[..1]), None);
    }
}
