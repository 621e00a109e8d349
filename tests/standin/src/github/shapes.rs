//! The JSON of GitHub's objects, in the shape of its documentation's and of real webhooks.

use serde_json::{Value, json};

use super::state::{JobState, PullSpec, RepoState, RunnerState, Stage, State};
use lxdrunner::model::{Scope, Timestamp};

fn when(moment: Option<Timestamp>) -> Value {
    moment.map_or(Value::Null, |moment| Value::String(moment.to_rfc3339()))
}

/// `GET /meta`, of what it tells only a part.
pub fn meta(hooks: &[String]) -> Value {
    json!({
        "verifiable_password_authentication": false, "hooks": hooks, "web": ["192.30.252.0/22"],
        "domains": {"actions": ["*.actions.githubusercontent.com"]}
    })
}

/// An account, as it stands in many places.
pub fn account(origin: &str, login: &str, id: u64, kind: &str) -> Value {
    let url = format!("{origin}/users/{login}");
    json!({
        "login": login, "id": id, "node_id": format!("MDQ6VXNlcj{id}"),
        "avatar_url": format!("{origin}/avatars/u/{id}?v=4"), "gravatar_id": "",
        "url": url, "html_url": format!("{origin}/{login}"),
        "followers_url": format!("{url}/followers"), "following_url": format!("{url}/following{{/other_user}}"),
        "gists_url": format!("{url}/gists{{/gist_id}}"), "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{url}/subscriptions"), "organizations_url": format!("{url}/orgs"),
        "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events{{/privacy}}"),
        "received_events_url": format!("{url}/received_events"), "type": kind, "site_admin": false
    })
}

/// `json` with these fields, too.
fn with(mut json: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut json, more) {
        fields.extend(more);
    }
    json
}

/// A user, as it is told to itself.
pub fn user(origin: &str, login: &str, id: u64) -> Value {
    let more = json!({
        "name": null, "company": null, "blog": "", "location": null, "email": null, "hireable": null, "bio": null,
        "public_repos": 2, "public_gists": 1, "followers": 20, "following": 0,
        "created_at": "2008-01-14T04:33:35Z", "updated_at": "2008-01-14T04:33:35Z"
    });
    with(account(origin, login, id, "User"), more)
}

/// A repository that was asked for alone.
pub fn full_repository(origin: &str, state: &State, repo: &RepoState) -> Value {
    with(repository(origin, state, repo), json!({"network_count": 0, "subscribers_count": 0}))
}

/// An enterprise, as the owner of an installation.
pub fn enterprise(origin: &str, slug: &str) -> Value {
    json!({
        "id": 7, "node_id": "E_7", "name": slug, "slug": slug, "html_url": format!("{origin}/enterprises/{slug}"),
        "created_at": "2021-06-11T13:29:13Z", "updated_at": "2021-06-11T13:29:13Z",
        "avatar_url": format!("{origin}/avatars/b/7?v=4")
    })
}

/// An organisation, as it stands in webhooks and listings.
pub fn organization(origin: &str, login: &str) -> Value {
    let url = format!("{origin}/orgs/{login}");
    json!({
        "login": login, "id": 33_435_655, "node_id": "MDEyOk9yZ2FuaXphdGlvbjMzNDM1NjU1", "url": url,
        "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events"),
        "hooks_url": format!("{url}/hooks"), "issues_url": format!("{url}/issues"),
        "members_url": format!("{url}/members{{/member}}"),
        "public_members_url": format!("{url}/public_members{{/member}}"),
        "avatar_url": format!("{origin}/avatars/u/33435655?v=4"), "description": ""
    })
}

