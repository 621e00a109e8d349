//! A stage whose images were looked at, and plans that are carried out.

use super::{Plan, Reason, plan};
use crate::config::{Class, Config};
use crate::identity::Maker;
use crate::model::{ClassId, InstanceStatus, Job, Phase, Recipe, RunnerId};
use crate::world::testkit::*;
use crate::world::{
    Action, Event, ImageSeen, InstanceSeen, Launch, Note, Outcome, RemoveReason, Snapshot, TemplateKind,
};

pub fn with(standby: usize, idle: usize) -> Config {
    let small = Class { standby, idle, ..class("small", &[], 10) };
    let gpu = Class { template: false, ..class("gpu", &["gpu"], 2) };
    Config { classes: vec![small, gpu], ..config() }
}

/// The stage with the images looked at.
pub fn stage(config: Config) -> Stage {
    let mut stage = Stage::new(config);
    images(&mut stage, "f1");
    stage
}

pub fn images(stage: &mut Stage, fingerprint: &str) -> Vec<Note> {
    images_of(stage, fingerprint, TemplateKind::Instance)
}

pub fn images_of(stage: &mut Stage, fingerprint: &str, form: TemplateKind) -> Vec<Note> {
    let instances = stage.world.instances.values().map(|i| i.seen.clone()).collect();
    let images = stage.world.config.classes.iter().map(|_| (ImageSeen::Known(fingerprint.to_owned()), form)).collect();
    let (begun, instances) = (stage.world.seq(), Some(Ok(instances)));
    stage.fold(Event::Snapshot(Box::new(Snapshot { begun, instances, images: Some(images), github: None })))
}

pub fn wanted(stage: &Stage) -> Recipe {
    stage.world.templates[ClassId(0)].wanted.clone().unwrap()
}

/// A template or standby that LXD lists.
pub fn kept(stage: &Stage, name: &str, phase: Phase, recipe: Option<Recipe>) -> InstanceSeen {
    InstanceSeen {
        phase,
        recipe: recipe.or(Some(wanted(stage))),
        status: if phase == Phase::Standby { InstanceStatus::Frozen } else { InstanceStatus::Stopped },
        scope: None,
        job: None,
        runner_id: None,
        created_at: Some(stage.now),
        maker: Maker::Unknown,
        ..seen(name, 0)
    }
}

/// Carries out what is planned, well, until nothing of this kind is left to do.
pub fn settle(stage: &mut Stage) -> Vec<Action> {
    let mut done = Vec::new();
    for _ in 0..20 {
        let actions = stage.dispatch();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            let outcome = match &action {
                Action::Bake { form: TemplateKind::Instance, .. } => Outcome::Baked,
                Action::Bake { recipe, .. } => {
                    Outcome::Published { image: format!("{:0>64}", recipe.content), left: false }
                }
                Action::RemoveImage { .. } => Outcome::Removed,
                Action::PrepareStandby { .. } => Outcome::Prepared { etag: Some("e1".to_owned()) },
                Action::Remove { .. } => Outcome::Removed,
                Action::Launch(_) => Outcome::Launched { runner: Some(RunnerId(900 + done.len() as u64)) },
                other => panic!("{other:?}"),
            };
            stage.outcome(action.clone(), outcome);
            done.push(action);
        }
    }
    done
}

pub fn kinds(actions: &[Action]) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::Bake { .. } => "bake",
        Action::PrepareStandby { .. } => "standby",
        Action::Launch(Launch { job: None, .. }) => "idle",
        Action::Launch(Launch { from, .. }) => from.as_str(),
        Action::Remove { .. } => "remove",
        Action::RemoveImage { .. } => "remove image",
        _ => "other",
    };
    actions.iter().map(kind).collect()
}

pub fn phase(stage: &Stage, phase: Phase) -> Vec<String> {
    stage.world.instances().filter(|i| i.seen.phase == phase).map(|i| i.seen.name.clone()).collect()
}

/// What the planner makes of the stage.
impl Stage {
    pub fn plan(&self) -> Plan {
        plan(&self.world, self.now)
    }

    /// GitHub answers each question about a job that is to be asked now.
    pub fn answer(&mut self, found: Option<Job>) {
        for action in self.plan().actions {
            if let Action::LookUpJob { .. } = &action {
                self.world.dispatched(&action);
                self.outcome(action, Outcome::JobFound(found.clone().map(Box::new)));
            }
        }
    }

    /// Plans, hands everything out, and returns it.
    pub fn dispatch(&mut self) -> Vec<Action> {
        let actions = self.plan().actions;
        actions.iter().for_each(|action| self.world.dispatched(action));
        actions
    }

    /// Plans and hands out; each launch works, its runner has the job's id.
    pub fn launch_all(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for action in self.dispatch() {
            if let Action::Launch(Launch { job, name, .. }) = &action {
                names.push(name.clone());
                let runner = job.map(|job| RunnerId(job.0));
                self.outcome(action, Outcome::Launched { runner });
            }
        }
        names
    }

    /// The names of what would be launched, or removed, now.
    pub fn launches(&self) -> Vec<String> {
        let name = |action: Action| match action {
            Action::Launch(Launch { name, .. }) => Some(name),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(name).collect()
    }

    pub fn removals(&self) -> Vec<(String, RemoveReason)> {
        let remove = |action: Action| match action {
            Action::Remove { name, judged, .. } => Some((name, judged.reason)),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(remove).collect()
    }

    pub fn deregistrations(&self) -> Vec<String> {
        let gone = |action: Action| match action {
            Action::Deregister { name, .. } => Some(name),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(gone).collect()
    }

    pub fn reason(&self, id: u64) -> Option<Reason> {
        self.plan().deferred.into_iter().find(|(job, _)| job.0 == id).map(|(_, reason)| reason)
    }
}
