//! GitHub webhooks: receive, verify, parse.

pub mod event;
pub mod server;
