//! Which jobs get an instance now.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use super::{Group, LAUNCHES_AT_ONCE, Plan, Reason};
use crate::config::Config;
use crate::identity::Maker;
use crate::model::{JobId, JobStatus, Phase, Scope, Timestamp};
use crate::world::{Action, Blame, Flight, Instance, JobState, RunnerState, Status, World, instance_name};

/// A runner that GitHub lists as busy has one of the jobs that it lists as queued, until it tells which, but no longer
/// than this.
const HANDOVER: Duration = Duration::from_secs(10);

/// What there is already.
#[derive(Default)]
pub(super) struct Stock<'a> {
    /// Runners on their way or idle.
    pub supply: BTreeMap<Group<'a>, usize>,
    /// Instances of each class, whatever they do.
    class: BTreeMap<&'a str, usize>,
    /// Instances of each scope, whatever they do.
    scope: BTreeMap<&'a Scope, usize>,
    /// All instances.
    total: usize,
    /// Launches under way, in all and of each class.
    launching: usize,
    launching_class: BTreeMap<&'a str, usize>,
    /// Jobs that an instance was launched for which may still take one.
    live_for: BTreeSet<JobId>,
}

/// True where the instance's runner will be, or is, free for a job.
pub(super) fn is_supply(world: &World, instance: &Instance, config: &Config, now: Timestamp) -> bool {
    match (world.flights.get(&Flight::Instance(instance.seen.name.clone())), instance.seen.phase) {
        (Some(Action::Launch { .. }), _) => true,
        (Some(_), _) => false,
        (None, Phase::Provisioning) => {
            let alive = instance.seen.maker == Maker::Unknown;
            alive && now.since(instance.made_at) < config.provision_timeout
        }
        (None, Phase::Started) if instance.seen.status == Status::Stopped => false,
        (None, Phase::Started) => match instance.runner {
            RunnerState::Idle(_) => true,
            RunnerState::Busy => instance.handover_since.is_some_and(|since| now.since(since) < HANDOVER),
            RunnerState::Done(_) => false,
            RunnerState::Awaited => {
                now.since(instance.started_at.unwrap_or(instance.first_seen)) < config.provision_timeout
            }
        },
    }
}

/// Counts what there is.
pub(super) fn stock<'a>(world: &'a World, config: &'a Config, now: Timestamp) -> Stock<'a> {
    let mut stock = Stock::default();
    let mut add = |scope: Option<&'a Scope>, class: &'a str, job: Option<JobId>, supply: bool| {
        stock.total += 1;
        *stock.class.entry(class).or_default() += 1;
        if let Some(scope) = scope {
            *stock.scope.entry(scope).or_default() += 1;
            if supply {
                *stock.supply.entry((scope, class)).or_default() += 1;
                stock.live_for.extend(job);
            }
        }
    };
    for instance in world.instances.values() {
        let supply = is_supply(world, instance, config, now);
        add(instance.seen.scope.as_ref(), &instance.seen.class, instance.seen.job, supply);
    }
    for action in world.flights.values() {
        if let Action::Launch { job, class, scope, name } = action {
            let class = config.classes.get(*class).map_or("", |c| c.name.as_str());
            if !world.instances.contains_key(name) {
                add(Some(scope), class, Some(*job), true);
            }
        }
    }
    for action in world.flights.values() {
        if let Action::Launch { class, .. } = action {
            stock.launching += 1;
            let class = config.classes.get(*class).map_or("", |c| c.name.as_str());
            *stock.launching_class.entry(class).or_default() += 1;
        }
    }
    stock
}

/// The queued jobs that an instance may be launched for, by scope and class; the others are deferred here.
fn demand<'a>(
    world: &'a World,
    config: &'a Config,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<(&'a Scope, usize), Vec<&'a JobState>> {
    let mut groups: BTreeMap<(&Scope, usize), Vec<&JobState>> = BTreeMap::new();
    for job in world.jobs.values().filter(|j| j.job.status == JobStatus::Queued) {
        let id = job.job.id;
        match &job.place {
            Err(refusal) => plan.deferred.push((id, Reason::Refused(refusal.clone()))),
            Ok((scope, class)) => match (job.not_before, config.classes.get(*class)) {
                (Some(until), _) if until > now => {
                    plan.deferred.push((id, Reason::HeldBack { until }));
                    plan.wake(until);
                }
                (_, Some(_)) => groups.entry((scope, *class)).or_default().push(job),
                (_, None) => {}
            },
        }
    }
    groups
}

/// How many queued jobs each (scope, class) has.
pub(super) fn queued<'a>(world: &'a World, config: &'a Config) -> BTreeMap<Group<'a>, usize> {
    let mut counts = BTreeMap::new();
    for job in world.jobs.values().filter(|j| j.job.status == JobStatus::Queued) {
        if let Some((scope, class)) = job.place.as_ref().ok().and_then(|(s, c)| Some((s, config.classes.get(*c)?))) {
            *counts.entry((scope, class.name.as_str())).or_default() += 1;
        }
    }
    counts
}

/// Why nothing at all may be launched of this scope and class now.
fn obstacle(world: &World, config: &Config, scope: &Scope, class: usize, now: Timestamp) -> Option<Reason> {
    let class = config.classes.get(class)?;
    if !matches!(world.lxd, Some(Ok(_))) {
        return Some(Reason::LxdUnknown);
    }
    let blames = [Blame::Host, Blame::Scope(scope.clone()), Blame::Class(class.name.clone())];
    for blame in blames {
        if let Some(pause) = world.pauses.get(&blame).filter(|p| p.until > now) {
            return Some(Reason::Paused { blame, reason: pause.reason.clone(), until: pause.until });
        }
    }
    if world.packages.get(&class.arch).is_none_or(|p| p.version.is_none()) {
        let blame = Blame::Package(class.arch);
        return Some(match world.pauses.get(&blame).filter(|p| p.until > now) {
            Some(pause) => Reason::Paused { blame, reason: pause.reason.clone(), until: pause.until },
            None => Reason::NoPackage(class.arch),
        });
    }
    None
}

