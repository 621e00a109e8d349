//! GitHub's REST API, or a GitHub Enterprise Server's.

pub mod api;
mod budget;
mod download;
mod error;
mod http;
mod json;
mod limits;
mod listing;
mod runs;

pub use api::{Deletion, Download, GitHub, JitConfig, QueueSeen, Repo};
pub use budget::{Counts, Purpose, Standing};
pub use download::{Body, Resume};
pub use error::{Error, ErrorKind};
pub use http::MAX_ANSWER;
pub use listing::Listing;
