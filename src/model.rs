//! Common types: ids, secrets, scopes, labels, jobs, runners.
//!
//! Everything here is plain data without I/O. The words are those of the field: a *job* is GitHub's workflow job, a
//! *runner* is GitHub's registration and its process, an *instance* is LXD's container or virtual machine, a *class*
//! is one entry of `runnermap`, a *scope* is an organisation, repository or enterprise that runners register with.

mod class_id;
mod product;
mod runner_life;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use class_id::{ClassId, PerClass};
pub use product::Product;
pub use runner_life::{RunnerEnd, RunnerLife};

use crate::text::one_line;

/// A secret text: it prints as `***`; only [`Secret::expose`] returns it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the place that must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A point of wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Reads the wall clock. Pure code gets `now` as an argument.
    pub fn now() -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Reads RFC 3339 (`2026-01-02T03:04:05.678Z`), the form of both LXD's and GitHub's timestamps. LXD writes the
    /// year 1 for "never"; that is `None` too.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let format = &time::format_description::well_known::Rfc3339;
        let moment = time::OffsetDateTime::parse(text, format).ok()?;
        let millis = moment.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(millis).ok().filter(|m| *m > 0).map(Timestamp)
    }

    /// RFC 3339, in UTC, to the second.
    pub fn to_rfc3339(self) -> String {
        let format = &time::format_description::well_known::Rfc3339;
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(0);
        time::OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|t| t.format(format).ok()).unwrap_or_default()
    }

    /// Time passed since `earlier`; zero where `earlier` is later (clocks of two machines).
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This much later.
    pub fn after(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// GitHub's id of a workflow job; the same number as the id of the job's check run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// GitHub's id of a registered runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerId(pub u64);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A repository: `owner/name`. Compared without regard to case, as GitHub does; shown as it was written.
#[derive(Clone, Debug)]
pub struct RepoName {
    /// The user or organisation that owns it.
    pub owner: String,
    /// The repository's own name.
    pub name: String,
}

impl RepoName {
    /// GitHub's names are plain ASCII. Compared often, hence without a copy.
    fn folded(&self) -> impl Iterator<Item = u8> {
        let parts = [self.owner.as_bytes(), b"/", self.name.as_bytes()];
        parts.into_iter().flatten().map(u8::to_ascii_lowercase)
    }
}

impl PartialEq for RepoName {
    fn eq(&self, other: &RepoName) -> bool {
        self.owner.eq_ignore_ascii_case(&other.owner) && self.name.eq_ignore_ascii_case(&other.name)
    }
}
impl Eq for RepoName {}
impl PartialOrd for RepoName {
    fn partial_cmp(&self, other: &RepoName) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for RepoName {
    fn cmp(&self, other: &RepoName) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// True if `text` may be an owner's or a repository's name by GitHub's rules; it cannot change a URL.
pub fn is_github_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 100 && text.chars().all(plain) && text != "." && text != ".."
}

impl FromStr for RepoName {
    type Err = String;

    fn from_str(text: &str) -> Result<RepoName, String> {
        match text.split_once('/') {
            Some((owner, name)) if is_github_name(owner) && is_github_name(name) => {
                Ok(RepoName { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not a repository's name; write OWNER/NAME")),
        }
    }
}

/// What runners register with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All repositories of an organisation (name in lower case).
    Org(String),
    /// One repository.
    Repo(RepoName),
    /// All organisations of an enterprise (slug in lower case).
    Enterprise(String),
}

/// `org:acme`, `repo:alice/tool`, `enterprise:big`: the form of the instances' scope key and of the log.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Org(org) => write!(f, "org:{org}"),
            Scope::Repo(repo) => write!(f, "repo:{repo}"),
            Scope::Enterprise(slug) => write!(f, "enterprise:{slug}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        let named = |name: &str| match is_github_name(name) {
            true => Ok(name.to_lowercase()),
            false => Err(format!("{name:?} is not a name that GitHub allows")),
        };
        match text.split_once(':') {
            Some(("org", name)) => Ok(Scope::Org(named(name)?)),
            Some(("repo", name)) => Ok(Scope::Repo(name.parse()?)),
            Some(("enterprise", name)) => Ok(Scope::Enterprise(named(name)?)),
            _ => Err(format!("{text:?} is not a scope; write org:NAME, repo:OWNER/NAME or enterprise:SLUG")),
        }
    }
}

/// A set of labels, in lower case: GitHub compares them without regard to case. Control characters are escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(BTreeSet<String>);

impl Labels {
    /// The number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a runner with these labels can take a job with the labels `wanted`.
    pub fn can_serve(&self, wanted: &Labels) -> bool {
        self.0.is_superset(&wanted.0)
    }

    /// The labels of `self` that `other` lacks.
    pub fn missing_from(&self, other: &Labels) -> Labels {
        Labels(self.0.difference(&other.0).cloned().collect())
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<S: AsRef<str>> FromIterator<S> for Labels {
    fn from_iter<I: IntoIterator<Item = S>>(labels: I) -> Labels {
        Labels(labels.into_iter().map(|l| one_line(l.as_ref().trim().to_lowercase())).collect())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, label) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            f.write_str(label)?;
        }
        Ok(())
    }
}

/// The processor of a runner package, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunnerArch {
    /// x86_64
    X64,
    /// 32-bit ARM
    Arm,
    /// aarch64
    Arm64,
}

impl RunnerArch {
    /// GitHub's word for it, which is also the implied label.
    pub fn as_str(self) -> &'static str {
        match self {
            RunnerArch::X64 => "x64",
            RunnerArch::Arm => "arm",
            RunnerArch::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for RunnerArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The type of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceType {
    /// A system container.
    Container,
    /// A virtual machine.
    VirtualMachine,
}

impl InstanceType {
    /// LXD's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceType::Container => "container",
            InstanceType::VirtualMachine => "virtual-machine",
        }
    }
}

/// An instance's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceStatus {
    /// Running.
    Running,
    /// Stopped.
    Stopped,
    /// In memory, without running.
    Frozen,
    /// Starting, stopping, error, or unknown.
    Other,
}