/// Those that still want an instance in one (scope, class), the next one last.
struct Line<'a> {
    scope: &'a Scope,
    class: usize,
    jobs: Vec<&'a JobState>,
}

pub(super) fn launches(world: &World, config: &Config, now: Timestamp, plan: &mut Plan) {
    let groups = demand(world, config, now, plan);
    let handovers = world.instances.values().filter_map(|i| Some(i.handover_since?.after(HANDOVER)));
    handovers.filter(|end| *end > now).for_each(|end| plan.wake(end));
    let mut stock = stock(world, config, now);
    let mut lines = Vec::new();
    for ((scope, class), mut jobs) in groups {
        let Some(class_config) = config.classes.get(class) else { continue };
        let supply = stock.supply.get(&(scope, class_config.name.as_str())).copied().unwrap_or(0);
        // What is on its way counts for those that it was launched for, then for those that wait longest.
        jobs.sort_by_key(|j| (!stock.live_for.contains(&j.job.id), j.queued_at, j.job.id));
        let covered = supply.min(jobs.len());
        plan.deferred.extend(jobs.drain(..covered).map(|j| (j.job.id, Reason::Covered)));
        jobs.sort_by_key(|j| Reverse((stock.live_for.contains(&j.job.id), j.queued_at, j.job.id)));
        if jobs.is_empty() {
            continue;
        }
        if let Some(reason) = obstacle(world, config, scope, class, now) {
            if let Reason::Paused { until, .. } = reason {
                plan.wake(until);
            }
            plan.deferred.extend(jobs.iter().map(|j| (j.job.id, reason.clone())));
            continue;
        }
        lines.push(Line { scope, class, jobs });
    }
    share_out(world, config, &mut stock, lines, plan);
}

/// Gives the free places away: to the scope with the fewest instances first, there to the job that waits longest.
fn share_out<'a>(world: &World, config: &'a Config, stock: &mut Stock<'a>, mut lines: Vec<Line<'a>>, plan: &mut Plan) {
    let names = names_in_use(world);
    let turn = |stock: &Stock, lines: &[Line], at: usize| {
        let line = lines.get(at)?;
        let load = stock.scope.get(line.scope).copied().unwrap_or(0);
        let next = line.jobs.last()?;
        Some(Reverse((load, next.queued_at, next.job.id, at)))
    };
    let mut heap: BinaryHeap<_> = (0..lines.len()).filter_map(|at| turn(stock, &lines, at)).collect();
    while let Some(Reverse((load, .., at))) = heap.pop() {
        let Some(line) = lines.get_mut(at) else { continue };
        if load != stock.scope.get(line.scope).copied().unwrap_or(0) {
            // The scope got an instance through another of its classes meanwhile: back into the row.
            heap.extend(turn(stock, &lines, at));
            continue;
        }
        let Some(class) = config.classes.get(line.class) else { continue };
        if let Some(reason) = full(world, config, stock, line.scope, class) {
            plan.deferred.extend(line.jobs.drain(..).map(|j| (j.job.id, reason.clone())));
            continue;
        }
        let Some(job) = line.jobs.pop() else { continue };
        let id = job.job.id;
        let free = |name: &String| !names.contains(name.as_str());
        let Some(name) = (1..1000).map(|n| instance_name(&config.prefix, id, n)).find(free) else { continue };
        plan.actions.push(Action::Launch { job: id, class: line.class, scope: line.scope.clone(), name });
        stock.total += 1;
        stock.launching += 1;
        *stock.class.entry(&class.name).or_default() += 1;
        *stock.launching_class.entry(&class.name).or_default() += 1;
        *stock.scope.entry(line.scope).or_default() += 1;
        heap.extend(turn(stock, &lines, at));
    }
}

/// Why no further instance may be launched for this scope and class, by count.
fn full(world: &World, config: &Config, stock: &Stock, scope: &Scope, class: &crate::config::Class) -> Option<Reason> {
    let count = |map: &BTreeMap<&str, usize>| map.get(class.name.as_str()).copied().unwrap_or(0);
    if stock.total >= config.max_workers {
        return Some(Reason::HostFull { max: config.max_workers });
    }
    if count(&stock.class) >= class.max_workers {
        return Some(Reason::ClassFull { class: class.name.clone(), max: class.max_workers });
    }
    // What failed last time is tried with one launch, not with all at once.
    let blames = [Blame::Host, Blame::Scope(scope.clone()), Blame::Class(class.name.clone())];
    let shaky = blames.iter().any(|blame| world.pauses.contains_key(blame));
    let busy = stock.launching >= LAUNCHES_AT_ONCE || (shaky && count(&stock.launching_class) >= 1);
    busy.then_some(Reason::LaunchesBusy)
}

/// Every name that an instance, a launch or a registration has, or was found to have.
fn names_in_use(world: &World) -> BTreeSet<&str> {
    let runners = world.scopes.values().filter_map(|v| v.runners.as_ref()).flatten().map(|r| r.name.as_str());
    let flights = world.flights.values().filter_map(|action| match action {
        Action::Launch { name, .. } | Action::Remove { name, .. } => Some(name.as_str()),
        _ => None,
    });
    let known = world.instances.keys().chain(world.taken.keys()).map(String::as_str);
    known.chain(runners).chain(flights).collect()
}
