//! Which instances and registrations go now. Nothing goes on a guess: where GitHub or LXD could not be asked, what
//! they would have said is unknown, and the thing stays.

use std::collections::BTreeMap;
use std::time::Duration;

use super::launch::{is_supply, queued, stock};
use super::{Group, Plan};
use crate::config::Config;
use crate::identity::Maker;
use crate::model::{Phase, Timestamp};
use crate::world::{Action, Flight, Instance, RemoveReason, RunnerState, Status, World, parse_name};

/// An instance whose runner is done powers itself off; it is given this long.
const POWER_OFF: Duration = Duration::from_secs(60);
/// LXD deletes an ephemeral instance by itself when it stops; it is given this long.
const SELF_DELETION: Duration = Duration::from_secs(5);

pub(super) fn removals(world: &World, config: &Config, now: Timestamp, plan: &mut Plan) {
    let mut surplus = surplus(world, config, now);
    // The one that is idle longest goes first.
    let mut by_idleness: Vec<&Instance> = world.instances.values().collect();
    by_idleness.sort_by_key(|i| match i.runner {
        RunnerState::Idle(since) => since,
        _ => now,
    });
    for instance in by_idleness {
        let name = &instance.seen.name;
        if world.flights.contains_key(&Flight::Instance(name.clone())) {
            continue;
        }
        if let Some(until) = instance.leave_until.filter(|until| *until > now) {
            plan.wake(until);
            continue;
        }
        if let Some(vanished) = instance.stopped_since.map(|since| since.after(SELF_DELETION)).filter(|at| *at > now) {
            plan.wake(vanished);
        }
        if let Some(reason) = reason(world, config, instance, &mut surplus, now) {
            plan.actions.push(Action::Remove {
                name: name.clone(),
                project: instance.seen.project.clone(),
                scope: instance.seen.scope.clone(),
                runner: instance.seen.runner_id,
                reason,
            });
        }
    }
}

/// For each (scope, class): runners on their way or idle beyond the queue.
fn surplus<'a>(world: &'a World, config: &'a Config, now: Timestamp) -> BTreeMap<Group<'a>, usize> {
    let queued = queued(world, config);
    let beyond = |(group, supply): (Group<'a>, usize)| {
        let wanted = queued.get(&group).copied().unwrap_or(0);
        (group, supply.saturating_sub(wanted))
    };
    stock(world, config, now).supply.into_iter().map(beyond).collect()
}

fn reason<'a>(
    world: &World,
    config: &Config,
    instance: &'a Instance,
    surplus: &mut BTreeMap<Group<'a>, usize>,
    now: Timestamp,
) -> Option<RemoveReason> {
    let age = now.since(instance.made_at);
    if age > config.max_lifetime {
        return Some(RemoveReason::TooOld);
    }
    let scope = instance.seen.scope.as_ref();
    let runners_known = scope.is_none_or(|s| world.scopes.get(s).is_some_and(|view| view.runners.is_some()));
    let awaited = instance.runner == RunnerState::Awaited;
    let stopped = instance.stopped_since.is_some_and(|since| now.since(since) >= SELF_DELETION);
    match instance.seen.phase {
        Phase::Provisioning => match instance.seen.maker {
            Maker::Us => Some(RemoveReason::Abandoned),
            Maker::Dead if awaited && runners_known => Some(RemoveReason::Abandoned),
            // Another daemon with our prefix may be at it, with a longer deadline than ours.
            Maker::Unknown if awaited && runners_known && age > config.provision_timeout * 2 => {
                Some(RemoveReason::Abandoned)
            }
            _ => None,
        },
        Phase::Started if instance.seen.status == Status::Stopped => stopped.then_some(RemoveReason::Finished),
        Phase::Started => match instance.runner {
            RunnerState::Busy => None,
            RunnerState::Done(since) => (now.since(since) > POWER_OFF).then_some(RemoveReason::Finished),
            RunnerState::Awaited => {
                // One that was online is given as long to come back.
                let view = scope.and_then(|s| world.scopes.get(s));
                let offline = view.zip(instance.seen.runner_id).and_then(|(v, id)| v.offline_since.get(&id).copied());
                let since = instance.started_at.unwrap_or(instance.first_seen);
                let waited = now.since(offline.map_or(since, |at| at.max(since)));
                (runners_known && waited > config.provision_timeout).then_some(RemoveReason::NeverOnline)
            }
            RunnerState::Idle(_) if !runners_known => None,
            RunnerState::Idle(since) => {
                let group = (scope?, instance.seen.class.as_str());
                let left = surplus.get_mut(&group).filter(|left| **left > 0)?;
                if now.since(since) <= config.idle_timeout || !is_supply(world, instance, config, now) {
                    return None;
                }
                *left -= 1;
                Some(RemoveReason::Idle)
            }
        },
    }
}

/// Offline registrations with a name that only we give and without an instance. Another host with our prefix may be
/// bringing its instance up, so such a one goes only after it was offline for as long as that may take.
pub(super) fn deregistrations(world: &World, config: &Config, now: Timestamp, actions: &mut Vec<Action>) {
    for (scope, view) in &world.scopes {
        for runner in view.runners.iter().flatten() {
            let name = &runner.name;
            let dead = view.offline_since.get(&runner.id).is_some_and(|at| now.since(*at) > config.provision_timeout);
            let ours = parse_name(&config.prefix, name).is_some();
            let present = world.instances.contains_key(name);
            let busy = world.flights.contains_key(&Flight::Instance(name.clone()))
                || world.flights.contains_key(&Flight::Runner(scope.clone(), runner.id));
            if dead && ours && !present && !busy && !runner.online && !runner.busy {
                actions.push(Action::Deregister { scope: scope.clone(), runner: runner.id, name: name.clone() });
            }
        }
    }
}
