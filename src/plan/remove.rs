//! Which instances and registrations go now. Nothing goes on a guess: where GitHub or LXD could not be asked, what
//! they would have said is unknown, and the thing stays.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::census::{Group, has_shape, is_broken, is_supply};
use super::{Planner, REMOVALS_AT_ONCE};
use crate::identity::Maker;
use crate::model::{ClassId, InstanceStatus, PerClass, Phase, Scope, Timestamp};
use crate::world::{
    Action, Entry, Flight, Instance, Judged, NameKind, RemoveReason, RunnerState, Subject, World, parse_name,
};

/// An instance whose runner is done powers itself off; it is given this long.
const POWER_OFF: Duration = Duration::from_secs(60);
/// LXD deletes an ephemeral instance by itself when it stops; it is given this long.
const SELF_DELETION: Duration = Duration::from_secs(5);

/// Counters of one plan's removals, decremented instance by instance.
struct Budget<'a, 's> {
    planner: &'s mut Planner<'a>,
    /// For each (scope, class): runners on their way or idle beyond the queue and those that are kept.
    surplus: BTreeMap<Group<'a>, usize>,
    /// For each (scope, class): false once one was replaced for its age, or while one is on its way.
    may_refresh: BTreeMap<Group<'a>, bool>,
    /// By class: standbys that are kept still, and whether one may be replaced.
    standbys: PerClass<(usize, bool)>,
}

