//! The webhook port: the answer to each shape of a request, plain and through TLS, and its behaviour under attack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod anybody;
mod attack;
mod certificates;
mod door;
mod held;
mod peers;
mod restarts;
mod shapes;
#[path = "../support/mod.rs"]
mod support;
