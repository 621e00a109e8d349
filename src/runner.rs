//! Runners: their packages, and putting one into an instance.

mod cache_files;
pub mod cause;
pub mod failure_logs;
mod masks;
pub mod package;
pub mod provision;
