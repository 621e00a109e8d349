//! Words for people and programs: why a job waits, how the farm stands, the log, the metrics. **Pure**: all of it is made of
//! what the daemon knows and what it plans.

pub mod explain;
pub mod metrics;
pub mod narrate;
pub mod status;
