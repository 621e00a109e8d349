//! Actions carried out step by step, as `execute.rs` does it: each step takes its time, and may fail before or after
//! having acted.

use lxdrunner::model::{JobStatus, Phase, RunnerId};
use lxdrunner::steps::removal::Removal;
use lxdrunner::world::{Action, Blame, Origin, Outcome};

use crate::stage::{Ev, Stage};

#[derive(Debug)]
pub enum Step {
    Queued,
    Create,
    Created,
    Register,
    Started,
    StartRunner,
    Note,
    TakeBack(Blame, &'static str),
    DropInstance,
    /// The last step of a template or standby.
    Finish,
    Claim,
    Thaw,
    Again(u32),
    /// Takes back the registration of a claim that came to nothing.
    GiveBack(String),
    Remove(Removal),
    Ask,
}

pub struct Execution {
    pub daemon: usize,
    pub life: u32,
    pub action: Action,
    pub step: Step,
    pub registered: Option<u64>,
}

pub enum Next {
    Go(Step, u64, u64),
    End(Outcome),
}

/// What a step meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Good,
    /// It fails, and nothing was done.
    Bad,
    /// It was done, and the answer got lost.
    Lost,
}

impl Stage {
    /// One effect; also called for what was on its way when the process died.
    pub fn perform(&mut self, e: &mut Execution) -> Next {
        let lxd = self.daemons[e.daemon].lxd;
        match e.action.clone() {
            Action::Launch { class, scope, name, from, .. } => self.launch(e, lxd, (class, scope, name, from)),
            Action::Bake { .. } | Action::PrepareStandby { .. } => self.prepare(e, lxd),
            Action::FetchImage { .. } => unreachable!("every image is there"),
            Action::Remove { name, .. } => match std::mem::replace(&mut e.step, Step::Queued) {
                Step::Remove(removal) => self.remove(e, lxd, &name, removal),
                other => unreachable!("{other:?}"),
            },
            Action::Deregister { runner, name, .. } => match self.delete_runner(e.daemon, runner.0, Some(&name)) {
                Ok(true) => Next::End(Outcome::Deregistered),
                Ok(false) => Next::End(Outcome::Kept { why: "422".to_owned() }),
                Err(()) => Next::End(Outcome::RemoveFailed { reason: "502".to_owned() }),
            },
            Action::FetchPackage { .. } => Next::End(match self.luck(None) {
                Luck::Good => Outcome::PackageReady { version: "2.330.0".to_owned(), life: Default::default() },
                _ => Outcome::PackageFailed { reason: "502".to_owned() },
            }),
            Action::LookUpJob { job, .. } => Next::End(match self.github_fails() {
                true => Outcome::LookFailed { reason: "502".to_owned() },
                false => {
                    let time = self.now;
                    Outcome::JobFound(Some(Box::new(self.github.job(job.0).at(time))))
                }
            }),
            Action::LookUpRun { run, .. } => Next::End(match self.github_fails() {
                true => Outcome::LookFailed { reason: "502".to_owned() },
                false => Outcome::RunFound(Some(self.github.job(run).origin())),
            }),
            Action::LookAtRepo { repo } => Next::End(match self.github_fails() {
                true => Outcome::LookFailed { reason: "502".to_owned() },
                false => {
                    let at = crate::github::REPOS.iter().position(|r| *r == repo.to_string()).unwrap();
                    let time = self.lagged();
                    Outcome::JobsFound(self.github.open_jobs(at, time))
                }
            }),
        }
    }

