//! Removals: the real steps, taken against the models. Whatever is stopped or deleted must be what may be.

use lxdrunner::config::Registration;
use lxdrunner::github::Deletion;
use lxdrunner::identity::Maker;
use lxdrunner::model::{InstanceStatus, Phase, RunnerId};
use lxdrunner::steps::removal::{self, Answer, Inside, Removal};
use lxdrunner::steps::{self, InstanceView};
use lxdrunner::world::{Action, Outcome, RemoveReason};

use crate::execution::{Execution, Luck, Next, Step};
use crate::making::has_it_in_hand;
use crate::stage::{Ev, Inst, Stage};

/// How long another living process may be at an instance before it may be cleared away; milliseconds.
const LEFT_TO_ANOTHER: u64 = 240_000;

impl Inst {
    pub fn status(&self) -> InstanceStatus {
        match (self.running, self.frozen) {
            (true, true) => InstanceStatus::Frozen,
            (true, false) => InstanceStatus::Running,
            _ => InstanceStatus::Stopped,
        }
    }

    /// True where LXD deletes it when it stops.
    pub fn is_ephemeral(&self) -> bool {
        !matches!(self.phase, Phase::Baking | Phase::Template)
    }
}

impl Stage {
    pub fn begin_removal(&self, action: &Action) -> Step {
        let Action::Remove { judged, .. } = action else { unreachable!("{action:?}") };
        let registration = if self.token { Registration::Token } else { Registration::Jit };
        Step::Remove(Removal::new(judged.clone(), &self.config.prefix, registration))
    }

    /// One step, and what the machine makes of what came.
    pub fn remove(&mut self, e: &mut Execution, lxd: usize, name: &str, mut removal: Removal) -> Next {
        let came = self.take(e, lxd, name, &removal);
        match removal.next(came) {
            steps::Next::End(outcome) => Next::End(outcome),
            steps::Next::Take(step) => {
                let slow = self.rng.chance(150);
                let (low, high) = match step {
                    removal::Step::FindRunner(_) | removal::Step::Deregister(..) if slow => (50, 25_000),
                    removal::Step::Claim { .. } => (5, 300),
                    removal::Step::FindRunner(_) | removal::Step::Deregister(..) => (50, 1000),
                    // Right after the look.
                    removal::Step::Stop | removal::Step::Delete => (1, 20),
                    removal::Step::LookAgain => (50, 1000),
                    _ => (20, 300),
                };
                Next::Go(Box::new(Step::Remove(removal)), low, high)
            }
        }
    }

    /// What was just made for nothing, in one go.
    pub fn drop_ours(&mut self, e: &Execution, lxd: usize, name: &str, why: RemoveReason) -> Outcome {
        let mut removal = Removal::of_our_own(&self.config.prefix, why);
        loop {
            let came = self.take(e, lxd, name, &removal);
            if let steps::Next::End(outcome) = removal.next(came) {
                return outcome;
            }
        }
    }

    fn take(&mut self, e: &Execution, lxd: usize, name: &str, removal: &Removal) -> Answer {
        let failed = |why: &str| Answer::Failed(why.to_owned());
        let luck = match removal.step() {
            removal::Step::FindRunner(_) | removal::Step::Deregister(..) => Luck::Good,
            _ => self.luck(Some(lxd)),
        };
        if matches!(luck, Luck::Bad) {
            return failed("LXD does not answer");
        }
        let answer = match removal.step() {
            removal::Step::Look | removal::Step::LookAgain => {
                if *removal.step() == removal::Step::Look {
                    self.is_taken_out_of_our_hands(lxd, name);
                }
                match self.lxd[lxd].get(name) {
                    Some(inst) => Answer::Found(self.found(e, inst)),
                    None => Answer::Gone,
                }
            }
            removal::Step::Claim { etag, phase } => match self.lxd[lxd].get_mut(name) {
                Some(inst) if inst.version.to_string() == *etag => {
                    inst.owner = Some((e.daemon, e.life));
                    inst.phase = *phase;
                    inst.version += 1;
                    Answer::Done
                }
                _ => Answer::Changed,
            },
            removal::Step::LookInside => Answer::Inside(self.inside(lxd, name)),
            removal::Step::FindRunner(_) if self.github_fails() => failed("502"),
            removal::Step::FindRunner(scope) => {
                let (named, now) = (self.github.named(scope, name), self.now);
                Answer::Runner(named.map(|id| (RunnerId(id), self.github.runner(id).is_online(now))))
            }
            removal::Step::Deregister(_, runner) => match self.delete_runner(e.daemon, runner.0, None) {
                Ok(true) => Answer::Deregistered(Deletion::Deleted),
                Ok(false) => Answer::Deregistered(Deletion::Busy),
                Err(()) => failed("502"),
            },
            removal::Step::KeepLogs => Answer::Done,
            removal::Step::Stop => self.stop(e, lxd, name, removal.judged().reason),
            removal::Step::Delete => self.delete(e, lxd, name, removal.judged().reason),
        };
        match luck {
            Luck::Good => answer,
            _ => failed("the answer was lost"),
        }
    }

