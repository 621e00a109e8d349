//! Removes an instance. Invariants:
//!
//! 1. An instance without our owner key is left alone.
//! 2. An instance that was made at another time than the judged one is another instance of the same name: it is left alone.
//! 3. So is one that was judged abandoned and is finished by now, or owned by another living process.
//! 4. An instance that another process may want, to use it or to remove it, is claimed first, on the condition that it has not
//!    changed since the look: a standby, and what another process left half-made. Only one claim succeeds.
//! 5. A running instance is looked into before its runner is deregistered: a worker process keeps it, whatever GitHub says.
//! 6. If GitHub alone says that the runner has no job, a failed look inside keeps it too; so it does for an instance whose dead
//!    maker may have handed over the credentials.
//! 7. The registration goes before the instance. 422 (a job runs) keeps both; so does a missing answer, unless it is certain
//!    without GitHub that nothing runs inside.
//! 8. `max_lifetime` alone overrides 5 to 7.
//! 9. The logs of a failed instance are kept before it is removed.
//! 10. The instance is read again right before it is stopped and before it is deleted: GitHub may take its time, and LXD deletes
//!     an ephemeral instance by itself when it stops, after which another instance may have the name.

use super::{InstanceView, Next};
use crate::config::Registration;
use crate::github::Deletion;
use crate::identity::Maker;
use crate::model::{InstanceStatus, Phase, RunnerId, Scope};
use crate::world::{Judged, Outcome, RemoveReason};

#[cfg(test)]
mod tests;

/// The next step. [`Answer::Failed`] is always possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the instance: [`Answer::Found`], or [`Answer::Gone`].
    Look,
    /// Write this phase and this process onto it, if its ETag is still this one: [`Answer::Done`], or
    /// [`Answer::Changed`].
    Claim { etag: String, phase: Phase },
    /// Look for a worker process in it: [`Answer::Inside`].
    LookInside,
    /// Ask GitHub for the runner of the instance's name: [`Answer::Runner`].
    FindRunner(Scope),
    /// Delete the registration: [`Answer::Deregistered`].
    Deregister(Scope, RunnerId),
    /// Keep its logs: always [`Answer::Done`].
    KeepLogs,
    /// Stop it, by force: [`Answer::Done`].
    Stop,
    /// Read it once more: [`Answer::Found`], or [`Answer::Gone`].
    LookAgain,
    /// Delete it: [`Answer::Done`].
    Delete,
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Found(InstanceView),
    /// There is no such instance.
    Gone,
    Done,
    /// The instance has changed since the look, or is gone: nothing was done.
    Changed,
    Inside(Inside),
    /// The runner, and whether it is online or busy.
    Runner(Option<(RunnerId, bool)>),
    Deregistered(Deletion),
    /// The step failed, or its result is unknown.
    Failed(String),
}

/// The result of a look into an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A `Runner.Worker` process: a job runs.
    Working,
    /// No worker process.
    Quiet,
    /// The look failed.
    Unknown,
}

/// The last attempt to take it away.
#[derive(Clone, Debug)]
enum Attempt {
    Nothing,
    /// With the reason if it failed.
    Stop {
        failed: Option<String>,
    },
    /// It failed.
    Delete {
        why: String,
    },
}

/// The state machine of one removal.
#[derive(Clone, Debug)]
pub struct Removal {
    judged: Judged,
    prefix: String,
    registration: Registration,
    step: Step,
    /// At the first look.
    status: InstanceStatus,
    /// The registration that is noted on it.
    noted: Option<RunnerId>,
    /// True if another process left it before it noted the registration: with JIT its runner never started.
    never_noted: bool,
    /// True once a look inside found no worker.
    quiet: bool,
    tried: Attempt,
}

impl Removal {
    /// `prefix` is the value of our instances' owner key.
    pub fn new(judged: Judged, prefix: &str, registration: Registration) -> Removal {
        let (prefix, step, status) = (prefix.to_owned(), Step::Look, InstanceStatus::Other);
        Removal {
            judged,
            prefix,
            registration,
            step,
            status,
            noted: None,
            never_noted: false,
            quiet: false,
            tried: Attempt::Nothing,
        }
    }

    /// The removal of an instance that this process just made and does not need: nothing runs in it, nobody else knows it.
    pub fn of_our_own(prefix: &str, reason: RemoveReason) -> Removal {
        let judged =
            Judged { reason, scope: None, runner: None, made_at: None, maker: Maker::Us, standby: false, over: false };
        Removal { step: Step::Stop, ..Removal::new(judged, prefix, Registration::Jit) }
    }

    /// Why it is removed, and what was known of it then.
    pub fn judged(&self) -> &Judged {
        &self.judged
    }

