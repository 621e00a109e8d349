//! What is kept ready for jobs that have not come yet: templates, standbys, idle runners. All of it comes after the jobs
//! that wait, takes only places that they leave free, and goes where one of them needs its place.

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::launch::{Crowded, as_template, copy_or_image, full, launched, names_in_use};
use super::stock::Stock;
use super::{Group, LAUNCHES_AT_ONCE, Plan};
use crate::config::{Class, Config};
use crate::model::{Phase, Timestamp};
use crate::world::{
    Action, Blame, ImageSeen, Instance, Origin, RemoveReason, RunnerState, World, nth_random, random_name,
    template_name,
};

/// Standbys that are prepared at once: launches are not to be slowed down by them.
const PREPARED_AT_ONCE: usize = 2;
/// A runner that is idle for no longer may be getting a job at this moment.
const SETTLED: Duration = Duration::from_secs(30);

/// Numbers the names that are not for a job.
struct Names<'a> {
    world: &'a World,
    prefix: &'a str,
    next: u64,
    taken: std::collections::BTreeSet<&'a str>,
}

impl Names<'_> {
    fn give(&mut self, kind: &str) -> String {
        loop {
            let name = random_name(self.prefix, kind, nth_random(self.world.seed, self.next));
            self.next += 1;
            if !self.taken.contains(name.as_str()) {
                return name;
            }
        }
    }
}

/// Plans all of it.
pub(super) fn keep_ready<'a>(
    world: &'a World,
    config: &'a Config,
    queued: &BTreeMap<Group<'a>, usize>,
    crowded: &Crowded,
    stock: &mut Stock<'a>,
    now: Timestamp,
    plan: &mut Plan,
) {
    make_room(world, config, queued, crowded, stock, now, plan);
    let mut names = None;
    idle_runners(world, config, queued, crowded, stock, now, plan, &mut names);
    standbys(world, config, crowded, stock, now, plan, &mut names);
    bake(world, config, crowded, stock, now, plan);
}

fn paused(world: &World, blame: Blame, now: Timestamp, plan: &mut Plan) -> bool {
    match world.pauses.get(&blame).filter(|pause| pause.until > now) {
        Some(pause) => {
            plan.wake(pause.until);
            true
        }
        None => false,
    }
}

/// True where an instance more would go beyond a cap. Jobs do not ask this: a template that is being baked keeps none of
/// them waiting, though the host carries one instance more meanwhile.
fn no_place(config: &Config, stock: &Stock, at: usize, class: &Class) -> bool {
    stock.total + stock.bakes >= config.max_workers
        || stock.classes.get(at).is_none_or(|c| c.total + c.bakes >= class.max_workers)
}

fn names<'n, 'a>(world: &'a World, config: &'a Config, names: &'n mut Option<Names<'a>>) -> &'n mut Names<'a> {
    names.get_or_insert_with(|| Names {
        world,
        prefix: &config.prefix,
        next: world.names_given,
        taken: names_in_use(world),
    })
}

#[allow(clippy::too_many_arguments, reason = "the planner's own working set")]
fn idle_runners<'a>(
    world: &'a World,
    config: &'a Config,
    queued: &BTreeMap<Group<'a>, usize>,
    crowded: &Crowded,
    stock: &mut Stock<'a>,
    now: Timestamp,
    plan: &mut Plan,
    given: &mut Option<Names<'a>>,
) {
    for (at, class) in config.classes.iter().enumerate().filter(|(_, class)| class.idle > 0) {
        let all_hands = crowded.host > 0 || crowded.waiting.contains(&at);
        if all_hands || paused(world, Blame::Idle(class.name.clone()), now, plan) {
            continue;
        }
        for scope in world.targets.iter().flatten() {
            let group = (scope, at);
            if !super::remove::runners_known(world, scope) || paused(world, Blame::Scope(scope.clone()), now, plan) {
                continue;
            }
            let wanted = queued.get(&group).copied().unwrap_or(0) + class.idle;
            while stock.supply.get(&group).copied().unwrap_or(0) < wanted {
                let Some(from) = copy_or_image(world, stock, at, class, now) else { break };
                if full(world, config, stock, group, class, Some(&from)).is_some() {
                    break;
                }
                let name = names(world, config, given).give("idle");
                plan.actions.push(Action::Launch { job: None, class: at, scope: scope.clone(), name, from });
                stock.place(at);
                launched(stock, group);
            }
        }
    }
}