    /// Now and then somebody takes our key away to have a look at an instance, and removes it when he is done.
    fn is_taken_out_of_our_hands(&mut self, lxd: usize, name: &str) {
        let at_it = self.executions.values().any(|other| other.action.instance() == Some(name));
        let fault = self.fault(self.faults.blind) && !at_it;
        let Some(inst) = self.lxd[lxd].get_mut(name).filter(|i| i.process.is_none() && fault) else { return };
        if inst.owner.take().is_some() {
            (inst.running, inst.version) = (false, inst.version + 1);
            let made = inst.made;
            self.tell(format!("somebody takes {name} out of our hands"));
            self.after(20_000, 60_000, Ev::SelfDelete { lxd, name: name.to_owned(), made });
        }
    }

    pub fn found(&self, e: &Execution, inst: &Inst) -> InstanceView {
        InstanceView {
            etag: inst.version.to_string(),
            owner: inst.owner.map(|_| self.config.prefix.clone()),
            phase: inst.phase,
            maker: inst.owner.map_or(Maker::Dead, |owner| self.maker(e.daemon, e.life, owner)),
            scoped: inst.scope.is_some(),
            runner: inst.runner_key,
            status: inst.status(),
            made_at: Some(lxdrunner::model::Timestamp(inst.made)),
        }
    }

    fn inside(&mut self, lxd: usize, name: &str) -> Inside {
        let blind = self.fault(self.faults.blind);
        let Some(inst) = self.lxd[lxd].get(name).filter(|i| i.running && !i.frozen && !blind) else {
            return Inside::Unknown;
        };
        // Between acquiring a job and its worker process nothing inside shows the job.
        let worker_comes = if self.faults.lie > 0 { 20_000 } else { 500 };
        let (job, now) = (inst.process.and_then(|p| self.github.runner(p).job), self.now);
        match job.is_some_and(|(at, job)| at + worker_comes < now && self.github.job(job).done.is_none()) {
            true => Inside::Working,
            false => Inside::Quiet,
        }
    }

    fn stop(&mut self, e: &Execution, lxd: usize, name: &str, reason: RemoveReason) -> Answer {
        if !self.lxd[lxd].contains_key(name) {
            return Answer::Failed("not found".to_owned());
        }
        self.check_removal(e, lxd, name, reason);
        self.kill(lxd, name, reason == RemoveReason::TooOld);
        let inst = self.lxd[lxd].get_mut(name).unwrap();
        inst.version += 1;
        let (made, ephemeral) = (inst.made, inst.is_ephemeral());
        if ephemeral && self.rng.chance(500) {
            self.after(1, 1500, Ev::SelfDelete { lxd, name: name.to_owned(), made });
        }
        Answer::Done
    }

    fn delete(&mut self, e: &Execution, lxd: usize, name: &str, reason: RemoveReason) -> Answer {
        match self.lxd[lxd].get(name).map(|i| (i.running, i.phase)) {
            None => Answer::Failed("not found".to_owned()),
            Some((true, _)) => Answer::Failed("it runs".to_owned()),
            Some((false, _)) if self.lxd[lxd][name].half_written => Answer::Failed("it is half-written".to_owned()),
            Some((false, phase)) => {
                self.check_removal(e, lxd, name, reason);
                self.lxd[lxd].remove(name);
                self.tell(format!("{phase:?} {name} deleted by {} ({reason:?})", e.daemon));
                Answer::Done
            }
        }
    }

    /// What is stopped or deleted is ours, and nobody makes it or has claimed it.
    fn check_removal(&self, e: &Execution, lxd: usize, name: &str, reason: RemoveReason) {
        let inst = &self.lxd[lxd][name];
        let Some(owner) = inst.owner else {
            self.fail(&format!("{name}, which is somebody else's, is removed by {}", e.daemon));
        };
        let makes = |other: &Execution| {
            let Step::Make(making, _) = &other.step else { return false };
            let same = other.action.instance() == Some(name) && (other.daemon, other.life) == owner;
            same && has_it_in_hand(making.step())
        };
        let patient = self.now > inst.made.max(inst.noted) + LEFT_TO_ANOTHER || reason == RemoveReason::TooOld;
        // Once the credentials are handed over it needs nobody.
        let unfinished = inst.phase.is_making() && inst.process.is_none() && !inst.ended;
        if unfinished && !patient && self.executions.values().any(makes) {
            self.fail(&format!("{name} is removed by {} ({reason:?}) while {} makes it", e.daemon, owner.0));
        }
    }
}
