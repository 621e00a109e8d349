//! How long a making may take: `provision_timeout` without progress, and [`Config::longest_making`] in all.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::config::Config;

/// Between two log lines about an operation that takes long.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The limits of one making.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without progress, for each step.
    pub step: Duration,
    /// For all steps together.
    pub whole: Duration,
}

impl Limits {
    /// The config's limits.
    pub fn of(config: &Config) -> Limits {
        Limits { step: config.provision_timeout, whole: config.longest_making() }
    }
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Without progress.
    Step(Duration),
    /// For all steps.
    Whole(Duration),
}

/// The time that a making has taken, and how much of it is noted on the instance.
pub(super) struct Clock {
    pub begun: Instant,
    pub limits: Limits,
    /// In seconds.
    pub noted: AtomicU64,
}

impl Clock {
    pub fn start(limits: Limits) -> Clock {
        Clock { begun: Instant::now(), limits, noted: AtomicU64::new(0) }
    }

    /// The limit for all steps, if it is reached.
    pub fn over(&self) -> Option<Duration> {
        Some(self.limits.whole).filter(|whole| self.begun.elapsed() >= *whole)
    }
}