fn standbys<'a>(
    world: &'a World,
    config: &'a Config,
    crowded: &Crowded,
    stock: &mut Stock<'a>,
    now: Timestamp,
    plan: &mut Plan,
    given: &mut Option<Names<'a>>,
) {
    // A claim takes tens of milliseconds, and several times that beside a copy that is being made: the refill comes after.
    let is_claim = |action: &Action| matches!(action, Action::Launch { from: Origin::Standby { .. }, .. });
    if world.flights.values().chain(&plan.actions).any(is_claim) {
        return;
    }
    for (at, class) in config.classes.iter().enumerate().filter(|(_, class)| class.standby > 0) {
        let Some(template) = stock.classes.get(at).and_then(|c| c.template) else { continue };
        let Some(recipe) = &template.seen.recipe else { continue };
        if crowded.host > 0 || crowded.waiting.contains(&at) {
            continue;
        }
        let blames = [Blame::Standby(class.name.clone()), Blame::Template(class.name.clone())];
        if blames.into_iter().any(|blame| paused(world, blame, now, plan)) {
            continue;
        }
        while stock.classes.get(at).is_some_and(|c| c.kept < class.standby) {
            let busy = stock.preparing >= PREPARED_AT_ONCE || stock.launching + stock.preparing >= LAUNCHES_AT_ONCE;
            if busy || no_place(config, stock, at, class) {
                break;
            }
            let name = names(world, config, given).give("standby");
            let (template, recipe) = (as_template(template), recipe.clone());
            plan.actions.push(Action::PrepareStandby { class: at, name, template, recipe });
            stock.place(at);
            stock.preparing += 1;
            if let Some(stocked) = stock.classes.get_mut(at) {
                stocked.kept += 1;
                stocked.preparing += 1;
            }
        }
    }
}

/// One template at a time, and none while a job of its class waits.
fn bake(world: &World, config: &Config, crowded: &Crowded, stock: &mut Stock, now: Timestamp, plan: &mut Plan) {
    if stock.baking || crowded.host > 0 {
        return;
    }
    for (at, class) in config.classes.iter().enumerate().filter(|(_, class)| class.template) {
        let Some(state) = world.templates.get(at) else { continue };
        let unfetched = state.image == ImageSeen::Unfetched;
        let recipe = state.wanted.as_ref();
        let made = |i: &Instance| i.seen.phase == Phase::Template && i.seen.recipe.as_ref() == recipe;
        let ready = stock.classes.get(at).and_then(|c| c.template).is_some_and(made);
        let (true, false) = (unfetched || recipe.is_some(), ready || crowded.waiting.contains(&at)) else { continue };
        let blames = [Blame::Host, Blame::Bake(class.name.clone()), Blame::Class(class.name.clone())];
        if blames.into_iter().any(|blame| paused(world, blame, now, plan)) {
            continue;
        }
        if unfetched {
            plan.actions.push(Action::FetchImage { class: at });
            return;
        }
        let (Some(recipe), ImageSeen::Known(fingerprint)) = (recipe, &state.image) else { continue };
        let name = template_name(&config.prefix, class, recipe);
        // Somebody bakes it, or it is on its way out.
        let there = world.instances.values().any(|i| i.label() == name) || stock.in_flight.contains_key(name.as_str());
        let stood_back = world.taken.get(&name).is_some_and(|at| now.since(*at) < SETTLED);
        if there || stood_back || no_place(config, stock, at, class) {
            continue;
        }
        let (fingerprint, recipe) = (fingerprint.clone(), recipe.clone());
        plan.actions.push(Action::Bake { class: at, name, fingerprint, recipe, form: state.form });
        stock.bakes(Some(at));
        return;
    }
}

/// Where jobs wait for want of a place, what only waits for other jobs goes.
fn make_room<'a>(
    world: &'a World,
    config: &'a Config,
    queued: &BTreeMap<Group<'a>, usize>,
    crowded: &Crowded,
    stock: &mut Stock<'a>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut host = crowded.host.saturating_sub(stock.making_room);
    let mut classes = crowded.classes.clone();
    if host == 0 && classes.is_empty() {
        return;
    }
    let planned: std::collections::BTreeSet<String> =
        plan.actions.iter().filter_map(|a| a.instance().map(str::to_owned)).collect();
    let mut spare: BTreeMap<Group<'_>, usize> = BTreeMap::new();
    for (group, supply) in &stock.supply {
        spare.insert(*group, supply.saturating_sub(queued.get(group).copied().unwrap_or(0)));
    }
    for instance in world.instances.values() {
        let name = instance.seen.name.as_str();
        if stock.in_flight.contains_key(name) || planned.contains(name) || instance.leave_until.is_some_and(|t| t > now)
        {
            continue;
        }
        let class = super::stock::class_index(config, &instance.seen.class);
        let helps_class = class.and_then(|at| classes.get(&at)).is_some_and(|n| *n > 0);
        if host == 0 && !helps_class {
            continue;
        }
        let goes = match (instance.seen.phase, instance.runner) {
            (Phase::Standby, _) => true,
            (Phase::Started, RunnerState::Idle(since)) => {
                let scope = instance.seen.scope.as_ref().filter(|scope| super::remove::runners_known(world, scope));
                let group = scope.zip(class);
                let left = group.and_then(|group| spare.get_mut(&group)).filter(|left| **left > 0);
                match left {
                    Some(left) if now.since(since) > SETTLED => {
                        *left -= 1;
                        true
                    }
                    Some(_) => {
                        plan.wake(since.after(SETTLED));
                        false
                    }
                    None => false,
                }
            }
            _ => false,
        };
        if !goes {
            continue;
        }
        host = host.saturating_sub(1);
        if let Some(wanted) = class.and_then(|at| classes.get_mut(&at)) {
            *wanted = wanted.saturating_sub(1);
        }
        plan.actions.push(super::remove::removal(instance, RemoveReason::MakesRoom));
        // The planner's own count: nothing else is to be removed for the same place.
        stock.making_room += 1;
    }
}
