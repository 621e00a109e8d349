//! Counts instances and actions, once per plan. All decisions use these counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Class, Config};
use crate::identity::Maker;
use crate::model::{ClassId, InstanceStatus, JobId, PerClass, Phase, Scope, Timestamp};
use crate::world::{Action, Instance, Launch, LaunchSource, RunnerState, Subject, World};

/// Launches under way at once; more would only make each of them slower.
pub const LAUNCHES_AT_ONCE: usize = 8;
/// Finished instances that await deletion do not count against `max_workers`, up to one for so many: the next job waits for
/// no deletion. Beyond that they count, so that an LXD that deletes nothing does not fill the disk.
const LEAVING_SHARE: usize = 4;
const LEAVING_LEAST: usize = 2;
/// A runner that GitHub lists as busy has one of the jobs that it lists as queued, until it tells which, but no longer
/// than this.
pub(super) const HANDOVER: Duration = Duration::from_secs(10);
/// Counts of instances and actions under way.
pub(crate) struct Census<'a> {
    config: &'a Config,
    /// Runners on their way or idle.
    pub supply: BTreeMap<Group<'a>, usize>,
    /// Of these, the ones that are on their way.
    pub coming: BTreeMap<Group<'a>, usize>,
    pub classes: PerClass<ClassCensus<'a>>,
    /// Instances of each scope, whatever they do.
    pub scope: BTreeMap<&'a Scope, usize>,
    /// Instances that need a place: all but templates, those that become one, and, within limits, those that are done.
    pub total: usize,
    /// Templates that are being baked: a job does not wait for their place, all that is kept ready does.
    pub bakes: usize,
    /// Launches under way.
    pub launching: usize,
    /// Everything that these launches need to work.
    pub tried: BTreeSet<Subject>,
    /// Standbys that are being prepared.
    pub preparing: usize,
    /// True while a template is being baked.
    pub baking: bool,
    /// Removals under way, and how many places they make free.
    pub removing: usize,
    pub making_room: usize,
    /// Jobs that an instance was launched for which may still take one.
    pub live_for: BTreeSet<JobId>,
    /// Instances that something is being done to.
    pub in_flight: BTreeMap<&'a str, &'a Action>,
    /// Standbys that this plan claims.
    pub claimed: BTreeSet<&'a str>,
    /// Templates that are being copied.
    pub copied: BTreeSet<&'a str>,
}

/// The counts of one class.
#[derive(Default)]
pub(crate) struct ClassCensus<'a> {
    /// Instances that need a place.
    pub total: usize,
    pub bakes: usize,
    /// Places that removals under way make free.
    pub making_room: usize,
    /// Its standbys that may be claimed, the one that waited longest last.
    pub standbys: Vec<&'a Instance>,
    /// Its usable standbys, including those being prepared.
    pub kept: usize,
    pub preparing: usize,
    /// What its instances are copied from now: an instance or an image.
    pub template: Option<&'a Instance>,
}

/// True where the instance is of the class as the config has it now.
pub(super) fn has_shape(world: &World, class: ClassId, instance: &Instance) -> bool {
    instance.seen.recipe.as_ref().is_some_and(|recipe| recipe.shape == world.templates[class].shape)
}

/// Everything whose failures keep a launch from this origin back.
pub(super) fn needs(scope: &Scope, class: &Class, from: Option<&LaunchSource>) -> Vec<Subject> {
    let name = || class.name.clone();
    let mut needs = vec![Subject::Host, Subject::Scope(scope.clone())];
    needs.push(match from {
        // It is there already.
        Some(LaunchSource::Standby { .. }) => return [needs, vec![Subject::Standby(name())]].concat(),
        Some(LaunchSource::Template(_)) => Subject::Template(name()),
        Some(LaunchSource::Image) | None => Subject::Class(name()),
    });
    needs.extend([Subject::Storage(name()), Subject::Network(name())]);
    needs
}

/// Templates that do not work are not copied again.
const BROKEN: u32 = 3;

/// True where copies of the class's template failed again and again while its image works: on a host that is out of space
/// everything fails, and a template that works must not be lost to that.
pub(super) fn is_broken(world: &World, class: &Class) -> bool {
    let copies = world.failures.get(&Subject::Template(class.name.clone()));
    copies.is_some_and(|entry| entry.failures >= BROKEN && entry.alone)
}

