//! Runners: their package, and how one comes into an instance.

mod cache_files;
pub mod cause;
pub mod failures;
mod masks;
pub mod package;
pub mod provision;
