//! Texts for people and programs: why a job waits, the state, log lines, metrics. **Pure**: made from World and plan.

pub mod explain;
pub mod metrics;
pub mod narrate;
pub mod status;