/// The state of a job at GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobStatus {
    /// Waits for a runner.
    Queued,
    /// Waits for an approval or a concurrency group: no runner would get it.
    Waiting,
    /// A runner has it.
    InProgress,
    /// Over, with any result, or cancelled.
    Completed,
}

/// A workflow job, as a webhook or the API tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// GitHub's id.
    pub id: JobId,
    /// The workflow run that it belongs to.
    pub run_id: u64,
    /// Where its workflow lives.
    pub repo: RepoName,
    /// True for a repository that everybody can see; `None` where the source does not tell.
    pub public: Option<bool>,
    /// What `runs-on` asks for. Empty for a job that will not run (skipped).
    pub labels: Labels,
    /// How far it is.
    pub status: JobStatus,
    /// The runner that took it.
    pub runner_name: Option<String>,
    /// GitHub's id of that runner, where it tells: names are used again, ids are not.
    pub runner_id: Option<RunnerId>,
    /// When GitHub made it.
    pub created_at: Option<Timestamp>,
    /// Its title in the workflow file, for people.
    pub name: String,
}

/// A runner that is registered with a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// GitHub's id.
    pub id: RunnerId,
    /// Unique in its scope.
    pub name: String,
    /// True while its listener is connected.
    pub online: bool,
    /// True while it runs a job. GitHub is known to say false of a busy one now and then.
    pub busy: bool,
    /// What it can serve.
    pub labels: Labels,
}

/// Where the commits of a workflow run come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOrigin {
    /// Its own repository.
    Own,
    /// A fork.
    Fork {
        /// The fork's name, for people.
        from: String,
        /// `Ok` where those who made the pull request belong to the repository; else why that is not so.
        trust: Result<(), String>,
    },
    /// GitHub has no such run, or hides it.
    Hidden,
}

/// What a signed delivery, or the API, makes us aware of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A job and how far it is.
    Job(Job),
    /// A check run of GitHub Actions: the job's id is known, its labels must be asked for.
    CheckRun {
        /// Where it belongs.
        repo: RepoName,
        /// Whether everybody can see that repository, where the delivery tells.
        public: Option<bool>,
        /// The job, whose id is the check run's.
        job: JobId,
        /// True where the job is over.
        completed: bool,
    },
    /// Something happened in this repository: its queue is worth a look.
    LookAt(RepoName),
    /// GitHub tries the hook.
    Ping,
}

