//! What GitHub is asked: whether the credential is good, and good enough for every target.

use std::collections::BTreeSet;

use super::{Findings, counted};
use crate::config::Config;
use crate::github::{Download, ErrorKind, GitHub, Identity};
use crate::model::{RunnerArch, Scope, Timestamp};
use crate::runner::package::{life_of, newest};

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let github = GitHub::of_config(&config.github);
    let good = credentials(&github, findings);
    if let Some(trouble) = github.clock_trouble() {
        findings.warn(trouble);
    }
    for end in github.token_ends() {
        match end.days {
            None => findings.fail_as_told(end),
            Some(_) => findings.warn(end),
        }
    }
    if !good {
        return;
    }
    let Some(targets) = targets(config, &github, findings) else { return };
    let mut good: Vec<&Scope> = Vec::new();
    for scope in &targets {
        if target(config, &github, scope, findings) {
            good.push(scope);
        }
    }
    if let Some(scope) = good.first() {
        packages(config, &github, scope, findings);
    }
}

/// False where nothing further can be asked.
fn credentials(github: &GitHub, findings: &mut Findings<'_>) -> bool {
    let names: Vec<&str> = github.credentials().collect();
    let mut any = false;
    for (place, name) in names.iter().enumerate() {
        let whose = if names.len() > 1 { format!("credential {name}") } else { "the credential".to_owned() };
        match github.identity(place) {
            Ok(identity) => {
                findings.ok(format!("GitHub at {}: {whose} is {}", github.base(), described(&identity)));
                any = true;
            }
            Err(error) => {
                findings.fail_as_told(format!("GitHub at {}: {whose}: {error}", github.base()));
                // A token of another kind may have no user and still see its targets; a dead one sees nothing.
                any |= matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound);
            }
        }
    }
    any
}

fn described(identity: &Identity) -> String {
    match identity {
        Identity::User { login, scopes: None } => format!("{login}'s"),
        Identity::User { login, scopes: Some(scopes) } if scopes.is_empty() => {
            format!("{login}'s, a classic token without any scope")
        }
        Identity::User { login, scopes: Some(scopes) } => format!("{login}'s, scopes {}", scopes.join(", ")),
        Identity::App { name, permissions } => {
            format!("the GitHub App {name:?}, permissions {}", permissions.join(", "))
        }
    }
}

fn targets(config: &Config, github: &GitHub, findings: &mut Findings<'_>) -> Option<Vec<Scope>> {
    if !config.targets.is_empty() {
        return Some(config.targets.clone());
    }
    match github.discover() {
        Ok(found) if found.is_empty() => {
            let fix = "give it the right to administer one, or name targets in the config";
            findings.fail("the credential is in no organisation and administers no repository", fix);
            None
        }
        Ok(found) => {
            findings.ok(format!("targets: {} that the credential can see", found.len()));
            Some(found)
        }
        Err(error) => {
            findings.fail_as_told(format!("targets: {error}"));
            None
        }
    }
}

fn target(config: &Config, github: &GitHub, scope: &Scope, findings: &mut Findings<'_>) -> bool {
    match github.runners(scope) {
        // Who may list runners may register them too.
        Ok(runners) => {
            let there = counted(runners.len(), "runner is", "runners are");
            findings.ok(format!("target {scope}: runners can be administered; {there} registered"));
        }
        Err(error) => {
            findings.fail_as_told(format!("target {scope}: {error}"));
            return false;
        }
    }
    if let Scope::Repo(name) = scope {
        match github.repo(name) {
            Ok(repo) if repo.archived => findings.warn(format!("target {scope}: is archived, it has no jobs")),
            Ok(repo) if repo.public && !config.allow_public_repos => {
                let what = "is public, its jobs are refused: anybody's pull request would run here; if that is meant, \
                            set allow_public_repos: true";
                findings.warn(format!("target {scope}: {what}"));
            }
            Ok(_) => {}
            Err(error) => findings.warn(format!("target {scope}: {error}")),
        }
        return true;
    }
    let groups: BTreeSet<&str> = config.classes.iter().map(|class| class.runner_group.as_str()).collect();
    for group in groups {
        match github.group(scope, group).map(|found| found.limits(config.allow_public_repos)) {
            Ok(None) => {}
            Ok(Some(limits)) => findings.warn(format!("target {scope}: runner group {group:?} {limits}")),
            Err(error) => findings.fail_as_told(format!("target {scope}: {error}")),
        }
    }
    true
}

fn packages(config: &Config, github: &GitHub, scope: &Scope, findings: &mut Findings<'_>) {
    let arches: BTreeSet<RunnerArch> = config.classes.iter().map(|class| class.arch).collect();
    let offered = match github.runner_downloads(scope) {
        Ok(offered) => offered,
        Err(error) => return findings.fail_as_told(format!("runner packages: {error}")),
    };
    for arch in arches {
        if let Some((trouble, refused)) = version(config, github, scope, arch, &offered) {
            match refused {
                true => findings.fail_as_told(trouble),
                false => findings.warn(trouble),
            }
        }
        match offered.iter().find(|d| d.os == "linux" && d.architecture == arch.as_str()) {
            Some(package) => {
                let sum = if package.sha256.is_some() { "" } else { ", without a checksum" };
                findings.ok(format!("runner package for {arch}: {}{sum}", package.filename));
            }
            None => findings.fail(format!("GitHub offers no runner package for linux {arch}"), "change runner_arch"),
        }
    }
}

/// The fault of the version that runners would have.
fn version(
    config: &Config,
    github: &GitHub,
    scope: &Scope,
    arch: RunnerArch,
    offered: &[Download],
) -> Option<(String, bool)> {
    let version = config.runner_version.clone().or_else(|| newest(offered, arch))?;
    life_of(github, scope, arch, &version).trouble(&version, Timestamp::now())
}
