//! Which scope and class serve a job.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{Class, Config, ForkPolicy};
use crate::model::{ClassId, Job, Labels, RepoName, RunOrigin, Scope};

/// Why a job is not ours to run. It is left for others and never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No class has all the labels; the nearest one, and what it lacks.
    NoClass { nearest: Option<(String, Labels)> },
    /// It names a runner group and no label (`runs-on: {group: …}`), and GitHub does not tell which group: so many classes have
    /// one of their own.
    GroupOnly { classes: usize },
    /// A class has all the labels, but its `repos` do not let the repository in; the `deny` pattern that says so, or none.
    NotOfClass { class: String, deny: Option<String> },
    /// `repos` does not let the repository in; the `deny` pattern that says so, or none.
    NotAllowed { deny: Option<String> },
    /// Where the run's commits come from is not known yet, and the policy for forks makes it matter.
    OriginUnknown,
    /// GitHub does not tell where the run's commits come from.
    OriginHidden,
    /// Its commits come from a fork, and the policy does not let them in.
    Fork { from: String, why: Option<String> },
    /// The repository is not among the targets.
    NotATarget,
    /// The targets are not known yet.
    TargetsUnknown,
    /// The repository is public and the config does not allow that.
    PublicRepo,
    /// Whether the repository is public is not known, and public ones are not allowed.
    VisibilityUnknown,
}

impl Refusal {
    /// True where the refusal is no more than a question that is not answered yet.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Refusal::TargetsUnknown | Refusal::VisibilityUnknown | Refusal::OriginUnknown)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoClass { nearest: Some((class, lacks)) } => {
                write!(f, "no class of runnermap has all its labels; the nearest, {class:?}, lacks {lacks}")
            }
            Refusal::NoClass { nearest: None } => f.write_str("no class of runnermap has all its labels"),
            Refusal::GroupOnly { classes: 0 } => f.write_str(
                "its runs-on names only a runner group, GitHub does not tell which, and no class has a runner_group of its \
                 own; give a class the runner_group, or the job a label",
            ),
            Refusal::GroupOnly { classes } => write!(
                f,
                "its runs-on names only a runner group, GitHub does not tell which, and {classes} classes have a \
                 runner_group of their own; give the job a label beside the group"
            ),
            Refusal::NotOfClass { class, deny: Some(glob) } => {
                write!(f, "the repos of class {class:?}, which has its labels, deny {glob}")
            }
            Refusal::NotOfClass { class, deny: None } => {
                write!(f, "the repos of class {class:?}, which has its labels, do not name its repository")
            }
            Refusal::NotAllowed { deny: Some(glob) } => write!(f, "repos denies {glob}"),
            Refusal::NotAllowed { deny: None } => {
                f.write_str("repos does not name its repository; add it there to serve it")
            }
            Refusal::OriginUnknown => f.write_str("where its commits come from is being asked, for fork_policy"),
            Refusal::OriginHidden => {
                f.write_str("GitHub does not tell where its commits come from, which fork_policy must know")
            }
            Refusal::Fork { from, why: Some(why) } => write!(
                f,
                "its commits come from {from}, and {why}; fork_policy: members lets only pull requests of members in"
            ),
            Refusal::Fork { from, why: None } => {
                write!(f, "its commits come from {from}; fork_policy: deny refuses forks")
            }
            Refusal::NotATarget => f.write_str("its repository is not among the targets; add it to targets to serve it"),
            Refusal::TargetsUnknown => {
                f.write_str("what the credential may serve is not known yet: GitHub has not answered")
            }
            Refusal::PublicRepo => f.write_str(
                "its repository is public: anybody's pull request could run code here; allow_public_repos: true allows it",
            ),
            Refusal::VisibilityUnknown => f.write_str("whether its repository is public is not known yet"),
        }
    }
}

