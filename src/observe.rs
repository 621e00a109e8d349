//! Looks at LXD and GitHub. A failed question is reported as unknown, never as empty.

mod github;
mod lxd;
mod queues;
mod warm;

pub use github::GitHubObserver;
pub use lxd::{LxdObserver, image_as_template, image_seen, list_instances};