/// A repository.
pub fn repository(origin: &str, state: &State, repo: &RepoState) -> Value {
    let owner = &repo.name.owner;
    let owned = state.orgs.iter().any(|org| org.eq_ignore_ascii_case(owner));
    let api = format!("{origin}/repos/{}", repo.name);
    let web = format!("{origin}/{}", repo.name);
    let visibility = if repo.public { "public" } else { "private" };
    let mut json = json!({
        "id": repo.id, "node_id": format!("R_{}", repo.id), "name": repo.name.name, "full_name": repo.name.to_string(),
        "private": !repo.public, "owner": account(origin, owner, 33_435_655, if owned { "Organization" } else { "User" }),
        "html_url": web, "description": null, "fork": false, "url": api,
        "created_at": "2021-06-11T13:29:13Z", "updated_at": "2021-06-11T13:33:01Z", "pushed_at": "2021-06-11T13:32:58Z",
        "git_url": format!("git:{web}.git"), "ssh_url": format!("git@standin:{}.git", repo.name),
        "clone_url": format!("{web}.git"), "svn_url": web, "archived": repo.archived, "visibility": visibility,
        "permissions": {"admin": true, "maintain": true, "push": true, "triage": true, "pull": true}
    });
    let fixed = json!({
        "homepage": null, "size": 1, "stargazers_count": 0,
        "watchers_count": 0, "language": null, "has_issues": true, "has_projects": true, "has_downloads": true,
        "has_wiki": true, "has_pages": false, "has_discussions": false, "forks_count": 0, "mirror_url": null,
        "disabled": false, "open_issues_count": 0, "license": null, "allow_forking": true,
        "is_template": false, "web_commit_signoff_required": false, "topics": [], "forks": 0, "open_issues": 0, "watchers": 0, "default_branch": "main", "custom_properties": {}
    });
    let places = [
        ("forks_url", "/forks"),
        ("keys_url", "/keys{/key_id}"),
        ("collaborators_url", "/collaborators{/collaborator}"),
        ("teams_url", "/teams"),
        ("hooks_url", "/hooks"),
        ("issue_events_url", "/issues/events{/number}"),
        ("events_url", "/events"),
        ("assignees_url", "/assignees{/user}"),
        ("branches_url", "/branches{/branch}"),
        ("tags_url", "/tags"),
        ("blobs_url", "/git/blobs{/sha}"),
        ("git_tags_url", "/git/tags{/sha}"),
        ("git_refs_url", "/git/refs{/sha}"),
        ("trees_url", "/git/trees{/sha}"),
        ("statuses_url", "/statuses/{sha}"),
        ("languages_url", "/languages"),
        ("stargazers_url", "/stargazers"),
        ("contributors_url", "/contributors"),
        ("subscribers_url", "/subscribers"),
        ("subscription_url", "/subscription"),
        ("commits_url", "/commits{/sha}"),
        ("git_commits_url", "/git/commits{/sha}"),
        ("comments_url", "/comments{/number}"),
        ("issue_comment_url", "/issues/comments{/number}"),
        ("contents_url", "/contents/{+path}"),
        ("compare_url", "/compare/{base}...{head}"),
        ("merges_url", "/merges"),
        ("archive_url", "/{archive_format}{/ref}"),
        ("downloads_url", "/downloads"),
        ("issues_url", "/issues{/number}"),
        ("pulls_url", "/pulls{/number}"),
        ("milestones_url", "/milestones{/number}"),
        ("notifications_url", "/notifications{?since,all,participating}"),
        ("labels_url", "/labels{/name}"),
        ("releases_url", "/releases{/id}"),
        ("deployments_url", "/deployments"),
    ];
    if let (Value::Object(fields), Value::Object(fixed)) = (&mut json, fixed) {
        fields.extend(fixed);
        fields.extend(places.iter().map(|(name, path)| ((*name).to_owned(), Value::String(format!("{api}{path}")))));
    }
    json
}

