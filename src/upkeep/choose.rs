//! Decides what to do about webhooks, lost deliveries and placeholders. **Pure.**

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::Class;
use crate::github::{Delivery, Hook};
use crate::model::{Runner, RunnerId, Timestamp};

/// GitHub keeps a job queued for a day: older deliveries are useless.
pub const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// A placeholder is replaced after this long; GitHub drops one that never connects after a day.
const PLACEHOLDER_AGE: u64 = 12 * 3600;
/// The prefix of placeholders' names; the planner never removes such names.
const PLACEHOLDER: &str = "placeholder-";

/// What to do with the hooks of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookPlan {
    Create,
    /// Correct this one and remove the others, its duplicates.
    Update {
        id: u64,
        twins: Vec<u64>,
    },
}

/// Whether a hook leads to the same host, port and path as ours.
pub fn own_hooks<'a>(hooks: &'a [Hook], url: &str) -> Vec<&'a Hook> {
    let own = place(url);
    hooks.iter().filter(|hook| own.is_some() && place(&hook.url) == own).collect()
}

/// Hooks of other lxdrunner hosts, or of this one under an earlier address.
pub fn other_hooks<'a>(hooks: &'a [Hook], url: &str) -> Vec<&'a Hook> {
    let Some(own) = place(url) else { return Vec::new() };
    let is_other = |hook: &&Hook| place(&hook.url).is_some_and(|other| other != own && other.2 == own.2);
    hooks.iter().filter(is_other).collect()
}

/// What to do so that exactly one hook is left.
pub fn hook_plan(hooks: &[Hook], url: &str) -> HookPlan {
    let own = own_hooks(hooks, url);
    match own.split_first() {
        None => HookPlan::Create,
        Some((first, twins)) => HookPlan::Update { id: first.id, twins: twins.iter().map(|hook| hook.id).collect() },
    }
}

/// Host in lower case, port unless it is the scheme's default, and path. The scheme itself does not count; the port does:
/// another daemon may listen there.
fn place(url: &str) -> Option<(String, Option<&str>, &str)> {
    let (_, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port.filter(|port| !matches!(*port, "" | "80" | "443"));
    Some((host.to_lowercase(), port, path.split('?').next().unwrap_or_default().trim_end_matches('/')))
}

/// Of deliveries listed newest first, the attempts to repeat: no attempt of the delivery arrived, nobody asked for it again
/// (`asked` since the start; GitHub's list shows earlier requests), and a repetition may help.
pub fn to_redeliver<'a>(deliveries: &'a [Delivery], asked: &BTreeSet<String>, now: Timestamp) -> Vec<&'a Delivery> {
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    for one in deliveries {
        if one.arrived() || one.redelivery {
            settled.insert(&one.guid);
        }
    }
    let mut chosen: BTreeMap<&str, &Delivery> = BTreeMap::new();
    for one in deliveries {
        let fresh = one.at.is_none_or(|at| now.since(at) < HORIZON);
        let wanted = one.event != "ping" && fresh && may_arrive_now(one.code);
        if wanted && !settled.contains(one.guid.as_str()) && !asked.contains(&one.guid) {
            chosen.insert(&one.guid, one);
        }
    }
    let mut chosen: Vec<&Delivery> = chosen.into_values().collect();
    // Oldest first.
    chosen.sort_by_key(|one| one.id);
    chosen
}

/// Whether a repetition may succeed. A delivery refused for its content would be refused again.
fn may_arrive_now(code: u16) -> bool {
    matches!(code, 0 | 408 | 429 | 500..)
}

/// Whether to read an older page of a hook's deliveries: the listing does not reach back to `since` yet, and, at the first
/// look, the last page had something to repeat.
pub fn reaches_back(listed: &[Delivery], since: Option<Timestamp>, now: Timestamp, pages: usize) -> bool {
    let Some(last) = listed.last() else { return false };
    if listed.len() >= pages * 100 {
        return false;
    }
    let page = listed.get(listed.len().saturating_sub(100)..).unwrap_or(listed);
    let at = last.at.unwrap_or(now);
    match since {
        Some(since) => at > since,
        None => now.since(at) < HORIZON && page.iter().any(|one| !one.arrived()),
    }
}

/// Why GitHub cannot reach us, in one line with the fix; `None` where it can.
pub fn unreachable(delivery: &Delivery, url: &str) -> Option<String> {
    let status = &delivery.status;
    let fix = match delivery.code {
        200..300 => return None,
        401 => {
            let why = "the secret of the webhook is not hooksecret (our own answer was 401)";
            return Some(format!("{why}: lxdrunner hooks install sets it right"));
        }
        0 => "does its name lead here, does the firewall let GitHub in, does something listen there?",
        404 | 405 => {
            "something else listens there: does the address end with /hooks/lxdrunner, does the proxy pass it on?"
        }
        502..=504 => {
            "a proxy is there, but not lxdrunner behind it: is it running, and is the proxy's backend its web_port?"
        }
        _ => "see Recent Deliveries of the hook at GitHub for the whole answer",
    };
    Some(format!("GitHub cannot reach {url}: {status}; {fix}"))
}

/// What to do so that each class has one fresh placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholders {
    /// Missing names, and their classes' places in the config.
    pub register: Vec<(String, usize)>,
    /// Placeholders that are too old.
    pub remove: Vec<RunnerId>,
}

/// The name of a class's placeholder at this time. Its last part counts half days: every daemon that serves the same labels
/// computes the same name, and the new placeholder exists before the old one is removed.
pub fn placeholder_name(class: &Class, now: Timestamp) -> String {
    format!("{}-{}", family(class), now.0 / 1000 / PLACEHOLDER_AGE)
}

/// The start of the names of a class's placeholders.
fn family(class: &Class) -> String {
    let sum = Sha256::digest(format!("{}\n{}", class.labels, class.runner_group).as_bytes());
    let sum: String = sum.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{PLACEHOLDER}x{sum}")
}

/// Whether it is a placeholder, of any daemon.
pub fn is_placeholder(name: &str) -> bool {
    let parts = name.strip_prefix(PLACEHOLDER).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(sum, age)| {
        sum.len() == 9 && sum.starts_with('x') && !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Missing and old placeholders of one scope. `runners` are all runners registered there.
pub fn placeholders(classes: &[Class], runners: &[Runner], now: Timestamp) -> Placeholders {
    let mut plan = Placeholders::default();
    for (place, class) in classes.iter().enumerate() {
        let name = placeholder_name(class, now);
        let is = |runner: &Runner, name: &str| runner.name.eq_ignore_ascii_case(name);
        if !runners.iter().any(|runner| is(runner, &name)) {
            plan.register.push((name, place));
            // The old one stays until the new one is there.
            continue;
        }
        let start = format!("{}-", family(class));
        let over = runners.iter().filter(|runner| {
            let age = runner.name.strip_prefix(&start).and_then(|age| age.parse::<u64>().ok());
            age.is_some_and(|age| age < now.0 / 1000 / PLACEHOLDER_AGE) && !runner.online && !runner.busy
        });
        plan.remove.extend(over.map(|runner| runner.id));
    }
    plan
}

#[cfg(test)]
mod tests;
