//! Texts for people and programs: why a job waits, the state, log lines, metrics. Made from World and plan alone; `narrate` writes
//! its texts to the log.

pub mod explain;
pub mod metrics;
pub mod narrate;
pub mod status;
