//! Makes an instance: a runner's (from an image, a template or a standby), a template or a standby. Invariants:
//!
//! 1. A name is a claim. After a failed creation the keys found on the instance tell who made it, never the error text; if the
//!    keys cannot be read, the instance may have been made.
//! 2. The registration runs in parallel with boot or claim and is always awaited, even after a failure: a registration must
//!    not leak. It starts only after the set-up, which may take long: credentials are valid for an hour, and another host
//!    with our prefix removes a registration that is offline for minutes.
//! 3. The registration is noted on the instance before the credentials are handed over. Not on a standby: nobody else uses
//!    its name, so its runner is found by name until then.
//! 4. A standby is claimed by a change of its keys, on the condition that nothing changed since. A process that lost the
//!    claim, or cannot tell, does not touch the standby again, and nothing is blamed.
//! 5. Of two processes that go for one standby, the loser may hold its name at GitHub for a moment: the winner asks again.
//! 6. If another runner has the name at GitHub, the instance is removed at once, before anyone takes the two for one.
//! 7. After a failure the registration is deleted; one that may still exist is reported. If GitHub answered that there is none,
//!    the instance is removed at once: a later removal would have to ask GitHub, which may refuse that as well.
//! 8. The phase that says "template" or "standby" is written last, if the instance is still as this process made it. A template
//!    that is an image exists with all its properties or not at all; its instance is removed afterwards.
//! 9. A failure is blamed on the cause: the host if LXD answers nothing else either, the scope if GitHub refuses, the package
//!    if it is missing, the storage pool if it is full, the network if the instance has no address or no route to GitHub, the
//!    class if a profile or pool is missing, otherwise the source of the instance.
//! 10. The logs of a failed instance are kept, unless the host failed.
//! 11. A standby is frozen only after its boot has ended: the clock goes on while it is frozen, and at the thaw systemd kills
//!     units that were starting for too long.
//! 12. Keys of a virtual machine are changed only while it runs: LXD tells its agent of each change, and answers with a failure
//!     if the agent does not listen. So its phase is written before the freeze, and it is thawed before the claim. The claim
//!     still decides who owns it; a standby that is found thawed is removed.

use super::{Cause, Fault, InstanceView, Next};
use crate::config::Class;
use crate::github::Deletion;
use crate::identity::Maker;
use crate::model::{InstanceStatus, InstanceType, Phase, RunnerArch, RunnerId, Scope};
use crate::world::{LaunchSource, Outcome, RemoveReason, Subject, TemplateKind};

#[cfg(test)]
mod tests;

/// How often a registration under a claimed standby's name is tried while another daemon has the name at GitHub.
const NAME_TRIES: u32 = 5;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MakeKind {
    /// An instance with a runner of this scope.
    Runner {
        scope: Scope,
        from: LaunchSource,
    },
    Template(TemplateKind),
    Standby,
}

impl MakeKind {
    /// Its phase while it is made, and when it is finished.
    pub fn phases(&self) -> (Phase, Phase) {
        match self {
            MakeKind::Runner { .. } => (Phase::Provisioning, Phase::Started),
            MakeKind::Template(_) => (Phase::Baking, Phase::Template),
            MakeKind::Standby => (Phase::Preparing, Phase::Standby),
        }
    }
}

/// Why an instance is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookPurpose {
    /// The creation failed: who made the instance of this name?
    Whose,
    /// A standby before its claim.
    ToClaim,
    /// LXD did not answer: does it answer a question that needs no look into the instance?
    Answers,
    /// Before the final phase is written.
    ToFinish,
    /// It was published and is not needed any more.
    ToDrop,
    /// The ETag of a finished standby saves its claimant a look.
    ForEtag,
}