    /// The step to take now.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Takes the answer to the step.
    pub fn next(&mut self, came: Answer) -> Next<Step> {
        let next = self.decide(came);
        if let Next::Take(step) = &next {
            self.step = step.clone();
        }
        next
    }

    fn decide(&mut self, came: Answer) -> Next<Step> {
        match (self.step.clone(), came) {
            (Step::Look | Step::LookAgain, Answer::Gone) => removed(),
            (Step::Look, Answer::Found(found)) => self.looked(found),
            (Step::Claim { .. }, Answer::Changed) => changed("somebody else was at it first"),
            (Step::Claim { phase, .. }, Answer::Done) => self.ours_to_remove(phase),
            (Step::LookInside, Answer::Inside(inside)) => self.looked_inside(inside),
            (Step::FindRunner(_), Answer::Runner(runner)) => self.runner_found(runner),
            (Step::Deregister(..), Answer::Deregistered(Deletion::Busy)) if !self.safe_without_github() => {
                Next::End(Outcome::Kept { why: "GitHub says that it runs a job".to_owned() })
            }
            (Step::Deregister(..), Answer::Deregistered(_)) => self.end(),
            // GitHub is not needed where nothing can run inside. That its runner is finished came from a listing, which may
            // lag: either GitHub or a look inside must confirm it now.
            (Step::FindRunner(_) | Step::Deregister(..), Answer::Failed(_))
                if self.safe_without_github() || self.judged.reason == RemoveReason::Finished && self.quiet =>
            {
                self.end()
            }
            (Step::KeepLogs, _) => Next::Take(Step::LookAgain),
            (Step::LookAgain, Answer::Found(found)) => self.looked_again(&found),
            (Step::LookAgain, Answer::Failed(reason)) => match &self.tried {
                Attempt::Delete { why } => failed(why),
                _ => failed(reason),
            },
            (Step::Stop, Answer::Done) => self.look_again(Attempt::Stop { failed: None }),
            // It may have stopped by itself meanwhile, and be gone: the next look shows it.
            (Step::Stop, Answer::Failed(why)) => self.look_again(Attempt::Stop { failed: Some(why) }),
            (Step::Delete, Answer::Done) => removed(),
            // LXD also deletes an ephemeral instance by itself: the second deletion fails, and that is fine.
            (Step::Delete, Answer::Failed(reason)) => {
                let why = match &self.tried {
                    // LXD refuses to delete it because it could not be stopped.
                    Attempt::Stop { failed: Some(why) } => why.clone(),
                    _ => reason,
                };
                self.look_again(Attempt::Delete { why })
            }
            (_, Answer::Failed(reason)) => failed(reason),
            (step, came) => failed(format!("{step:?} was answered with {came:?}")),
        }
    }

    /// Whether it may be removed without GitHub's consent: it is stopped, or past `max_lifetime`.
    fn safe_without_github(&self) -> bool {
        // Only a stopped instance surely runs nothing; a frozen one holds its job.
        self.status == InstanceStatus::Stopped || self.judged.reason == RemoveReason::TooOld
    }

    fn is_ours(&self, found: &InstanceView) -> bool {
        found.owner.as_ref() == Some(&self.prefix)
    }

    /// True for another instance with the name of the judged one.
    fn is_another(&self, found: &InstanceView) -> bool {
        self.judged.made_at.zip(found.made_at).is_some_and(|(judged, found)| judged != found)
    }

    fn looked(&mut self, found: InstanceView) -> Next<Step> {
        if !self.is_ours(&found) {
            return removed();
        }
        if self.is_another(&found) {
            return another();
        }
        let abandoned = self.judged.reason == RemoveReason::Abandoned;
        // A standby whose claim was uncertain is removed like one that is not needed.
        if abandoned && !found.phase.is_making() && found.phase != Phase::Standby {
            return changed("it was finished meanwhile");
        }
        if abandoned && matches!(found.maker, Maker::Other | Maker::Unknown) && self.judged.maker != found.maker {
            return changed("another process has it by now");
        }
        if self.judged.scope.is_none() && found.scoped {
            return changed("it was claimed meanwhile");
        }
        // From here on, only this instance.
        self.judged.made_at = self.judged.made_at.or(found.made_at);
        self.noted = found.runner;
        let before_note = found.phase == Phase::Provisioning && found.runner.is_none() && !self.judged.standby;
        self.never_noted = before_note && self.judged.maker != Maker::Us && self.registration == Registration::Jit;
        self.status = found.status;
        let (etag, phase) = (found.etag, found.phase);
        match phase {
            Phase::Standby => Next::Take(Step::Claim { etag, phase: Phase::Preparing }),
            _ if abandoned && found.maker != Maker::Us => Next::Take(Step::Claim { etag, phase }),
            _ => self.ours_to_remove(phase),
        }
    }

