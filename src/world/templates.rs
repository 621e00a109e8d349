//! Templates and standbys: what each class's template is baked of, and the outcomes of baking, preparing and claiming.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{recipe, shape};
use super::{ImageSeen, Instance, Note, Outcome, RunnerState, Subject, TemplateKind, World};
use crate::config::Class;
use crate::identity::Maker;
use crate::model::{ClassId, InstanceStatus, Phase, Recipe, Timestamp};

/// Whether templates of the class are instances or images. In a cluster each copy of an instance to another member crosses
/// the network; an image crosses it once.
pub fn template_kind(class: &Class, clustered: bool) -> TemplateKind {
    let anywhere = class.target.is_empty() || class.target.starts_with('@');
    if clustered && anywhere { TemplateKind::Image } else { TemplateKind::Instance }
}

/// The template that a class should have.
#[derive(Clone, Debug)]
pub(crate) struct TemplateState {
    /// See [`Recipe::shape`].
    pub shape: String,
    pub image: ImageSeen,
    pub form: TemplateKind,
    /// `None` until image and runner version are known.
    pub wanted: Option<Recipe>,
}

impl TemplateState {
    pub fn new(class: &Class, scripts: &str) -> TemplateState {
        TemplateState {
            shape: shape(class, scripts),
            image: ImageSeen::Unknown,
            form: TemplateKind::Instance,
            wanted: None,
        }
    }
}

/// The recipe of a template of `class` with this image and runner version.
pub fn recipe_of(class: &Class, scripts: &str, fingerprint: &str, version: &str, form: TemplateKind) -> Recipe {
    recipe(&shape(class, scripts), fingerprint, version, form)
}

impl World {
    pub(super) fn fold_images(&mut self, images: Vec<(ImageSeen, TemplateKind)>) {
        let mut moved = false;
        for (state, (seen, form)) in self.templates.iter_mut().zip(images) {
            moved |= state.form != form;
            state.form = form;
            // An image that cannot be looked up now has most likely not changed.
            if seen != ImageSeen::Unknown && seen != state.image {
                state.image = seen;
                moved = true;
            }
        }
        if moved {
            self.find_recipes();
        }
    }

    /// Computes the recipes that the templates should have.
    pub(super) fn find_recipes(&mut self) {
        for (state, class) in self.templates.iter_mut().zip(&self.config.classes) {
            let version = self.packages.get(&class.arch).and_then(|p| p.version.as_deref());
            state.wanted = match (&state.image, version) {
                (ImageSeen::Known(fingerprint), Some(version)) if class.template => {
                    Some(recipe(&state.shape, fingerprint, version, state.form))
                }
                _ => None,
            };
        }
    }

    pub(super) fn fold_bake(&mut self, class: ClassId, name: String, recipe: Recipe, outcome: Outcome, now: Timestamp) {
        let (image, left) = match outcome {
            Outcome::Baked => (None, true),
            Outcome::Published { image, left } => (Some(image), left),
            other => return self.not_made(class, Some((name, recipe, Phase::Baking)), other, now),
        };
        let config = Arc::clone(&self.config);
        let class = config.class(class);
        if image.is_some() && left {
            self.known_or_new(&name, class, Phase::Baking, now).seen.maker = Maker::Us;
        }
        let known = image.clone().unwrap_or_else(|| name.clone());
        let template = self.known_or_new(&known, class, Phase::Template, now);
        template.seen.alias = image.as_ref().map(|_| name.clone());
        template.seen.phase = Phase::Template;
        template.seen.recipe = Some(recipe);
        template.seen.status = InstanceStatus::Stopped;
        template.etag = None;
        let of_class = [Subject::Bake, Subject::Template, Subject::Class, Subject::Storage];
        self.all_recovered(of_class.map(|subject| subject(class.name.clone())));
        self.recovered(&Subject::Host);
        self.notes.push(Note::Baked { template: name.clone(), class: class.name.clone(), image });
        if !left {
            self.instance_is_gone(&name, now);
        }
    }

    pub(super) fn fold_standby(
        &mut self,
        class: ClassId,
        name: String,
        recipe: Recipe,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let etag = match outcome {
            Outcome::Prepared { etag } => etag,
            other => return self.not_made(class, Some((name, recipe, Phase::Preparing)), other, now),
        };
        let config = Arc::clone(&self.config);
        let class = config.class(class);
        let instance = self.known_or_new(&name, class, Phase::Standby, now);
        instance.seen.phase = Phase::Standby;
        instance.seen.recipe = Some(recipe);
        instance.etag = etag;
        instance.seen.status = InstanceStatus::Frozen;
        instance.stopped_since = None;
        let of_class = [Subject::Standby, Subject::Template, Subject::Network, Subject::Storage];
        self.all_recovered(of_class.map(|subject| subject(class.name.clone())));
        self.recovered(&Subject::Host);
        self.notes.push(Note::Prepared { instance: name, class: class.name.clone() });
    }

    pub(super) fn fold_image(&mut self, class: ClassId, outcome: Outcome, now: Timestamp) {
        let Outcome::ImageFetched { fingerprint } = outcome else { return self.not_made(class, None, outcome, now) };
        self.templates[class].image = ImageSeen::Known(fingerprint);
        self.recovered(&Subject::Bake(self.config.class(class).name.clone()));
        self.find_recipes();
    }

