//! stub
use crate::model::{Hint, Secret};
use std::net::SocketAddr;
#[derive(Debug)]
pub struct Error;
pub enum Health {
    Good(String),
    Bad(String),
}
pub struct Receiver {
    addr: SocketAddr,
}
impl Receiver {
    pub fn start(
        listen: SocketAddr,
        _: Secret,
        _: impl Fn(Hint) + Send + Sync + 'static,
        _: impl Fn() -> Health + Send + Sync + 'static,
    ) -> Result<Receiver, Error> {
        Ok(Receiver { addr: listen })
    }
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}