impl<'a> Planner<'a> {
    /// Plans the removals, those that are done first; no more than so many are under way.
    pub(super) fn removals(&mut self) {
        let (world, config, now) = (self.world, self.config, self.now);
        let surplus =
            self.spare().into_iter().map(|(group, spare)| (group, spare.saturating_sub(config.class(group.1).idle)));
        let surplus = surplus.collect();
        let refresh = |(group, coming): (&Group<'a>, &usize)| (*group, *coming == 0);
        let may_refresh = self.census.coming.iter().map(refresh).collect();
        let standbys = self.census.classes.iter().map(|class| (class.kept, class.preparing == 0)).collect();
        let mut budget = Budget { planner: self, surplus, may_refresh, standbys };
        // Those that are done go first, then the one that is idle longest.
        let mut in_order: Vec<&Instance> = world.instances.values().collect();
        in_order.sort_by_key(|i| match i.runner {
            RunnerState::Idle(since) => (1, since),
            _ => (0, i.made_at),
        });
        for instance in in_order {
            let name = instance.seen.name.as_str();
            if budget.planner.census.in_flight.contains_key(name) || budget.planner.census.claimed.contains(name) {
                continue;
            }
            if let Some(until) = world.left_alone_until(instance, now) {
                budget.planner.plan.wake(until);
                continue;
            }
            if let Some(vanished) =
                instance.stopped_since.map(|since| since.after(SELF_DELETION)).filter(|at| *at > now)
            {
                budget.planner.plan.wake(vanished);
            }
            let Some(reason) = budget.reason(instance) else { continue };
            if budget.planner.census.removing >= REMOVALS_AT_ONCE {
                // The end of one that is under way is an event.
                break;
            }
            budget.planner.census.removes(instance, config.class_named(&instance.seen.class));
            budget.planner.plan.actions.push(removal(instance, reason));
        }
    }

    /// Offline registrations with a name that only we give and without an instance. Another host with our prefix may be
    /// bringing its instance up, so such a one goes only after it was offline for as long as that may take.
    pub(super) fn deregistrations(&self) -> Vec<Action> {
        let (world, config) = (self.world, self.config);
        let mut actions = Vec::new();
        for (scope, view) in &world.scopes {
            for runner in view.runners.iter().flatten().filter(|r| !r.online && !r.busy) {
                let name = &runner.name;
                // Two listings must agree: a runner that was offline in the last one may have connected since.
                let listed = view.listed_at.unwrap_or_default();
                let dead =
                    view.offline_since.get(&runner.id).is_some_and(|at| listed.since(*at) > config.provision_timeout);
                let ours = parse_name(&config.prefix, name).is_some_and(|named| named != NameKind::Template);
                if !dead || !ours || world.instances.contains_key(name) {
                    continue;
                }
                let busy = world.flights.contains_key(&Flight::Instance(name.clone()))
                    || world.flights.contains_key(&Flight::Runner(scope.clone(), runner.id));
                if !busy {
                    actions.push(Action::Deregister { scope: scope.clone(), runner: runner.id, name: name.clone() });
                }
            }
        }
        actions
    }
}

/// The action that removes an instance, or an image that is a template.
pub(super) fn removal(instance: &Instance, reason: RemoveReason) -> Action {
    let seen = &instance.seen;
    if let Some(alias) = seen.alias.clone() {
        let (fingerprint, project) = (seen.name.clone(), seen.project.clone());
        return Action::RemoveImage { fingerprint, project, alias, reason };
    }
    let (scope, runner, made_at) = (seen.scope.clone(), seen.runner_id, seen.created_at);
    let judged = Judged {
        reason,
        scope,
        runner,
        made_at,
        maker: seen.maker,
        standby: seen.recipe.is_some(),
        over: instance.job_is_over,
    };
    Action::Remove { name: seen.name.clone(), project: seen.project.clone(), judged }
}

/// True where the last listing of the scope's runners was a good one.
pub(super) fn runners_known(world: &World, scope: &Scope) -> bool {
    world.scopes.get(scope).is_some_and(|view| view.runners.is_some())
}

impl<'a> Budget<'a, '_> {
    fn reason(&mut self, instance: &'a Instance) -> Option<RemoveReason> {
        let (config, now) = (self.planner.config, self.planner.now);
        // Another living daemon may have other timeouts, and applies them itself. Any daemon may remove a finished instance.
        let anothers = instance.is_anothers();
        let age = now.since(instance.made_at);
        if age > config.max_lifetime && instance.seen.phase != Phase::Template && !anothers {
            return Some(RemoveReason::TooOld);
        }
        let scope = instance.seen.scope.as_ref();
        let runners_known = scope.is_none_or(|s| runners_known(self.planner.world, s));
        // Its runner never was there, or is not any more.
        let alone = match instance.runner {
            RunnerState::Awaited => true,
            RunnerState::Done(since) => now.since(since) > POWER_OFF,
            RunnerState::Busy | RunnerState::Idle(_) => false,
        };
        let stopped = instance.stopped_since.is_some_and(|since| now.since(since) >= SELF_DELETION);
        match instance.seen.phase {
            Phase::Template => self.template(instance),
            Phase::Standby if instance.is_anothers() => None,
            Phase::Standby => self.standby(instance),
            Phase::Provisioning | Phase::Baking | Phase::Preparing => match instance.seen.maker {
                Maker::Us => Some(RemoveReason::Abandoned),
                Maker::Dead if alone && runners_known => Some(RemoveReason::Abandoned),
                // Another daemon with our prefix may be at it, with a longer deadline than ours.
                Maker::Unknown if alone && runners_known => {
                    let had = now.since(instance.begun_at);
                    (had > config.provision_timeout * 2).then_some(RemoveReason::Abandoned)
                }
                _ => None,
            },
            Phase::Started if instance.seen.status == InstanceStatus::Stopped => {
                stopped.then_some(RemoveReason::Finished)
            }
            Phase::Started => match instance.runner {
                RunnerState::Busy => None,
                RunnerState::Done(since) => {
                    // Perhaps an earlier runner of its name is done: its own has as long to be listed as any other.
                    let after = if instance.may_be_misnamed() { config.provision_timeout } else { POWER_OFF };
                    (now.since(since) > after).then_some(RemoveReason::Finished)
                }
                RunnerState::Awaited | RunnerState::Idle(_) if anothers => None,
                RunnerState::Awaited => {
                    // One that was online is given as long to come back.
                    let view = scope.and_then(|s| self.planner.world.scopes.get(s));
                    let offline = view.zip(instance.seen.runner_id);
                    let offline = offline.and_then(|(v, id)| v.offline_since.get(&id).copied());
                    let since = instance.started_at.unwrap_or(instance.first_seen);
                    let waited = now.since(offline.map_or(since, |at| at.max(since)));
                    (runners_known && waited > config.provision_timeout).then_some(RemoveReason::NeverOnline)
                }
                RunnerState::Idle(_) if !runners_known => None,
                RunnerState::Idle(since) => self.idle(instance, scope?, since),
            },
        }
    }

