//! The ledger of failures: what fails, why, since when, and when it is tried again. Pauses, the troubles in status, healthz,
//! metrics and `explain`, stuck instances and repeated log lines are views of it.
//!
//! 1. A subject has one entry or none. None means that its last try worked, or that it was never tried.
//! 2. Only [`Failures::failed`] makes an entry and counts failures. Only success ([`Failures::worked`]), the end of the
//!    subject itself ([`Failures::retain`]) and a long time without a further try ([`Failures::forget`]) end one.
//! 3. Any success of the subject counts, also that of another process: a template that is listed ends the failure to bake it.
//! 4. A failure is recorded for the one thing that failed. Nothing that works is paused or thrown away for it: a full storage
//!    pool and a missing network are no failures of the class or its template.
//! 5. Until its pause is over, further failures of a subject are the same failure: they neither count nor move the pause.
//! 6. An entry outlives its pause: then one try goes ahead, and the others follow when it worked ([`Failures::is_shaky`]).
//! 7. From as many failures in a row as the subject's rule says, and after as long, an entry is trouble. There is no other
//!    list of troubles, so an alert on them comes with the failure and goes with the success.
//! 8. A failure is news when it is the first, was last told an hour ago, and, as the rule says, when it has another reason or
//!    when it becomes trouble.
//! 9. The words for a subject are its [`Display`](fmt::Display), and only that.
//! 10. The pause is a function of the subject and the number of failures, so every process makes the same decisions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Instance, RunnerState, World};
use crate::model::{RepoName, RunnerArch, Scope, Timestamp};

/// What can fail, and is paused on its own; everything else goes on meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The listing of LXD's instances.
    Lxd,
    /// GitHub's list of the targets that the credentials may serve.
    Targets,
    /// The listing of a scope's runners.
    Runners(Scope),
    /// The listing of a repository's open jobs.
    Queue(RepoName),
    /// GitHub's answer to where the commits of a repository's runs come from.
    ForkOrigin(RepoName),
    /// The registration of runners with a scope.
    Scope(Scope),
    /// The removal of a registration, by scope and runner name.
    Deregistration(Scope, String),
    /// The runner package for an architecture.
    Package(RunnerArch),
    /// LXD as it makes and starts instances, or this host.
    Host,
    /// The storage pool that a class's instances are made in.
    Storage(String),
    /// The network that a class's instances start in.
    Network(String),
    /// A class's instances from its image: the image, a profile, the set-up script is wrong.
    Class(String),
    /// The baking of a class's template. Jobs go on without.
    Bake(String),
    /// Copies of a class's template. Jobs start from the image meanwhile.
    Template(String),
    /// The standbys of a class. Jobs go on without.
    Standby(String),
    /// Runners of a class that are launched to be idle. Jobs go on.
    Idle(String),
    /// Runners of a class that are started and do not come online.
    Online(String),
    /// Idle runners of a scope and class that GitHub gives none of the fitting jobs.
    Assignment(Scope, String),
    /// The removal of an instance, by name, or of an image, by fingerprint.
    Removal(String),
    /// Another daemon with this prefix has other settings for a class.
    OtherConfig(String),
}

/// The rule for failures of a kind of subject.
struct Rule {
    /// The back-off starts as if so many failures had come before: a subject that is expensive to try starts with a longer pause.
    head_start: u32,
    longest_pause: Duration,
    /// Failures in a row that make trouble.
    trouble_at: u32,
    /// The time since the first failure that makes trouble.
    trouble_after: Duration,
    /// Whether another reason is news; else it is news that a failure becomes trouble.
    reasons_are_news: bool,
}

/// Failures in a row after which something that also fails on a healthy host is trouble.
const REPEATED: u32 = 3;
const NEVER: u32 = u32::MAX;
/// LXD refuses to remove an instance while it stops or deletes it by itself, which takes a virtual machine this long.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);
/// A failure that goes on is logged again after this, for readers of the end of the log.
const REMIND: Duration = HOUR;
/// An entry is dropped when its subject was not tried for so long after the pause: nothing needs it any more.
const FORGET: Duration = HOUR;
/// The same for subjects that fail only with a job, hours after its start.
const FORGET_RUNNERS: Duration = Duration::from_secs(24 * 3600);