impl<'a> Census<'a> {
    pub fn count(world: &'a World, now: Timestamp) -> Census<'a> {
        let config = world.config();
        let mut census = Census {
            config,
            supply: BTreeMap::new(),
            coming: BTreeMap::new(),
            classes: config.classes.iter().map(|_| ClassCensus::default()).collect(),
            scope: BTreeMap::new(),
            total: 0,
            bakes: 0,
            launching: 0,
            tried: BTreeSet::new(),
            preparing: 0,
            baking: false,
            removing: 0,
            making_room: 0,
            live_for: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            claimed: BTreeSet::new(),
            copied: BTreeSet::new(),
        };
        for action in world.flights.values() {
            census.flight(world, action);
        }
        let by_name: BTreeMap<&str, ClassId> =
            config.class_ids().map(|(id, class)| (class.name.as_str(), id)).collect();
        let mut leaving = 0;
        for instance in world.instances.values() {
            let class = by_name.get(instance.seen.class.as_str()).copied();
            leaving += usize::from(census.instance(world, instance, class, now));
        }
        let free = leaving_free(config.max_workers);
        // A bake that failed may be there yet while the next one goes on: only one of them is beyond the caps.
        let counted = |bakes: &mut usize| std::mem::replace(bakes, (*bakes).min(1)).saturating_sub(1);
        census.total += usize::saturating_sub(leaving, free) + counted(&mut census.bakes);
        for (class, of) in census.classes.iter_mut().zip(&config.classes) {
            class.total += counted(&mut class.bakes);
            // The one that waits longest is claimed first.
            class.standbys.sort_by_key(|i| std::cmp::Reverse(i.made_at));
            class.template = class.template.filter(|_| !is_broken(world, of));
        }
        census
    }

    fn flight(&mut self, world: &'a World, action: &'a Action) {
        self.in_flight.extend(action.instance().map(|name| (name, action)));
        self.copied.extend(action.copies());
        let known = action.instance().is_some_and(|name| world.instances.contains_key(name));
        match action {
            Action::Launch(Launch { job, class, scope, from, .. }) => {
                self.launching += 1;
                self.tried.extend(needs(scope, self.config.class(*class), Some(from)));
                *self.supply.entry((scope, *class)).or_default() += 1;
                *self.coming.entry((scope, *class)).or_default() += 1;
                *self.scope.entry(scope).or_default() += 1;
                self.live_for.extend(job);
                if !known && !matches!(from, LaunchSource::Standby { .. }) {
                    self.count_instance(*class);
                }
            }
            Action::Bake { class, .. } => {
                self.baking = true;
                if !known {
                    self.count_bake(Some(*class));
                }
            }
            Action::FetchImage { .. } => self.baking = true,
            Action::PrepareStandby { class, recipe, .. } => {
                self.preparing += 1;
                let census = &mut self.classes[*class];
                census.preparing += 1;
                census.kept += usize::from(world.templates[*class].shape == recipe.shape);
                if !known {
                    self.count_instance(*class);
                }
            }
            Action::Remove { .. } | Action::RemoveImage { .. } => self.removing += 1,
            _ => {}
        }
    }

    /// One more that needs a place.
    pub fn count_instance(&mut self, class: ClassId) {
        self.total += 1;
        self.classes[class].total += 1;
    }

    /// A removal that is planned now.
    pub fn removes(&mut self, instance: &Instance, class: Option<ClassId>) {
        self.removing += 1;
        if !matches!(instance.seen.phase, Phase::Template | Phase::Baking)
            && !is_done(instance)
            && !is_stopped(instance)
        {
            self.makes_room(class);
        }
    }

    fn makes_room(&mut self, class: Option<ClassId>) {
        self.making_room += 1;
        if let Some(class) = class {
            self.classes[class].making_room += 1;
        }
    }

    /// One more that is to become a template.
    pub fn count_bake(&mut self, class: Option<ClassId>) {
        self.bakes += 1;
        if let Some(class) = class {
            self.classes[class].bakes += 1;
        }
    }

    /// Counts an instance. Returns true, without counting, if it is finished and only waits for deletion.
    fn instance(&mut self, world: &'a World, instance: &'a Instance, class: Option<ClassId>, now: Timestamp) -> bool {
        let flight = self.in_flight.get(instance.seen.name.as_str()).copied();
        if instance.seen.phase == Phase::Template {
            self.template(world, instance, class, flight);
            return false;
        }
        if instance.seen.phase == Phase::Baking {
            self.count_bake(class);
            return false;
        }
        let done = is_done(instance);
        if done || (is_stopped(instance) && flight.is_none()) {
            return true;
        }
        if matches!(flight, Some(Action::Remove { .. })) {
            self.makes_room(class);
        }
        match class {
            Some(class) => self.count_instance(class),
            None => self.total += 1,
        }
        if let (Phase::Standby, Some(class)) = (instance.seen.phase, class) {
            self.standby(world, instance, class, flight);
        }
        if let Some(scope) = instance.seen.scope.as_ref().filter(|_| !matches!(flight, Some(Action::Launch(_)))) {
            *self.scope.entry(scope).or_default() += 1;
            if let Some(class) = class.filter(|_| is_supply(instance, flight, self.config, now)) {
                *self.supply.entry((scope, class)).or_default() += 1;
                let idle = matches!(instance.runner, RunnerState::Idle(_));
                *self.coming.entry((scope, class)).or_default() += usize::from(!idle);
                self.live_for.extend(instance.seen.job);
            }
        }
        false
    }

    fn template(&mut self, world: &World, instance: &'a Instance, class: Option<ClassId>, flight: Option<&Action>) {
        let Some(id) = class.filter(|id| flight.is_none() && has_shape(world, *id, instance)) else { return };
        let (census, class) = (&mut self.classes[id], self.config.class(id));
        if instance.seen.status != InstanceStatus::Stopped || instance.seen.project != class.project || !class.template
        {
            return;
        }
        let wanted = world.templates[id].wanted.as_ref();
        let rank = |i: &Instance| (i.seen.recipe.as_ref() == wanted, i.made_at);
        if census.template.is_none_or(|other| rank(other) < rank(instance)) {
            census.template = Some(instance);
        }
    }

    fn standby(&mut self, world: &World, instance: &'a Instance, class: ClassId, flight: Option<&Action>) {
        let usable = has_shape(world, class, instance) && instance.seen.project == self.config.class(class).project;
        if usable && flight.is_none() && instance.seen.status == InstanceStatus::Frozen {
            let census = &mut self.classes[class];
            census.kept += 1;
            census.standbys.push(instance);
        }
    }
}

fn is_stopped(instance: &Instance) -> bool {
    instance.seen.status == InstanceStatus::Stopped && instance.seen.phase == Phase::Started
}

/// True if its runner had its job. A runner that is merely not listed may be listed again, since listings lag.
fn is_done(instance: &Instance) -> bool {
    let done = matches!(instance.runner, RunnerState::Done(_)) && instance.job_is_over;
    instance.seen.phase == Phase::Started && done
}

/// True if the instance's runner is or will be free for a job. `flight` is the action under way on it.
pub(super) fn is_supply(instance: &Instance, flight: Option<&Action>, config: &Config, now: Timestamp) -> bool {
    match (flight, instance.seen.phase) {
        (Some(Action::Launch(_)), _) => true,
        (Some(_), _) => false,
        (None, Phase::Provisioning) => {
            let alive = matches!(instance.seen.maker, Maker::Other | Maker::Unknown);
            alive && now.since(instance.begun_at) < config.provision_timeout
        }
        (None, Phase::Started) if instance.seen.status == InstanceStatus::Stopped => false,
        (None, Phase::Started) => match instance.runner {
            RunnerState::Idle(_) => true,
            RunnerState::Busy => instance.handover_since.is_some_and(|since| now.since(since) < HANDOVER),
            RunnerState::Done(_) => false,
            RunnerState::Awaited => {
                now.since(instance.started_at.unwrap_or(instance.first_seen)) < config.provision_timeout
            }
        },
        (None, Phase::Baking | Phase::Template | Phase::Preparing | Phase::Standby) => false,
    }
}

/// Jobs that nothing can be launched for because there is no place: something that only waits may go.
#[derive(Default)]
pub(super) struct Crowded {
    /// For want of a place on the host.
    pub host: usize,
    /// For want of a place in a class.
    pub classes: BTreeMap<ClassId, usize>,
    /// Jobs of these classes wait, for whatever reason.
    pub waiting: BTreeSet<ClassId>,
}

/// How many instances there may be at once beyond `max_workers`: those whose runner is done and whose deletion goes on
/// behind.
pub fn leaving_free(max_workers: usize) -> usize {
    LEAVING_LEAST.max(max_workers / LEAVING_SHARE)
}

/// The scope and class that something belongs to, for counting.
pub(crate) type Group<'a> = (&'a Scope, ClassId);
