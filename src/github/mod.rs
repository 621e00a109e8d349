//! GitHub's REST API, or a GitHub Enterprise Server's.

pub mod api;
mod download;
mod error;
mod http;
mod json;
mod runs;

pub use api::{Deletion, Download, GitHub, JitConfig, Repo};
pub use download::{Body, Resume};
pub use error::{Error, ErrorKind};
pub use http::MAX_ANSWER;
