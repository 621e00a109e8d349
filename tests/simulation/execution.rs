//! Actions carried out step by step, as `execute.rs` does it, with the same machines: each step takes its time, and may fail
//! before or after having acted.

use lxdrunner::model::JobStatus;
use lxdrunner::steps::making::{self, Making};
use lxdrunner::steps::removal::Removal;
use lxdrunner::world::{Action, Launch, Outcome};

use crate::stage::Stage;

#[derive(Debug)]
pub enum Step {
    Queued,
    /// With what GitHub said meanwhile, where it did.
    Make(Box<Making>, Option<making::Answer>),
    Remove(Removal),
    Ask,
}

pub struct Execution {
    pub daemon: usize,
    pub life: u32,
    pub action: Action,
    pub step: Step,
    pub registered: Option<u64>,
    /// How often its set-up is still seen to go on.
    pub slow: u64,
}

impl Execution {
    /// True where LXD is asked for what it knows without the instance's help.
    pub fn looks(&self) -> bool {
        matches!(&self.step, Step::Make(making, _) if matches!(making.step(), making::Step::Look(_)))
    }
}

pub enum Next {
    Go(Box<Step>, u64, u64),
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
            Action::Launch(Launch { name, .. }) | Action::Bake { name, .. } | Action::PrepareStandby { name, .. } => {
                match std::mem::replace(&mut e.step, Step::Queued) {
                    Step::Make(making, heard) => self.make(e, lxd, &name, making, heard),
                    other => unreachable!("{other:?}"),
                }
            }
            Action::FetchImage { .. } => unreachable!("every image is there"),
            Action::Remove { name, .. } => match std::mem::replace(&mut e.step, Step::Queued) {
                Step::Remove(removal) => self.remove(e, lxd, &name, removal),
                other => unreachable!("{other:?}"),
            },
            Action::RemoveImage { fingerprint, alias, .. } => {
                Next::End(self.remove_image(e, lxd, &fingerprint, &alias))
            }
            Action::Deregister { runner, name, .. } => match self.delete_runner(e.daemon, runner.0, Some(&name)) {
                Ok(true) => Next::End(Outcome::Deregistered),
                Ok(false) => Next::End(Outcome::Kept { why: "422".to_owned() }),
                Err(()) => Next::End(Outcome::RemoveFailed { reason: "502".to_owned() }),
            },
            Action::FetchPackage { .. } => Next::End(match self.luck(None) {
                Luck::Good => Outcome::PackageReady { version: "2.330.0".to_owned(), life: Default::default() },
                _ => Outcome::PackageFailed { reason: "502".to_owned(), cached: None },
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
        // Known are only wrong answers about runners that are online.
        let wrong = (lie || runner.mistaken) && self.github.may_lie(runner, now) && runner.is_online(now);
        if running && runner.offline.is_none() && !wrong {
            return Ok(false);
        }
        let strange = by.is_none() || (by != Some(daemon) && online && dead.is_none() && self.lxd.len() > 1);
        // Who was away for so long is taken for dead, and may be back the moment before.
        let given_up = runner.away.is_some_and(|(from, until)| until - from > 120_000);
        if strange || (dead.is_some() && online && !given_up) {
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
