//! Log lines about changes and decisions, each once.

use std::collections::BTreeMap;

use log::{Level, debug, error, info, log, warn};

use super::shortened;
use crate::model::{Job, JobId};
use crate::plan::Reason;
use crate::world::{JobState, Note, Refusal, World};

/// Jobs that are logged in one turn of the loop. A reason that holds for ten thousand jobs is logged over many turns, so that
/// none takes long.
const IN_A_TURN: usize = 250;
/// The most reasons that are logged for one job.
const REASONS: usize = 16;

/// Writes the log, and remembers the logged reasons of each job.
#[derive(Default)]
pub struct Narrator {
    told: BTreeMap<JobId, Vec<Reason>>,
}

impl Narrator {
    /// Logs notes.
    pub fn tell(&mut self, notes: &[Note]) {
        notes.iter().for_each(tell);
    }

    /// Logs why nothing is launched for jobs, each reason once. Returns true if more is left.
    pub fn tell_deferred(&mut self, deferred: &[(JobId, Reason)], world: &World) -> bool {
        let (news, more) = self.news(deferred, world);
        for (state, reason) in news {
            let Job { id, repo, labels, .. } = &state.job;
            let labels = labels.to_string();
            log!(
                level(reason, &labels),
                "job={id} repo={repo} labels={labels:?} msg=\"not launched\" reason={:?}",
                shortened(&reason.to_string())
            );
        }
        more
    }

    /// The reasons that were not logged yet, for a limited number of jobs; true if there are more.
    fn news<'a>(
        &mut self,
        deferred: &'a [(JobId, Reason)],
        world: &'a World,
    ) -> (Vec<(&'a JobState, &'a Reason)>, bool) {
        self.told.retain(|job, _| world.job(*job).is_some());
        let mut news = Vec::new();
        for (job, reason) in deferred {
            let told = self.told.get(job).map(Vec::as_slice).unwrap_or_default();
            let known = match reason {
                // Come and go with every launch, also between two failures for the same reason.
                Reason::Covered | Reason::LaunchesBusy => !told.is_empty(),
                // Just started; the first look is under way.
                Reason::LxdUnknown if world.lxd.is_none() => true,
                _ => told.len() >= REASONS || told.iter().any(|before| same(before, reason)),
            };
            let Some(state) = world.job(*job).filter(|_| !known) else { continue };
            if news.len() == IN_A_TURN {
                return (news, true);
            }
            news.push((state, reason));
            self.told.entry(*job).or_default().push(reason.clone());
        }
        (news, false)
    }
}

/// True if the new reason would tell a reader nothing.
fn same(before: &Reason, now: &Reason) -> bool {
    match (before, now) {
        (Reason::Paused { blame: a, .. }, Reason::Paused { blame: b, .. }) => a == b,
        (Reason::HeldBack { hold: a, .. }, Reason::HeldBack { hold: b, .. }) => a == b,
        _ => before == now,
    }
}

fn level(reason: &Reason, labels: &str) -> Level {
    match reason {
        // Meant for GitHub's own runners, most likely.
        Reason::Refused(Refusal::NoClass { .. }) if !labels.contains("self-hosted") => Level::Debug,
        Reason::Refused(Refusal::TargetsUnknown | Refusal::VisibilityUnknown | Refusal::OriginUnknown) => Level::Info,
        // As the operator wants it.
        Reason::Refused(Refusal::NotAllowed { .. } | Refusal::NotOfClass { .. } | Refusal::GroupOnly { .. }) => {
            Level::Info
        }
        Reason::Refused(_) => Level::Warn,
        Reason::ClassFull { .. } | Reason::HostFull { .. } | Reason::HeldBack { .. } | Reason::NoPackage(_) => {
            Level::Info
        }
        Reason::Asked(_) => Level::Debug,
        // What failed was told when it failed, but who asks the log for a job is to find it.
        Reason::Paused { .. } | Reason::LxdUnknown => Level::Info,
        Reason::Covered | Reason::LaunchesBusy => Level::Debug,
    }
}

/// The prefix of a line: the job that an instance was launched for.
fn of(job: Option<JobId>) -> String {
    job.map(|job| format!("job={job} ")).unwrap_or_default()
}

