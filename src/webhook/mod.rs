//! GitHub webhooks: receive, verify, parse.

pub mod event;
pub mod gate;
pub mod server;

pub use server::{Health, Receiver};

/// The longest body that is taken, in bytes: GitHub sends no more than 25 MB.
pub const LONGEST_BODY: usize = 25 * 1024 * 1024;

/// The path that webhooks are posted to.
pub const HOOK_PATH: &str = "/hooks/lxdrunner";
