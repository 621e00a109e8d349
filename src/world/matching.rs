//! Which scope and class serve a job, and how instances are called.

use std::fmt;

use crate::config::{Class, Config};
use crate::model::{Job, JobId, Labels, RepoName, Scope};

/// Why a job is not ours to run. It is left for others and never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No class has all the labels; the nearest one, and what it lacks.
    NoClass { nearest: Option<(String, Labels)> },
    /// It asks for no label at all, so that any runner would do: never meant for us.
    NoLabels,
    /// The repository is not among the targets.
    NotATarget,
    /// The targets are not known yet.
    TargetsUnknown,
    /// The repository is public and the config does not allow that.
    PublicRepo,
    /// Whether the repository is public is not known, and public ones are not allowed.
    VisibilityUnknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoClass { nearest: Some((class, lacks)) } => {
                write!(f, "no class of runnermap has all its labels; the nearest, {class:?}, lacks {lacks}")
            }
            Refusal::NoClass { nearest: None } => f.write_str("no class of runnermap has all its labels"),
            Refusal::NoLabels => f.write_str("it asks for no labels"),
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

/// The class (its place in the config) that serves `labels`: of those that can, the one with the fewest surplus
/// labels, then the first in the file.
pub fn class_for(classes: &[Class], labels: &Labels) -> Result<usize, Refusal> {
    if labels.is_empty() {
        return Err(Refusal::NoLabels);
    }
    let able = classes.iter().enumerate().filter(|(_, class)| class.labels.can_serve(labels));
    if let Some((place, _)) = able.min_by_key(|(place, class)| (class.labels.len(), *place)) {
        return Ok(place);
    }
    let lacks = |class: &Class| labels.missing_from(&class.labels);
    let nearest = classes.iter().min_by_key(|class| lacks(class).len());
    Err(Refusal::NoClass { nearest: nearest.map(|class| (class.name.clone(), lacks(class))) })
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
pub(crate) fn place(job: &Job, targets: Option<&[Scope]>, config: &Config) -> Result<(Scope, usize), Refusal> {
    let class = class_for(&config.classes, &job.labels)?;
    let scope = scope_for(targets.ok_or(Refusal::TargetsUnknown)?, &job.repo).ok_or(Refusal::NotATarget)?;
    match job.public {
        _ if config.allow_public_repos => Ok((scope, class)),
        Some(false) => Ok((scope, class)),
        Some(true) => Err(Refusal::PublicRepo),
        None => Err(Refusal::VisibilityUnknown),
    }
}

/// The `n`-th name for a job's instance.
pub fn instance_name(prefix: &str, job: JobId, n: u32) -> String {
    format!("{prefix}-{job}-{n}")
}

/// The job and number in a name of ours; `None` for a name that we would never give.
pub fn parse_name(prefix: &str, name: &str) -> Option<(JobId, u32)> {
    let (job, n) = name.strip_prefix(prefix)?.strip_prefix('-')?.split_once('-')?;
    let parsed = (JobId(job.parse().ok()?), n.parse().ok()?);
    (instance_name(prefix, parsed.0, parsed.1) == name).then_some(parsed)
}
