//! Keeps templates, standbys and idle runners ready for future jobs. All of it comes after the jobs
//! that wait, takes only places that they leave free, and goes where one of them needs its place.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::census::{Group, LAUNCHES_AT_ONCE, needs};
use super::launch::{as_template, names_in_use};
use super::{Planner, REMOVALS_AT_ONCE};
use crate::config::Class;
use crate::model::{ClassId, InstanceType, Phase};
use crate::world::{
    Action, ImageSeen, Instance, Launch, LaunchSource, RemoveReason, RunnerState, Subject, nth_random, random_name,
    template_name,
};

/// Standbys that are prepared at once: launches are not to be slowed down by them.
const PREPARED_AT_ONCE: usize = 2;
/// A runner that is idle for no longer may be getting a job at this moment.
const SETTLED: Duration = Duration::from_secs(30);

impl<'a> Planner<'a> {
    /// Plans templates, standbys and idle runners, and removals that make room for jobs.
    pub(super) fn keep_ready(&mut self) {
        self.make_room();
        self.idle_runners();
        self.standbys();
        self.bake();
    }

    /// True if a job waits for the place that the class's next instance would take.
    fn jobs_first(&self, class: ClassId) -> bool {
        self.crowded.host > 0 || self.crowded.waiting.contains(&class)
    }

    /// True where an instance more would go beyond a cap. Jobs do not ask this: a template that is being baked keeps none of
    /// them waiting, though the host carries one instance more meanwhile.
    fn at_capacity(&self, class: ClassId) -> bool {
        let (census, of_class) = (&self.census, &self.census.classes[class]);
        census.total + census.bakes >= self.config.max_workers
            || of_class.total + of_class.bakes >= self.config.class(class).max_workers
    }

    fn name(&mut self, kind: &str) -> String {
        let world = self.world;
        let (next, taken) = self.names.get_or_insert_with(|| (world.names_given, names_in_use(world)));
        loop {
            let name = random_name(&self.config.prefix, kind, nth_random(world.seed, *next));
            *next += 1;
            if !taken.contains(name.as_str()) {
                return name;
            }
        }
    }

    fn idle_runners(&mut self) {
        let (world, config) = (self.world, self.config);
        for (id, class) in config.class_ids().filter(|(_, class)| class.idle > 0) {
            if self.jobs_first(id) || self.paused(Subject::Idle(class.name.clone())) {
                continue;
            }
            for scope in world.targets.iter().flatten() {
                let group = (scope, id);
                let from = self.copy_or_image(id);
                let needs = needs(scope, class, from.as_ref());
                if !super::remove::runners_known(world, scope) || needs.into_iter().any(|need| self.paused(need)) {
                    continue;
                }
                let wanted = self.queued.get(&group).copied().unwrap_or(0) + class.idle;
                while self.census.supply.get(&group).copied().unwrap_or(0) < wanted {
                    let Some(from) = &from else { break };
                    if self.full(group, Some(from)).is_some() {
                        break;
                    }
                    let name = self.name("idle");
                    self.census.count_instance(id);
                    self.launch(group, None, name, from.clone());
                }
            }
        }
    }

    fn standbys(&mut self) {
        let (world, config) = (self.world, self.config);
        // A claim takes tens of milliseconds, and several times that beside a copy that is being made: the refill comes after.
        let is_claim =
            |action: &Action| matches!(action, Action::Launch(Launch { from: LaunchSource::Standby { .. }, .. }));
        if world.flights.values().chain(&self.plan.actions).any(is_claim) {
            return;
        }
        for (id, class) in config.class_ids().filter(|(_, class)| class.standby > 0) {
            let Some(template) = self.census.classes[id].template else { continue };
            let Some(recipe) = &template.seen.recipe else { continue };
            let of_class = [Subject::Standby, Subject::Template, Subject::Storage, Subject::Network];
            let blames = of_class.map(|subject| subject(class.name.clone())).into_iter().chain([Subject::Host]);
            let blames: Vec<Subject> = blames.collect();
            if self.jobs_first(id) || blames.into_iter().any(|blame| self.paused(blame)) {
                continue;
            }
            while self.census.classes[id].kept < class.standby {
                let (preparing, launching) = (self.census.preparing, self.census.launching);
                let busy = preparing >= PREPARED_AT_ONCE || launching + preparing >= LAUNCHES_AT_ONCE;
                if busy || self.at_capacity(id) {
                    break;
                }
                let name = self.name("standby");
                let (template, recipe) = (as_template(template), recipe.clone());
                self.plan.actions.push(Action::PrepareStandby { class: id, name, template, recipe });
                self.census.count_instance(id);
                self.census.preparing += 1;
                self.census.classes[id].kept += 1;
                self.census.classes[id].preparing += 1;
            }
        }
    }

