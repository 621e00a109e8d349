//! Which jobs get an instance now, and what it comes from.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::stock::{Demand, HANDOVER, Stock};
use super::{Group, LAUNCHES_AT_ONCE, Plan, Reason};
use crate::config::{Class, Config};
use crate::model::{Scope, Timestamp};
use crate::world::{Action, Flight, Instance, JobState, Origin, Subject, Template, World, instance_name};

/// Jobs that nothing can be launched for because there is no place: something that only waits may go.
#[derive(Default)]
pub(super) struct Crowded {
    /// For want of a place on the host.
    pub host: usize,
    /// For want of a place in a class.
    pub classes: BTreeMap<usize, usize>,
    /// Jobs of these classes wait, for whatever reason.
    pub waiting: BTreeSet<usize>,
}

/// Why nothing at all may be launched of this scope and class now.
fn obstacle(world: &World, config: &Config, stock: &Stock, group: Group<'_>, now: Timestamp) -> Option<Reason> {
    if !matches!(world.lxd, Some(Ok(_))) {
        return Some(Reason::LxdUnknown);
    }
    let class = config.classes.get(group.1)?;
    let paused = |blame: Subject| Reason::paused(world, blame, now);
    let from = origin(world, stock, group.1, class, now);
    if let Some(reason) = needs(group.0, class, from.as_ref()).into_iter().find_map(paused) {
        return Some(reason);
    }
    if from.is_some() {
        return None;
    }
    let of_image = [Subject::Class(class.name.clone()), Subject::Package(class.arch)];
    Some(of_image.into_iter().find_map(paused).unwrap_or(Reason::NoPackage(class.arch)))
}

/// Everything whose failures keep a launch from this origin back.
pub(super) fn needs(scope: &Scope, class: &Class, from: Option<&Origin>) -> Vec<Subject> {
    let name = || class.name.clone();
    let mut needs = vec![Subject::Host, Subject::Scope(scope.clone())];
    needs.push(match from {
        // It is there already.
        Some(Origin::Standby { .. }) => return [needs, vec![Subject::Standby(name())]].concat(),
        Some(Origin::Template(_)) => Subject::Template(name()),
        Some(Origin::Image) | None => Subject::Class(name()),
    });
    needs.extend([Subject::Storage(name()), Subject::Network(name())]);
    needs
}

/// What the next instance of the class comes from: a standby, else the template, else the image.
pub(super) fn origin(world: &World, stock: &Stock, at: usize, class: &Class, now: Timestamp) -> Option<Origin> {
    let works = |blame: Subject| world.paused(&blame, now).is_none();
    let stocked = stock.classes.get(at)?;
    if let Some(standby) = stocked.standbys.last().filter(|_| works(Subject::Standby(class.name.clone()))) {
        return Some(Origin::Standby { etag: standby.etag.clone() });
    }
    copy_or_image(world, stock, at, class, now)
}

/// The same without standbys, which are for jobs.
pub(super) fn copy_or_image(world: &World, stock: &Stock, at: usize, class: &Class, now: Timestamp) -> Option<Origin> {
    let works = |blame: Subject| world.paused(&blame, now).is_none();
    let package = world.packages.get(&class.arch).is_some_and(|p| p.version.is_some());
    // Where copies get no network, one instance from the image tells whether the template is the cause.
    let doubted = package && world.failures.is_shaky(&Subject::Network(class.name.clone()));
    let template = stock.classes.get(at)?.template;
    if let Some(template) = template.filter(|_| !doubted && works(Subject::Template(class.name.clone()))) {
        return Some(Origin::Template(as_template(template)));
    }
    (package && works(Subject::Class(class.name.clone()))).then_some(Origin::Image)
}

/// What copies are made of, of a template that is there.
pub(super) fn as_template(template: &Instance) -> Template {
    let name = template.seen.name.clone();
    if template.seen.alias.is_some() { Template::Image(name) } else { Template::Instance(name) }
}

/// Those that still want an instance in one (scope, class), the next one last.
struct Line<'a> {
    group: Group<'a>,
    jobs: Vec<&'a JobState>,
}

/// Plans the launches. `demand` is used up.
pub(super) fn launches<'a>(
    world: &'a World,
    config: &Config,
    demand: BTreeMap<Group<'a>, Demand<'a>>,
    stock: &mut Stock<'a>,
    now: Timestamp,
    plan: &mut Plan,
) -> Crowded {
    let handovers = world.instances.values().filter_map(|i| Some(i.handover_since?.after(HANDOVER)));
    handovers.filter(|end| *end > now).for_each(|end| plan.wake(end));
    let mut crowded = Crowded::default();
    let mut lines = Vec::new();
    for (group, Demand { mut jobs, .. }) in demand {
        // What is on its way counts for those that it was launched for, then for those that wait longest.
        jobs.sort_unstable_by_key(|j| (!stock.live_for.contains(&j.job.id), j.queued_at, j.job.id));
        let supply = stock.supply.get(&group).copied().unwrap_or(0);
        let covered = supply.min(jobs.len());
        plan.deferred.extend(jobs.drain(..covered).map(|j| (j.job.id, Reason::Covered)));
        jobs.sort_unstable_by_key(|j| Reverse((stock.live_for.contains(&j.job.id), j.queued_at, j.job.id)));
        if jobs.is_empty() {
            continue;
        }
        if let Some(reason) = obstacle(world, config, stock, group, now) {
            crowded.waiting.insert(group.1);
            if let Reason::Paused { until, .. } = reason {
                plan.wake(until);
            }
            plan.deferred.extend(jobs.iter().map(|j| (j.job.id, reason.clone())));
            continue;
        }
        lines.push(Line { group, jobs });
    }
    share_out(world, config, stock, lines, now, plan, &mut crowded);
    crowded
}