/// The next step. Its answer is [`Answer::Done`] unless stated otherwise; [`Answer::Failed`] is always possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create it, stopped.
    Create,
    /// Read it: [`Answer::Found`], or [`Answer::Gone`].
    Look(LookPurpose),
    /// Find out why it could not be created: [`Answer::Cause`].
    FindCause,
    /// Begin the start.
    Start,
    /// Begin the request for the runner's credentials.
    BeginRegister(Scope),
    /// Wait until it runs.
    Started,
    /// Push the runner and our scripts, and set it up. [`Answer::NoPackage`] where the package is not there.
    SetUp,
    /// Start the script in it that waits for the credentials.
    Arm,
    /// Begin to open LXD's file connection to the instance. Failures do not matter.
    OpenFiles,
    /// Wait for GitHub: [`Answer::Registered`], [`Answer::NameTaken`], [`Answer::NotRegistered`] or [`Answer::Refused`].
    Credentials,
    /// Ask GitHub once more, after a pause. Same answers.
    RegisterAgain(Scope),
    NoteRunner(RunnerId),
    /// Wait until the script waits for credentials.
    Armed,
    /// Set a runner's keys on a standby, if its ETag is still this one: also [`Answer::Changed`], [`Answer::Gone`],
    /// [`Answer::Unsure`].
    Claim {
        etag: String,
    },
    /// Thaw a virtual machine before its claim.
    ThawUnclaimed,
    Thaw,
    /// Set the clock of a virtual machine, which stood still while it was frozen.
    SetClock,
    /// Hand over the credentials, upon which the runner starts.
    HandOver,
    /// Write the phase "started", and the registration if it is not noted yet.
    NoteStarted(Option<RunnerId>),
    /// Remove from a template what copies must not share, and stop it.
    Seal,
    /// Wait for the end of its boot, and prepare it for a long freeze.
    Settle,
    Freeze,
    /// Write the final phase, if its ETag is still this one: also [`Answer::Changed`].
    Finish {
        etag: String,
    },
    /// Publish it as the image that is the template: [`Answer::Published`].
    Publish,
    /// Delete the registration: [`Answer::Deregistered`].
    TakeBack(Scope, RunnerId),
    /// Keep its logs, with the reason of the failure.
    KeepLogs {
        why: String,
    },
    /// Stop and delete the instance that was just made: it is useless, or was published.
    Drop(RemoveReason),
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Found(InstanceView),
    /// There is no such instance.
    Gone,
    /// The instance has changed since the look: nothing was done.
    Changed,
    /// The answer was lost; the change may have been made.
    Unsure(String),
    /// Why an instance could not be created, if that was found.
    Cause(Option<Cause>),
    /// The registration, if its id is known before the runner registers (JIT).
    Registered(Option<RunnerId>),
    /// The image's fingerprint.
    Published(String),
    /// GitHub has a runner of this name.
    NameTaken,
    /// GitHub refused or did not answer: a registration may exist.
    Refused(String),
    /// GitHub answered, and there is no registration.
    NotRegistered(String),
    NoPackage(String),
    /// The step failed, and the storage pool is full.
    NoSpace(String),
    /// The step failed because the instance has no network, or no route to GitHub.
    NoNetwork(String),
    Deregistered(Deletion),
    /// The step failed. `unreachable`: LXD did not answer at all.
    Failed {
        unreachable: bool,
        reason: String,
    },
}

/// Why the making fails.
#[derive(Clone, Debug)]
enum Failure {
    /// Another process has the standby.
    Lost(String),
    /// Another process has the name.
    Clash(String),
    Failed {
        blame: Subject,
        reason: String,
    },
}

/// The state machine of one making.
#[derive(Clone, Debug)]
pub struct Making {
    what: MakeKind,
    class: String,
    arch: RunnerArch,
    prefix: String,
    step: Step,
    failure: Option<Failure>,
    registered: Option<RunnerId>,
    /// The image that it was published as.
    image: Option<String>,
    /// True if GitHub answered that there is no registration, and the making fails for that.
    unregistered: bool,
    /// True once GitHub was asked for the credentials.
    registering: bool,
    /// How often GitHub answered.
    asked: u32,
    /// True once a standby was read before its claim.
    looked: bool,
    virtual_machine: bool,
    /// The result of the thaw of a virtual machine before its claim; `None` before the thaw.
    thawed: Option<Result<(), String>>,
}

