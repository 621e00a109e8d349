//! The runner: its package, and how it comes into an instance.

pub mod package;
