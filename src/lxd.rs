//! LXD (or Incus) over its unix socket.

mod api;
mod ends;
mod events;
mod exec;
mod files;
mod keys;
mod objects;
pub mod transport;
mod types;
mod wait;
mod wire;

pub use api::{CALL_TIMEOUT, Lxd};
pub use events::Events;
pub use exec::EndedExec;
pub use objects::{Image, Network, Profile, Project, RemoteImage, StoragePool};
pub use types::{Error, ErrorKind, Exec, ExecResult, Instance, NewInstance, Operation, Server, Source};
pub use wait::{Patience, Progress, Signs};
