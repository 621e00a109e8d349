//! What happened at the GitHub stand-in, and when.

use std::time::Instant;

use lxdrunner::model::{JobId, RunnerId, Timestamp};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock.
    pub at: Timestamp,
    /// By the clock that never jumps.
    pub instant: Instant,
    pub event: Event,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job was made.
    JobQueued { job: JobId },
    /// A hook was answered: with this status, or not at all.
    HookAnswered { job: JobId, action: String, status: Option<u16> },
    /// A runner was registered, by a JIT config or by `config.sh`.
    Registered { runner: RunnerId, name: String, jit: bool },
    /// A runner's listener is there: the first sign of its process, which tells when it began by its own clock.
    SessionOpened { runner: RunnerId, name: String, began: Option<Timestamp> },
    /// A runner's process is gone without having said so.
    SessionLost { runner: RunnerId, name: String },
    /// GitHub gave a job to a runner.
    JobAssigned { job: JobId, runner: RunnerId, name: String },
    /// The runner made it its own. It has no worker process yet, and the job is still listed as queued.
    JobAcquired { job: JobId, name: String },
    /// The runner's worker began with it.
    JobStarted { job: JobId, name: String },
    /// It is over.
    JobFinished { job: JobId, conclusion: &'static str, exit_code: Option<i32> },
    /// A registration is gone.
    Removed { runner: RunnerId, name: String, by: Removal },
}

/// Who took a registration away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// GitHub itself, after the one job of an ephemeral runner.
    Ephemeral,
    /// A DELETE.
    Deleted,
}
