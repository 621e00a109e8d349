//! How long jobs wait where hardly anything goes wrong: while there is a place for another runner, none of them long.

use std::collections::BTreeMap;

use lxdrunner::model::{Phase, Scope};

use crate::github::scope_of;
use crate::stage::{FIRST_JOB, Inst, Stage};

/// A job may lack a runner on its way for so long although there is a place; milliseconds.
const LONGEST: u64 = 45_000;
/// The same where only looks tell of jobs.
const LONGEST_POLLING: u64 = 120_000;
/// Who is not online after so long will not come.
const COMES: u64 = 150_000;

/// Since when jobs of a scope and class lack runners.
#[derive(Default)]
pub struct Waits {
    since: BTreeMap<(Scope, String), u64>,
    checked: u64,
}

impl Stage {
    /// Quiet stories have one daemon and no failures; but some of their runners are sick, and some do not power off.
    pub fn check_waits(&mut self) {
        if !self.quiet || self.now < self.waits.checked + 1000 {
            return;
        }
        self.waits.checked = self.now;
        if self.is_away() {
            self.waits.since.clear();
            return;
        }
        let since = std::mem::take(&mut self.waits.since);
        for class in &self.config.classes {
            for scope in &self.config.targets {
                let mut waiting = self.github.jobs.iter().filter(|j| {
                    let gpu = j.labels.contains(&"gpu");
                    // Whose name is taken stands back first.
                    j.ours()
                        && j.id != FIRST_JOB
                        && j.taken.is_none()
                        && j.done.is_none()
                        && scope_of(j.repo) == *scope
                        && gpu == (class.name == "gpu")
                });
                let Some(first) = waiting.next() else { continue };
                let ours = || self.lxd[0].values().filter(|i| i.owner.is_some() && i.phase != Phase::Template);
                let of_class = |i: &&Inst| i.class == class.name;
                let may_come =
                    ours().filter(of_class).filter(|i| i.scope.as_ref() == Some(scope) && self.may_come(i)).count();
                // Even what is done may take a place: of its end perhaps only a listing told, and listings lag.
                let places =
                    ours().count() < self.config.max_workers && ours().filter(of_class).count() < class.max_workers;
                if waiting.count() < may_come || !places {
                    continue;
                }
                let key = (scope.clone(), class.name.clone());
                let at = since.get(&key).copied().unwrap_or(self.now);
                let longest = if self.polling { LONGEST_POLLING } else { LONGEST };
                if self.now - at > longest {
                    self.fail(&format!("job {} waits, although there is a place for its runner", first.id));
                }
                self.waits.since.insert(key, at);
            }
        }
    }

    /// True for a runner, or what becomes one, that may still take a job.
    fn may_come(&self, inst: &Inst) -> bool {
        let runner = inst.process.and_then(|id| self.github.runners.iter().find(|r| r.id == id));
        match runner {
            None => !inst.ended && self.now < inst.made + COMES && !self.is_of_boot_before(inst),
            // Without an id, a runner that had its job between two looks cannot be told from one that is still to come.
            Some(r) if r.job.is_some() => self.token && self.polling && self.now < inst.made + COMES,
            Some(r) => r.gone.is_none() && (r.online.is_some() || self.now < inst.made + COMES),
        }
    }
}
