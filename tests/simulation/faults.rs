//! What goes wrong beside single calls that fail: LXD restarts and loses operations, its pool fills up, instances hang, stop
//! by themselves or lose their network, GitHub says to slow down, answers come too late, a process dies between two
//! effects. Each is a line of the story.

use crate::execution::{Execution, Luck, Next, Step};
use crate::stage::{Ev, Stage};
use lxdrunner::world::{Action, Event, Launch, LaunchSource, Outcome};

/// What goes wrong, in permille; and the shape of the story.
#[derive(Default)]
pub struct Faults {
    pub step: u64,
    pub lost_answer: u64,
    /// Of the lost answers, those that are waited for.
    pub timeout: u64,
    pub github: u64,
    pub drop: u64,
    pub duplicate: u64,
    pub late: u64,
    pub lag: u64,
    pub slow: u64,
    pub hidden: u64,
    pub lie: u64,
    pub sick_runner: u64,
    pub no_power_off: u64,
    pub blind: u64,
    pub bake: u64,
    /// That a process dies, at each effect.
    pub death: u64,
}

/// What GitHub refuses because too much was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Nothing,
    Listings,
    Everything,
}

/// What befalls one instance.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    Stops,
    Hangs,
    LosesNetwork,
    /// GitHub forgets its registration, and the process stays as it is.
    Unregistered,
}

impl Stage {
    /// Calamities until all is well, the more of them the harder the story is.
    pub fn calamities(&mut self, hardness: u64) {
        let (from, until) = (self.now, self.calm_at);
        let when = |stage: &mut Stage| stage.rng.range(from, until);
        for lxd in 0..self.lxd.len() {
            for _ in 0..hardness.min(3) {
                let (at, length) = (when(self), self.rng.range(500, 40_000));
                self.at(at, Ev::Lxd { lxd, up: false });
                self.at(at + length, Ev::Lxd { lxd, up: true });
            }
            for _ in 0..hardness.min(2) {
                let (at, length) = (when(self), self.rng.range(5_000, 300_000));
                self.at(at, Ev::Pool { lxd, full: true });
                self.at(at + length, Ev::Pool { lxd, full: false });
            }
            for _ in 0..hardness * 3 {
                let (at, kind) = (when(self), self.rng.range(0, 3) as usize);
                let mishap = [Mishap::Stops, Mishap::Hangs, Mishap::LosesNetwork, Mishap::Unregistered][kind];
                self.at(at, Ev::Mishap { lxd, mishap });
            }
        }
        for _ in 0..hardness.min(3) {
            let (at, length) = (when(self), self.rng.range(1000, 200_000));
            self.at(at, Ev::GitHub { up: false });
            self.at(at + length, Ev::GitHub { up: true });
        }
        for _ in 0..hardness.min(2) {
            let (at, length) = (when(self), self.rng.range(30_000, 600_000));
            let limit = if self.rng.chance(500) { Limit::Listings } else { Limit::Everything };
            self.at(at, Ev::Limited(limit));
            self.at(at + length, Ev::Limited(Limit::Nothing));
        }
    }

    pub fn all_is_well(&mut self) {
        self.tell_of_all("from here on all is well".to_owned());
        (self.calm, self.jobs_left) = (true, 0);
        (self.github_up, self.limit) = (true, Limit::Nothing);
        self.lxd_up.iter_mut().for_each(|up| *up = true);
        self.pool_full.iter_mut().for_each(|full| *full = false);
        self.lost_operations.clear();
        self.github.jobs.iter_mut().for_each(|job| job.hidden = false);
        self.lxd.iter_mut().flat_map(|map| map.values_mut()).for_each(|inst| {
            (inst.hangs_until, inst.half_written) = (0, false);
        });
    }

