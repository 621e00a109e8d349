//! Looks at LXD: our instances, and the classes' images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use super::warm::Warm;
use crate::config::{Class, Config, ImageRef};
use crate::identity::{is_of_another_boot, maker};
use crate::lxd::{self, Lxd};
use crate::model::{InstanceStatus, JobId, Phase, RunnerId, Timestamp, keys};
use crate::runner::provision::is_fingerprint;
use crate::world::{ImageSeen, InstanceSeen, NameKind, Snapshot, TemplateKind, parse_name, template_kind};

/// Between two looks at the classes' images.
const IMAGES_EVERY: Duration = Duration::from_secs(60);

/// Looks at LXD.
pub struct LxdObserver {
    config: Arc<Config>,
    lxd: Arc<Lxd>,
    warm: Warm,
    /// When the classes' images were last looked at.
    images_at: Option<Instant>,
}

impl LxdObserver {
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>) -> LxdObserver {
        let warm = Warm::new(Arc::clone(&config), Arc::clone(&lxd));
        LxdObserver { config, lxd, warm, images_at: None }
    }

    /// The look that the World asked for at event `begun`.
    pub fn look(&mut self, begun: u64) -> Snapshot {
        let due = self.images_at.is_none_or(|at| at.elapsed() >= IMAGES_EVERY);
        // The server may have joined a cluster.
        let asked = if due { self.lxd.server().map(drop) } else { Ok(()) };
        let instances = asked.and_then(|()| list_instances(&self.lxd, &self.config));
        if let Ok(instances) = &instances {
            self.warm.see(instances);
        }
        let images = (due && instances.is_ok()).then(|| self.look_at_images());
        Snapshot { begun, instances: Some(instances.map_err(|error| error.to_string())), images, github: None }
    }

    /// Work between looks: keeps LXD's file connections to the standbys of the last look open.
    pub fn rest(&mut self) {
        self.warm.keep();
    }

    /// The image of each class, and the kind of its templates.
    fn look_at_images(&mut self) -> Vec<(ImageSeen, TemplateKind)> {
        self.images_at = Some(Instant::now());
        let mut listed = BTreeMap::new();
        let form = |class: &Class| template_kind(class, self.lxd.is_shared());
        self.config.classes.iter().map(|class| (image_seen(&self.lxd, class, &mut listed), form(class))).collect()
    }
}

/// The class's image. `listed` caches each project's images for the other classes.
pub fn image_seen(lxd: &Lxd, class: &Class, listed: &mut BTreeMap<String, Vec<lxd::Image>>) -> ImageSeen {
    let found = match &class.image {
        ImageRef::Local(name) if is_fingerprint(name) => {
            lxd.image(&class.project, name).map(|image| image.map(|image| image.fingerprint))
        }
        ImageRef::Local(name) => lxd.image_alias(&class.project, name),
        ImageRef::Remote { .. } | ImageRef::Public { .. } => {
            if !listed.contains_key(&class.project) {
                match lxd.images(&class.project) {
                    Ok(images) => drop(listed.insert(class.project.clone(), images)),
                    Err(error) => {
                        debug!("class={:?} msg=\"its image is not known\" error=\"{error}\"", class.name);
                        return ImageSeen::Unknown;
                    }
                }
            }
            let Some(origin) = class.image.origin(lxd.product()) else { return ImageSeen::Unknown };
            let kind = |image: &&lxd::Image| image.kind.is_empty() || image.kind == class.kind.as_str();
            let images = listed.get(&class.project).into_iter().flatten();
            let image = images.filter(|image| image.comes_from(&origin.server, &origin.alias)).find(kind);
            return image.map_or(ImageSeen::Unfetched, |image| ImageSeen::Known(image.fingerprint.clone()));
        }
    };
    match found {
        Ok(Some(fingerprint)) => ImageSeen::Known(fingerprint),
        Ok(None) => ImageSeen::Unknown,
        Err(error) => {
            debug!("class={:?} msg=\"its image is not known\" error=\"{error}\"", class.name);
            ImageSeen::Unknown
        }
    }
}

