//! The front door: what each shape of a request gets, plain and through TLS, and that it holds.
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