impl Subject {
    fn rule(&self) -> Rule {
        let (head_start, longest_pause, trouble_at, reasons_are_news) = match self {
            Subject::Lxd | Subject::Targets | Subject::Runners(_) | Subject::Queue(_) => (0, MINUTE, 1, false),
            Subject::OtherConfig(_) => (0, MINUTE, 1, false),
            // A job waits only where the next try fails as well.
            Subject::ForkOrigin(_) => (0, MINUTE, 2, true),
            Subject::Package(_) | Subject::Storage(_) => (0, MINUTE, 1, true),
            Subject::Scope(_) | Subject::Network(_) => (0, MINUTE, 2, true),
            Subject::Host | Subject::Class(_) => (0, MINUTE, REPEATED, true),
            // A bake takes a while and must not keep a small machine busy.
            Subject::Bake(_) => (4, HOUR, 1, true),
            // Jobs start from the image. After three failures the template is baked anew, if the image works.
            Subject::Template(_) => (0, TEN_MINUTES, NEVER, true),
            Subject::Standby(_) | Subject::Idle(_) => (0, TEN_MINUTES, REPEATED, true),
            Subject::Online(_) => (0, TEN_MINUTES, 2, false),
            Subject::Assignment(..) => (9, TEN_MINUTES, 2, false),
            Subject::Removal(_) | Subject::Deregistration(..) => (0, TEN_MINUTES, REPEATED, false),
        };
        let trouble_after = match self {
            Subject::Removal(_) => HALF_A_MINUTE,
            _ => Duration::ZERO,
        };
        Rule { head_start, longest_pause, trouble_at, trouble_after, reasons_are_news }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Lxd => f.write_str("lxd"),
            Subject::Targets => f.write_str("github targets"),
            Subject::Runners(scope) => write!(f, "github runners of {scope}"),
            Subject::Queue(repo) => write!(f, "github jobs of {repo}"),
            Subject::ForkOrigin(repo) => write!(f, "question where the commits of runs in {repo} come from"),
            Subject::Scope(scope) => write!(f, "registration of runners with {scope}"),
            Subject::Deregistration(scope, runner) => write!(f, "removal of the registration {runner} of {scope}"),
            Subject::Package(arch) => write!(f, "runner package linux-{arch}"),
            Subject::Host => f.write_str("instances on this host"),
            Subject::Storage(class) => write!(f, "storage pool of class {class:?}"),
            Subject::Network(class) => write!(f, "network of class {class:?}"),
            Subject::Class(class) => write!(f, "launches of class {class:?}"),
            Subject::Bake(class) => write!(f, "template of class {class:?}"),
            Subject::Template(class) => write!(f, "copies of the template of class {class:?}"),
            Subject::Standby(class) => write!(f, "standbys of class {class:?}"),
            Subject::Idle(class) => write!(f, "idle runners of class {class:?}"),
            Subject::Online(class) => write!(f, "connection of runners of class {class:?} to GitHub"),
            Subject::Assignment(scope, class) => write!(f, "jobs of {scope} for idle runners of class {class:?}"),
            Subject::Removal(instance) => write!(f, "removal of {instance}"),
            Subject::OtherConfig(class) => {
                write!(f, "another lxdrunner with this prefix and other settings of class {class:?}")
            }
        }
    }
}

/// Failures of a subject, all in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Failures counted so far, one a pause.
    pub failures: u32,
    /// Of the last failure.
    pub reason: String,
    /// When the first one was.
    pub since: Timestamp,
    /// Not tried before this moment.
    pub until: Timestamp,
    /// True where something else worked meanwhile that shares every other cause of the failure.
    pub alone: bool,
    failed_at: Timestamp,
    told_at: Timestamp,
}

impl Entry {
    /// When the last failure was.
    pub fn failed_at(&self) -> Timestamp {
        self.failed_at
    }

    /// True where people should be alerted to it.
    fn is_trouble(&self, rule: &Rule) -> bool {
        self.failures >= rule.trouble_at && self.failed_at.since(self.since) >= rule.trouble_after
    }
}

/// The entry after a failure was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub failures: u32,
    pub until: Timestamp,
    /// Whether people should be told.
    pub news: bool,
    pub trouble: bool,
}

/// The ledger.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    entries: BTreeMap<Subject, Entry>,
}

impl Failures {
    /// Records a failure.
    pub fn failed(&mut self, subject: Subject, reason: &str, now: Timestamp) -> Recorded {
        let rule = subject.rule();
        let before = self.entries.remove(&subject);
        let paused = before.as_ref().is_some_and(|entry| entry.until > now);
        let failures = before.as_ref().map_or(0, |entry| entry.failures) + u32::from(!paused);
        let until = match &before {
            Some(entry) if paused => entry.until,
            _ => now.after(pause_after(failures.saturating_add(rule.head_start), rule.longest_pause)),
        };
        let since = before.as_ref().map_or(now, |entry| entry.since);
        let alone = before.as_ref().is_some_and(|entry| entry.alone);
        let mut entry =
            Entry { failures, reason: reason.to_owned(), since, until, alone, failed_at: now, told_at: now };
        let trouble = entry.is_trouble(&rule);
        let news = before.as_ref().is_none_or(|before| {
            let another = rule.reasons_are_news && gist(&before.reason) != gist(reason);
            let turned_trouble = !rule.reasons_are_news && trouble && !before.is_trouble(&rule);
            another || turned_trouble || now.since(before.told_at) >= REMIND
        });
        entry.told_at = before.filter(|_| !news).map_or(now, |before| before.told_at);
        self.entries.insert(subject, entry);
        Recorded { failures, until, news, trouble }
    }

