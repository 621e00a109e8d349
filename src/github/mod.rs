//! GitHub's REST API, or a GitHub Enterprise Server's.

pub mod api;

pub use api::{Deletion, Download, Error, ErrorKind, GitHub, JitConfig};
