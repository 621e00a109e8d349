//! Runners: their package, and how one comes into an instance.

pub mod cause;
pub mod failures;
mod masks;
pub mod package;
pub mod provision;
