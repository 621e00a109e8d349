//! Runner groups of organisations and enterprises: their ids, and the repositories that they serve.

use serde::Deserialize;

use super::address::scope_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use super::json::RepoWire;
use super::wire::Call;
use crate::model::{RepoName, Scope};
use crate::text::Line;

/// The id of the default group, which every scope has.
const DEFAULT_GROUP: u64 = 1;

/// A group of runners.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    pub id: u64,
    pub name: Line,
    /// `all`, `private` or `selected`.
    #[serde(default)]
    pub visibility: Line,
    /// True by default: older servers do not tell.
    #[serde(default = "yes")]
    pub allows_public_repositories: bool,
    /// Only jobs of some workflows.
    #[serde(default)]
    pub restricted_to_workflows: bool,
    #[serde(default)]
    pub selected_workflows: Vec<Line>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct GroupPage {
    runner_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct RepoPage {
    repositories: Vec<RepoWire>,
}

#[derive(Deserialize)]
struct OrgPage {
    organizations: Vec<super::json::Org>,
}

impl Group {
    /// The restrictions of this group, in words; `None` without any. `public`: jobs of public repositories are meant to be
    /// served.
    pub fn limits(&self, public: bool) -> Option<String> {
        let mut limits = Vec::new();
        if self.visibility == "selected" {
            limits.push("serves selected repositories only".to_owned());
        }
        if public && !self.allows_public_repositories {
            limits.push("does not serve public repositories".to_owned());
        }
        if self.restricted_to_workflows {
            let workflows: Vec<&str> = self.selected_workflows.iter().map(|workflow| &**workflow).collect();
            limits.push(format!("serves some workflows only: {}", workflows.join(", ")));
        }
        (!limits.is_empty()).then(|| limits.join(", and "))
    }
}

/// Calls fail as every call does.
#[allow(clippy::missing_errors_doc, reason = "said above for all of them")]
impl GitHub {
    /// The id of a runner group by its name; `Default` is 1 without asking. Repositories have only the default one.
    pub fn runner_group(&self, scope: &Scope, name: &str) -> Result<u64, Error> {
        if name.eq_ignore_ascii_case("default") {
            return Ok(DEFAULT_GROUP);
        }
        Ok(self.group(scope, name)?.id)
    }

    /// A runner group by its name.
    pub fn group(&self, scope: &Scope, name: &str) -> Result<Group, Error> {
        let tried = format!("find the runner group {name:?} of {scope}");
        if matches!(scope, Scope::Repo(_)) {
            let message =
                "a repository has no runner groups: leave runner_group out, or register with the organisation";
            return Err(Error::new(tried, ErrorKind::NotFound, message));
        }
        let path = format!("{}/actions/runner-groups?per_page=100", scope_path(scope));
        let mut groups: Vec<Group> = Vec::new();
        self.http.pages(Call::get(&tried, Purpose::Ask), &path, |page: GroupPage| groups.extend(page.runner_groups))?;
        let names: Vec<String> = groups.iter().map(|group| group.name.to_string()).collect();
        let found = groups.into_iter().find(|group| group.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let message = format!("there are only: {}", names.join(", "));
            let fix =
                format!("make it in the settings of {scope}, Actions, Runner groups, or write another in runner_group");
            Error::new(tried, ErrorKind::NotFound, message).with_fix(fix)
        })
    }

    /// Why GitHub gives no job of `repo` to a runner of this group, with the fix; `None` if it does.
    pub fn group_refusal(
        &self,
        scope: &Scope,
        name: &str,
        repo: &RepoName,
        public: bool,
    ) -> Result<Option<String>, Error> {
        if matches!(scope, Scope::Repo(_)) {
            return Ok(None);
        }
        let group = self.group(scope, name)?;
        let name = &group.name;
        if public && !group.allows_public_repositories {
            return Ok(Some(format!(
                "the runner group {name:?} of {scope} does not serve public repositories: allow it in the group's settings"
            )));
        }
        if group.visibility == "private" && public {
            return Ok(Some(format!("the runner group {name:?} of {scope} serves private repositories only")));
        }
        if group.visibility == "selected" && !self.is_selected(scope, &group, repo)? {
            let what = if matches!(scope, Scope::Enterprise(_)) { repo.owner.clone() } else { repo.to_string() };
            return Ok(Some(format!(
                "the runner group {name:?} of {scope} does not serve {what}: choose it in the group's settings, or write \
                 another in runner_group"
            )));
        }
        Ok(None)
    }

    /// Whether a group with selected repositories (of an enterprise: organisations) serves this one.
    fn is_selected(&self, scope: &Scope, group: &Group, repo: &RepoName) -> Result<bool, Error> {
        let tried = format!("list whom the runner group {:?} of {scope} serves", group.name);
        let path = format!("{}/actions/runner-groups/{}", scope_path(scope), group.id);
        let mut selected = false;
        if let Scope::Enterprise(_) = scope {
            let path = format!("{path}/organizations?per_page=100");
            self.http.pages(Call::get(&tried, Purpose::Ask), &path, |page: OrgPage| {
                selected |= page.organizations.iter().any(|org| org.login.eq_ignore_ascii_case(&repo.owner));
            })?;
        } else {
            let path = format!("{path}/repositories?per_page=100");
            self.http.pages(Call::get(&tried, Purpose::Ask), &path, |page: RepoPage| {
                let mut repos = page.repositories.into_iter().filter_map(RepoWire::into_repo);
                selected |= repos.any(|one| one.name == *repo);
            })?;
        }
        Ok(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_does_not_serve_is_told() {
        #[track_caller]
        fn check(json: &str, public: bool, limits: Option<&str>) {
            let group: Group = serde_json::from_str(json).unwrap();
            assert_eq!(group.limits(public).as_deref(), limits, "{json}");
        }
        check(r#"{"id":7,"name":"a"}"#, true, None);
        check(r#"{"id":7,"name":"a","visibility":"all","allows_public_repositories":false}"#, false, None);
        let private = r#"{"id":7,"name":"a","visibility":"selected","allows_public_repositories":false}"#;
        check(private, false, Some("serves selected repositories only"));
        check(private, true, Some("serves selected repositories only, and does not serve public repositories"));
        let some =
            r#"{"id":7,"name":"a","restricted_to_workflows":true,"selected_workflows":["a/b/.github/x.yml@main"]}"#;
        check(some, false, Some("serves some workflows only: a/b/.github/x.yml@main"));
    }
}
