//! The removal of an instance. What holds:
//!
//! 1. What does not have our owner key is left alone.
//! 2. What was made at another time than what was judged is another instance of the same name: nothing is done to it.
//! 3. Nor to what was judged abandoned and is finished by now, or in the hands of another living process.
//! 4. What somebody else may want at the same time, to use it or to clear it away, is claimed first, on the condition that it
//!    is as it was looked at: a standby, and what a process other than this one left half-made. One of two goes on.
//! 5. What runs is looked into before its runner is deregistered: a worker process keeps it, whatever GitHub says.
//! 6. Where GitHub alone says that a runner has no job, a look inside that did not work keeps it, too: also what a process
//!    that is no more may have handed its credentials.
//! 7. The registration goes before the instance. 422 (it runs a job) keeps both; so does an answer that does not come,
//!    unless it is certain without GitHub that nothing runs inside.
//! 8. `max_lifetime` alone passes over 5 to 7.
//! 9. What failed is heard before it goes: its logs are kept.
//! 10. Right before it is stopped, and before it is deleted, it is looked at again: GitHub may take its time, and LXD deletes
//!     what is ephemeral by itself when it stops, upon which the name is free for another instance.

use super::{InstanceView, Next};
use crate::config::Registration;
use crate::github::Deletion;
use crate::identity::Maker;
use crate::model::{InstanceStatus, Phase, RunnerId, Scope};
use crate::world::{Judged, Outcome, RemoveReason};

#[cfg(test)]
mod tests;

/// What is to be done next.
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
    /// Keep what its logs say: [`Answer::Done`], whatever comes of it.
    KeepLogs,
    /// Stop it, by force: [`Answer::Done`].
    Stop,
    /// Read it once more: [`Answer::Found`], or [`Answer::Gone`].
    LookAgain,
    /// Delete it: [`Answer::Done`].
    Delete,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Found(InstanceView),
    /// There is no such instance.
    Gone,
    Done,
    /// It is not as it was looked at, or not there any more: nothing was done.
    Changed,
    Inside(Inside),
    /// The runner, and whether it is online or busy.
    Runner(Option<(RunnerId, bool)>),
    Deregistered(Deletion),
    /// It did not work, or nobody can tell whether it did. Possible at every step.
    Failed(String),
}

/// What a look into an instance found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A `Runner.Worker` process: a job runs.
    Working,
    /// None.
    Quiet,
    /// The look did not work.
    Unknown,
}

/// What was tried of what takes it away.
#[derive(Clone, Debug)]
enum Attempt {
    Nothing,
    Stop {
        /// Why it could not be stopped, where it could not.
        failed: Option<String>,
    },
    /// In vain.
    Delete {
        why: String,
    },
}

/// One removal on its way.
#[derive(Clone, Debug)]
pub struct Removal {
    judged: Judged,
    prefix: String,
    registration: Registration,
    step: Step,
    /// As it was first looked at.
    status: InstanceStatus,
    /// The registration that is noted on it.
    noted: Option<RunnerId>,
    /// True for what another process left before its registration was noted: with JIT its runner never started.
    never_noted: bool,
    /// True once it was looked into and no worker was found.
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

    /// That of what this very process just made and does not need after all: nothing runs in it, nobody else knows it.
    pub fn of_our_own(prefix: &str, reason: RemoveReason) -> Removal {
        let judged =
            Judged { reason, scope: None, runner: None, made_at: None, maker: Maker::Us, standby: false, over: false };
        Removal { step: Step::Stop, ..Removal::new(judged, prefix, Registration::Jit) }
    }

    /// What is removed, and why.
    pub fn judged(&self) -> &Judged {
        &self.judged
    }

    /// The step to take now.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Takes in what came of the step.
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
            // Nothing runs in it any more, or may: GitHub's word is not needed. That its runner is finished we have from a
            // listing, which may have been late: one of the two must say so now.
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
            // It may have stopped by itself meanwhile, and be gone; the next look tells.
            (Step::Stop, Answer::Failed(why)) => self.look_again(Attempt::Stop { failed: Some(why) }),
            (Step::Delete, Answer::Done) => removed(),
            // LXD deletes an ephemeral instance by itself: whoever comes second fails, and that is fine.
            (Step::Delete, Answer::Failed(reason)) => {
                let why = match &self.tried {
                    // It refuses to delete what could not be stopped, for no other reason.
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
        // Only what is stopped surely runs nothing; a frozen one holds its job.
        self.status == InstanceStatus::Stopped || self.judged.reason == RemoveReason::TooOld
    }

    fn is_ours(&self, found: &InstanceView) -> bool {
        found.owner.as_ref() == Some(&self.prefix)
    }

    /// True for an instance that has the name of what was judged, and is not it.
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
        // A standby that could not be claimed for certain goes like one that is not needed.
        if abandoned && !found.phase.is_making() && found.phase != Phase::Standby {
            return changed("it was finished meanwhile");
        }
        if abandoned && matches!(found.maker, Maker::Other | Maker::Unknown) && self.judged.maker != found.maker {
            return changed("another process has it by now");
        }
        if self.judged.scope.is_none() && found.scoped {
            return changed("it was claimed meanwhile");
        }
        // From here on it is this very one.
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

    /// Nobody else is at it, or whoever is must be as careful.
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
            // Its runner is online, so GitHub is the only one to say that it has no job, and GitHub has been wrong.
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

    /// True for what another process left when it may have handed over the credentials already: its runner may have a job by
    /// now, and where it lost its network, GitHub may take it for idle.
    fn may_have_started(&self) -> bool {
        let handed_over = self.noted.is_some() || self.judged.standby || self.registration == Registration::Token;
        self.judged.reason == RemoveReason::Abandoned && self.judged.maker != Maker::Us && handed_over
    }

    /// True where its runner is not listed any more, and nobody told that its job is over: listings are late at times.
    fn seems_finished(&self) -> bool {
        self.judged.reason == RemoveReason::Finished && !self.judged.over
    }

    fn to_github(&self) -> Next<Step> {
        // What is noted on it is its own; what was judged may be that of a namesake on another host.
        let judged = self.judged.runner.filter(|_| !self.never_noted);
        match (self.judged.scope.clone(), self.noted.or(judged)) {
            (None, _) => self.end(),
            (Some(scope), Some(runner)) => Next::Take(Step::Deregister(scope, runner)),
            (Some(scope), None) => Next::Take(Step::FindRunner(scope)),
        }
    }

    /// GitHub was asked for the runner of an instance whose registration we were never told.
    fn runner_found(&self, runner: Option<(RunnerId, bool)>) -> Next<Step> {
        match (self.judged.scope.clone(), runner) {
            (_, Some((_, true))) if self.safe_without_github() => self.end(),
            // It is connected by now, and may be given a job at any moment.
            (_, Some((_, true))) => failed("its runner came up meanwhile, it is looked at again"),
            (Some(scope), Some((runner, false))) if self.registration == Registration::Token || self.judged.standby => {
                Next::Take(Step::Deregister(scope, runner))
            }
            // Where JIT is used: without our knowing its id it was never started, and the name may be that of another
            // host's, which is just being made. A standby's id is noted only after the credentials are handed over.
            _ => self.end(),
        }
    }

    /// Nothing keeps it any more. What failed is heard first.
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
            // What was taken for sure to run nothing.
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
