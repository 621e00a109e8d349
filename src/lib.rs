//! `lxdrunner` turns an LXD or Incus host into a farm of ephemeral GitHub Actions runners.
//!
//! The modules are the floors of one house: a lower one never imports a higher one. `tests/layers` knows the
//! order and enforces it; `ARCHITECTURE.md` draws the map.

pub mod cli;
mod clock;
pub mod config;
pub mod control;
mod daemon;
mod execute;
pub mod github;
pub mod http1;
pub mod identity;
pub mod lxd;
pub mod model;
pub mod observe;
pub mod plan;
mod private_socket;
pub mod report;
pub mod runner;
pub mod steps;
mod table;
mod text;
mod threads;
mod trace;
pub mod upkeep;
pub mod webhook;
pub mod websocket;
pub mod world;
