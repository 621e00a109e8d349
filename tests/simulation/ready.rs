//! Templates, standbys and their claims, carried out step by step as `execute/ready.rs` does it.

use lxdrunner::model::{Phase, Recipe};
use lxdrunner::world::{Action, Blame, ImageSeen, Outcome};

use crate::execution::{Execution, Luck, Next, Step};
use crate::stage::{Ev, Inst, Stage};

impl Stage {
    /// What each class would be made from now.
    pub fn images(&self) -> Vec<ImageSeen> {
        self.config.classes.iter().map(|_| ImageSeen::Known(format!("image-{}", self.image))).collect()
    }

    pub fn image_moves(&mut self) {
        self.image += 1;
        self.tell(format!("the image is now number {}", self.image));
    }

    /// Makes an instance where the name is free; `Err` is the outcome otherwise.
    pub fn make(
        &mut self,
        e: &Execution,
        lxd: usize,
        (class, name): (usize, &str),
        (phase, recipe): (Phase, Option<Recipe>),
        blame: Blame,
    ) -> Result<(), Outcome> {
        let failed = |blame: Blame, reason: &str, made| {
            let reason = reason.to_owned();
            match phase {
                Phase::Provisioning => Outcome::LaunchFailed { blame, reason, made, runner: None },
                _ => Outcome::NotMade { blame, reason, made },
            }
        };
        let luck = self.luck(Some(lxd));
        let source = e.action.copies();
        let template = |i: &Inst| i.owner.is_some() && i.phase == Phase::Template && !i.running;
        if let Some(source) = source
            && !self.lxd[lxd].get(source).is_some_and(template)
        {
            return Err(failed(blame, "there is no such template", false));
        }
        if !matches!(luck, Luck::Bad) && !self.lxd[lxd].contains_key(name) {
            let (scope, job) = match &e.action {
                Action::Launch { scope, job, .. } => (Some(scope.clone()), *job),
                _ => (None, None),
            };
            let inst = Inst {
                owner: Some((e.daemon, e.life)),
                class: self.config.classes[class].name.clone(),
                scope,
                job,
                phase,
                recipe,
                runner_key: None,
                running: false,
                frozen: false,
                version: 0,
                made: self.now,
                process: None,
                ended: false,
                hangs_until: 0,
            };
            self.lxd[lxd].insert(name.to_owned(), inst);
            return if matches!(luck, Luck::Good) { Ok(()) } else { Err(failed(Blame::Host, "unreachable", true)) };
        }
        if !self.lxd_up[lxd] {
            return Err(failed(Blame::Host, "unreachable", true));
        }
        Err(match self.lxd[lxd].get(name).map(|i| i.owner) {
            None => failed(blame, "not created", false),
            Some(Some(owner)) if owner == (e.daemon, e.life) => failed(blame, "half created", true),
            Some(_) => Outcome::Clash { reason: "the name is taken".to_owned() },
        })
    }

    /// A template or a standby, from nothing to what it is to be.
    pub fn prepare(&mut self, e: &mut Execution, lxd: usize) -> Next {
        let (class, name, recipe, first, last) = match e.action.clone() {
            Action::Bake { class, name, recipe, .. } => (class, name, recipe, Phase::Baking, Phase::Template),
            Action::PrepareStandby { class, name, recipe, .. } => {
                (class, name, recipe, Phase::Preparing, Phase::Standby)
            }
            other => unreachable!("{other:?}"),
        };
        let class_name = self.config.classes[class].name.clone();
        let bakes = first == Phase::Baking;
        let blame = if bakes { Blame::Bake(class_name) } else { Blame::Standby(class_name) };
        let failed =
            |reason: &str| Next::End(Outcome::NotMade { blame: blame.clone(), reason: reason.to_owned(), made: true });
        let ours = |i: &&mut Inst| i.owner == Some((e.daemon, e.life)) && i.phase == first;
        match e.step {
            Step::Queued | Step::Create => {
                match self.make(e, lxd, (class, &name), (first, Some(recipe)), blame.clone()) {
                    Ok(()) => Next::Go(Step::Created, 50, 3000),
                    Err(outcome) => Next::End(outcome),
                }
            }
            Step::Created => match self.luck(Some(lxd)) {
                Luck::Good => {
                    if let Some(inst) = self.lxd[lxd].get_mut(&name).filter(ours) {
                        inst.running = true;
                    }
                    let (low, high) = if bakes { (1000, 60_000) } else { (300, 3000) };
                    Next::Go(Step::Started, low, high)
                }
                _ => failed("not started"),
            },
            Step::Started => match self.luck(Some(lxd)) {
                Luck::Good if bakes && self.fault(self.faults.bake) => failed("the set-up failed"),
                Luck::Good => {
                    if let Some(inst) = self.lxd[lxd].get_mut(&name).filter(ours) {
                        inst.running = !bakes;
                        inst.frozen = !bakes;
                    }
                    Next::Go(Step::Finish, 20, 500)
                }
                _ => failed("not set up"),
            },
            Step::Finish => {
                let luck = self.luck(Some(lxd));
                let mut etag = None;
                if !matches!(luck, Luck::Bad)
                    && let Some(inst) = self.lxd[lxd].get_mut(&name).filter(ours)
                {
                    inst.phase = last;
                    inst.version += 1;
                    etag = Some(inst.version.to_string());
                    self.tell(format!("{name} is a {last:?}"));
                }
                match (luck, etag) {
                    (Luck::Good, Some(_)) if bakes => Next::End(Outcome::Baked),
                    (Luck::Good, Some(etag)) => {
                        let etag = Some(etag).filter(|_| self.rng.chance(800));
                        Next::End(Outcome::Prepared { etag })
                    }
                    _ => failed("not finished"),
                }
            }
            _ => unreachable!("{:?}", e.step),
        }
    }

