//! `lxdrunner explain`: why a job runs, waits or is not served here. It asks the running daemon; without one it asks LXD
//! and GitHub and says what a daemon that starts now would do.

mod reference;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::{EXIT_FAILURE, EXIT_USAGE, load_config};
use crate::cli::output::{complain, say};
use crate::config::Config;
use crate::control::{self, Question};
use crate::github::GitHub;
use crate::lxd::Lxd;
use crate::model::{Job, JobStatus, RepoName, Scope, Timestamp};
use crate::observe::list_instances;
use crate::plan::plan;
use crate::report::explain::explain;
use crate::runner::package::Packages;
use crate::runner::provision::scripts_digest;
use crate::world::{Action, Event, GitHubSeen, Outcome, Snapshot, World, class_for, scope_for};
use reference::Reference;

/// In more repositories than this a bare id is not searched for.
const SEARCHED: usize = 30;

/// Explains the job that `text` names.
pub fn run(config_path: PathBuf, text: &str) -> ExitCode {
    let reference = match Reference::parse(text) {
        Ok(reference) => reference,
        Err(error) => {
            complain!("lxdrunner: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let config = match load_config(&config_path) {
        Ok((config, _)) => config,
        Err(code) => return code,
    };
    match tell(&config, &reference) {
        Ok(text) => {
            say!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain!("lxdrunner: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn tell(config: &Config, reference: &Reference) -> Result<String, String> {
    let github = GitHub::of_config(&config.github);
    reference.check_host(github.base(), &github.web_url(&Scope::Org("x".to_owned())))?;
    let socket = control::socket(config);
    let ask = |told: Option<Job>| control::ask(&socket, &Question::Job { job: reference.job, told });
    let repo = match &reference.repo {
        Some(repo) => repo.clone(),
        None => match ask(None).ok().and_then(|answer| answer.repo?.parse().ok()) {
            Some(repo) => repo,
            None => search(config, &github, reference)?,
        },
    };
    let mut trouble = None;
    let told = match github.job(&repo, reference.job) {
        Ok(Some(job)) => Some(job),
        Ok(None) => {
            return Err(format!(
                "GitHub knows no job {} in {repo} (404): it is absent, or hidden from this credential; check the address and \
                 the credential's rights",
                reference.job
            ));
        }
        Err(error) => {
            trouble = Some(format!("GitHub does not tell of the job: {error}"));
            None
        }
    };
    let told = told.map(|job| with_visibility(config, &github, job));
    let mut text = match ask(told.clone()) {
        Ok(answer) => answer.text,
        Err(error) => match &told {
            Some(job) => format!(
                "{}\n  daemon:   {error}: this is what one that starts now would do, as far as LXD and GitHub tell",
                own_look(config, &github, job)
            ),
            None => return Err(format!("{}; and {error}", trouble.unwrap_or_default())),
        },
    };
    if let Some(trouble) = trouble {
        text = format!("{text}\n  github:   {trouble}");
    }
    Ok(match told {
        Some(job) if job.status == JobStatus::Queued => rights(config, &github, &job, text),
        _ => text,
    })
}

/// A bare id says nothing of where the job is, and GitHub has no search for it.
fn search(config: &Config, github: &GitHub, reference: &Reference) -> Result<RepoName, String> {
    let id = reference.job;
    let fix = format!("name its repository: lxdrunner explain OWNER/REPO#{id}");
    let mut repos = Vec::new();
    for scope in targets(config, github).map_err(|error| format!("{error}; {fix}"))? {
        match scope {
            Scope::Repo(repo) => repos.push(repo),
            Scope::Org(org) => match github.org_repos(&org) {
                Ok(list) => repos.extend(list.into_iter().filter(|repo| !repo.archived).map(|repo| repo.name)),
                Err(error) => return Err(format!("{error}; {fix}")),
            },
            Scope::Enterprise(_) => {}
        }
    }
    if repos.len() > SEARCHED {
        let many = repos.len();
        return Err(format!("job {id} was not heard of, and {many} repositories are too many to search: {fix}"));
    }
    let has = |repo: &&RepoName| matches!(github.job(repo, id), Ok(Some(_)));
    let found = repos.iter().find(has).cloned();
    found.ok_or_else(|| format!("none of the {} repositories of the targets has a job {id}: {fix}", repos.len()))
}

/// The scopes that the config names, or all that the credential can see.
pub(super) fn targets(config: &Config, github: &GitHub) -> Result<Vec<Scope>, String> {
    match config.targets.is_empty() {
        false => Ok(config.targets.clone()),
        true => github.discover().map_err(|error| error.to_string()),
    }
}

fn with_visibility(config: &Config, github: &GitHub, mut job: Job) -> Job {
    let matters = !config.allow_public_repos || config.fork_policy.is_none();
    if job.public.is_none() && matters && job.status == JobStatus::Queued {
        job.public = github.repo(&job.repo).ok().map(|repo| repo.public);
    }
    job
}

/// What a daemon would know after its first look, as far as this job is concerned.
fn own_look(config: &Config, github: &GitHub, job: &Job) -> String {
    let now = Timestamp::now();
    let lxd = Lxd::new(&config.socket);
    let targets = targets(config, github);
    let scope = targets.as_ref().ok().and_then(|targets| scope_for(targets, &job.repo));
    let mut world = World::new(Arc::new(config.clone()), 0, &scripts_digest());
    let mut seen = GitHubSeen { targets: Some(targets), ..GitHubSeen::default() };
    if let Some(scope) = &scope {
        seen.runners.push((scope.clone(), github.runners(scope).map_err(|error| error.to_string())));
    }
    let server = lxd.server();
    let instances = server.and_then(|_| list_instances(&lxd, config));
    let instances = instances.map_err(|error| error.to_string());
    let snapshot =
        Snapshot { begun: world.seq(), instances: Some(instances), github: Some(seen), ..Snapshot::default() };
    world.fold(Event::Snapshot(Box::new(snapshot)), now);
    let packages = Packages::new(&config.cache_home);
    for class in &config.classes {
        if let (Some(package), Some(scope)) =
            (packages.cached(class.arch, config.runner_version.as_deref()), scope.clone())
        {
            let fetch = Action::FetchPackage { arch: class.arch, scope };
            world.fold(
                Event::Outcome(fetch, Outcome::PackageReady { version: package.version, life: Default::default() }),
                now,
            );
        }
    }
    if job.status == JobStatus::Queued {
        world.fold(Event::Hint(crate::model::Hint::Job(job.clone())), now);
    }
    for action in plan(&world, now).actions {
        if let Action::LookUpRun { repo, run, trust } = &action {
            let outcome = match github.run_origin(repo, *run, *trust) {
                Ok(origin) => Outcome::RunFound(origin),
                Err(error) => Outcome::LookFailed { reason: error.to_string() },
            };
            world.fold(Event::Outcome(action, outcome), now);
        }
    }
    explain(&world, now, job.id, Some(job)).to_string()
}

/// Whether the credential may register runners for the job, and in which group: what a daemon learns only when it tries.
fn rights(config: &Config, github: &GitHub, job: &Job, text: String) -> String {
    let Ok(class) = class_for(&config.classes, &job.labels, &job.repo) else { return text };
    let (class, Ok(targets)) = (config.class(class), targets(config, github)) else { return text };
    let Some(scope) = scope_for(&targets, &job.repo) else { return text };
    // Who may list runners may register them too; no runner has this name.
    let listed = github.runner_by_name(&scope, &format!("{}-0-0", config.prefix)).map(drop);
    let found = listed.and_then(|()| github.runner_group(&scope, &class.runner_group));
    let (summary, details) = text.split_once('\n').unwrap_or((&text, ""));
    // Where the group's rules cannot be seen, nothing is said of them.
    let public = job.public.unwrap_or(false);
    let refusal = || github.group_refusal(&scope, &class.runner_group, &job.repo, public).ok().flatten();
    match found.map(|_| refusal()) {
        Ok(Some(refusal)) => {
            format!("{summary}; but GitHub does not give it to our runners\n{details}\n  rights:   {refusal}")
        }
        Ok(None) => {
            format!(
                "{text}\n  rights:   the credential may administer the runners of {scope}, and has the group {:?}",
                class.runner_group
            )
        }
        Err(error) => {
            format!("{summary}; but no runner can be registered\n{details}\n  rights:   {error}")
        }
    }
}
