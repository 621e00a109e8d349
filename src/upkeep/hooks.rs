//! One webhook for each target, with our address, secret and events.

use std::time::{Duration, Instant};

use super::choose::{HookPlan, hook_plan, other_hooks, own_hooks, unreachable};
use crate::config::{Config, WebTls};
use crate::github::{Delivery, Error, ErrorKind, GitHub, HOOK_EVENTS, Hook, HookWanted, Purpose};
use crate::model::Scope;

/// GitHub waits ten seconds for an answer and lists the attempt a moment later.
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// What was done about a scope's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Made,
    SetRight,
}

/// The state of a scope's hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No hook has our address.
    Missing,
    /// What is wrong with it, and the result of its last delivery.
    There { hook: Hook, wrong: Vec<String>, last: Option<Result<(), String>> },
}

/// The hook that `config` asks for, with this address.
pub fn wanted(config: &Config, url: &str) -> HookWanted {
    let insecure = url.starts_with("https:") && config.web_tls == WebTls::SelfSigned;
    HookWanted { url: url.to_owned(), secret: config.hooksecret.clone(), insecure }
}

/// Creates or corrects the hook; returns its id.
///
/// # Errors
/// As for every call, and for enterprises.
pub fn install(github: &GitHub, scope: &Scope, wanted: &HookWanted) -> Result<(u64, Done), Error> {
    match hook_plan(&github.hooks(scope)?, &wanted.url) {
        HookPlan::Create => Ok((github.create_hook(scope, wanted)?.id, Done::Made)),
        HookPlan::Update { id, twins } => {
            github.update_hook(scope, id, wanted)?;
            for twin in twins {
                github.delete_hook(scope, twin)?;
            }
            Ok((id, Done::SetRight))
        }
    }
}

/// Has GitHub ping the hook and waits for the result. The inner `Err` says why GitHub cannot reach us.
///
/// # Errors
/// As for every call; [`ErrorKind::Timeout`] where GitHub lists no result in time.
pub fn ping(github: &GitHub, scope: &Scope, hook: u64, url: &str) -> Result<Result<(), String>, Error> {
    let newest = |purpose| github.deliveries(scope, hook, purpose, |_| false);
    let before = newest(Purpose::Ask)?.first().map_or(0, |one| one.id);
    github.ping_hook(scope, hook)?;
    let deadline = Instant::now() + PING_PATIENCE;
    let mut pause = Duration::from_millis(100);
    loop {
        let found = newest(Purpose::Ask)?.into_iter().find(|one| one.event == "ping" && one.id > before);
        if let Some(found) = found {
            return Ok(outcome(&found, url));
        }
        if Instant::now() >= deadline {
            let tried = format!("hear of the ping of the webhook {hook} of {scope}");
            return Err(Error::new(tried, ErrorKind::Timeout, "GitHub does not list it yet"));
        }
        // GitHub shows the result only in a listing.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn outcome(delivery: &Delivery, url: &str) -> Result<(), String> {
    unreachable(delivery, url).map_or(Ok(()), Err)
}

/// The state of the scope's hook, and the addresses of other lxdrunners' hooks.
///
/// # Errors
/// As for every call, and for enterprises.
pub fn status(github: &GitHub, scope: &Scope, wanted: &HookWanted) -> Result<(State, Vec<String>), Error> {
    let hooks = github.hooks(scope)?;
    let others = other_hooks(&hooks, &wanted.url).into_iter().map(|hook| hook.url.clone()).collect();
    let own = own_hooks(&hooks, &wanted.url);
    let Some((hook, twins)) = own.split_first() else { return Ok((State::Missing, others)) };
    let mut wrong = differences(hook, wanted);
    if !twins.is_empty() {
        wrong.push(format!("there are {} of it", twins.len() + 1));
    }
    let newest = github.deliveries(scope, hook.id, Purpose::Ask, |_| false)?;
    let last = newest.first().map(|one| outcome(one, &wanted.url));
    Ok((State::There { hook: (*hook).clone(), wrong, last }, others))
}

/// What differs from the wanted hook. GitHub does not show the secret.
fn differences(hook: &Hook, wanted: &HookWanted) -> Vec<String> {
    let mut wrong = Vec::new();
    if hook.url != wanted.url {
        wrong.push(format!("its address is {}", hook.url));
    }
    if hook.content_type != "json" {
        wrong.push(format!("its content type is {:?}, not json", hook.content_type));
    }
    if hook.insecure != wanted.insecure {
        wrong.push(format!("it {} certificates", if hook.insecure { "does not look at" } else { "looks at" }));
    }
    for event in HOOK_EVENTS.iter().filter(|event| !hook.events.iter().any(|own| own == *event || own == "*")) {
        wrong.push(format!("it does not send {event}"));
    }
    if !hook.active {
        wrong.push("it is switched off".to_owned());
    }
    wrong
}

/// Removes the hooks with our address; returns their number.
///
/// # Errors
/// As for every call, and for enterprises.
pub fn remove(github: &GitHub, scope: &Scope, url: &str) -> Result<usize, Error> {
    let hooks = github.hooks(scope)?;
    let own = own_hooks(&hooks, url);
    for hook in &own {
        github.delete_hook(scope, hook.id)?;
    }
    Ok(own.len())
}