    fn launch(
        &mut self,
        e: &mut Execution,
        lxd: usize,
        (class_at, scope, name, from): (usize, lxdrunner::model::Scope, String, Origin),
    ) -> Next {
        let class = self.config.classes[class_at].clone();
        let blame = match &from {
            Origin::Image => Blame::Class(class.name.clone()),
            Origin::Template(_) => Blame::Template(class.name.clone()),
            Origin::Standby { .. } => Blame::Standby(class.name.clone()),
        };
        let claims = matches!(from, Origin::Standby { .. });
        let failed = |blame, reason: &str, made| {
            Next::End(Outcome::LaunchFailed { blame, reason: reason.to_owned(), made, runner: None })
        };
        match &e.step {
            Step::Queued | Step::Create if claims => Next::Go(Step::Register, 5, 50),
            Step::Queued | Step::Create => {
                match self.make(e, lxd, (class_at, &name), (Phase::Provisioning, None), blame) {
                    Ok(()) => Next::Go(Step::Created, 50, 3000),
                    Err(outcome) => Next::End(outcome),
                }
            }
            Step::Claim => match from {
                Origin::Standby { etag } => self.claim(e, lxd, &name, etag),
                other => unreachable!("{other:?}"),
            },
            Step::Thaw => match self.luck(Some(lxd)) {
                Luck::Good => {
                    if let Some(inst) = self.lxd[lxd].get_mut(&name) {
                        inst.frozen = false;
                    }
                    match (e.registered, self.token, self.github.named(&scope, &name)) {
                        // Another daemon, which lost the claim, gives the name back in a moment.
                        (None, false, Some(_)) => Next::Go(Step::Again(1), 400, 700),
                        (None, false, None) => failed(Blame::Scope(scope), "502", true),
                        _ => Next::Go(Step::StartRunner, 5, 200),
                    }
                }
                _ => Next::Go(Step::TakeBack(blame, "not thawed"), 50, 1000),
            },
            Step::Again(times) => {
                if self.github.named(&scope, &name).is_some() {
                    let again = Next::Go(Step::Again(times + 1), 400, 700);
                    return if *times < 5 { again } else { Next::Go(Step::DropInstance, 100, 2000) };
                }
                let id = self.github.register(&scope, &name, &class.labels, Some(e.daemon), self.now);
                self.tell(format!("registration {name} ({id}) made by {}", e.daemon));
                e.registered = Some(id);
                Next::Go(Step::StartRunner, 5, 200)
            }
            Step::GiveBack(reason) => {
                let reason = reason.clone();
                if let Some(id) = e.registered {
                    let _ = self.delete_runner(e.daemon, id, None);
                }
                Next::End(Outcome::StandbyLost { reason })
            }
            Step::Created => match self.luck(Some(lxd)) {
                Luck::Good => {
                    if let Some(inst) = self.lxd[lxd].get_mut(&name) {
                        inst.running = true;
                        inst.version += 1;
                    }
                    Next::Go(if self.token { Step::Started } else { Step::Register }, 100, 2000)
                }
                _ => failed(blame, "not started", true),
            },
            Step::Register => {
                if claims && self.token {
                    return Next::Go(Step::Claim, 5, 300);
                }
                if self.github.named(&scope, &name).is_some() {
                    if claims {
                        return Next::Go(Step::Claim, 5, 300);
                    }
                    return Next::Go(Step::DropInstance, 100, 2000);
                }
                let luck = self.luck(None);
                if !matches!(luck, Luck::Bad) {
                    let id = self.github.register(&scope, &name, &class.labels, Some(e.daemon), self.now);
                    self.tell(format!("registration {name} ({id}) made by {}", e.daemon));
                    e.registered = Some(id).filter(|_| matches!(luck, Luck::Good));
                }
                match luck {
                    _ if claims => Next::Go(Step::Claim, 5, 300),
                    Luck::Good => Next::Go(Step::Started, 100, 4000),
                    _ => failed(Blame::Scope(scope), "502", true),
                }
            }
            Step::Started => match self.luck(Some(lxd)) {
                Luck::Good => {
                    if let Some(inst) = self.lxd[lxd].get_mut(&name) {
                        inst.runner_key = e.registered.map(RunnerId);
                        inst.version += 1;
                    }
                    Next::Go(Step::StartRunner, 500, 8000)
                }
                _ => Next::Go(Step::TakeBack(blame, "set-up failed"), 50, 1000),
            },
            Step::StartRunner => {
                let luck = self.luck(Some(lxd));
                let now = self.now;
                if self.lxd[lxd].get(&name).is_some_and(|i| i.owner != Some((e.daemon, e.life)) || i.frozen) {
                    self.fail(&format!("daemon {} starts a runner in {name}, which is not its own", e.daemon));
                }
                if !matches!(luck, Luck::Bad) && self.lxd[lxd].get(&name).is_some_and(|i| i.running) {
                    let runner = match (self.token, e.registered) {
                        // `config.sh` fails where the name is taken, and the instance powers off.
                        (true, _) if self.github.named(&scope, &name).is_some() => None,
                        (true, _) => Some(self.github.register(&scope, &name, &class.labels, Some(e.daemon), now)),
                        (false, registered) => registered,
                    };
                    self.lxd[lxd].get_mut(&name).unwrap().process = runner.or(Some(0));
                    if runner.is_none() {
                        self.after(300, 6000, Ev::PowerOff { lxd, name: name.clone(), runner: 0 });
                    }
                    self.tell(format!("runner process of {name} starts ({runner:?})"));
                    if let Some(runner) = runner.filter(|_| !self.fault(self.faults.sick_runner)) {
                        self.after(300, 6000, Ev::Online { runner });
                    }
                }
                match luck {
                    Luck::Good => Next::Go(Step::Note, 20, 500),
                    _ => Next::Go(Step::TakeBack(blame, "start-runner.sh: no answer"), 50, 1000),
                }
            }
            Step::Note => {
                if !matches!(self.luck(Some(lxd)), Luck::Bad)
                    && let Some(inst) = self.lxd[lxd].get_mut(&name)
                {
                    inst.phase = Phase::Started;
                    inst.version += 1;
                    inst.runner_key = e.registered.map(RunnerId);
                }
                Next::End(Outcome::Launched { runner: e.registered.map(RunnerId) })
            }
            Step::TakeBack(blame, reason) => {
                let (blame, reason) = (blame.clone(), *reason);
                let left = |stage: &mut Stage, id| stage.delete_runner(e.daemon, id, None) != Ok(true);
                let runner = e.registered.filter(|id| left(self, *id)).map(RunnerId);
                Next::End(Outcome::LaunchFailed { blame, reason: reason.to_owned(), made: true, runner })
            }
            Step::DropInstance => match self.luck(Some(lxd)) {
                Luck::Good => {
                    self.kill(lxd, &name, false);
                    self.lxd[lxd].remove(&name);
                    Next::End(Outcome::Clash { reason: "409".to_owned() })
                }
                _ => failed(Blame::Host, "409, and not removed", true),
            },
            other => unreachable!("{other:?}"),
        }
    }