    /// The claim of a standby; the registration was made beside.
    pub fn claim(&mut self, e: &mut Execution, lxd: usize, name: &str, etag: Option<String>) -> Next {
        let lost = |reason: &str| Next::Go(Step::GiveBack(reason.to_owned()), 20, 500);
        let luck = self.luck(Some(lxd));
        if matches!(luck, Luck::Bad) {
            return lost("it is not certain whose it is");
        }
        let Action::Launch { scope, job, .. } = e.action.clone() else { unreachable!() };
        let Some(inst) = self.lxd[lxd].get_mut(name) else { return lost("it is gone") };
        let same = etag.is_some_and(|etag| etag == inst.version.to_string());
        if !(same || inst.phase == Phase::Standby && inst.frozen && inst.owner.is_some()) {
            return lost("somebody else claimed it");
        }
        let honest = inst.phase == Phase::Standby && inst.owner.is_some() && inst.scope.is_none();
        inst.owner = Some((e.daemon, e.life));
        inst.phase = Phase::Provisioning;
        inst.scope = Some(scope);
        inst.job = job;
        inst.version += 1;
        if !honest {
            self.fail(&format!("{name} was claimed twice"));
        }
        self.tell(format!("daemon {} claims {name}", e.daemon));
        match luck {
            Luck::Good => Next::Go(Step::Thaw, 10, 300),
            _ => lost("it is not certain whose it is"),
        }
    }

    /// What is kept ready, as the config asks for it; nothing else may be left.
    pub fn check_ready(&self) -> Result<(), String> {
        for (lxd, map) in self.lxd.iter().enumerate() {
            for class in &self.config.classes {
                let of = |phase: Phase| map.values().filter(|i| i.class == class.name && i.phase == phase).count();
                if of(Phase::Template) != usize::from(class.template) {
                    return Err(format!("{} templates of {} on {lxd}", of(Phase::Template), class.name));
                }
                if of(Phase::Standby) != class.standby {
                    return Err(format!("{} standbys of {} on {lxd}", of(Phase::Standby), class.name));
                }
            }
            if let Some((name, i)) = map.iter().find(|(_, i)| i.phase.is_making() && i.owner.is_some()) {
                return Err(format!("{name} is left at {:?}", i.phase));
            }
        }
        Ok(())
    }

    /// True for an instance whose runner waits as the config asks for it.
    pub fn is_kept_idle(&self, inst: &Inst) -> bool {
        let idle = |class: &&lxdrunner::config::Class| class.name == inst.class && class.idle > 0;
        let runner = |id: u64| self.github.runners.iter().find(|r| r.id == id);
        let waits = inst.process.and_then(runner).is_some_and(|r| r.is_online(self.now) && r.job.is_none());
        self.config.classes.iter().any(|class| idle(&class)) && waits
    }

    pub fn images_move_at(&mut self, from: u64, until: u64) {
        for _ in 0..self.rng.range(0, 3) {
            let at = self.rng.range(from, until);
            self.at(at, Ev::ImageMoves);
        }
    }
}
