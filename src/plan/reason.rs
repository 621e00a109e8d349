//! Why nothing is launched for a queued job.

use std::fmt;

use super::census::LAUNCHES_AT_ONCE;
use crate::model::{RunnerArch, Timestamp};
use crate::world::{Doubt, Hold, Refusal, Subject, World};

/// Why nothing is launched for a queued job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not ours to run.
    Refused(Refusal),
    /// A runner for it is on its way, or idle.
    Covered,
    /// As many instances of the class as it may have.
    ClassFull { class: String, max: usize },
    /// As many instances as the host may have.
    HostFull { max: usize },
    /// Enough launches are under way; it is next.
    LaunchesBusy,
    /// Something fails; it is tried again then.
    Paused { blame: Subject, reason: String, until: Timestamp },
    /// Another process launched it, or runners for it ended (`wasted` of them) and it still waits.
    HeldBack { hold: Hold, wasted: u32, until: Timestamp },
    /// GitHub is asked about it first.
    Asked(Doubt),
    /// The runner package is not there yet.
    NoPackage(RunnerArch),
    /// LXD cannot be asked what exists.
    LxdUnknown,
}

impl Reason {
    /// The subject's pause, where it is paused now.
    pub(super) fn paused(world: &World, blame: Subject, now: Timestamp) -> Option<Reason> {
        let (until, entry) = world.paused(&blame, now)?;
        Some(Reason::Paused { reason: entry.reason.clone(), until, blame })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Refused(refusal) => refusal.fmt(f),
            Reason::Covered => f.write_str("a runner for it is on its way or idle"),
            Reason::ClassFull { class, max } => {
                write!(f, "class {class:?} has its {max} instances (runnermap: max_workers)")
            }
            Reason::HostFull { max } => write!(f, "all {max} instances are in use (max_workers)"),
            Reason::LaunchesBusy => write!(f, "{LAUNCHES_AT_ONCE} launches are under way; it is next"),
            Reason::Paused { blame, reason, until } => {
                write!(f, "{blame} failed, next try at {}: {reason}", until.to_rfc3339())
            }
            Reason::HeldBack { hold: Hold::NameTaken, until, .. } => write!(
                f,
                "the name of its instance or runner is taken, another process may be launching it; next try at {}",
                until.to_rfc3339()
            ),
            Reason::HeldBack { hold: Hold::RunnersEnded, wasted, until } => write!(
                f,
                "runners launched for it ended {wasted} times, and GitHub says that it still waits; next try at {}",
                until.to_rfc3339()
            ),
            Reason::Asked(doubt) => doubt.fmt(f),
            Reason::NoPackage(arch) => write!(f, "the runner package for linux-{arch} is being fetched"),
            Reason::LxdUnknown => f.write_str("LXD does not answer"),
        }
    }
}
