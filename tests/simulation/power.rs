//! Hosts that lose power: all processes end, LXD is away for a while, and comes back with what was half-written. Where nothing
//! else goes wrong, nothing of the boot before is left a minute later, and no job waits for it.

use lxdrunner::identity::{Maker, maker_seen_by};
use lxdrunner::model::Phase;
use lxdrunner::steps::making;

use crate::execution::{Execution, Step};
use crate::making::what;
use crate::rng::Rng;
use crate::stage::{Ev, Inst, Stage};
use crate::{READY, config, stage, story, told};

/// How long the cleaning may take once LXD answers and the daemon runs; milliseconds.
const CLEARED: u64 = 60_000;
/// Stories of power cuts alone.
const STORIES: usize = 8;

/// What the hosts went through.
#[derive(Default)]
pub struct Power {
    /// How often each host booted.
    boots: Vec<u32>,
    /// In which boot a life of a daemon began.
    boot_of: std::collections::BTreeMap<(usize, u32), u32>,
    /// When power was last lost.
    cut: Option<u64>,
    /// Whether that cut was checked.
    checked: bool,
    /// Since when LXD and the daemon are there again, until that was long enough.
    back: Option<u64>,
}

impl Power {
    pub fn was_cut(&self) -> bool {
        self.cut.is_some()
    }
}

impl Stage {
    /// When the hosts lose power. Their own chance, so that stories without power cuts stay what they are.
    pub fn power_cuts(&mut self, hardness: u64) {
        let mut rng = Rng::new(self.seed ^ 0xC07);
        self.power.boots = vec![1; self.lxd.len()];
        let cuts = match hardness {
            0 if self.quiet && !self.seed.is_multiple_of(2) => rng.range(1, 3),
            0 => 0,
            _ if self.seed.is_multiple_of(3) => hardness.min(2),
            _ => 0,
        };
        for lxd in 0..self.lxd.len() {
            for _ in 0..cuts {
                let at = rng.range(self.now, self.calm_at);
                self.at(at, Ev::PowerCut(lxd));
            }
        }
    }

    /// A life of a daemon begins.
    pub fn note_boot(&mut self, daemon: usize, life: u32) {
        let boot = self.power.boots[self.daemons[daemon].lxd];
        self.power.boot_of.insert((daemon, life), boot);
    }

    /// As a process of this life writes it into the keys. A daemon's number stands for its process id.
    fn identity(&self, (daemon, life): (usize, u32)) -> String {
        let (lxd, boot) = (self.daemons[daemon].lxd, self.power.boot_of[&(daemon, life)]);
        format!("m{lxd}.b{boot}.4026531836.0.{daemon}.{life}")
    }

    /// Who makes an instance, as this life of this daemon sees it.
    pub fn maker(&self, daemon: usize, life: u32, owner: (usize, u32)) -> Maker {
        // Its own world is elsewhere while it decides.
        let alive = |other: usize| other == daemon || self.daemons[other].world.is_some();
        let start_time = |pid: &str| {
            let other = pid.parse().ok().filter(|other| *other < self.daemons.len() && alive(*other))?;
            Some(u64::from(if other == daemon { life } else { self.daemons[other].life }))
        };
        maker_seen_by(&self.identity((daemon, life)), &self.identity(owner), self.clustered, &start_time)
    }

    pub fn power_cut(&mut self, lxd: usize) {
        if self.calm {
            return;
        }
        self.tell_of_all(format!("host {lxd} loses power"));
        self.half_write(lxd);
        for daemon in 0..self.daemons.len() {
            if self.daemons[daemon].lxd == lxd {
                self.crash(daemon);
            }
        }
        self.power.boots[lxd] += 1;
        (self.power.cut, self.power.back, self.power.checked) = (Some(self.now), None, false);
        self.lxd_turns(lxd, false);
        let mut lost = Vec::new();
        for inst in self.lxd[lxd].values_mut().filter(|i| i.running && i.owner.is_some()) {
            inst.ended |= inst.process.is_some();
            lost.extend(inst.process.take());
            // LXD starts what ran, unless it was told not to.
            (inst.running, inst.frozen, inst.hangs_until) = (inst.autostart, false, 0);
            inst.version += 1;
        }
        lost.into_iter().for_each(|runner| self.runner_is_lost(runner));
        self.after(5_000, 60_000, Ev::Lxd { lxd, up: true });
    }

    /// Of what is just being created, LXD may have the record without the whole root: it can neither start nor delete that.
    fn half_write(&mut self, lxd: usize) {
        let creates =
            |e: &Execution| matches!(&e.step, Step::Make(making, _) if *making.step() == making::Step::Create);
        let here = |e: &Execution| self.daemons[e.daemon].lxd == lxd && creates(e);
        let under_way: Vec<u64> = self.executions.iter().filter(|(_, e)| here(e)).map(|(id, _)| *id).collect();
        for id in under_way {
            let Some(e) = self.executions.remove(&id).filter(|_| self.rng.chance(500)) else { continue };
            let name = e.action.instance().unwrap_or_default().to_owned();
            if matches!(self.create(&e, lxd, &name, &what(&e.action)), making::Answer::Done) {
                self.lxd[lxd].get_mut(&name).unwrap().half_written = true;
                self.tell(format!("{name} is half-written"));
            }
        }
    }

    /// True for what was there before the last power cut.
    pub fn is_of_boot_before(&self, inst: &Inst) -> bool {
        self.power.cut.is_some_and(|cut| inst.made <= cut)
    }

    /// True where the host is down, or not yet up again.
    pub fn is_away(&self) -> bool {
        !self.lxd_up[0] || self.daemons[0].world.is_none()
    }

    /// What must hold after a power cut where nothing else goes wrong.
    pub fn check_power(&mut self) {
        if !self.quiet || self.token || self.power.cut.is_none() || self.power.checked {
            return;
        }
        if self.is_away() {
            self.power.back = None;
            return;
        }
        let back = *self.power.back.get_or_insert(self.now);
        if self.now < back + CLEARED {
            return;
        }
        for (name, inst) in self.lxd[0].iter().filter(|(_, i)| i.owner.is_some() && i.phase != Phase::Template) {
            let stuck = self.daemons[0].world.iter().any(|world| world.stuck().any(|(i, _)| i.seen.name == *name));
            // It is called stuck only after tries of half a minute, of which each may take long.
            if inst.half_written && !stuck && self.now < back + 3 * CLEARED {
                return;
            }
            if self.is_of_boot_before(inst) && !(inst.half_written && stuck) {
                self.fail(&format!("{name} is of the boot before, and is still there"));
            }
        }
        self.power.checked = true;
    }
}

#[test]
fn a_minute_after_a_power_cut_nothing_of_the_boot_before_is_left() {
    let configs = READY.map(config);
    let mut stories = 0;
    for seed in 1.. {
        let mut stage = stage(seed, &configs[seed as usize % configs.len()]);
        let cut = |ev: &Ev| matches!(ev, Ev::PowerCut(_));
        if !stage.quiet || stage.token || !stage.queue.values().any(cut) {
            continue;
        }
        stage.tale.told = true;
        told(&mut stage, story).unwrap_or_else(|failure| panic!("{failure}"));
        stories += 1;
        if stories == STORIES {
            return;
        }
    }
}