/// Our instances in all projects that the classes name, and in a cluster the images that are templates. If one project cannot be
/// listed, all are unknown.
pub fn list_instances(lxd: &Lxd, config: &Config) -> Result<Vec<InstanceSeen>, lxd::Error> {
    let projects: BTreeSet<&str> = config.classes.iter().map(|class| class.project.as_str()).collect();
    let mut all = Vec::new();
    let booted = booted_at();
    for project in projects {
        let list = lxd.instances(project, &config.prefix)?;
        // A copy of an instance of ours has our keys, but a name that we never give.
        let ours = |i: &lxd::Instance| {
            i.config.get(keys::OWNER) == Some(&config.prefix) && parse_name(&config.prefix, &i.name).is_some()
        };
        let list: Vec<lxd::Instance> = list.into_iter().filter(ours).collect();
        let key = |i: &lxd::Instance, key: &str| i.config.get(key).cloned().unwrap_or_default();
        let half_made = |i: &&lxd::Instance| Phase::parse(&key(i, keys::PHASE)) != Phase::Template;
        // If the server has joined a cluster since it was last asked, their makers may live on other machines.
        if !lxd.is_shared() && list.iter().filter(half_made).any(|i| is_of_another_boot(&key(i, keys::DAEMON))) {
            lxd.server()?;
        }
        let shared = lxd.is_shared();
        all.extend(list.into_iter().map(|i| seen(i, booted, shared)));
        if shared {
            all.extend(lxd.images(project)?.iter().filter_map(|image| image_as_template(image, config, project)));
        }
    }
    Ok(all)
}

/// An image as a template, if it is ours. An image published from a copy of a template has our properties, which are in its
/// files, but not the name.
pub fn image_as_template(image: &lxd::Image, config: &Config, project: &str) -> Option<InstanceSeen> {
    let property = |key: &str| image.properties.get(key).map(String::as_str).unwrap_or_default();
    let named = |alias: &&str| parse_name(&config.prefix, alias) == Some(NameKind::Template);
    if property(keys::OWNER) != config.prefix || property(keys::PROJECT) != project {
        return None;
    }
    Some(InstanceSeen {
        alias: Some(image.aliases().find(named)?.to_owned()),
        project: project.to_owned(),
        class: property(keys::CLASS).to_owned(),
        scope: None,
        job: None,
        runner_id: None,
        phase: Phase::Template,
        recipe: property(keys::TEMPLATE).parse().ok(),
        status: InstanceStatus::Stopped,
        created_at: None,
        maker: maker(property(keys::DAEMON), true),
        progress: 0,
        name: image.fingerprint.clone(),
    })
}

/// When this host booted, by its present clock; `None` if unknown (proc(5): uptime in seconds).
fn booted_at() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let whole: u64 = text.split(['.', ' ']).next()?.parse().ok()?;
    Some(Timestamp(Timestamp::now().0.saturating_sub(whole.checked_add(1)?.checked_mul(1000)?)))
}

/// An instance as decisions need it. Its keys are ours, but an LXD administrator can write anything into them.
fn seen(instance: lxd::Instance, booted: Option<Timestamp>, shared: bool) -> InstanceSeen {
    let key = |key: &str| instance.config.get(key).map(String::as_str);
    InstanceSeen {
        class: key(keys::CLASS).unwrap_or_default().to_owned(),
        scope: key(keys::SCOPE).and_then(|scope| scope.parse().ok()),
        job: key(keys::JOB).and_then(|job| job.parse().ok()).map(JobId),
        runner_id: key(keys::RUNNER_ID).and_then(|id| id.parse().ok()).map(RunnerId),
        phase: Phase::parse(key(keys::PHASE).unwrap_or_default()),
        recipe: key(keys::TEMPLATE).and_then(|recipe| recipe.parse().ok()),
        status: instance.status,
        // What runs on this host was not made before it booted, unless by a clock that was set right since: that says
        // nothing of its age. (On another member of a cluster it may be that old; then it counts from our first look.)
        created_at: instance.created_at.filter(|at| instance.status != InstanceStatus::Running || Some(*at) >= booted),
        maker: maker(key(keys::DAEMON).unwrap_or_default(), shared),
        progress: key(keys::PROGRESS).and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
        name: instance.name,
        alias: None,
        project: instance.project,
    }
}