    /// Records a success. Returns the entry that it ended, and whether that was trouble.
    pub fn worked(&mut self, subject: &Subject) -> Option<(Entry, bool)> {
        let entry = self.entries.remove(subject)?;
        let trouble = entry.is_trouble(&subject.rule());
        Some((entry, trouble))
    }

    /// Notes that something else worked which shares every other cause of failure with the subject.
    pub fn fails_alone(&mut self, subject: &Subject) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.alone = true;
        }
    }

    /// Drops the entries of subjects that do not exist any more.
    pub fn retain(&mut self, exists: impl Fn(&Subject) -> bool) {
        self.entries.retain(|subject, _| exists(subject));
    }

    /// Drops entries of subjects that were not tried for long.
    pub fn forget(&mut self, now: Timestamp) {
        self.entries.retain(|subject, entry| {
            let slow = matches!(subject, Subject::Online(_) | Subject::Assignment(..));
            now.since(entry.until.max(entry.failed_at)) < if slow { FORGET_RUNNERS } else { FORGET }
        });
    }

    /// The subject's failures, whether it is paused or not.
    pub fn get(&self, subject: &Subject) -> Option<&Entry> {
        self.entries.get(subject)
    }

    /// True where the last try failed: one goes ahead, not all at once.
    pub fn is_shaky(&self, subject: &Subject) -> bool {
        self.entries.contains_key(subject)
    }

    /// All entries, in order of subject.
    pub fn iter(&self) -> impl Iterator<Item = (&Subject, &Entry)> {
        self.entries.iter()
    }

    /// What people should be alerted to. Removals of instances have a view of their own, [`Failures::stuck`].
    pub fn troubles(&self) -> impl Iterator<Item = (&Subject, &Entry)> {
        let removal = |subject: &Subject| matches!(subject, Subject::Removal(_));
        self.iter().filter(move |(subject, entry)| entry.is_trouble(&subject.rule()) && !removal(subject))
    }

    /// Instances whose removal failed again and again.
    pub fn stuck(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.iter().filter_map(|(subject, entry)| match subject {
            Subject::Removal(name) if entry.is_trouble(&subject.rule()) => Some((name.as_str(), entry)),
            _ => None,
        })
    }
}

impl World {
    /// What people should be alerted to, with its reason.
    pub fn troubles(&self) -> impl Iterator<Item = (&Subject, &Entry)> {
        self.failures.troubles()
    }

    /// Instances that could not be removed although it was tried again and again.
    pub fn stuck(&self) -> impl Iterator<Item = (&Instance, &Entry)> {
        let known = |name: &str| self.instances.get(name).filter(|instance| instance.runner != RunnerState::Busy);
        self.failures.stuck().filter_map(move |(name, entry)| Some((known(name)?, entry)))
    }

    /// The failure to remove the instance, where the last try failed.
    pub fn failed_removal(&self, instance: &Instance) -> Option<&Entry> {
        self.failures.get(&Subject::Removal(instance.seen.name.clone()))
    }

    /// The subject's failures, where it must not be tried now, and until when.
    pub(crate) fn paused(&self, subject: &Subject, now: Timestamp) -> Option<(Timestamp, &Entry)> {
        let entry = self.failures.get(subject)?;
        let until = match subject {
            // Each try costs an instance: before it, GitHub must answer a question, or a minute must pass.
            Subject::Scope(scope) if !self.answered_since(scope, entry.failed_at()) => {
                entry.until.max(entry.failed_at().after(MINUTE))
            }
            _ => entry.until,
        };
        (until > now).then_some((until, entry))
    }

    /// True where GitHub listed the scope's runners since then, and the latest try to list them worked.
    pub(crate) fn answered_since(&self, scope: &Scope, then: Timestamp) -> bool {
        let view = self.scopes.get(scope).filter(|view| view.runners.is_some());
        view.and_then(|view| view.listed_at).is_some_and(|at| at > then)
    }

    /// The moment before which no removal of the instance is tried, where there is one in the future.
    pub(crate) fn left_alone_until(&self, instance: &Instance, now: Timestamp) -> Option<Timestamp> {
        let failed = self.failed_removal(instance).map(|entry| entry.until);
        instance.leave_until.max(failed).filter(|until| *until > now)
    }
}

/// The part of a reason by which two reasons are compared. Lines after the first are a script's output, whose digits may be
/// times or process ids: they do not count.
fn gist(reason: &str) -> (&str, String) {
    let (first, printed) = reason.split_once('\n').unwrap_or((reason, ""));
    (first, printed.chars().filter(|c| !c.is_ascii_digit()).collect())
}

/// The pause after the `failures`-th failure in a row: 2 s, doubling up to `most`.
pub(crate) fn pause_after(failures: u32, most: Duration) -> Duration {
    Duration::from_secs(2u64.saturating_pow(failures.clamp(1, 16))).min(most)
}
