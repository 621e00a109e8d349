//! The origin of a workflow run's commits.

use serde::Deserialize;

use super::address::repo_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use super::wire::Call;
use crate::http1::{path_segment, query_value};
use crate::model::{RepoName, RunOrigin};
use crate::text::Line;

/// Values of `author_association` for people with access to the repository.
const MEMBERS: &[&str] = &["OWNER", "MEMBER", "COLLABORATOR"];

#[derive(Deserialize)]
struct RunWire {
    event: String,
    #[serde(default)]
    repository: Option<Named>,
    /// Null if the fork was deleted.
    #[serde(default)]
    head_repository: Option<Named>,
    #[serde(default)]
    head_branch: Option<String>,
    #[serde(default)]
    actor: Option<User>,
}

#[derive(Deserialize)]
struct Named {
    full_name: Line,
}

#[derive(Deserialize)]
struct User {
    login: Line,
}

#[derive(Deserialize)]
struct PullWire {
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    author_association: String,
    head: Head,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    repo: Option<Named>,
}

impl GitHub {
    /// The origin of a workflow run's commits; `None` on 404. `trust`: also ask whether the authors of the pull request belong to
    /// the repository, which the pull request tells, not the run.
    ///
    /// # Errors
    /// As for every call.
    pub fn run_origin(&self, repo: &RepoName, run: u64, trust: bool) -> Result<Option<RunOrigin>, Error> {
        let tried = format!("look at run {run} of repo:{repo}");
        let path = format!("{}/actions/runs/{run}", repo_path(repo));
        let wire: RunWire = match self.http.get(&tried, Purpose::Ask, &path) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // A renamed repository still answers under its old name.
        let own = wire.repository.map_or_else(|| repo.to_string(), |own| own.full_name.into());
        let Some(fork) = wire.head_repository.map(|fork| fork.full_name) else {
            return Ok(Some(match wire.event.starts_with("pull_request") {
                true => RunOrigin::Fork {
                    from: "a fork that is gone".to_owned(),
                    trust: Err("nobody can tell whose".into()),
                },
                false => RunOrigin::Own,
            }));
        };
        if fork.eq_ignore_ascii_case(&own) {
            return Ok(Some(RunOrigin::Own));
        }
        let trust = match (trust, wire.head_branch, wire.actor) {
            (false, ..) => Err("not asked".to_owned()),
            (true, Some(branch), Some(actor)) => self.trust(repo, &fork, &branch, &actor.login)?,
            (true, ..) => Err("GitHub does not tell its branch and who pushed".to_owned()),
        };
        Ok(Some(RunOrigin::Fork { from: fork.into(), trust }))
    }

    /// Whether the user belongs to the repository's organisation. A pull request does not show private members to an App
    /// without the permission to read members.
    fn is_member(&self, repo: &RepoName, user: &str) -> Result<Result<(), String>, Error> {
        let permission = "a GitHub App sees private members only with the organisation permission \"Members: read\", a token \
                          only with read:org";
        let tried = format!("ask whether {user:?} is a member of {}", repo.owner);
        let path = format!("orgs/{}/members/{}", path_segment(&repo.owner), path_segment(user));
        match self.http.call(Call::get(&tried, Purpose::Ask), &path) {
            Ok(_) => Ok(Ok(())),
            Err(error) => match error.kind {
                ErrorKind::NotFound => {
                    Ok(Err(format!("{user} is no member or collaborator that the credential can see; {permission}")))
                }
                ErrorKind::Forbidden | ErrorKind::Refused(_) => Ok(Err(format!(
                    "GitHub does not say whether {user} is a member of {} ({}); {permission}",
                    repo.owner, error.message
                ))),
                _ => Err(error),
            },
        }
    }

    /// Whether all pull requests from the fork's branch are by members, and one of them by who pushed last: a member's
    /// pull request from a stranger's fork would let the stranger push into it.
    fn trust(&self, repo: &RepoName, fork: &str, branch: &str, actor: &str) -> Result<Result<(), String>, Error> {
        let owner = fork.split('/').next().unwrap_or_default();
        let head = query_value(&format!("{owner}:{branch}"));
        let tried = format!("look for the pull request from {fork}, branch {branch:?}, to repo:{repo}");
        let mut authors: Vec<(String, bool)> = Vec::new();
        let path = format!("{}/pulls?state=all&head={head}&per_page=100", repo_path(repo));
        self.http.pages(Call::get(&tried, Purpose::Ask), &path, |page: Vec<PullWire>| {
            let of_fork =
                |pull: &PullWire| pull.head.repo.as_ref().is_none_or(|repo| repo.full_name.eq_ignore_ascii_case(fork));
            authors.extend(page.into_iter().filter(of_fork).map(|pull| {
                let member = MEMBERS.contains(&pull.author_association.as_str());
                (pull.user.map(|user| user.login.into()).unwrap_or_default(), member)
            }));
        })?;
        for (author, _) in authors.iter().filter(|(_, member)| !member) {
            if let Err(why) = self.is_member(repo, author)? {
                return Ok(Err(why));
            }
        }
        if !authors.iter().any(|(author, _)| author.eq_ignore_ascii_case(actor)) {
            let by: Vec<&str> = authors.iter().map(|(author, _)| author.as_str()).collect();
            let of = if by.is_empty() { "has no pull request".to_owned() } else { format!("is by {}", by.join(", ")) };
            return Ok(Err(format!("{actor} pushed last, and the branch {of}")));
        }
        Ok(Ok(()))
    }
}
