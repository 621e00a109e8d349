//! LXD (or Incus) over its unix socket.

pub mod api;
mod ends;
pub mod events;
mod exec;
mod files;
mod keys;
mod objects;
pub mod transport;
mod wait;
mod wire;

pub use api::{
    Error, ErrorKind, Exec, ExecResult, Instance, InstanceStatus, Lxd, NewInstance, Operation, Server, Source,
};
pub use events::Events;
pub use exec::EndedExec;
pub use objects::{Image, Network, Profile, Project, RemoteImage, StoragePool};
pub use wait::{Patience, Progress, Signs};
