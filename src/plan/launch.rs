//! Which jobs get an instance now, and what it comes from.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::Planner;
use super::census::{Census, Crowded, Group, HANDOVER, LAUNCHES_AT_ONCE, needs};
use super::reason::Reason;
use crate::model::{ClassId, JobId, JobStatus};
use crate::world::{
    Action, Entry, Flight, Instance, JobState, Launch, LaunchSource, Refusal, Subject, Template, World, instance_name,
};

/// What copies are made of, of a template that is there.
pub(super) fn as_template(template: &Instance) -> Template {
    let name = template.seen.name.clone();
    if template.seen.alias.is_some() { Template::Image(name) } else { Template::Instance(name) }
}

/// Jobs of one (scope, class) that need an instance; `pop` yields the next.
struct Line<'a> {
    group: Group<'a>,
    jobs: Vec<&'a JobState>,
}

/// What waits, by scope and class.
#[derive(Default)]
pub(super) struct Demand<'a> {
    /// All queued jobs, those included that are held back.
    pub queued: usize,
    /// Those that an instance may be launched for.
    pub jobs: Vec<&'a JobState>,
}

impl<'a> Planner<'a> {
    /// The queued jobs by scope and class; those that nothing may be launched for are deferred here.
    pub(super) fn demand(&mut self) -> BTreeMap<Group<'a>, Demand<'a>> {
        let (world, plan) = (self.world, &mut self.plan);
        let mut groups: BTreeMap<Group<'a>, Demand<'a>> = BTreeMap::new();
        for job in world.jobs.values().filter(|j| j.job.status == JobStatus::Queued) {
            let id = job.job.id;
            match &job.place {
                Err(refusal) => {
                    // GitHub was asked and gave no answer: that is the reason.
                    let origin = Subject::ForkOrigin(job.job.repo.clone());
                    let failed = world.failures.get(&origin).filter(|_| *refusal == Refusal::OriginUnknown);
                    let reason = match failed.cloned() {
                        Some(Entry { until, reason, .. }) => Reason::Paused { blame: origin, reason, until },
                        None => Reason::Refused(refusal.clone()),
                    };
                    plan.deferred.push((id, reason));
                }
                Ok((scope, class)) => {
                    let group = groups.entry((scope, *class)).or_default();
                    group.queued += 1;
                    match (world.doubt(id), job.not_before) {
                        (Some(doubt), _) => plan.deferred.push((id, Reason::Asked(doubt.clone()))),
                        (None, Some((until, hold))) if until > self.now => {
                            plan.deferred.push((id, Reason::HeldBack { hold, wasted: job.wasted, until }));
                            plan.wake(until);
                        }
                        _ => group.jobs.push(job),
                    }
                }
            }
        }
        groups
    }
}

impl<'a> Planner<'a> {
    /// Plans the launches. `demand` is used up.
    pub(super) fn launches(&mut self, demand: BTreeMap<Group<'a>, Demand<'a>>) {
        let handovers = self.world.instances.values().filter_map(|i| Some(i.handover_since?.after(HANDOVER)));
        handovers.filter(|end| *end > self.now).for_each(|end| self.plan.wake(end));
        let mut lines = Vec::new();
        for (group, Demand { mut jobs, queued }) in demand {
            self.queued.insert(group, queued);
            // A runner on its way covers the job that it was launched for, then the jobs that wait longest.
            jobs.sort_unstable_by_key(|j| (!self.census.live_for.contains(&j.job.id), j.queued_at, j.job.id));
            let supply = self.census.supply.get(&group).copied().unwrap_or(0);
            let covered = supply.min(jobs.len());
            self.plan.deferred.extend(jobs.drain(..covered).map(|j| (j.job.id, Reason::Covered)));
            jobs.sort_unstable_by_key(|j| Reverse((self.census.live_for.contains(&j.job.id), j.queued_at, j.job.id)));
            if jobs.is_empty() {
                continue;
            }
            if let Some(reason) = self.obstacle(group) {
                self.crowded.waiting.insert(group.1);
                if let Reason::Paused { until, .. } = reason {
                    self.plan.wake(until);
                }
                self.plan.deferred.extend(jobs.iter().map(|j| (j.job.id, reason.clone())));
                continue;
            }
            lines.push(Line { group, jobs });
        }
        self.share_out(lines);
    }

    /// Why nothing at all may be launched of this scope and class now.
    fn obstacle(&self, group: Group<'_>) -> Option<Reason> {
        if !self.lxd_is_known() {
            return Some(Reason::LxdUnknown);
        }
        let class = self.config.class(group.1);
        let paused = |subject: Subject| Reason::paused(self.world, subject, self.now);
        let from = self.origin(group.1);
        if let Some(reason) = needs(group.0, class, from.as_ref()).into_iter().find_map(paused) {
            return Some(reason);
        }
        if from.is_some() {
            return None;
        }
        let of_image = [Subject::Class(class.name.clone()), Subject::Package(class.arch)];
        Some(of_image.into_iter().find_map(paused).unwrap_or(Reason::NoPackage(class.arch)))
    }

    /// The source of the class's next instance: a standby, else the template, else the image.
    pub(crate) fn origin(&self, class: ClassId) -> Option<LaunchSource> {
        let name = &self.config.class(class).name;
        match self.census.classes[class].standbys.last() {
            Some(standby) if self.works(Subject::Standby(name.clone())) => {
                Some(LaunchSource::Standby { etag: standby.etag.clone() })
            }
            _ => self.copy_or_image(class),
        }
    }