impl Making {
    /// `prefix` is the value of our instances' owner key.
    pub fn new(what: MakeKind, class: &Class, prefix: &str) -> Making {
        let virtual_machine = class.kind == InstanceType::VirtualMachine;
        let (class, arch, prefix) = (class.name.clone(), class.arch, prefix.to_owned());
        let step = match &what {
            MakeKind::Runner { scope, from: LaunchSource::Standby { .. } } => Step::BeginRegister(scope.clone()),
            _ => Step::Create,
        };
        Making {
            what,
            class,
            arch,
            prefix,
            step,
            failure: None,
            registered: None,
            unregistered: false,
            image: None,
            registering: false,
            asked: 0,
            looked: false,
            virtual_machine,
            thawed: None,
        }
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
        let step = self.step.clone();
        if came == Answer::Done
            && let Some(next) = self.done(&step)
        {
            return next;
        }
        match (step, came) {
            (Step::Create, Answer::Failed { unreachable, reason }) => {
                let blame = if unreachable { Subject::Host } else { self.blame() };
                self.failure = Some(Failure::Failed { blame, reason });
                Next::Take(Step::Look(LookPurpose::Whose))
            }
            (Step::Look(LookPurpose::Answers), came) => self.looked_whether_it_answers(&came),
            (Step::Look(LookPurpose::Whose), came) => self.looked_whose(came),
            (Step::FindCause, Answer::Cause(cause)) => {
                let Some(Cause { fault, text }) = cause else {
                    return self.not_made(self.blame(), self.reason(), false);
                };
                self.not_made(self.blame_for(fault), format!("{}; {text}", self.reason()), false)
            }
            (Step::Look(LookPurpose::ToClaim), Answer::Gone) | (Step::Claim { .. }, Answer::Gone) => {
                self.lost("it is gone")
            }
            (Step::Look(LookPurpose::ToClaim), Answer::Found(found)) => self.looked_to_claim(found),
            (Step::ThawUnclaimed, Answer::Failed { unreachable: false, reason }) => {
                // Another process may have thawed it, to claim it.
                self.thawed = Some(Err(reason));
                Next::Take(Step::Look(LookPurpose::ToClaim))
            }
            (Step::Claim { .. }, Answer::Changed) if !self.looked => Next::Take(Step::Look(LookPurpose::ToClaim)),
            (Step::Claim { .. }, Answer::Changed) => self.lost("somebody else claimed it"),
            (Step::Claim { .. }, Answer::Unsure(error)) => {
                self.lost(&format!("it is not certain whose it is: {error}"))
            }
            (Step::Credentials | Step::RegisterAgain(_), came) => self.heard(came),
            (Step::SetUp, Answer::NoPackage(reason)) => {
                self.fail(Failure::Failed { blame: Subject::Package(self.arch), reason })
            }
            (Step::Look(LookPurpose::ToFinish), Answer::Found(found)) => match self.what {
                _ if !self.is_as_we_left_it(&found) => self.stolen(),
                MakeKind::Template(TemplateKind::Image) => Next::Take(Step::Publish),
                _ => Next::Take(Step::Finish { etag: found.etag }),
            },
            (Step::Publish, Answer::Published(fingerprint)) => {
                self.image = Some(fingerprint);
                Next::Take(Step::Look(LookPurpose::ToDrop))
            }
            (Step::Look(LookPurpose::ToDrop), Answer::Found(found)) if self.is_as_we_left_it(&found) => {
                Next::Take(Step::Drop(RemoveReason::Published))
            }
            (step @ (Step::Look(LookPurpose::ToDrop) | Step::Drop(_)), came) if self.image.is_some() => {
                let left = !matches!((step, came), (Step::Drop(_), Answer::Done) | (_, Answer::Gone));
                Next::End(Outcome::Published { image: self.image.clone().unwrap_or_default(), left })
            }
            (Step::Look(LookPurpose::ToFinish), Answer::Gone) | (Step::Finish { .. }, Answer::Changed) => self.stolen(),
            (Step::Look(LookPurpose::ForEtag), Answer::Found(found)) => {
                Next::End(Outcome::Prepared { etag: Some(found.etag).filter(|etag| !etag.is_empty()) })
            }
            // It is a standby even if it cannot be read.
            (Step::Look(LookPurpose::ForEtag), _) => Next::End(Outcome::Prepared { etag: None }),
            // If the note failed, the next listing shows its runner.
            (Step::NoteStarted(_), _) => Next::End(Outcome::Launched { runner: self.registered }),
            (Step::TakeBack(..), came) => {
                if matches!(came, Answer::Deregistered(Deletion::Deleted | Deletion::Gone)) {
                    self.registered = None;
                }
                self.settle()
            }
            (Step::KeepLogs { .. }, _) => self.end(),
            (Step::Drop(_), came) => self.dropped(came),
            (_, Answer::NoSpace(reason)) => {
                self.fail(Failure::Failed { blame: self.blame_for(Fault::Storage), reason })
            }
            (_, Answer::NoNetwork(reason)) => {
                self.fail(Failure::Failed { blame: self.blame_for(Fault::Network), reason })
            }
            (_, Answer::Failed { unreachable: true, reason }) => {
                self.fail(Failure::Failed { blame: Subject::Host, reason })
            }
            (_, Answer::Failed { reason, .. }) => self.fail(Failure::Failed { blame: self.blame(), reason }),
            (step, came) => {
                let reason = format!("{step:?} was answered with {came:?}");
                self.fail(Failure::Failed { blame: self.blame(), reason })
            }
        }
    }

