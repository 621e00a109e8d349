//! Words for people and programs: why a job waits, the farm's state, log lines, metrics. **Pure**: all of it is made of
//! what the daemon knows and what it plans.

pub mod explain;
pub mod metrics;
pub mod narrate;
pub mod status;
