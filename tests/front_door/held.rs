//! The daemon with a socket that is held for it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// As systemd starts it: with a listening socket as file descriptor 3.
pub fn activate(binary: &str, config: &Path, listener: &TcpListener) -> Child {
    let handed: OwnedFd = listener.try_clone().unwrap().into();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve -c \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, binary]).arg(config).stdin(Stdio::from(handed));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// As systemd ends it.
pub fn end(mut daemon: Child) {
    assert!(Command::new("kill").args(["-s", "TERM", &daemon.id().to_string()]).status().unwrap().success());
    assert!(daemon.wait().unwrap().success());
}
