//! GitHub webhooks: let in, receive, verify, parse.

mod answer;
mod error;
pub mod event;
pub mod gate;
mod letters;
mod listen;
mod peers;
mod private;
pub mod server;
mod tally;
#[cfg(test)]
mod tests;
mod tls;

pub use error::Error;
pub use listen::Listener;
pub use peers::Peers;
pub use server::{Front, Health, Receiver};
pub use tls::{AT_GITHUB, Tls};

/// The longest body that is taken, in bytes: GitHub sends no more than 25 MB.
pub const LONGEST_BODY: usize = 25 * 1024 * 1024;

/// The longest answer's body, in bytes: metrics. Whatever is longer is taken for nonsense of the server within.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The path that webhooks are posted to.
pub const HOOK_PATH: &str = "/hooks/lxdrunner";
