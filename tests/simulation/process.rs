//! The daemon's process: the real `World` and `plan`, wired as `daemon.rs` wires them, and what must hold at each turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lxdrunner::model::{ClassId, JobId, JobStatus, Phase, Scope};
use lxdrunner::plan::{Plan, leaving_free, plan, workers};
use lxdrunner::world::{Action, Event, Flight, Instance, Judged, Launch, Note, Outcome, RemoveReason, Snapshot, World};

use crate::execution::{Execution, Next, Step};
use crate::stage::{Ev, Inst, Stage};
use crate::tale::words;
use crate::told::Told;

pub struct Process {
    /// Which LXD it serves.
    pub lxd: usize,
    /// Counts its starts.
    pub life: u32,
    /// `None` while it is down.
    pub world: Option<World>,
    pub queued: VecDeque<u64>,
    pub working: usize,
    turn: u64,
    looking: [bool; 2],
    flights: BTreeSet<Flight>,
    lxd_known: bool,
    listed: u64,
    scopes_known: BTreeMap<Scope, bool>,
    launched: BTreeSet<String>,
    /// By job: the instances that were launched for it, and how often GitHub did not tell of it.
    launched_for: BTreeMap<JobId, BTreeSet<String>>,
    unanswered: BTreeMap<JobId, u32>,
    pub told: Told,
    idle_turns: u32,
}

impl Process {
    pub fn new(lxd: usize) -> Process {
        Process {
            lxd,
            life: 0,
            world: None,
            queued: VecDeque::new(),
            working: 0,
            turn: 0,
            looking: [false; 2],
            flights: BTreeSet::new(),
            lxd_known: false,
            listed: 0,
            scopes_known: BTreeMap::new(),
            launched: BTreeSet::new(),
            launched_for: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            told: Told::default(),
            idle_turns: 0,
        }
    }
}

impl Stage {
    pub fn boot(&mut self, daemon: usize) {
        if self.daemons[daemon].world.is_some() {
            return;
        }
        let (lxd, life) = (self.daemons[daemon].lxd, self.daemons[daemon].life + 1);
        let world = World::new(Arc::clone(&self.config), self.seed << 32 | (daemon as u64) << 16 | u64::from(life), "");
        self.note_boot(daemon, life);
        self.daemons[daemon] = Process { life, world: Some(world), ..Process::new(lxd) };
        self.tell_of_all(format!("daemon {daemon} starts"));
        self.decide(daemon);
        // LXD's event stream may be open, and may break.
        if self.rng.chance(500) {
            self.fold(daemon, Event::Listening(true));
        }
    }