    /// LXD goes, with every operation that is under way, or is back.
    pub fn lxd_turns(&mut self, lxd: usize, up: bool) {
        if self.calm {
            return;
        }
        self.lxd_up[lxd] = up;
        self.tell_of_all(format!("LXD {lxd} {}", answers(up)));
        if !up {
            let here = |e: &Execution| self.daemons[e.daemon].lxd == lxd && !matches!(e.step, Step::Queued);
            let lost: Vec<u64> = self.executions.iter().filter(|(_, e)| here(e)).map(|(id, _)| *id).collect();
            self.lost_operations.extend(lost);
        }
        for daemon in 0..self.daemons.len() {
            if self.daemons[daemon].lxd == lxd && self.daemons[daemon].world.is_some() {
                let listens = up && self.rng.chance(500);
                self.fold(daemon, Event::Listening(listens));
            }
        }
    }

    pub fn pool_turns(&mut self, lxd: usize, full: bool) {
        if !self.calm {
            self.pool_full[lxd] = full;
            self.tell_of_all(format!("the pool of LXD {lxd} {}", if full { "is full" } else { "has space again" }));
        }
    }

    pub fn limit_turns(&mut self, limit: Limit) {
        if !self.calm {
            self.limit = limit;
            self.tell_of_all(format!("for now GitHub refuses: {limit:?}"));
        }
    }

    /// One of our instances has an accident.
    pub fn mishap(&mut self, lxd: usize, mishap: Mishap) {
        let runs = |i: &&crate::stage::Inst| i.owner.is_some() && i.running;
        let count = self.lxd[lxd].values().filter(runs).count();
        if count == 0 || self.calm {
            return;
        }
        let which = self.rng.range(0, count as u64 - 1) as usize;
        let (now, length) = (self.now, self.rng.range(10_000, 300_000));
        let (name, inst) = self.lxd[lxd].iter_mut().filter(|(_, i)| i.owner.is_some() && i.running).nth(which).unwrap();
        let (name, process, until) = (name.clone(), inst.process, now + length);
        match mishap {
            Mishap::Stops => {
                (inst.running, inst.frozen, inst.ended) = (false, false, true);
                (inst.process, inst.version) = (None, inst.version + 1);
                let (made, ephemeral) = (inst.made, inst.is_ephemeral());
                self.tell(format!("instance {name} stops by itself"));
                if ephemeral && !self.fault(20) {
                    self.after(50, 2000, Ev::SelfDelete { lxd, name, made });
                }
                process.into_iter().for_each(|runner| self.runner_is_lost(runner));
            }
            Mishap::Hangs => {
                inst.hangs_until = until;
                self.tell(format!("instance {name} hangs for {} s", length / 1000));
            }
            Mishap::Unregistered => {
                let idle = |r: &&mut crate::github::RunnerRow| Some(r.id) == process && r.job.is_none();
                let Some(row) = self.github.runners.iter_mut().find(idle) else { return };
                row.gone.get_or_insert(now);
                self.tell(format!("the registration of {name} is gone, and its process stays"));
            }
            Mishap::LosesNetwork => {
                let Some(row) = self.github.runners.iter_mut().find(|r| Some(r.id) == process) else { return };
                row.away = Some((now, until));
                self.tell(format!("instance {name} has no network for {} s", length / 1000));
                self.at(until, Ev::Assign);
            }
        }
    }

    /// A runner is gone without a word: after a while GitHub calls its job failed, or, early, gives it to another.
    pub fn runner_is_lost(&mut self, runner: u64) {
        let now = self.now;
        let Some(row) = self.github.runners.iter_mut().find(|r| r.id == runner) else { return };
        row.offline.get_or_insert(now);
        let Some((taken, job)) = row.job else { return };
        if taken + 20_000 > now && self.rng.chance(500) {
            self.after(5000, 60_000, Ev::QueuedAgain { job, runner });
        } else {
            self.after(60_000, 600_000, Ev::JobEnds { job, runner });
        }
    }

    pub fn queued_again(&mut self, job: u64, runner: u64) {
        let row = self.github.job(job);
        if row.done.is_some() || row.taken.as_ref().is_none_or(|(.., by)| *by != runner) {
            return;
        }
        row.taken = None;
        self.github.runner(runner).job = None;
        self.tell(format!("runner {runner} is lost: job {job} is queued again"));
        self.daemons.iter_mut().for_each(|daemon| daemon.told.forget(job));
        self.webhook(job);
        self.after(100, 3000, Ev::Assign);
    }