/// Keys of an instance's config that say whose it is and what for. **Readable from inside the instance.**
pub mod keys {
    /// Our prefix: only instances with this key are ours.
    pub const OWNER: &str = "user.lxdrunner.owner";
    /// The class's name.
    pub const CLASS: &str = "user.lxdrunner.class";
    /// The scope, as [`super::Scope`] prints.
    pub const SCOPE: &str = "user.lxdrunner.scope";
    /// The id of the job that it was launched for.
    pub const JOB: &str = "user.lxdrunner.job";
    /// GitHub's id of the runner.
    pub const RUNNER_ID: &str = "user.lxdrunner.runner-id";
    /// See [`super::Phase`].
    pub const PHASE: &str = "user.lxdrunner.phase";
    /// The process that provisions it, see [`crate::identity::process_identity`].
    pub const DAEMON: &str = "user.lxdrunner.daemon";
    /// Seconds after which the process that makes the instance last saw progress; noted only where it takes long.
    pub const PROGRESS: &str = "user.lxdrunner.progress";
    /// What a template was baked of, and what a standby is a copy of: see [`super::Recipe`].
    pub const TEMPLATE: &str = "user.lxdrunner.template";
    /// The project of the class, on an image only: LXD shows one project's images in others, too.
    pub const PROJECT: &str = "user.lxdrunner.project";
}

/// What an instance is and how far it came, as its own key says. A runner's goes from `Provisioning` to `Started`, a
/// template from `Baking` to `Template`, a standby from `Preparing` to `Standby`, and when it is claimed on to
/// `Provisioning` and `Started`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Being made into a template by the process that its key names.
    Baking,
    /// A stopped instance that others are copied from.
    Template,
    /// Being made into a standby by the process that its key names.
    Preparing,
    /// Booted and frozen, without a secret: whoever is first may claim it.
    Standby,
    /// A runner's, being prepared by the process that its key names.
    Provisioning,
    /// Its runner process was started; from here on it needs nobody.
    Started,
}

impl Phase {
    const ALL: [Phase; 6] =
        [Phase::Baking, Phase::Template, Phase::Preparing, Phase::Standby, Phase::Provisioning, Phase::Started];

    /// The key's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Baking => "baking",
            Phase::Template => "template",
            Phase::Preparing => "preparing",
            Phase::Standby => "standby",
            Phase::Provisioning => "provisioning",
            Phase::Started => "started",
        }
    }

    /// Reads the key. What is none of ours is taken for a runner's that was started: the most careful guess.
    pub fn parse(text: &str) -> Phase {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == text).unwrap_or(Phase::Started)
    }

    /// True while a process is at it.
    pub fn is_making(self) -> bool {
        matches!(self, Phase::Baking | Phase::Preparing | Phase::Provisioning)
    }

    /// True for what has, or is about to get, a runner.
    pub fn has_runner(self) -> bool {
        matches!(self, Phase::Provisioning | Phase::Started)
    }
}

/// What a template is baked of. Two with the same `shape` are of the same class settings and scripts; `content` tells
/// the image's fingerprint and the runner's version apart as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipe {
    /// Hexadecimal digits.
    pub shape: String,
    /// Hexadecimal digits.
    pub content: String,
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shape, self.content)
    }
}

impl FromStr for Recipe {
    type Err = ();

    fn from_str(text: &str) -> Result<Recipe, ()> {
        let (shape, content) = text.split_once('.').ok_or(())?;
        Ok(Recipe { shape: shape.to_owned(), content: content.to_owned() })
    }
}

/// Free-form config of LXD objects.
pub type ConfigMap = BTreeMap<String, String>;

/// Named devices of an instance or profile.
pub type Devices = BTreeMap<String, ConfigMap>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }

    #[test]
    fn timestamps_are_read_in_both_services_forms() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(Timestamp::parse(text), millis.map(Timestamp), "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1000));
        check("2026-11-23T21:03:56.123456789Z", Some(1_795_467_836_123));
        check("2026-11-23T22:03:56+01:00", Some(1_795_467_836_000));
        check("0001-01-01T00:00:00Z", None);
        check("yesterday", None);
        check("", None);
    }

    #[test]
    fn scopes_survive_a_round_trip_and_hostile_names_do_not() {
        for text in ["org:acme", "repo:alice/Tool.js", "enterprise:big"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in ["acme", "org:", "org:../x", "repo:alice", "repo:a/b/c", "repo:a/..", "org:a b", "org:a?b"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    #[test]
    fn labels_compare_without_case() {
        let class: Labels = ["Self-Hosted", "linux", "X64", "gpu"].iter().collect();
        let check =
            |wanted: &[&str], can: bool| assert_eq!(class.can_serve(&wanted.iter().collect()), can, "{wanted:?}");
        check(&["self-hosted"], true);
        check(&["SELF-HOSTED", "GPU"], true);
        check(&["self-hosted", "arm64"], false);
        check(&[], true);
    }
}