/// A job; the same in the API and in webhooks.
pub fn job(origin: &str, state: &State, job: &JobState) -> Value {
    let api = format!("{origin}/repos/{}", job.repo);
    // A job that is given to a runner but not begun is still queued and nobody's.
    let taken = job.started_at.is_some();
    let group = job.runner.and_then(|id| state.runners.get(&id)).map_or(1, |runner| runner.group);
    let group_name = state.groups.iter().find(|(id, _)| *id == group).map(|(_, name)| name.clone());
    let mine = |value: Value| if taken { value } else { Value::Null };
    let started = job.started_at.unwrap_or(job.created_at);
    let mut steps = Vec::new();
    if taken {
        steps.push(step("Set up job", 1, Stage::Completed, Some("success"), job));
        steps.push(step("Run", 2, job.stage, job.conclusion, job));
    }
    json!({
        "id": job.id.0, "run_id": job.run, "workflow_name": "CI", "head_branch": "main",
        "run_url": format!("{api}/actions/runs/{}", job.run), "run_attempt": 1, "node_id": format!("CR_{}", job.id),
        "head_sha": "16c5286e8d9a0629956a28938386b36608707a71", "url": format!("{api}/actions/jobs/{}", job.id),
        "html_url": format!("{origin}/{}/actions/runs/{}/job/{}", job.repo, job.run, job.id),
        "status": job.stage.as_str(), "conclusion": job.conclusion, "created_at": job.created_at.to_rfc3339(),
        "started_at": started.to_rfc3339(), "completed_at": when(job.completed_at), "name": job.spec.name,
        "steps": steps, "check_run_url": format!("{api}/check-runs/{}", job.id), "labels": job.spec.labels,
        "runner_id": mine(json!(job.runner.map(|id| id.0))), "runner_name": mine(json!(job.runner_name)),
        "runner_group_id": mine(json!(group)), "runner_group_name": mine(json!(group_name))
    })
}

fn step(name: &str, number: u64, stage: Stage, conclusion: Option<&str>, job: &JobState) -> Value {
    json!({
        "name": name, "status": stage.as_str(), "conclusion": conclusion, "number": number,
        "started_at": when(job.started_at), "completed_at": when(job.completed_at)
    })
}

/// A workflow run.
pub fn run(origin: &str, state: &State, id: u64, of: &JobState) -> Value {
    let api = format!("{origin}/repos/{}", of.repo);
    let url = format!("{api}/actions/runs/{id}");
    let own = state.repo(&of.repo).map(|repo| repository(origin, state, repo));
    let pull = of.spec.pull.as_ref();
    let head = pull.map_or_else(|| own.clone(), |pull| Some(fork(origin, state, &pull.from)));
    let actor = account(origin, pull.map_or("octocat", |pull| &pull.pusher), 319_655, "User");
    let author = json!({"name": "The Octocat", "email": "octocat@example.com"});
    let more = json!({
        "artifacts_url": format!("{url}/artifacts"), "check_suite_url": format!("{api}/check-suites/1"),
        "workflow_url": format!("{api}/actions/workflows/1"),
        "head_commit": {
            "id": "16c5286e8d9a0629956a28938386b36608707a71", "tree_id": "d23f6eedb1e1b9610bbc754ddb5197bfe7271223",
            "message": "A change", "timestamp": of.created_at.to_rfc3339(), "author": author, "committer": author
        }
    });
    let run = json!({
        "id": id, "name": "CI", "node_id": format!("WFR_{id}"), "head_branch": of.branch(),
        "head_sha": "16c5286e8d9a0629956a28938386b36608707a71", "path": ".github/workflows/ci.yml",
        "display_title": "CI", "run_number": 1, "event": if pull.is_some() { "pull_request" } else { "push" }, "status": state.run_status(id).as_str(),
        "conclusion": null, "workflow_id": 1, "check_suite_id": 1, "url": url,
        "html_url": format!("{origin}/{}/actions/runs/{id}", of.repo), "pull_requests": [],
        "created_at": of.created_at.to_rfc3339(), "updated_at": of.created_at.to_rfc3339(), "run_attempt": 1,
        "run_started_at": of.created_at.to_rfc3339(), "jobs_url": format!("{url}/jobs"),
        "logs_url": format!("{url}/logs"), "cancel_url": format!("{url}/cancel"), "rerun_url": format!("{url}/rerun"),
        "actor": actor, "triggering_actor": actor, "repository": own, "head_repository": head
    });
    with(run, more)
}