    /// What follows a step that worked; `None` if [`Answer::Done`] does not answer the step.
    fn done(&mut self, step: &Step) -> Option<Next<Step>> {
        let (copied, claims) = match &self.what {
            MakeKind::Runner { from: LaunchSource::Template(_), .. } => (true, None),
            MakeKind::Runner { from: LaunchSource::Standby { etag }, .. } => (false, Some(etag.clone())),
            _ => (false, None),
        };
        self.registering |= matches!(step, Step::BeginRegister(_));
        Some(Next::Take(match (&self.what, step) {
            (_, Step::Create) => Step::Start,
            (MakeKind::Runner { scope, .. }, Step::Start) if copied => Step::BeginRegister(scope.clone()),
            (_, Step::Start) => Step::Started,
            (_, Step::BeginRegister(_)) => match claims {
                Some(Some(_)) if self.virtual_machine => Step::ThawUnclaimed,
                Some(Some(etag)) => Step::Claim { etag },
                Some(None) => Step::Look(LookPurpose::ToClaim),
                None if copied => Step::Started,
                None => Step::Arm,
            },
            (_, Step::OpenFiles) => Step::Armed,
            (_, Step::ThawUnclaimed) => {
                self.thawed = Some(Ok(()));
                match claims {
                    Some(Some(etag)) if !self.looked => Step::Claim { etag },
                    _ => Step::Look(LookPurpose::ToClaim),
                }
            }
            (_, Step::Claim { .. }) if self.virtual_machine => Step::SetClock,
            (_, Step::Claim { .. }) => Step::Thaw,
            (_, Step::Thaw | Step::SetClock) => Step::Credentials,
            (MakeKind::Runner { .. } | MakeKind::Template(_), Step::Started) if !copied => Step::SetUp,
            (_, Step::Started) => Step::Arm,
            (MakeKind::Template(_), Step::SetUp) => Step::Seal,
            (MakeKind::Runner { scope, .. }, Step::SetUp) => Step::BeginRegister(scope.clone()),
            (MakeKind::Runner { .. }, Step::Arm) => Step::Credentials,
            (_, Step::NoteRunner(_)) => Step::OpenFiles,
            (_, Step::Arm) => Step::Armed,
            (MakeKind::Standby, Step::Armed) => Step::Settle,
            (_, Step::Settle) if !self.virtual_machine => Step::Freeze,
            (_, Step::Armed) => Step::HandOver,
            (_, Step::HandOver) => Step::NoteStarted(self.registered.filter(|_| self.claims())),
            (MakeKind::Standby, Step::Finish { .. }) if self.virtual_machine => Step::Freeze,
            (MakeKind::Standby, Step::Finish { .. }) => Step::Look(LookPurpose::ForEtag),
            (_, Step::Freeze) if self.virtual_machine => Step::Look(LookPurpose::ForEtag),
            (_, Step::Seal | Step::Settle | Step::Freeze) => Step::Look(LookPurpose::ToFinish),
            (_, Step::Finish { .. }) => return Some(Next::End(Outcome::Baked)),
            _ => return None,
        }))
    }

    fn claims(&self) -> bool {
        matches!(self.what, MakeKind::Runner { from: LaunchSource::Standby { .. }, .. })
    }