    /// `Ok(false)`: busy. `dead` names the registration where it is removed for having no instance.
    pub fn delete_runner(&mut self, daemon: usize, id: u64, dead: Option<&str>) -> Result<bool, ()> {
        let now = self.now;
        let luck = self.luck(None);
        if matches!(luck, Luck::Bad) {
            return Err(());
        }
        let lie = self.fault(self.faults.lie);
        let row = self.github.runner(id);
        if row.gone.is_some() {
            return Ok(true);
        }
        let job = row.job.map(|(_, job)| job);
        let (by, name, online) = (row.by, row.name.clone(), row.is_online(now));
        let running = job.is_some_and(|job| self.github.job(job).at(now).status == JobStatus::InProgress);
        let runner = self.github.runners.iter().find(|r| r.id == id).unwrap();
        if running && runner.offline.is_none() && !(lie && self.github.may_lie(runner, now)) {
            return Ok(false);
        }
        let strange = by.is_none() || (by != Some(daemon) && online && dead.is_none() && self.lxd.len() > 1);
        if strange || (dead.is_some() && online) {
            self.fail(&format!("registration {name} ({id}) of {by:?} was taken away by {daemon}"));
        }
        self.github.runner(id).gone = Some(now);
        self.tell(format!("registration {name} ({id}) deleted"));
        match luck {
            Luck::Lost => Err(()),
            _ => Ok(true),
        }
    }
}