    fn idle(&mut self, instance: &'a Instance, scope: &'a Scope, since: Timestamp) -> Option<RemoveReason> {
        let (config, now) = (self.planner.config, self.planner.now);
        let class = config.class_named(&instance.seen.class);
        if !is_supply(instance, None, config, now) {
            return None;
        }
        let Some(class) = class else {
            // Its class left the config: no job will be counted for it.
            return (now.since(since) > config.idle_timeout).then_some(RemoveReason::Idle);
        };
        let group = (scope, class);
        if self.planner.queued.contains_key(&group) && self.is_to_be_replaced(scope, class, since) {
            return Some(RemoveReason::Unassigned);
        }
        let left = self.surplus.get_mut(&group).filter(|left| **left > 0);
        if let Some(left) = left.filter(|_| now.since(since) > config.idle_timeout) {
            *left -= 1;
            return Some(RemoveReason::Idle);
        }
        let kept = config.class(class).idle > 0;
        let may = self.may_refresh.get_mut(&group).filter(|may| **may)?;
        if !kept || now.since(since) <= config.ready_max_age {
            return None;
        }
        *may = false;
        Some(RemoveReason::Stale)
    }

    /// True where GitHub gave the runner no job: it is replaced once, in case that the runner itself is the cause.
    fn is_to_be_replaced(&self, scope: &Scope, class: ClassId, since: Timestamp) -> bool {
        let class = self.planner.config.class(class).name.clone();
        let entry = self.planner.world.failures.get(&Subject::Assignment(scope.clone(), class));
        let was_there = |entry: &Entry| entry.since.since(since) > self.planner.config.idle_timeout;
        entry.is_some_and(|entry| entry.failures == 1 && was_there(entry))
    }

    fn template(&self, instance: &Instance) -> Option<RemoveReason> {
        if self.planner.census.copied.contains(instance.seen.name.as_str()) || instance.is_anothers() {
            return None;
        }
        let class = self.planner.config.class_named(&instance.seen.class);
        let Some(id) = class.filter(|id| has_shape(self.planner.world, *id, instance)) else {
            // Most likely it was baked for a config that a daemon is about to start with; that daemon decides.
            let baked_for_another = instance.appeared && instance.seen.maker == Maker::Dead;
            return (!baked_for_another).then_some(RemoveReason::Superseded);
        };
        let class = self.planner.config.class(id);
        if !class.template || instance.seen.project != class.project {
            return Some(RemoveReason::Superseded);
        }
        if is_broken(self.planner.world, class) || instance.seen.status == InstanceStatus::Running {
            return Some(RemoveReason::Broken);
        }
        // The one that is used now stays until its successor is there.
        let used = self.planner.census.classes[id].template?;
        (used.seen.name != instance.seen.name).then_some(RemoveReason::Superseded)
    }

    fn standby(&mut self, instance: &Instance) -> Option<RemoveReason> {
        let Some(id) = self.planner.config.class_named(&instance.seen.class) else {
            return Some(RemoveReason::Superseded);
        };
        let class = self.planner.config.class(id);
        if !has_shape(self.planner.world, id, instance) || instance.seen.project != class.project {
            return Some(RemoveReason::Superseded);
        }
        if instance.seen.status != InstanceStatus::Frozen {
            return Some(RemoveReason::Broken);
        }
        let (kept, may_replace) = &mut self.standbys[id];
        if *kept > class.standby {
            *kept -= 1;
            return Some(RemoveReason::Superseded);
        }
        let template = self.planner.census.classes[id].template;
        let outdated = template.is_some_and(|t| t.seen.recipe != instance.seen.recipe);
        let stale = self.planner.now.since(instance.made_at) > self.planner.config.ready_max_age;
        if !*may_replace || !(outdated || stale) {
            return None;
        }
        // One after the other, so that some stay ready.
        *may_replace = false;
        *kept -= 1;
        Some(if outdated { RemoveReason::Superseded } else { RemoveReason::Stale })
    }
}