    /// No other process removes it, or that process takes the same care.
    fn ours_to_remove(&self, phase: Phase) -> Next<Step> {
        match self.status {
            _ if !phase.has_runner() => self.end(),
            InstanceStatus::Running if self.judged.reason != RemoveReason::TooOld => Next::Take(Step::LookInside),
            _ => self.to_github(),
        }
    }

    fn looked_inside(&mut self, inside: Inside) -> Next<Step> {
        use RemoveReason::{Idle, MakesRoom, Stale, Unassigned};

        match inside {
            Inside::Working => return Next::End(Outcome::Kept { why: "a worker process runs in it".to_owned() }),
            // Its runner is online, so only GitHub says that it has no job, and GitHub has been wrong.
            Inside::Unknown
                if matches!(self.judged.reason, Idle | Stale | Unassigned | MakesRoom) || self.seems_finished() =>
            {
                return failed("it is not certain that its runner is idle: the look inside did not work");
            }
            Inside::Unknown if self.may_have_started() => {
                return failed("it is not certain that its runner never started: the look inside did not work");
            }
            Inside::Quiet => self.quiet = true,
            Inside::Unknown => {}
        }
        self.to_github()
    }

    /// True if another process left it and may have handed over the credentials: its runner may have a job, and without
    /// network GitHub may take it for idle.
    fn may_have_started(&self) -> bool {
        let handed_over = self.noted.is_some() || self.judged.standby || self.registration == Registration::Token;
        self.judged.reason == RemoveReason::Abandoned && self.judged.maker != Maker::Us && handed_over
    }

    /// True if its runner is not listed any more and GitHub has not said that its job is over: listings may lag.
    fn seems_finished(&self) -> bool {
        self.judged.reason == RemoveReason::Finished && !self.judged.over
    }

    fn to_github(&self) -> Next<Step> {
        // The noted registration is its own; the judged one may be a namesake's on another host.
        let judged = self.judged.runner.filter(|_| !self.never_noted);
        match (self.judged.scope.clone(), self.noted.or(judged)) {
            (None, _) => self.end(),
            (Some(scope), Some(runner)) => Next::Take(Step::Deregister(scope, runner)),
            (Some(scope), None) => Next::Take(Step::FindRunner(scope)),
        }
    }

    /// GitHub was asked by name for the runner of an instance whose registration is unknown.
    fn runner_found(&self, runner: Option<(RunnerId, bool)>) -> Next<Step> {
        match (self.judged.scope.clone(), runner) {
            (_, Some((_, true))) if self.safe_without_github() => self.end(),
            // It is connected, and may get a job at any moment.
            (_, Some((_, true))) => failed("its runner came up meanwhile, it is looked at again"),
            (Some(scope), Some((runner, false))) if self.registration == Registration::Token || self.judged.standby => {
                Next::Take(Step::Deregister(scope, runner))
            }
            // With JIT a runner whose id is unknown was never started, and the name may belong to another host's instance
            // that is being made. A standby's id is noted only after the credentials are handed over.
            _ => self.end(),
        }
    }

    /// Nothing keeps it any more. The logs of a failed one are kept first.
    fn end(&self) -> Next<Step> {
        use RemoveReason::{Abandoned, NeverOnline, TooOld};

        let failed = matches!(self.judged.reason, Abandoned | NeverOnline | TooOld);
        Next::Take(if failed { Step::KeepLogs } else { Step::LookAgain })
    }

    fn look_again(&mut self, tried: Attempt) -> Next<Step> {
        self.tried = tried;
        Next::Take(Step::LookAgain)
    }

    fn looked_again(&self, found: &InstanceView) -> Next<Step> {
        match &self.tried {
            _ if !self.is_ours(found) => removed(),
            _ if self.is_another(found) => another(),
            Attempt::Nothing if self.status == InstanceStatus::Stopped && found.status != InstanceStatus::Stopped => {
                changed("it was started meanwhile")
            }
            Attempt::Nothing if found.status != InstanceStatus::Stopped => Next::Take(Step::Stop),
            Attempt::Nothing | Attempt::Stop { .. } => Next::Take(Step::Delete),
            Attempt::Delete { why } => failed(why),
        }
    }
}

fn removed() -> Next<Step> {
    Next::End(Outcome::Removed)
}

fn failed(reason: impl Into<String>) -> Next<Step> {
    Next::End(Outcome::RemoveFailed { reason: reason.into() })
}

fn changed(why: &str) -> Next<Step> {
    Next::End(Outcome::Changed { why: why.to_owned() })
}

fn another() -> Next<Step> {
    changed("it is another instance of the same name")
}