    /// A template, a standby or an image was not made. `made` is the instance's name, recipe and phase.
    fn not_made(&mut self, class: ClassId, made: Option<(String, Recipe, Phase)>, outcome: Outcome, now: Timestamp) {
        self.lxd_look.wanted |= matches!(outcome, Outcome::Clash { .. } | Outcome::NotMade { .. });
        match outcome {
            // Another process does the same: a listing will show its result.
            Outcome::Clash { reason } => {
                if let Some((name, _, _)) = made {
                    self.names_taken.insert(name.clone(), now);
                    self.notes.push(Note::Clash { instance: name, job: None, reason });
                }
            }
            Outcome::NotMade { blame, reason, made: exists } => {
                if let (Some((name, recipe, phase)), true) = (made, exists) {
                    // It counts against the caps until it is removed.
                    let config = Arc::clone(&self.config);
                    let instance = self.known_or_new(&name, config.class(class), phase, now);
                    // If a listing shows it finished or in use, believe that over the lost answer.
                    if instance.seen.phase == phase {
                        instance.seen.maker = Maker::Us;
                        instance.seen.recipe = Some(recipe);
                    }
                }
                if self.could_not_make(&blame, &reason, now).news {
                    self.notes.push(Note::Trouble { what: blame, reason });
                }
            }
            _ => {}
        }
    }

    /// Ends the failures to bake where the wanted template exists, whichever process baked it.
    pub(super) fn find_baked(&mut self) {
        for (state, class) in self.templates.iter().zip(&self.config.classes) {
            let bake = Subject::Bake(class.name.clone());
            let is_it = |i: &Instance| {
                i.seen.phase == Phase::Template && i.seen.class == class.name && i.seen.recipe == state.wanted
            };
            let baked = || state.wanted.is_some() && self.instances.values().any(is_it);
            if self.failures.is_shaky(&bake) && baked() && self.failures.worked(&bake).is_some() {
                self.notes.push(Note::Recovered { what: bake });
            }
        }
    }

    /// Reports another daemon with our prefix and other settings: neither can use the templates and standbys of the other.
    pub(super) fn find_other_configs(&mut self, now: Timestamp) {
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for instance in self.instances.values().filter(|instance| instance.is_anothers()) {
            let seen = &instance.seen;
            let kept = matches!(seen.phase, Phase::Template | Phase::Preparing | Phase::Standby);
            let class = self.config.class_named(&seen.class);
            let ours = class.map(|class| self.templates[class].shape.as_str());
            if seen.recipe.as_ref().is_some_and(|recipe| kept && Some(recipe.shape.as_str()) != ours) {
                found.insert(&seen.class, instance.label());
            }
        }
        for (class, instance) in &found {
            let reason = format!("it keeps {instance}");
            if self.failures.failed(Subject::OtherConfig((*class).to_owned()), &reason, now).news {
                self.notes.push(Note::OtherConfig { class: (*class).to_owned(), instance: (*instance).to_owned() });
            }
        }
        let over = self.failures.iter().filter_map(|(subject, _)| match subject {
            Subject::OtherConfig(class) if !found.contains_key(class.as_str()) => Some(subject.clone()),
            _ => None,
        });
        for what in over.collect::<Vec<_>>() {
            self.failures.worked(&what);
            self.notes.push(Note::OneConfigAgain { what });
        }
    }

    /// Another process claimed a standby; a listing will show its state.
    pub(super) fn standby_is_lost(&mut self, name: &str, now: Timestamp) {
        self.lxd_look.wanted = true;
        let seq = self.seq;
        if let Some(instance) = self.instances.get_mut(name) {
            instance.seen.phase = Phase::Provisioning;
            instance.seen.maker = Maker::Unknown;
            instance.begun_at = now;
            instance.etag = None;
            instance.touched = seq;
        }
    }

    /// The instance of that name; created here if no listing has shown it yet.
    pub(super) fn known_or_new(&mut self, name: &str, class: &Class, phase: Phase, now: Timestamp) -> &mut Instance {
        let seq = self.seq;
        let new = || {
            let seen = super::InstanceSeen {
                name: name.to_owned(),
                project: class.project.clone(),
                class: class.name.clone(),
                scope: None,
                job: None,
                runner_id: None,
                phase,
                recipe: None,
                alias: None,
                status: InstanceStatus::Running,
                created_at: None,
                maker: Maker::Us,
                progress: 0,
            };
            Instance::new(seen, now, now, seq)
        };
        let instance = self.instances.entry(name.to_owned()).or_insert_with(new);
        instance.touched = seq;
        instance
    }

    /// An idle runner ended without a job: the next one of its class is paused, longer each time.
    pub(super) fn idle_runner_ended(&mut self, name: &str, now: Timestamp) {
        let Some(instance) = self.instances.get(name) else { return };
        let idle = instance.seen.job.is_none() && instance.seen.scope.is_some() && !instance.took_job;
        if idle && instance.seen.phase == Phase::Started && !matches!(instance.runner, RunnerState::Done(_)) {
            let class = instance.seen.class.clone();
            self.failures.failed(Subject::Idle(class), "its runner ended without a job", now);
        }
    }
}