    /// What a failed step is blamed on.
    fn blame(&self) -> Subject {
        let class = self.class.clone();
        match &self.what {
            MakeKind::Runner { from: LaunchSource::Image, .. } => Subject::Class(class),
            MakeKind::Runner { from: LaunchSource::Template(_), .. } => Subject::Template(class),
            MakeKind::Runner { from: LaunchSource::Standby { .. }, .. } | MakeKind::Standby => Subject::Standby(class),
            MakeKind::Template(_) => Subject::Bake(class),
        }
    }

    /// The same for a known cause. A template is not blamed for a full pool.
    fn blame_for(&self, fault: Fault) -> Subject {
        let class = self.class.clone();
        match (fault, &self.what) {
            (Fault::Source, _) => self.blame(),
            // A standby already has its disk and network.
            (_, MakeKind::Runner { from: LaunchSource::Standby { .. }, .. }) => self.blame(),
            (Fault::Storage, _) => Subject::Storage(class),
            (Fault::Class, MakeKind::Runner { .. }) => Subject::Class(class),
            (Fault::Network, MakeKind::Runner { .. } | MakeKind::Standby) => Subject::Network(class),
            (Fault::Class | Fault::Network, _) => self.blame(),
        }
    }

    fn looked_whose(&self, came: Answer) -> Next<Step> {
        let unanswered = matches!(self.failure, Some(Failure::Failed { blame: Subject::Host, .. }));
        let found = match came {
            // LXD may still be making it.
            Answer::Gone if unanswered => return self.not_made(self.blame(), self.reason(), true),
            Answer::Gone => return Next::Take(Step::FindCause),
            Answer::Found(found) => found,
            Answer::Failed { unreachable: true, .. } if unanswered => {
                return self.not_made(Subject::Host, self.reason(), true);
            }
            Answer::Failed { reason, .. } => {
                return self.not_made(self.blame(), format!("{}; and then: {reason}", self.reason()), true);
            }
            other => return self.not_made(self.blame(), format!("{}; and then: {other:?}", self.reason()), true),
        };
        if found.maker == Maker::Us {
            return self.not_made(self.blame(), self.reason(), true);
        }
        let reason = match found.owner {
            Some(owner) if owner == self.prefix => "another daemon made it",
            _ => "an instance of this name that is not ours exists",
        };
        Next::End(Outcome::Clash { reason: reason.to_owned() })
    }

    fn is_as_we_left_it(&self, found: &InstanceView) -> bool {
        found.phase == self.what.phases().0 && found.maker == Maker::Us
    }

    /// If LXD answers this question, the instance hangs, not the host: a blamed host would pause everything.
    fn looked_whether_it_answers(&mut self, came: &Answer) -> Next<Step> {
        if matches!(came, Answer::Failed { unreachable: true, .. }) {
            return self.end();
        }
        self.failure = Some(Failure::Failed { blame: self.blame(), reason: self.reason() });
        if matches!(came, Answer::Found(_)) { self.settle() } else { self.end() }
    }

    fn looked_to_claim(&mut self, found: InstanceView) -> Next<Step> {
        self.looked = true;
        if found.owner.as_ref() != Some(&self.prefix) || found.phase != Phase::Standby {
            return self.lost("somebody else claimed it");
        }
        match (self.thawed.clone(), found.status) {
            (None, InstanceStatus::Frozen) if self.virtual_machine => Next::Take(Step::ThawUnclaimed),
            (None, InstanceStatus::Frozen) | (Some(_), InstanceStatus::Running) => {
                Next::Take(Step::Claim { etag: found.etag })
            }
            (Some(Err(reason)), InstanceStatus::Frozen) => self.fail(Failure::Failed { blame: self.blame(), reason }),
            _ => self.lost("it is not frozen any more"),
        }
    }

