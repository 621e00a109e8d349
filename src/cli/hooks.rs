//! `lxdrunner hooks`: makes, shows and removes the webhooks at GitHub.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::HooksVerb;
use super::check::Findings;
use super::output::complain;
use super::{EXIT_CONFIG, EXIT_FAILURE, EXIT_USAGE, load_config};
use crate::config::{Config, hook_address};
use crate::github::{GitHub, HookWanted};
use crate::model::Scope;
use crate::upkeep::hooks::{self, Done, State};

/// Does it for every target; does not stop at the first that fails.
pub fn run(config_path: PathBuf, verb: HooksVerb, url: Option<String>) -> ExitCode {
    let (config, warnings) = match load_config(&config_path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let url = match url.as_deref().map(hook_address) {
        Some(Ok(url)) => url,
        Some(Err((what, fix))) => {
            complain!("lxdrunner: --url {what} — {fix}");
            return ExitCode::from(EXIT_USAGE);
        }
        None => match &config.webhook_url {
            Some(url) => url.clone(),
            None => {
                complain!(
                    "lxdrunner: where does GitHub find this host? write `webhook_url: https://HOST` into {}, or give --url",
                    config_path.display()
                );
                return ExitCode::from(EXIT_CONFIG);
            }
        },
    };
    let mut out = io::stdout().lock();
    let mut findings = Findings::new(&mut out);
    for warning in &warnings {
        findings.warn(warning);
    }
    act(&config, verb, &url, &mut findings);
    if findings.failed() { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

fn act(config: &Config, verb: HooksVerb, url: &str, findings: &mut Findings<'_>) {
    let github = GitHub::of_config(&config.github);
    let wanted = hooks::wanted(config, url);
    let targets = match config.targets.is_empty() {
        false => config.targets.clone(),
        true => match github.discover() {
            Ok(targets) => targets,
            Err(error) => return findings.fail_as_told(error),
        },
    };
    for scope in &targets {
        match verb {
            HooksVerb::Install => install(&github, scope, &wanted, findings),
            HooksVerb::Status => status(&github, scope, &wanted, findings),
            HooksVerb::Remove => match hooks::remove(&github, scope, url) {
                Ok(0) => findings.ok(format!("{scope}: there was no webhook to {url}")),
                Ok(count) => findings.ok(format!("{scope}: {count} removed")),
                Err(error) => findings.fail_as_told(format!("{scope}: {error}")),
            },
        }
    }
}

fn install(github: &GitHub, scope: &Scope, wanted: &HookWanted, findings: &mut Findings<'_>) {
    let (id, done) = match hooks::install(github, scope, wanted) {
        Ok((id, Done::Made)) => (id, "made"),
        Ok((id, Done::SetRight)) => (id, "set right"),
        Err(error) => return findings.fail_as_told(format!("{scope}: {error}")),
    };
    match hooks::ping(github, scope, id, &wanted.url) {
        Ok(Ok(())) => findings.ok(format!("{scope}: webhook {id} {done}; GitHub reaches {}", wanted.url)),
        Ok(Err(why)) => findings.fail_as_told(format!("{scope}: webhook {id} {done}, but {why}")),
        Err(error) => findings.warn(format!("{scope}: webhook {id} {done}; {error}")),
    }
}

fn status(github: &GitHub, scope: &Scope, wanted: &HookWanted, findings: &mut Findings<'_>) {
    let (state, others) = match hooks::status(github, scope, wanted) {
        Ok(found) => found,
        Err(error) => return findings.fail_as_told(format!("{scope}: {error}")),
    };
    let url = &wanted.url;
    match state {
        State::Missing => findings.fail(format!("{scope}: no webhook leads to {url}"), "lxdrunner hooks install"),
        State::There { hook, wrong, .. } if !wrong.is_empty() => {
            let what = format!("{scope}: webhook {}: {}", hook.id, wrong.join(", "));
            findings.fail(what, "lxdrunner hooks install");
        }
        State::There { last: Some(Err(why)), .. } => findings.fail_as_told(format!("{scope}: {why}")),
        State::There { hook, last, .. } => {
            let last = if last.is_some() { "the last delivery arrived" } else { "nothing was delivered yet" };
            findings.ok(format!("{scope}: webhook {} leads to {url}, {last}", hook.id));
        }
    }
    for other in others {
        findings
            .warn(format!("{scope}: another webhook leads to {other}: another host's, or an address of former times"));
    }
}