    /// The process dies between any two effects; what was on its way may still happen.
    pub fn crash(&mut self, daemon: usize) {
        if self.calm || self.daemons[daemon].world.take().is_none() {
            return;
        }
        self.totals.crashes += 1;
        let ids: Vec<u64> = self.executions.iter().filter(|(_, e)| e.daemon == daemon).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(mut execution) = self.executions.remove(&id) else { continue };
            self.tell(format!("daemon {daemon} dies at {:?}: {}", execution.step, words(&execution.action)));
            self.totals.crashed_effects += 1;
            if !matches!(execution.step, Step::Queued) && self.rng.chance(500) {
                let _: Next = self.perform(&mut execution);
            }
        }
        self.tell_of_all(format!("daemon {daemon} died"));
        self.after(300, 30_000, Ev::Restart(daemon));
    }

    pub fn fold(&mut self, daemon: usize, event: Event) {
        let now = self.time();
        let Some(mut world) = self.daemons[daemon].world.take() else { return };
        for note in world.fold(event, now) {
            self.check_note(daemon, &note);
            if self.tale.told {
                self.tell(format!("daemon {daemon}: {note:?}"));
            }
        }
        self.daemons[daemon].world = Some(world);
        self.daemons[daemon].idle_turns = 0;
        // Several events are taken in before it plans again, now and then.
        if self.rng.chance(200) {
            let (life, turn) = (self.daemons[daemon].life, self.daemons[daemon].turn);
            self.after(1, 50, Ev::Wake { daemon, life, turn });
        } else {
            self.decide(daemon);
        }
    }

    pub fn wake(&mut self, daemon: usize, life: u32, turn: u64) {
        let process = &self.daemons[daemon];
        if process.world.is_some() && (process.life, process.turn) == (life, turn) {
            self.decide(daemon);
        }
    }

    pub fn looked(&mut self, daemon: usize, snapshot: Snapshot) {
        let process = &mut self.daemons[daemon];
        process.looking[usize::from(snapshot.github.is_some())] = false;
        // A look that was overtaken by a later one says nothing.
        if snapshot.begun > process.listed {
            process.lxd_known = matches!(snapshot.instances, Some(Ok(_)));
            process.listed = if process.lxd_known { snapshot.begun } else { process.listed };
        }
        for (scope, runners) in snapshot.github.iter().flat_map(|g| &g.runners) {
            process.scopes_known.insert(scope.clone(), runners.is_ok());
        }
        self.fold(daemon, Event::Snapshot(Box::new(snapshot)));
    }

    fn decide(&mut self, daemon: usize) {
        let now = self.time();
        let Some(mut world) = self.daemons[daemon].world.take() else { return };
        let plan = plan(&world, now);
        self.check(daemon, &world, &plan);
        let life = self.daemons[daemon].life;
        let mut idle = true;
        for (github, wanted) in [(false, plan.look_at_lxd), (true, plan.look_at_github)] {
            if wanted && !std::mem::replace(&mut self.daemons[daemon].looking[usize::from(github)], true) {
                let begun = world.seq();
                world.look_begun(github);
                self.after(5, 400, Ev::List { daemon, life, begun, github });
                idle = false;
            }
        }
        let workers = workers(self.config.max_workers);
        for action in plan.actions {
            if self.daemons[daemon].queued.len() >= workers {
                break;
            }
            idle = false;
            world.dispatched(&action);
            if self.tale.told {
                self.tell(format!("daemon {daemon} {}", words(&action)));
            }
            self.totals.launches += u64::from(matches!(action, Action::Launch(Launch { job: Some(_), .. })));
            if !self.daemons[daemon].flights.insert(action.flight()) {
                self.fail(&format!("{:?} was begun twice", action.flight()));
            }
            self.numbers += 1;
            let id = self.numbers;
            self.executions
                .insert(id, Execution { daemon, life, action, step: Step::Queued, registered: None, slow: 0 });
            self.daemons[daemon].queued.push_back(id);
        }
        let process = &mut self.daemons[daemon];
        process.world = Some(world);
        process.turn += 1;
        process.idle_turns = if idle { process.idle_turns + 1 } else { 0 };
        let (turn, idle_turns) = (process.turn, process.idle_turns);
        if idle_turns > 30 {
            self.fail(&format!(
                "daemon {daemon} turns without an event and without doing anything: {:?}",
                plan.deferred
            ));
        }
        let wake = match plan.wake_at {
            None => self.now + 60_000,
            Some(at) if at <= now => self.now + 100,
            Some(at) => at.0,
        };
        self.at(wake, Ev::Wake { daemon, life, turn });
        self.hand_out(daemon);
    }

    /// Gives free workers what waits.
    fn hand_out(&mut self, daemon: usize) {
        let workers = workers(self.config.max_workers);
        while self.daemons[daemon].working < workers {
            let Some(id) = self.daemons[daemon].queued.pop_front() else { return };
            self.daemons[daemon].working += 1;
            let step = match &self.executions[&id].action {
                action @ (Action::Launch(_) | Action::Bake { .. } | Action::PrepareStandby { .. }) => {
                    self.begin_making(action)
                }
                action @ Action::Remove { .. } => self.begin_removal(action),
                _ => Step::Ask,
            };
            if let Some(execution) = self.executions.get_mut(&id) {
                execution.step = step;
            }
            self.after(5, 1500, Ev::Step(id));
        }
    }

    pub fn ended(&mut self, execution: Execution, outcome: Outcome) {
        let Execution { daemon, life, action, .. } = execution;
        let process = &mut self.daemons[daemon];
        if process.world.is_none() || process.life != life {
            return;
        }
        process.working -= 1;
        process.flights.remove(&action.flight());
        if let (Action::LookUpJob { job, .. }, Outcome::LookFailed { .. }) = (&action, &outcome) {
            *process.unanswered.entry(*job).or_default() += 1;
        }
        self.hand_out(daemon);
        self.fold(daemon, Event::Outcome(action, outcome));
        self.check_caps();
    }

    /// What must hold of what it believes.
    fn check_note(&mut self, daemon: usize, note: &Note) {
        let process = &mut self.daemons[daemon];
        match note {
            Note::JobOver { job, .. } => {
                process.told.is_over(*job);
                if self.github.job(job.0).done.is_none() {
                    self.fail(&format!("daemon {daemon} calls job {job} over, and it is not"));
                }
            }
            Note::Launched { instance, job } => {
                process.launched.insert(instance.clone());
                if let Some(job) = job {
                    process.launched_for.entry(*job).or_default().insert(instance.clone());
                }
            }
            Note::InstanceGone { instance, .. } => {
                process.launched.remove(instance);
                let ours = |i: &&Inst| i.owner == Some((daemon, process.life)) && i.process.is_some();
                if self.lxd[process.lxd].get(instance).filter(ours).is_some() {
                    self.fail(&format!("daemon {daemon} takes {instance} for gone, and it runs"));
                }
                // Its name may be used again, by another daemon's next life too.
                self.daemons[daemon].launched.remove(instance);
            }
            _ => {}
        }
    }

    /// What must hold of every plan.
    fn check(&self, daemon: usize, world: &World, plan: &Plan) {
        let process = &self.daemons[daemon];
        if let Some(objection) = process.told.objection(world, plan) {
            self.fail(&format!("daemon {daemon} plans {objection}"));
        }
        let mut launches: BTreeMap<(&Scope, ClassId), usize> = BTreeMap::new();
        let under_way = self.executions.values().filter(|e| e.daemon == daemon).map(|e| &e.action);
        for action in under_way.chain(&plan.actions) {
            if let Action::Launch(Launch { scope, class, job: Some(_), .. }) = action {
                *launches.entry((scope, *class)).or_default() += 1;
            }
        }
        for action in &plan.actions {
            let Action::Launch(Launch { scope, class, job: Some(_), .. }) = action else { continue };
            if let Action::Launch(Launch { job, .. }) = action
                && self.github.jobs.iter().any(|row| Some(row.id) == job.map(|job| job.0) && row.fork)
            {
                self.fail(&format!("daemon {daemon} plans {action:?}, for a stranger's job"));
            }
            if let Some(instance) = self.ran_here(daemon, action) {
                self.fail(&format!("daemon {daemon} plans {action:?}: its runner {instance} had the job and ended"));
            }
            let waits = |j: &&lxdrunner::world::JobState| {
                j.job.status == JobStatus::Queued && j.place.as_ref() == Ok(&(scope.clone(), *class))
            };
            let queued = world.jobs().filter(waits).count();
            if launches[&(scope, *class)] > queued {
                self.fail(&format!("daemon {daemon} plans {action:?}: more launches than the {queued} that wait"));
            }
        }
        let known = |scope: &Scope| process.scopes_known.get(scope) == Some(&true);
        for action in &plan.actions {
            let allowed = match action {
                Action::Remove { name, judged: Judged { scope, reason, .. }, .. } => {
                    let instance = world.instances().find(|i| i.seen.name == *name);
                    let half_made = instance.is_some_and(|i| i.seen.phase == Phase::Provisioning);
                    let without_github = matches!(reason, RemoveReason::TooOld | RemoveReason::Finished)
                        || (*reason == RemoveReason::Abandoned && half_made);
                    let thrown_away = *reason == RemoveReason::Abandoned && process.launched.contains(name);
                    // Another living daemon's instances go by that one's rules.
                    let by_our_rules = !matches!(reason, RemoveReason::Finished | RemoveReason::Abandoned);
                    if by_our_rules && instance.is_some_and(Instance::is_anothers) {
                        self.fail(&format!("daemon {daemon} plans {action:?}, of another daemon"));
                    }
                    process.lxd_known && !thrown_away && (without_github || scope.as_ref().is_none_or(known))
                }
                Action::Deregister { scope, .. } => process.lxd_known && known(scope),
                Action::RemoveImage { .. } => process.lxd_known,
                Action::Launch(_) | Action::Bake { .. } | Action::PrepareStandby { .. } => process.lxd_known,
                _ => true,
            };
            if !allowed {
                self.fail(&format!("daemon {daemon} plans {action:?}, on an unknown or without need"));
            }
        }
    }

    /// The instance that the job of a launch was launched for before, where its runner had the job and is not there any more:
    /// one question tells.
    fn ran_here(&self, daemon: usize, launch: &Action) -> Option<&str> {
        let process = &self.daemons[daemon];
        let Action::Launch(Launch { job: Some(job), .. }) = launch else { return None };
        let (_, runner, id) = self.github.jobs.iter().find(|row| row.id == job.0)?.taken.as_ref()?;
        // A later runner of that name was in another instance: of this process's, which may not have launched the first.
        let latest = self.github.runners.iter().rfind(|row| row.name == *runner);
        let by_us = latest.is_some_and(|row| row.id == *id && row.by == Some(daemon));
        let asked = process.unanswered.get(job).is_none_or(|failures| *failures < 5);
        let launched = process.launched_for.get(job).is_some_and(|all| all.contains(runner));
        let there = self.lxd[process.lxd].get(runner).is_some_and(|inst| inst.process.is_some());
        (by_us && launched && asked && !there).then_some(runner)
    }

    /// What is done and on its way out needs no place, within limits.
    pub fn is_done(&self, inst: &Inst) -> bool {
        let gone = |runner: u64| self.github.runners.iter().any(|r| r.id == runner && r.gone.is_some());
        inst.ended || inst.process.is_some_and(gone)
    }

    pub fn check_caps(&self) {
        if self.daemons.len() > 1 {
            return;
        }
        let done = |i: &Inst| self.is_done(i);
        let ours = || self.lxd[0].iter().filter(|(_, i)| i.owner.is_some() && i.phase != Phase::Template);
        // One template that is being baked needs none either: no job waits for it.
        let bakes = |class: Option<&str>| {
            let of_class = |i: &Inst| i.phase == Phase::Baking && class.is_none_or(|class| i.class == class);
            ours().filter(|(_, i)| of_class(i)).count().min(1)
        };
        let names = |passed: &dyn Fn(&Inst) -> bool| {
            let passed = ours().filter(|(_, i)| passed(i)).map(|(name, _)| name.as_str());
            passed.collect::<Vec<_>>().join(", ")
        };
        let max = self.config.max_workers;
        if ours().count() > max + leaving_free(max) + bakes(None)
            || ours().filter(|(_, i)| !done(i)).count() > max + bakes(None)
        {
            self.fail(&format!("max_workers is passed: {}", names(&|i| !done(i))));
        }
        for class in &self.config.classes {
            let of_class = |i: &Inst| i.class == class.name && !done(i);
            if ours().filter(|(_, i)| of_class(i)).count() > class.max_workers + bakes(Some(&class.name)) {
                self.fail(&format!("max_workers of class {} is passed: {}", class.name, names(&of_class)));
            }
        }
    }
}
