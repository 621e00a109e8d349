//! What tests of more than one package need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "only tests use it")]
#![allow(clippy::new_without_default)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory that goes with its owner.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// An empty one.
    pub fn new() -> Scratch {
        let n = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("lxdrt-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The real LXD's socket and the image to use, where tests may use one.
pub fn real_lxd() -> Option<(PathBuf, String)> {
    match std::env::var_os("LXDRUNNER_TEST_LXD_SOCKET").filter(|v| !v.is_empty()) {
        Some(socket) => {
            let image = std::env::var("LXDRUNNER_TEST_IMAGE").expect("LXDRUNNER_TEST_IMAGE goes with the socket");
            Some((socket.into(), image))
        }
        None => {
            let required = std::env::var("LXDRUNNER_TEST_REQUIRE_LXD").is_ok_and(|v| v == "1");
            assert!(!required, "a real LXD is required here: set LXDRUNNER_TEST_LXD_SOCKET (provision/test.sh does)");
            eprintln!("skipped: no LXDRUNNER_TEST_LXD_SOCKET; provision/test.sh runs this on a real LXD");
            None
        }
    }
}