/// Gives the free places away: to the scope with the fewest instances first, there to the job that waits longest.
fn share_out<'a>(
    world: &World,
    config: &Config,
    stock: &mut Stock<'a>,
    mut lines: Vec<Line<'a>>,
    now: Timestamp,
    plan: &mut Plan,
    crowded: &mut Crowded,
) {
    let turn = |stock: &Stock, lines: &[Line], at: usize| {
        let line = lines.get(at)?;
        let load = stock.scope.get(line.group.0).copied().unwrap_or(0);
        let next = line.jobs.last()?;
        Some(Reverse((load, next.queued_at, next.job.id, at)))
    };
    let mut heap: BinaryHeap<_> = (0..lines.len()).filter_map(|at| turn(stock, &lines, at)).collect();
    let names = if heap.is_empty() { BTreeSet::new() } else { names_in_use(world) };
    while let Some(Reverse((load, .., at))) = heap.pop() {
        let Some(line) = lines.get_mut(at) else { continue };
        let (scope, class_at) = line.group;
        if load != stock.scope.get(scope).copied().unwrap_or(0) {
            // The scope got an instance through another of its classes meanwhile: back into the row.
            heap.extend(turn(stock, &lines, at));
            continue;
        }
        let Some(class) = config.classes.get(class_at) else { continue };
        let origin = origin(world, stock, class_at, class, now);
        let full = full(world, config, stock, line.group, class, origin.as_ref());
        let (None, Some(origin)) = (&full, origin) else {
            let reason = full.unwrap_or(Reason::NoPackage(class.arch));
            crowded.note(&reason, class_at, line.jobs.len());
            plan.deferred.extend(line.jobs.drain(..).map(|j| (j.job.id, reason.clone())));
            continue;
        };
        let Some(job) = line.jobs.pop() else { continue };
        let id = job.job.id;
        let name = match (&origin, stock.classes.get_mut(class_at)) {
            (Origin::Standby { .. }, Some(stocked)) => {
                stocked.kept = stocked.kept.saturating_sub(1);
                let standby = stocked.standbys.pop().map(|standby| standby.seen.name.as_str());
                stock.claimed.extend(standby);
                standby.map(str::to_owned)
            }
            _ => {
                let free = |name: &String| !names.contains(name.as_str());
                stock.place(class_at);
                (1..1000).map(|n| instance_name(&config.prefix, id, n)).find(free)
            }
        };
        let Some(name) = name else { continue };
        launched(stock, line.group, class, &origin);
        plan.actions.push(Action::Launch { job: Some(id), class: class_at, scope: scope.clone(), name, from: origin });
        heap.extend(turn(stock, &lines, at));
    }
}

impl Crowded {
    fn note(&mut self, reason: &Reason, class: usize, jobs: usize) {
        self.waiting.insert(class);
        match reason {
            Reason::HostFull { .. } => self.host += jobs,
            Reason::ClassFull { .. } => *self.classes.entry(class).or_default() += jobs,
            _ => {}
        }
    }
}

/// Counts a launch that was planned; its place is counted already.
pub(super) fn launched<'a>(stock: &mut Stock<'a>, group: Group<'a>, class: &Class, from: &Origin) {
    stock.launching += 1;
    stock.tried.extend(needs(group.0, class, Some(from)));
    *stock.scope.entry(group.0).or_default() += 1;
    *stock.supply.entry(group).or_default() += 1;
}

/// Why no further instance may be launched for this scope and class, by count. A standby has its place already.
pub(super) fn full(
    world: &World,
    config: &Config,
    stock: &Stock,
    (scope, at): (&Scope, usize),
    class: &Class,
    origin: Option<&Origin>,
) -> Option<Reason> {
    let stocked = stock.classes.get(at)?;
    if !matches!(origin, Some(Origin::Standby { .. })) {
        if stock.total >= config.max_workers {
            return Some(Reason::HostFull { max: config.max_workers });
        }
        if stocked.total >= class.max_workers {
            return Some(Reason::ClassFull { class: class.name.clone(), max: class.max_workers });
        }
    }
    // What failed last time is tried with one launch, not with all at once.
    let tried = |subject: &Subject| world.failures.is_shaky(subject) && stock.tried.contains(subject);
    let busy = stock.launching >= LAUNCHES_AT_ONCE || needs(scope, class, origin).iter().any(tried);
    busy.then_some(Reason::LaunchesBusy)
}

/// Every name that an instance, a launch or a registration has, or was found to have.
pub(super) fn names_in_use(world: &World) -> BTreeSet<&str> {
    let runners = world.scopes.values().filter_map(|v| v.runners.as_ref()).flatten().map(|r| r.name.as_str());
    let flights = world.flights.keys().filter_map(|flight| match flight {
        Flight::Instance(name) => Some(name.as_str()),
        _ => None,
    });
    let known = world.instances.keys().chain(world.taken.keys()).map(String::as_str);
    known.chain(runners).chain(flights).collect()
}