    /// The same without standbys, which are for jobs.
    pub(super) fn copy_or_image(&self, id: ClassId) -> Option<LaunchSource> {
        let class = self.config.class(id);
        let package = self.world.packages.get(&class.arch).is_some_and(|p| p.version.is_some());
        // Where copies get no network, one instance from the image tells whether the template is the cause.
        let doubted = package && self.world.failures.is_shaky(&Subject::Network(class.name.clone()));
        let template = self.census.classes[id].template;
        if let Some(template) = template.filter(|_| !doubted && self.works(Subject::Template(class.name.clone()))) {
            return Some(LaunchSource::Template(as_template(template)));
        }
        (package && self.works(Subject::Class(class.name.clone()))).then_some(LaunchSource::Image)
    }

    fn works(&self, subject: Subject) -> bool {
        self.world.paused(&subject, self.now).is_none()
    }

    /// Gives the free places away: to the scope with the fewest instances first, there to the job that waits longest.
    fn share_out(&mut self, mut lines: Vec<Line<'a>>) {
        let turn = |census: &Census, lines: &[Line], at: usize| {
            let line = lines.get(at)?;
            let load = census.scope.get(line.group.0).copied().unwrap_or(0);
            let next = line.jobs.last()?;
            Some(Reverse((load, next.queued_at, next.job.id, at)))
        };
        let mut heap: BinaryHeap<_> = (0..lines.len()).filter_map(|at| turn(&self.census, &lines, at)).collect();
        let names = if heap.is_empty() { BTreeSet::new() } else { names_in_use(self.world) };
        while let Some(Reverse((load, .., at))) = heap.pop() {
            let Some(line) = lines.get_mut(at) else { continue };
            let (scope, id) = line.group;
            if load != self.census.scope.get(scope).copied().unwrap_or(0) {
                // The scope got an instance through another of its classes meanwhile: back into the row.
                heap.extend(turn(&self.census, &lines, at));
                continue;
            }
            let origin = self.origin(id);
            let full = self.full(line.group, origin.as_ref());
            let (None, Some(origin)) = (&full, origin) else {
                let reason = full.unwrap_or(Reason::NoPackage(self.config.class(id).arch));
                self.crowded.note(&reason, id, line.jobs.len());
                self.plan.deferred.extend(line.jobs.drain(..).map(|j| (j.job.id, reason.clone())));
                continue;
            };
            let Some(job) = line.jobs.pop() else { continue };
            let job = job.job.id;
            let name = match &origin {
                LaunchSource::Standby { .. } => {
                    let stocked = &mut self.census.classes[id];
                    stocked.kept = stocked.kept.saturating_sub(1);
                    let standby = stocked.standbys.pop().map(|standby| standby.seen.name.as_str());
                    self.census.claimed.extend(standby);
                    standby.map(str::to_owned)
                }
                LaunchSource::Image | LaunchSource::Template(_) => {
                    let free = |name: &String| !names.contains(name.as_str());
                    self.census.count_instance(id);
                    (1..1000).map(|n| instance_name(&self.config.prefix, job, n)).find(free)
                }
            };
            let Some(name) = name else { continue };
            self.launch(line.group, Some(job), name, origin);
            heap.extend(turn(&self.census, &lines, at));
        }
    }

    /// Plans one launch; its place is counted already.
    pub(super) fn launch(&mut self, group: Group<'a>, job: Option<JobId>, name: String, from: LaunchSource) {
        let census = &mut self.census;
        census.launching += 1;
        census.tried.extend(needs(group.0, self.config.class(group.1), Some(&from)));
        *census.scope.entry(group.0).or_default() += 1;
        *census.supply.entry(group).or_default() += 1;
        self.plan.actions.push(Action::Launch(Launch { job, class: group.1, scope: group.0.clone(), name, from }));
    }

    /// Why no further instance may be launched for this scope and class, by count. A standby has its place already.
    pub(super) fn full(&self, (scope, class): Group<'_>, origin: Option<&LaunchSource>) -> Option<Reason> {
        let (stocked, class) = (&self.census.classes[class], self.config.class(class));
        if !matches!(origin, Some(LaunchSource::Standby { .. })) {
            if self.census.total >= self.config.max_workers {
                return Some(Reason::HostFull { max: self.config.max_workers });
            }
            if stocked.total >= class.max_workers {
                return Some(Reason::ClassFull { class: class.name.clone(), max: class.max_workers });
            }
        }
        // After a failure one launch tries; the others follow when it works.
        let tried = |subject: &Subject| self.world.failures.is_shaky(subject) && self.census.tried.contains(subject);
        let busy = self.census.launching >= LAUNCHES_AT_ONCE || needs(scope, class, origin).iter().any(tried);
        busy.then_some(Reason::LaunchesBusy)
    }
}

/// Every name that an instance, a launch or a registration has, or was found to have, and those of runners with a job: what
/// GitHub tells late of such a job is not to meet another runner of the name.
pub(super) fn names_in_use(world: &World) -> BTreeSet<&str> {
    let runners = world.scopes.values().filter_map(|v| v.runners.as_ref()).flatten().map(|r| r.name.as_str());
    let flights = world.flights.keys().filter_map(|flight| match flight {
        Flight::Instance(name) => Some(name.as_str()),
        _ => None,
    });
    let known = world.instances.keys().chain(world.names_taken.keys()).map(String::as_str);
    let at_work = world.jobs.values().filter_map(|state| state.job.runner_name.as_deref());
    known.chain(at_work).chain(runners).chain(flights).collect()
}

impl Crowded {
    fn note(&mut self, reason: &Reason, class: ClassId, jobs: usize) {
        self.waiting.insert(class);
        match reason {
            Reason::HostFull { .. } => self.host += jobs,
            Reason::ClassFull { .. } => *self.classes.entry(class).or_default() += jobs,
            _ => {}
        }
    }
}
