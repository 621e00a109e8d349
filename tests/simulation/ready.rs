//! Templates, standbys and idle runners: what they are made of, and that they are there.

use lxdrunner::model::Phase;
use lxdrunner::steps::making::Answer;
use lxdrunner::world::{ImageSeen, Outcome, TemplateKind, template_kind};

use crate::execution::{Execution, Luck};
use crate::stage::{Ev, Inst, Stage};

impl Stage {
    /// What each class would be made from now.
    pub fn images(&self) -> Vec<(ImageSeen, TemplateKind)> {
        let image = ImageSeen::Known(format!("image-{}", self.image));
        let seen = self.config.classes.iter().map(|class| (image.clone(), template_kind(class, self.clustered)));
        seen.collect()
    }

    /// What a bake made becomes an image, which has the same name.
    pub fn publish(&mut self, lxd: usize, name: &str) -> Answer {
        if let Some(there) = self.image_called(lxd, name) {
            return Answer::Published(there);
        }
        self.numbers += 1;
        let fingerprint = format!("{:064x}", self.numbers);
        let inst = self.lxd[lxd][name].clone();
        if inst.running || inst.phase != Phase::Baking {
            self.fail(&format!("{name} was published, and is no template that was just sealed"));
        }
        let image = Inst { alias: Some(name.to_owned()), phase: Phase::Template, made: self.now, ..inst };
        self.lxd[lxd].insert(fingerprint.clone(), image);
        self.tell(format!("{name} is published as image {}", self.numbers));
        Answer::Published(fingerprint)
    }

    pub fn image_called(&self, lxd: usize, alias: &str) -> Option<String> {
        let called = |(_, image): &(&String, &Inst)| image.owner.is_some() && image.alias.as_deref() == Some(alias);
        self.lxd[lxd].iter().find(called).map(|(fingerprint, _)| fingerprint.clone())
    }

    /// As `execute/remove.rs` does it: what is not there, or not ours, is as good as removed.
    pub fn remove_image(&mut self, e: &Execution, lxd: usize, fingerprint: &str, alias: &str) -> Outcome {
        let failed = || Outcome::RemoveFailed { reason: "no answer".to_owned() };
        let luck = self.luck(Some(lxd));
        if matches!(luck, Luck::Bad) {
            return failed();
        }
        let Some(image) = self.lxd[lxd].get(fingerprint) else { return Outcome::Removed };
        if image.alias.as_deref() != Some(alias) || image.owner.is_none() || image.phase != Phase::Template {
            self.fail(&format!("image {fingerprint}, which is somebody else's, is removed by {}", e.daemon));
        }
        let copies = |other: &Execution| other.daemon == e.daemon && other.action.copies() == Some(fingerprint);
        if self.executions.values().any(copies) {
            self.fail(&format!("image {fingerprint} is removed by {} while it makes something of it", e.daemon));
        }
        self.lxd[lxd].remove(fingerprint);
        self.tell(format!("image of {alias} deleted by {}", e.daemon));
        if matches!(luck, Luck::Good) { Outcome::Removed } else { failed() }
    }

    pub fn image_moves(&mut self) {
        self.image += 1;
        self.tell(format!("the image is now number {}", self.image));
    }

    /// What is kept ready, as the config asks for it; nothing else may be left.
    pub fn check_ready(&self) -> Result<(), String> {
        for (lxd, map) in self.lxd.iter().enumerate() {
            for class in &self.config.classes {
                let of = |phase: Phase| {
                    map.values().filter(|i| i.owner.is_some() && i.class == class.name && i.phase == phase).count()
                };
                let image = |i: &Inst| i.phase == Phase::Template && i.owner.is_some();
                if let Some((name, _)) = map.iter().find(|(_, i)| image(i) && i.alias.is_some() != self.clustered) {
                    return Err(format!("template {name} is not as it should be"));
                }
                if of(Phase::Template) != usize::from(class.template) {
                    return Err(format!("{} templates of {} on {lxd}", of(Phase::Template), class.name));
                }
                let standby = |i: &Inst| i.owner.is_some() && i.phase == Phase::Standby;
                if let Some((name, _)) = map.iter().find(|(_, i)| standby(i) && !i.frozen) {
                    return Err(format!("standby {name} is not frozen"));
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
