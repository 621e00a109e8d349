//! Templates, standbys and idle runners: what they are made of, and that they are there.

use lxdrunner::model::Phase;
use lxdrunner::world::ImageSeen;

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
