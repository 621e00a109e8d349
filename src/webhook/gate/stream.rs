//! A client's non-blocking connection, plain or TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

/// Reads and writes plain bytes. Nothing blocks: `WouldBlock` means to try again on the next event.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Stream {
    pub(super) fn plain(socket: TcpStream) -> Stream {
        Stream { socket, tls: None }
    }

    /// # Errors
    /// rustls cannot serve with that config.
    pub(super) fn encrypted(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Stream, rustls::Error> {
        // An answer in several small writes must not wait for the client's acknowledgements.
        let _ = socket.set_nodelay(true);
        Ok(Stream { socket, tls: Some(Box::new(ServerConnection::new(config)?)) })
    }

    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Advances the handshake; true when it is complete, or without TLS.
    ///
    /// # Errors
    /// The handshake failed, or the client disconnected.
    pub(super) fn handshake(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        loop {
            flush(tls, &mut self.socket)?;
            if !tls.is_handshaking() {
                return Ok(true);
            }
            match fill(tls, &mut self.socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return retry(|| self.socket.read(buffer)) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The connection ended without close_notify; HTTP's framing shows whether anything is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            fill(tls, &mut self.socket)?;
            if tls.wants_write() {
                match flush(tls, &mut self.socket) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// Writes as much as possible.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return retry(|| self.socket.write(bytes)) };
        let taken = tls.writer().write(bytes)?;
        match flush(tls, &mut self.socket) {
            // rustls has taken the bytes: `flush` sends them.
            Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            Err(error) => Err(error),
            Ok(()) => Ok(taken),
        }
    }

    /// Sends bytes that rustls has taken and not sent yet.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => flush(tls, &mut self.socket),
            None => Ok(()),
        }
    }

    /// Ends the sending side.
    pub(super) fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = flush(tls, &mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn flush(tls: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        retry(|| tls.write_tls(socket))?;
    }
    Ok(())
}

/// Reads from the socket into rustls; the number of bytes, 0 at the end.
fn fill(tls: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<usize> {
    let count = retry(|| tls.read_tls(socket))?;
    if let Err(error) = tls.process_new_packets() {
        // Sends the alert.
        let _ = flush(tls, socket);
        return Err(io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok(count)
}