    /// GitHub answered.
    fn heard(&mut self, came: Answer) -> Next<Step> {
        self.asked += 1;
        let failure = match came {
            Answer::Registered(runner) => {
                self.registered = runner;
                if self.failure.is_some() {
                    return self.give_up();
                }
                return Next::Take(match runner {
                    _ if self.claims() => Step::HandOver,
                    Some(runner) => Step::NoteRunner(runner),
                    None => Step::OpenFiles,
                });
            }
            Answer::NameTaken => match &self.what {
                MakeKind::Runner { scope, from: LaunchSource::Standby { .. } }
                    if self.failure.is_none() && self.asked <= NAME_TRIES =>
                {
                    return Next::Take(Step::RegisterAgain(scope.clone()));
                }
                _ => Failure::Clash("GitHub has a runner of this name already".to_owned()),
            },
            Answer::NotRegistered(reason) => {
                self.unregistered = self.failure.is_none();
                self.of_scope(reason)
            }
            Answer::Refused(reason) | Answer::Failed { reason, .. } => self.of_scope(reason),
            other => self.of_scope(format!("{other:?}")),
        };
        // GitHub's answer does not matter for a standby that was lost or does not work.
        if !(self.claims() && self.failure.is_some()) {
            self.failure = Some(failure);
        }
        self.give_up()
    }

    fn of_scope(&self, reason: String) -> Failure {
        match &self.what {
            MakeKind::Runner { scope, .. } => Failure::Failed { blame: Subject::Scope(scope.clone()), reason },
            _ => Failure::Failed { blame: self.blame(), reason },
        }
    }

    fn lost(&mut self, reason: &str) -> Next<Step> {
        self.fail(Failure::Lost(reason.to_owned()))
    }

    fn stolen(&mut self) -> Next<Step> {
        let reason = "the instance was changed or removed by somebody else while it was made".to_owned();
        self.fail(Failure::Failed { blame: self.blame(), reason })
    }

    /// Fails the making; GitHub's answer is awaited first if it was asked.
    fn fail(&mut self, failure: Failure) -> Next<Step> {
        self.failure = Some(failure);
        if self.registering && self.asked == 0 {
            return Next::Take(Step::Credentials);
        }
        self.give_up()
    }

    fn give_up(&self) -> Next<Step> {
        match (&self.what, self.registered) {
            (MakeKind::Runner { scope, .. }, Some(runner)) => Next::Take(Step::TakeBack(scope.clone(), runner)),
            _ => self.settle(),
        }
    }

    fn settle(&self) -> Next<Step> {
        match &self.failure {
            Some(Failure::Clash(_)) => Next::Take(Step::Drop(RemoveReason::Abandoned)),
            Some(Failure::Failed { .. }) if self.unregistered => Next::Take(Step::Drop(RemoveReason::NotRegistered)),
            Some(Failure::Failed { blame: Subject::Host, .. }) => Next::Take(Step::Look(LookPurpose::Answers)),
            Some(Failure::Failed { reason, .. }) => Next::Take(Step::KeepLogs { why: reason.clone() }),
            _ => self.end(),
        }
    }

    fn end(&self) -> Next<Step> {
        match self.failure.clone() {
            Some(Failure::Lost(reason)) => Next::End(Outcome::StandbyLost { reason }),
            Some(Failure::Clash(reason)) => Next::End(Outcome::Clash { reason }),
            Some(Failure::Failed { blame, reason }) => self.not_made(blame, reason, true),
            None => self.not_made(self.blame(), String::new(), true),
        }
    }

    fn dropped(&self, came: Answer) -> Next<Step> {
        let blame = match &self.failure {
            Some(Failure::Failed { blame, .. }) => blame.clone(),
            _ => self.blame(),
        };
        match (came, &self.failure) {
            (Answer::Failed { reason, .. }, _) => {
                let reason = format!("{}; and the instance could not be removed: {reason}", self.reason());
                self.not_made(blame, reason, true)
            }
            (_, Some(Failure::Failed { reason, .. })) => self.not_made(blame, reason.clone(), false),
            _ => self.end(),
        }
    }

    /// Why the making fails, in words.
    fn reason(&self) -> String {
        match &self.failure {
            Some(Failure::Lost(reason) | Failure::Clash(reason) | Failure::Failed { reason, .. }) => reason.clone(),
            None => String::new(),
        }
    }

    fn not_made(&self, blame: Subject, reason: String, made: bool) -> Next<Step> {
        Next::End(match self.what {
            MakeKind::Runner { .. } => Outcome::LaunchFailed { blame, reason, made, runner: self.registered },
            _ => Outcome::NotMade { blame, reason, made },
        })
    }
}
