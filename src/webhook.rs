//! GitHub webhooks: receive, verify, parse.

mod error;
pub mod event;
mod gate;
mod limits;
mod listen;
mod payload;
mod peers;
mod server;
#[cfg(test)]
mod tests;
mod throttled_log;
mod tls;

pub use error::Error;
pub use limits::{HOOK_PATH, LONGEST_BODY, Limits};
pub use listen::Listener;
pub use peers::Peers;
pub use server::{Front, Health, Receiver};
pub use tls::{AT_GITHUB, Tls};