/// The class that serves `labels`: of those that can, the one with the fewest surplus
/// labels, then the first in the file. Classes whose `repos` leave the repository out are passed over.
pub fn class_for(classes: &[Class], labels: &Labels, repo: &RepoName) -> Result<ClassId, Refusal> {
    if labels.is_empty() {
        return class_of_group(classes, repo);
    }
    let able = classes.iter().enumerate().filter(|(_, class)| class.labels.can_serve(labels));
    let (open, closed): (Vec<_>, Vec<_>) = able.partition(|(_, class)| class.repos.judge(repo).is_ok());
    let surplus = |(place, class): &(usize, &Class)| (class.labels.len(), *place);
    if let Some((place, _)) = open.into_iter().min_by_key(surplus) {
        return Ok(ClassId(place));
    }
    if let Some((_, class)) = closed.into_iter().min_by_key(surplus) {
        let deny = class.repos.judge(repo).err().flatten().map(|glob| glob.as_str().to_owned());
        return Err(Refusal::NotOfClass { class: class.name.clone(), deny });
    }
    let lacks = |class: &Class| labels.missing_from(&class.labels);
    let nearest = classes.iter().min_by_key(|class| lacks(class).len());
    Err(Refusal::NoClass { nearest: nearest.map(|class| (class.name.clone(), lacks(class))) })
}

/// The class for a job that names a runner group only: the one that has a group of its own. With several, any of them could be
/// meant.
fn class_of_group(classes: &[Class], repo: &RepoName) -> Result<ClassId, Refusal> {
    let open = classes.iter().enumerate().filter(|(_, class)| class.has_own_group() && class.repos.judge(repo).is_ok());
    match open.map(|(place, _)| place).collect::<Vec<_>>()[..] {
        [place] => Ok(ClassId(place)),
        ref several => Err(Refusal::GroupOnly { classes: several.len() }),
    }
}

/// The scope that runners for `repo` register with: the repository itself where it is a target, else its
/// organisation, else the enterprise.
pub fn scope_for(targets: &[Scope], repo: &RepoName) -> Option<Scope> {
    let exact = |t: &&Scope| matches!(t, Scope::Repo(r) if r == repo);
    let owner = |t: &&Scope| matches!(t, Scope::Org(org) if org.eq_ignore_ascii_case(&repo.owner));
    let enterprise = |t: &&Scope| matches!(t, Scope::Enterprise(_));
    let pick = |test: &dyn Fn(&&Scope) -> bool| targets.iter().find(test).cloned();
    pick(&exact).or_else(|| pick(&owner)).or_else(|| pick(&enterprise))
}

/// The scope and class for a job, or why there is none.
pub(super) fn place(
    job: &Job,
    targets: Option<&[Scope]>,
    runs: &Runs,
    config: &Config,
) -> Result<(Scope, ClassId), Refusal> {
    let class = class_for(&config.classes, &job.labels, &job.repo)?;
    let scope = scope_for(targets.ok_or(Refusal::TargetsUnknown)?, &job.repo).ok_or(Refusal::NotATarget)?;
    let denied = |glob: Option<&crate::config::Glob>| glob.map(|glob| glob.as_str().to_owned());
    config.repos.judge(&job.repo).map_err(|glob| Refusal::NotAllowed { deny: denied(glob) })?;
    match job.public {
        _ if config.allow_public_repos => {}
        Some(false) => {}
        Some(true) => return Err(Refusal::PublicRepo),
        None => return Err(Refusal::VisibilityUnknown),
    }
    // A repository is public unless known to be private.
    judge_fork(job, job.public != Some(false), runs, config)?;
    Ok((scope, class))
}

/// A workflow run of a repository.
pub(crate) type RunKey = (RepoName, u64);

/// A run whose origin matters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// `None` until GitHub told it.
    pub origin: Option<RunOrigin>,
}

/// The runs whose origin matters.
pub(crate) type Runs = BTreeMap<RunKey, Run>;

/// Whether the job's commits may run here.
fn judge_fork(job: &Job, public: bool, runs: &Runs, config: &Config) -> Result<(), Refusal> {
    let policy = ForkPolicy::holds(config.fork_policy, public);
    if policy == ForkPolicy::Allow {
        return Ok(());
    }
    let origin = runs.get(&(job.repo.clone(), job.run_id)).and_then(|run| run.origin.as_ref());
    match (origin.ok_or(Refusal::OriginUnknown)?, policy) {
        (RunOrigin::Own, _) => Ok(()),
        (RunOrigin::Hidden, _) => Err(Refusal::OriginHidden),
        (RunOrigin::Fork { trust: Ok(()), .. }, ForkPolicy::Members) => Ok(()),
        (RunOrigin::Fork { from, trust: Err(why) }, ForkPolicy::Members) => {
            Err(Refusal::Fork { from: from.clone(), why: Some(why.clone()) })
        }
        (RunOrigin::Fork { from, .. }, _) => Err(Refusal::Fork { from: from.clone(), why: None }),
    }
}