    /// True while the image of virtual machines is unpacked for a job. LXD up to 5.0.2 names the AppArmor profile of that after
    /// the image alone, so that of two at a time one is denied its own file.
    fn unpacks(&self, class: &Class) -> bool {
        let same = |other: &ClassId| {
            let other = self.config.class(*other);
            other.kind == class.kind && other.image == class.image
        };
        let unpacks = |action: &Action| matches!(action, Action::Launch(Launch { class, from: LaunchSource::Image, .. }) if same(class));
        let mut actions = self.world.flights.values().chain(&self.plan.actions);
        class.kind == InstanceType::VirtualMachine && actions.any(unpacks)
    }

    /// One template at a time, and none while a job of its class waits.
    fn bake(&mut self) {
        let (world, config, now) = (self.world, self.config, self.now);
        if self.census.baking {
            return;
        }
        for (id, class) in config.class_ids().filter(|(_, class)| class.template) {
            let state = &world.templates[id];
            let unfetched = state.image == ImageSeen::Unfetched;
            let recipe = state.wanted.as_ref();
            let made = |i: &Instance| i.seen.phase == Phase::Template && i.seen.recipe.as_ref() == recipe;
            let ready = self.census.classes[id].template.is_some_and(made);
            let wanted = unfetched || recipe.is_some();
            let of_class = [Subject::Bake, Subject::Class, Subject::Storage];
            let mut blames = of_class.map(|subject| subject(class.name.clone())).into_iter().chain([Subject::Host]);
            if !wanted || ready || self.jobs_first(id) || blames.any(|blame| self.paused(blame)) {
                continue;
            }
            if unfetched {
                self.plan.actions.push(Action::FetchImage { class: id });
                return;
            }
            let (Some(recipe), ImageSeen::Known(fingerprint)) = (recipe, &state.image) else { continue };
            let name = template_name(&config.prefix, class, recipe);
            // Somebody bakes it, or it is on its way out.
            let there = world.instances.values().any(|i| i.label() == name)
                || self.census.in_flight.contains_key(name.as_str());
            let stood_back = world.names_taken.get(&name).is_some_and(|at| now.since(*at) < SETTLED);
            if there || stood_back || self.at_capacity(id) || self.unpacks(class) {
                continue;
            }
            let (fingerprint, recipe) = (fingerprint.clone(), recipe.clone());
            self.plan.actions.push(Action::Bake { class: id, name, fingerprint, recipe, form: state.form });
            self.census.count_bake(Some(id));
            return;
        }
    }

    /// Removes standbys and spare idle runners while jobs wait for a place.
    fn make_room(&mut self) {
        let mut host = self.crowded.host.saturating_sub(self.census.making_room);
        let mut classes = self.crowded.classes.clone();
        for (class, wanted) in &mut classes {
            let coming = self.census.classes[*class].making_room;
            *wanted = wanted.saturating_sub(coming);
        }
        if host == 0 && classes.is_empty() {
            return;
        }
        let planned: BTreeSet<String> =
            self.plan.actions.iter().filter_map(|a| a.instance().map(str::to_owned)).collect();
        let mut spare = self.spare();
        for instance in self.world.instances.values() {
            if self.census.removing >= REMOVALS_AT_ONCE {
                break;
            }
            let name = instance.seen.name.as_str();
            let left_alone = self.world.left_alone_until(instance, self.now).is_some();
            // Another living daemon hears of the same jobs, and makes room for them itself.
            let spared = left_alone || instance.is_anothers();
            if self.census.in_flight.contains_key(name) || planned.contains(name) || spared {
                continue;
            }
            let class = self.config.class_named(&instance.seen.class);
            let helps_class = class.and_then(|class| classes.get(&class)).is_some_and(|n| *n > 0);
            if host == 0 && !helps_class || !self.is_reclaimable(instance, class, &mut spare) {
                continue;
            }
            host = host.saturating_sub(1);
            if let Some(wanted) = class.and_then(|class| classes.get_mut(&class)) {
                *wanted = wanted.saturating_sub(1);
            }
            self.plan.actions.push(super::remove::removal(instance, RemoveReason::MakesRoom));
            self.census.removes(instance, class);
        }
    }

    /// True for a standby, and for a settled idle runner beyond the queue, which is then counted off `spare`.
    fn is_reclaimable(
        &mut self,
        instance: &'a Instance,
        class: Option<ClassId>,
        spare: &mut BTreeMap<Group<'a>, usize>,
    ) -> bool {
        let since = match (instance.seen.phase, instance.runner) {
            (Phase::Standby, _) => return true,
            (Phase::Started, RunnerState::Idle(since)) => since,
            _ => return false,
        };
        let scope = instance.seen.scope.as_ref().filter(|scope| super::remove::runners_known(self.world, scope));
        let group = scope.zip(class);
        let Some(left) = group.and_then(|group| spare.get_mut(&group)).filter(|left| **left > 0) else { return false };
        let settled = self.now.since(since) > SETTLED;
        match settled {
            true => *left -= 1,
            false => self.plan.wake(since.after(SETTLED)),
        }
        settled
    }
}
