//! The listening socket: from systemd, or a new one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::TcpListener;

use super::error::Error;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) local: SocketAddr,
    activated: bool,
}

impl Listener {
    /// The socket that systemd passed (`provision/lxdrunner.socket`; see sd_listen_fds(3)), else a new one at `listen`.
    ///
    /// # Errors
    /// The address cannot be bound, or systemd passed no TCP socket.
    pub fn open(listen: SocketAddr) -> Result<Listener, Error> {
        let mut handed = listenfd::ListenFd::from_env();
        if handed.len() == 0 {
            return Listener::bind(listen);
        }
        if handed.len() > 1 {
            log::warn!("sockets={} msg=\"systemd handed over several sockets; the first is used\"", handed.len());
        }
        let failed = |source| {
            let mend = "in the .socket unit, write ListenStream=PORT or ListenStream=ADDRESS:PORT, once";
            Error::new("use the socket that systemd handed over", source, mend)
        };
        let socket = handed.take_tcp_listener(0).map_err(failed)?;
        let socket = socket.ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        socket.set_nonblocking(true).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Listener { socket: TcpListener::from_std(socket), local, activated: true })
    }

    /// Binds a new socket.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(listen: SocketAddr) -> Result<Listener, Error> {
        let failed = |source: io::Error| {
            let mend = match source.kind() {
                ErrorKind::AddrInUse => {
                    "another program has that port (another lxdrunner, or lxdrunner.socket?): stop it, or change web_port"
                }
                ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: change web_port",
                ErrorKind::AddrNotAvailable => "this machine has no such address: change web_host",
                _ => "see web_host and web_port",
            };
            Error::new(format!("listen for webhooks on {listen}"), source, mend)
        };
        let socket = TcpListener::bind(listen).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Listener { socket, local, activated: false })
    }

    /// Its address, with the real port if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// True if systemd holds it, also while this process is down.
    pub fn is_activated(&self) -> bool {
        self.activated
    }
}
