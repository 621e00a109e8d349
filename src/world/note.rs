//! Changes that people should be told.

use crate::model::{InstanceStatus, JobId, Phase, Scope, Timestamp};
use crate::world::{Instance, Subject};

/// Whether the runner of an instance that ended had a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TookJob {
    Yes,
    No,
    /// It was started, and GitHub named no job yet.
    Unknown,
}

impl TookJob {
    /// One word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            TookJob::Yes => "true",
            TookJob::No => "false",
            TookJob::Unknown => "unknown",
        }
    }
}

/// A log line as data; `report::narrate` gives it level and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A job is queued that is served here.
    JobQueued { job: JobId, repo: String, class: String, scope: Scope, name: String },
    /// A runner took a job; the runner's instance may be one of ours.
    JobTaken { job: JobId, runner: String, ours: bool },
    /// A job is over, or not queued any more.
    JobOver { job: JobId, ours: bool },
    /// The runner process runs.
    Launched { instance: String, job: Option<JobId> },
    /// A launch backed off: another process owns the name.
    Clash { instance: String, job: Option<JobId>, reason: String },
    /// A standby was claimed by somebody else first.
    StandbyLost { instance: String, job: Option<JobId>, reason: String },
    /// A template can be copied now.
    Baked { template: String, class: String, image: Option<String> },
    /// Another daemon with our prefix keeps this instance ready, with other settings for its class.
    OtherConfig { class: String, instance: String },
    /// The other daemon has no other settings any more.
    OneConfigAgain { what: Subject },
    /// A standby waits.
    Prepared { instance: String, class: String },
    /// A launch failed and will be tried again. `news` is false where the same was said before, `logs_kept` tells that the
    /// instance's own words are kept.
    LaunchFailed {
        instance: String,
        job: Option<JobId>,
        blame: Subject,
        reason: String,
        until: Timestamp,
        news: bool,
        logs_kept: bool,
    },
    /// An instance is gone.
    InstanceGone { instance: String, job: Option<JobId>, phase: Phase, took_job: TookJob },
    /// An instance was to be removed and was kept.
    Kept { instance: String, why: String },
    /// A removal failed and will be tried again. `news` is false where the same was said before; `stuck`: LXD has had the time
    /// that it needs.
    RemoveFailed { instance: String, reason: String, failures: u32, until: Timestamp, news: bool, stuck: bool },
    /// An instance that could not be removed is gone.
    GoneAtLast { instance: String, failures: u32 },
    /// A registration was removed.
    Deregistered { runner: String, scope: Scope },
    /// GitHub refuses the runner's version, or soon will.
    VersionEnds { arch: &'static str, trouble: String, refused: bool },
    /// A runner package is ready.
    PackageReady { version: String, arch: &'static str, news: bool },
    /// A subject fails.
    Trouble { what: Subject, reason: String },
    /// It has recovered.
    Recovered { what: Subject },
    /// A question to GitHub, asked for a delivery, was not answered.
    LookFailed { what: String, reason: String },
}

impl Instance {
    /// A hint for people if LXD repeatedly fails to delete it although it is stopped.
    pub fn removal_hint(&self) -> Option<String> {
        if self.seen.status != InstanceStatus::Stopped || self.seen.alias.is_some() {
            return None;
        }
        let name = match self.seen.project.as_str() {
            "default" => self.seen.name.clone(),
            project => format!("{project}_{}", self.seen.name),
        };
        Some(format!(
            "if `lxc delete {}` fails, too, a power cut may have left only an empty directory of it: on btrfs, `rmdir \
             /var/lib/lxd/storage-pools/POOL/containers/{name}`, then delete it (LXD's snap and Incus: see README, Troubleshooting)",
            self.seen.name
        ))
    }
}
