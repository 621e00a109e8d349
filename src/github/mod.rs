//! GitHub's REST API, or a GitHub Enterprise Server's.

mod account;
mod agents;
pub mod api;
mod app;
mod budget;
mod download;
mod error;
mod expiry;
mod failure;
mod groups;
mod hooks;
mod http;
mod json;
mod keyring;
mod limits;
mod listing;
mod pages;
mod queue;
mod repos;
mod runs;
mod versions;

pub use account::Identity;
pub use api::{Deletion, Download, GitHub, JitConfig, Repo};
pub use budget::ledger;
pub use budget::{Counts, Purpose, Standing};
pub use download::{Body, Resume};
pub use error::{Error, ErrorKind};
pub use expiry::TokenEnd;
pub use groups::Group;
pub use hooks::{Delivery, HOOK_EVENTS, Hook, HookWanted};
pub use http::MAX_ANSWER;
pub use listing::Listing;
pub use queue::{QueueSeen, TURNS};