fn tell(note: &Note) {
    match note {
        Note::JobQueued { job, repo, class, scope, name } => {
            info!("job={job} repo={repo} scope={scope} class={class:?} name={name:?} msg=queued");
        }
        Note::JobTaken { job, runner, ours: true } => info!("job={job} instance={runner} msg=\"job runs\""),
        Note::JobTaken { job, runner, ours: false } => {
            info!("job={job} runner={runner:?} msg=\"taken by a runner of others\"")
        }
        Note::JobOver { job, ours: true } => debug!("job={job} msg=\"job is over\""),
        Note::JobOver { job, ours: false } => debug!("job={job} msg=\"job is over, without us\""),
        Note::Launched { instance, job } => info!("{}instance={instance} msg=\"runner started\"", of(*job)),
        Note::Clash { instance, job, reason } => {
            info!("{}instance={instance} msg=\"stood back\" reason={reason:?}", of(*job))
        }
        Note::StandbyLost { instance, job, reason } => {
            info!("{}instance={instance} msg=\"standby is another's, going on without\" reason={reason:?}", of(*job))
        }
        Note::Baked { template, class, image } => {
            let image = image.as_ref().map(|fingerprint| format!(" image={fingerprint}")).unwrap_or_default();
            info!("class={class:?} template={template}{image} msg=\"template ready\"")
        }
        Note::OtherConfig { class, instance } => error!(
            "class={class:?} instance={instance} msg=\"another lxdrunner with this prefix serves this LXD with other settings \
             for the class; each leaves alone what the other keeps ready, and can use none of it\" fix=\"give each a prefix \
             of its own, or the same settings\""
        ),
        Note::OneConfigAgain { what } => warn!("what={:?} msg=\"settings agree again\"", what.to_string()),
        Note::Prepared { instance, class } => info!("class={class:?} instance={instance} msg=\"standby ready\""),
        Note::LaunchFailed { instance, job, blame, reason, until, news, logs_kept } => {
            let what = blame.to_string();
            let level = if *news { Level::Error } else { Level::Debug };
            let next = until.to_rfc3339();
            let see = if *logs_kept { format!(" see=\"lxdrunner failures {instance}\"") } else { String::new() };
            log!(
                level,
                "{}instance={instance} what={what:?} msg=\"launch failed; the job stays queued\" next_try={next}{see} reason={reason:?}",
                of(*job)
            );
        }
        Note::InstanceGone { instance, phase, .. } if !phase.has_runner() => {
            info!("instance={instance} was={} msg=\"instance gone\"", phase.as_str());
        }
        Note::InstanceGone { instance, job, took_job, .. } => {
            info!("{}instance={instance} ran_a_job={} msg=\"instance gone\"", of(*job), took_job.as_str());
        }
        Note::Kept { instance, why } => info!("instance={instance} msg=\"kept\" reason={why:?}"),
        Note::RemoveFailed { instance, reason, failures, until, news, stuck } => {
            let level = match news {
                false => Level::Debug,
                true if *stuck => Level::Error,
                // LXD deletes an ephemeral instance by itself when it stops, and refuses everything else meanwhile.
                true => Level::Info,
            };
            let next = until.to_rfc3339();
            log!(
                level,
                "instance={instance} failures={failures} next_try={next} msg=\"could not be removed, will keep retrying\" \
                 reason={reason:?}"
            );
        }
        Note::GoneAtLast { instance, failures } => {
            warn!("instance={instance} failures={failures} msg=\"removed after failed attempts\"")
        }
        Note::Deregistered { runner, scope } => {
            info!("runner={runner} scope={scope} msg=\"offline registration without an instance removed\"");
        }
        Note::VersionEnds { arch, trouble, refused } => {
            let level = if *refused { Level::Error } else { Level::Warn };
            log!(level, "package=linux-{arch} msg=\"the runner's version comes to its end\" reason={trouble:?}");
        }
        Note::PackageReady { version, arch, news: true } => info!("package=linux-{arch} version={version} msg=ready"),
        Note::PackageReady { version, arch, news: false } => {
            debug!("package=linux-{arch} version={version} msg=\"still the newest\"")
        }
        Note::Trouble { what, reason } => {
            let what = what.to_string();
            error!("what={what:?} msg=\"failing, will keep retrying\" reason={reason:?}")
        }
        Note::Recovered { what } => warn!("what={:?} msg=\"works again\"", what.to_string()),
        Note::LookFailed { what, reason } => warn!("what={what:?} msg=\"GitHub did not tell\" reason={reason:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::JobStatus;
    use crate::world::testkit::*;

    #[test]
    fn a_job_that_names_a_runner_group_only_has_its_line_and_one_for_githubs_own_runners_has_none() {
        let refused = |refusal| level(&Reason::Refused(refusal), "");
        assert_eq!(refused(Refusal::GroupOnly { classes: 0 }), Level::Info);
        assert_eq!(refused(Refusal::NoClass { nearest: None }), Level::Debug);
    }

    #[test]
    fn each_reason_is_told_once_for_each_job_and_many_jobs_in_many_turns() {
        let mut stage = Stage::new(Config { max_workers: 1, ..config() });
        let busy = || vec![seen("lxdrunner-90-1", 90)];
        stage.lxd(busy());
        stage.runners(acme(), vec![runner(90, "lxdrunner-90-1", true, true)]);
        stage.pass(60);
        let jobs = IN_A_TURN * 2 + 10;
        for id in 1..=jobs as u64 {
            stage.queued(id);
        }
        let mut narrator = Narrator::default();
        let mut tell = |stage: &Stage| {
            let plan = stage.plan();
            let (mut lines, mut turns) = (0, 0);
            loop {
                let (news, more) = narrator.news(&plan.deferred, &stage.world);
                assert!(news.len() <= IN_A_TURN);
                (lines, turns) = (lines + news.len(), turns + 1);
                if !more {
                    return (lines, turns);
                }
            }
        };
        assert_eq!(tell(&stage), (jobs, 3), "the host is full");
        assert_eq!(tell(&stage), (0, 1));
        for expected in [jobs, 0, 0] {
            stage.snapshot(stage.world.seq(), None, None);
            assert_eq!(tell(&stage).0, expected, "LXD does not answer");
            stage.pass(1).lxd(busy());
            assert_eq!(tell(&stage).0, 0, "the host is full, as before");
        }
        stage.told(1, JobStatus::Completed, None);
        tell(&stage);
        assert_eq!(narrator.told.len(), jobs - 1);
    }
}
