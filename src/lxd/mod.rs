//! LXD (or Incus) over its unix socket.

pub mod api;
pub mod transport;

pub use api::{Error, Exec, ExecResult, Instance, InstanceStatus, Lxd, NewInstance, Server};