fn fork(origin: &str, state: &State, name: &lxdrunner::model::RepoName) -> Value {
    let known = state.repo(name).cloned();
    let made = || RepoState { id: 1_296_269, name: name.clone(), public: true, archived: false };
    repository(origin, state, &known.unwrap_or_else(made))
}

/// A pull request, as far as it tells who made it.
pub fn pull(origin: &str, state: &State, of: &JobState, pull: &PullSpec) -> Value {
    let url = format!("{origin}/repos/{}/pulls/{}", of.repo, of.run);
    let sha = "16c5286e8d9a0629956a28938386b36608707a71";
    let owner = account(origin, &pull.from.owner, 583_231, "User");
    let base = state.repo(&of.repo).map(|repo| repository(origin, state, repo));
    let issue = format!("{origin}/repos/{}/issues/{}", of.repo, of.run);
    let statuses = format!("{origin}/repos/{}/statuses/{sha}", of.repo);
    let html = format!("{origin}/{}/pull/{}", of.repo, of.run);
    let link = |to: &str| json!({"href": to});
    let more = json!({
        "html_url": html, "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
        "issue_url": issue, "commits_url": format!("{url}/commits"), "comments_url": format!("{issue}/comments"),
        "review_comments_url": format!("{url}/comments"), "review_comment_url": format!("{url}/comments{{/number}}"),
        "statuses_url": statuses, "locked": false, "labels": [], "body": null, "milestone": null, "assignee": null,
        "auto_merge": null, "closed_at": null, "merged_at": null, "merge_commit_sha": null,
        "_links": {
            "self": link(&url), "html": link(&html), "issue": link(&issue), "commits": link(&format!("{url}/commits")),
            "comments": link(&format!("{issue}/comments")), "statuses": link(&statuses),
            "review_comments": link(&format!("{url}/comments")),
            "review_comment": link(&format!("{url}/comments{{/number}}"))
        },
        "base": {"label": format!("{}:main", of.repo.owner), "ref": "main", "sha": sha, "repo": base,
                 "user": account(origin, &of.repo.owner, 33_435_655, "Organization")}
    });
    let shown = json!({
        "id": of.run, "number": of.run, "node_id": format!("PR_{}", of.run), "url": url, "state": "open",
        "title": "A change", "user": account(origin, &pull.author, 583_231, "User"),
        "author_association": pull.association,
        "head": {"label": format!("{}:{}", pull.from.owner, of.branch()), "ref": of.branch(), "sha": sha,
                 "repo": fork(origin, state, &pull.from), "user": owner},
        "created_at": of.created_at.to_rfc3339(), "updated_at": of.created_at.to_rfc3339()
    });
    with(shown, more)
}

/// A runner.
pub fn runner(state: &State, runner: &RunnerState) -> Value {
    let labels = runner.labels.iter().enumerate();
    let labels: Vec<Value> = labels.map(|(n, name)| json!({"id": n + 1, "name": name, "type": "custom"})).collect();
    let status = if runner.online() { "online" } else { "offline" };
    json!({
        "id": runner.id.0, "name": runner.name, "os": if runner.seen.is_some() { "Linux" } else { "unknown" },
        "status": status, "busy": state.lists_as_busy(runner), "ephemeral": runner.ephemeral,
        "runner_group_id": runner.group, "labels": labels
    })
}

/// The body of a `workflow_job` hook.
pub fn workflow_job(origin: &str, state: &State, of: &JobState, action: &str) -> Value {
    let repository = state.repo(&of.repo).map(|repo| repository(origin, state, repo));
    let mut payload = json!({
        "action": action, "workflow_job": job(origin, state, of), "repository": repository,
        "sender": account(origin, "octocat", 319_655, "User")
    });
    let owner = &of.repo.owner;
    if let (Value::Object(fields), true) = (&mut payload, state.has_scope(&Scope::Org(owner.to_lowercase()))) {
        fields.insert("organization".to_owned(), organization(origin, owner));
    }
    payload
}
