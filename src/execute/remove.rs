//! Takes the steps of a [`Removal`] against LXD and GitHub.

use std::time::Duration;

use log::{Level, debug, info, log};

use super::Executor;
use crate::identity::{maker, process_identity};
use crate::lxd::{self, ErrorKind, Instance, Lxd, Operation};
use crate::model::{Phase, RunnerId, keys};
use crate::runner::provision::{look_inside, why_not_online};
use crate::steps::removal::{Answer, Removal, Step};
use crate::steps::{InstanceView, Next};
use crate::world::{Outcome, RemoveReason};

/// How long LXD gets to stop or delete an instance.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The state of a removal.
struct RemovalSession<'a> {
    executor: &'a Executor,
    project: &'a str,
    name: &'a str,
    reason: String,
    /// True if its runner did not come online.
    never_online: bool,
    /// The level of the removal's log line.
    level: Level,
    /// The instance at the last look.
    instance: Option<Instance>,
    /// A suffix of the removal's log line that says where its logs are kept.
    see: String,
}

impl Executor {
    /// Takes all steps; returns the outcome.
    pub(super) fn remove(&self, project: &str, name: &str, mut removal: Removal) -> Outcome {
        let reason = removal.judged().to_string();
        let never_online = removal.judged().reason == RemoveReason::NeverOnline;
        let mut session = RemovalSession {
            executor: self,
            project,
            name,
            reason,
            never_online,
            level: Level::Info,
            instance: None,
            see: String::new(),
        };
        loop {
            let step = removal.step().clone();
            let came = session.take(&step);
            debug!("instance={name} step={step:?} came={came:?}");
            if let Next::End(outcome) = removal.next(came) {
                if matches!(outcome, Outcome::Removed) && step != Step::Look {
                    log!(session.level, "instance={name} reason={:?} msg=removed{}", session.reason, session.see);
                }
                return outcome;
            }
        }
    }
}

impl Executor {
    /// Removes a template that is an image, if it still is one.
    pub(super) fn remove_image(&self, project: &str, fingerprint: &str, alias: &str, reason: RemoveReason) -> Outcome {
        let failed = |error: lxd::Error| Outcome::RemoveFailed { reason: error.to_string() };
        let ours = |image: &lxd::Image| {
            let owner = image.properties.get(keys::OWNER);
            owner == Some(&self.config.prefix) && image.aliases().any(|name| name == alias)
        };
        match self.lxd.image(project, fingerprint) {
            Ok(found) if !found.as_ref().is_some_and(ours) => return Outcome::Removed,
            Err(error) => return failed(error),
            Ok(_) => {}
        }
        match self.lxd.delete_image(project, fingerprint).and_then(|begun| self.lxd.wait(&begun, REMOVAL_TIMEOUT)) {
            Ok(()) => {
                info!("template={alias} image={fingerprint} reason=\"{reason}\" msg=removed");
                Outcome::Removed
            }
            Err(error) => failed(error),
        }
    }
}

impl RemovalSession<'_> {
    fn take(&mut self, step: &Step) -> Answer {
        let (lxd, github) = (&self.executor.lxd, &self.executor.github);
        let (project, name) = (self.project, self.name);
        let over = |operation: Operation| lxd.wait(&operation, REMOVAL_TIMEOUT);
        match step {
            Step::Look | Step::LookAgain => match lxd.instance(project, name) {
                Ok(Some((instance, etag))) => {
                    let found = found(lxd, &instance, etag);
                    self.instance = Some(instance);
                    Answer::Found(found)
                }
                Ok(None) => Answer::Gone,
                Err(error) => Answer::Failed(error.to_string()),
            },
            Step::Claim { etag, phase } => {
                let ours = [(keys::PHASE, phase.as_str().to_owned()), (keys::DAEMON, process_identity())];
                let config = ours.map(|(key, value)| (key.to_owned(), value)).into();
                match lxd.patch_config(project, name, &config, Some(etag)) {
                    Err(error) if matches!(error.kind, ErrorKind::PreconditionFailed | ErrorKind::NotFound) => {
                        Answer::Changed
                    }
                    other => done(other),
                }
            }
            Step::LookInside => Answer::Inside(look_inside(lxd, project, name)),
            Step::FindRunner(scope) => match github.runner_by_name(scope, name) {
                Ok(found) => Answer::Runner(found.map(|runner| (runner.id, runner.online || runner.busy))),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Step::Deregister(scope, runner) => match github.delete_runner(scope, *runner) {
                Ok(deletion) => Answer::Deregistered(deletion),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Step::KeepLogs => {
                if let Some(why) = self.why_not_online() {
                    self.reason = format!("{}: {why}", self.reason);
                    self.level = Level::Warn;
                }
                let keep = |instance: &Instance| self.executor.save_failure_logs(instance, &self.reason);
                self.see = self.instance.as_ref().map(keep).unwrap_or_default();
                Answer::Done
            }
            Step::Stop => done(lxd.set_state(project, name, "stop", true).and_then(over)),
            Step::Delete => done(lxd.delete(project, name).and_then(over)),
        }
    }
}

impl RemovalSession<'_> {
    /// The start script's message in the instance, if its runner did not come online.
    fn why_not_online(&self) -> Option<String> {
        let instance = self.instance.as_ref().filter(|_| self.never_online)?;
        let class = instance.config.get(keys::CLASS)?;
        let class = self.executor.config.classes.iter().find(|known| known.name == *class)?;
        why_not_online(&self.executor.lxd, class, self.name)
    }
}

fn done(result: Result<(), lxd::Error>) -> Answer {
    result.map_or_else(|error| Answer::Failed(error.to_string()), |()| Answer::Done)
}

/// An instance as [`Removal`] and `Making` need it. Without a phase it counts as started with a runner, the most careful guess.
pub(super) fn found(lxd: &Lxd, instance: &Instance, etag: String) -> InstanceView {
    let key = |key: &str| instance.config.get(key).map(String::as_str);
    InstanceView {
        etag,
        owner: key(keys::OWNER).map(str::to_owned),
        phase: Phase::parse(key(keys::PHASE).unwrap_or_default()),
        maker: maker(key(keys::DAEMON).unwrap_or_default(), lxd.is_shared()),
        scoped: instance.config.contains_key(keys::SCOPE),
        runner: key(keys::RUNNER_ID).and_then(|id| id.parse().ok()).map(RunnerId),
        status: instance.status,
        made_at: instance.created_at,
    }
}
