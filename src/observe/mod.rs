//! Takes looks at LXD and at GitHub, and reports what is there. What could not be asked is reported as unknown, never as
//! empty.

mod github;
mod lxd;
mod queues;
mod warm;

pub use github::GitHubObserver;
pub use lxd::{LxdObserver, image_as_template, image_seen, list_instances};