    // ---- at each effect ----

    /// How the effect ends whatever chance says, and why.
    fn fate(&mut self, id: u64, e: &Execution) -> Option<(Luck, String)> {
        let lxd = self.daemons[e.daemon].lxd;
        if self.lost_operations.remove(&id) {
            let luck = if self.rng.chance(500) { Luck::Bad } else { Luck::Lost };
            return Some((luck, "LXD restarted meanwhile".to_owned()));
        }
        let name = e.action.instance()?;
        let makes = match &e.action {
            Action::Launch(Launch { from, .. }) => !matches!(from, LaunchSource::Standby { .. }),
            Action::Bake { .. } | Action::PrepareStandby { .. } => true,
            _ => false,
        };
        match self.lxd[lxd].get(name) {
            None if makes && self.pool_full[lxd] => Some((Luck::Bad, "there is no space".to_owned())),
            // LXD knows of it what a look asks for.
            Some(inst) if inst.hangs_until > self.now && !e.looks() => Some((Luck::Bad, format!("{name} hangs"))),
            _ => None,
        }
    }

    /// What a call meets; to LXD, or else to GitHub.
    pub fn luck(&mut self, lxd: Option<usize>) -> Luck {
        if lxd.is_none() && self.asked_of_the_day(lxdrunner::github::Purpose::Register) == Some(false) {
            return Luck::Bad;
        }
        if let (Some(_), Some(fate)) = (lxd, self.fate) {
            return fate;
        }
        let down = lxd.map_or(self.github_refuses(Limit::Everything), |lxd| !self.lxd_up[lxd]);
        let luck = match () {
            () if down || self.fault(self.faults.step) => Luck::Bad,
            () if self.fault(self.faults.lost_answer) => Luck::Lost,
            () => Luck::Good,
        };
        self.answer_lost |= luck == Luck::Lost;
        luck
    }

    pub fn github_refuses(&self, what: Limit) -> bool {
        !self.github_up || self.limit == Limit::Everything || self.limit == what && what == Limit::Listings
    }

    pub fn step(&mut self, id: u64) {
        let Some(mut execution) = self.executions.remove(&id) else { return };
        let fate = self.fate(id, &execution);
        if let Some((luck, why)) = &fate
            && self.tale.told
        {
            let what = crate::tale::words(&execution.action);
            self.tell(format!("daemon {} {what}: {why} ({luck:?})", execution.daemon));
        }
        (self.fate, self.answer_lost) = (fate.map(|(luck, _)| luck), false);
        let next = self.perform(&mut execution);
        self.fate = None;
        let daemon = execution.daemon;
        let waits = self.answer_lost && self.fault(self.faults.timeout);
        if waits && self.tale.told {
            self.tell(format!("daemon {daemon} waits in vain: {}", crate::tale::words(&execution.action)));
        }
        let dies = self.fault(self.faults.death);
        let patience = if waits { self.rng.range(10_000, 60_000) } else { 0 };
        match next {
            Next::Go(step, low, high) => {
                execution.step = *step;
                self.executions.insert(id, execution);
                self.after(low + patience, high + patience, Ev::Step(id));
            }
            Next::End(outcome) if patience > 0 || dies => {
                // It has had its effects, and nobody knows yet.
                execution.step = Step::Queued;
                self.executions.insert(id, execution);
                self.after(patience, patience, Ev::Answer { id, outcome: Box::new(outcome) });
            }
            Next::End(outcome) => self.ended(execution, outcome),
        }
        if dies {
            self.crash(daemon);
        }
    }

    pub fn answered(&mut self, id: u64, outcome: Outcome) {
        if let Some(execution) = self.executions.remove(&id) {
            self.ended(execution, outcome);
        }
    }
}

pub fn answers(up: bool) -> &'static str {
    if up { "answers again" } else { "does not answer" }
}
