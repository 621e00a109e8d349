//! `lxdrunner bake`: makes the templates now, with progress, instead of leaving it to the daemon. It works beside a running
//! one: a template's name is a claim, so one of the two makes it and the other waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::{EXIT_FAILURE, EXIT_USAGE, load_config};
use crate::cli::output::{complain, say};
use crate::config::{Class, Config};
use crate::execute::Executor;
use crate::github::GitHub;
use crate::identity::{Maker, maker};
use crate::lxd::Lxd;
use crate::model::{ClassId, Phase, RunnerArch, Scope, Timestamp, keys};
use crate::observe::{image_as_template, image_seen};
use crate::runner::provision::scripts_digest;
use crate::threads;
use crate::world::{
    Action, ImageSeen, Judged, Outcome, RemoveReason, TemplateKind, recipe_of, template_kind, template_name,
};

/// A step that takes longer prints its progress, each time after this interval.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);
/// The interval of looks at a template that another process makes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bakes the templates of all classes, or of the one with that name.
pub fn run(config_path: PathBuf, wanted: Option<&str>) -> ExitCode {
    let config = match load_config(&config_path) {
        Ok((config, _)) => Arc::new(config),
        Err(code) => return code,
    };
    let named = |class: &Class| wanted.is_none_or(|name| class.name.eq_ignore_ascii_case(name));
    let classes: Vec<(ClassId, &Class)> = config.class_ids().filter(|(_, class)| named(class)).collect();
    if let (Some(name), true) = (wanted, classes.is_empty()) {
        let known: Vec<&str> = config.classes.iter().map(|class| class.name.as_str()).collect();
        complain!("lxdrunner: runnermap has no class {name:?}; it has {}", known.join(", "));
        return ExitCode::from(EXIT_USAGE);
    }
    let mut bakery = match Bakery::open(&config) {
        Ok(bakery) => bakery,
        Err(error) => {
            complain!("lxdrunner: {error}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let mut failed = false;
    for (id, class) in classes {
        if !class.template {
            say!("class {:?}: template is false, its jobs start from the image", class.name);
            failed |= wanted.is_some();
            continue;
        }
        match bakery.bake(id, class) {
            Ok(text) => say!("class {:?}: {text}", class.name),
            Err(error) => {
                failed = true;
                complain!("class {:?}: {error}", class.name);
            }
        }
    }
    if failed { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

/// What baking needs.
struct Bakery<'a> {
    config: &'a Config,
    lxd: Arc<Lxd>,
    github: Arc<GitHub>,
    executor: Executor,
    clustered: bool,
    scripts: String,
    versions: BTreeMap<RunnerArch, String>,
}

impl<'a> Bakery<'a> {
    fn open(config: &'a Arc<Config>) -> Result<Bakery<'a>, String> {
        let lxd = Arc::new(Lxd::new(&config.socket));
        let github = Arc::new(GitHub::of_config(&config.github));
        let clustered = lxd.server().map_err(|error| error.to_string())?.clustered;
        let executor = Executor::new(Arc::clone(config), Arc::clone(&lxd), Arc::clone(&github), Arc::default());
        let scripts = scripts_digest();
        Ok(Bakery { config, lxd, github, executor, clustered, scripts, versions: BTreeMap::new() })
    }

    fn bake(&mut self, id: ClassId, class: &Class) -> Result<String, String> {
        let version = self.version(class)?;
        let fingerprint = self.fingerprint(id, class)?;
        let form = template_kind(class, self.clustered);
        let recipe = recipe_of(class, &self.scripts, &fingerprint, &version, form);
        let name = template_name(&self.config.prefix, class, &recipe);
        let bake = Action::Bake { class: id, name: name.clone(), fingerprint, recipe, form };
        let begun = Instant::now();
        loop {
            match self.there(class, &name, form)? {
                Some(There::Ready) if begun.elapsed() < LOOK_EVERY => {
                    return Ok(format!("template {name} is up to date (runner {version})"));
                }
                Some(There::Ready) => return Ok(format!("template {name} is ready; another process baked it")),
                Some(There::Being { .. }) => {
                    let wait = || self.wait_for_another(class, &name, form);
                    patiently(class, "another process bakes it, waiting", wait)?;
                }
                Some(There::Abandoned(made_at)) => {
                    if let Outcome::RemoveFailed { reason } = self.clear_away(class, &name, Maker::Dead, made_at) {
                        return Err(format!("what a dead process left of template {name} cannot be removed: {reason}"));
                    }
                }
                None => match self.make(class, &bake) {
                    made @ (Outcome::Baked | Outcome::Published { .. }) => {
                        if let Outcome::Published { left: true, .. } = made {
                            self.clear_away(class, &name, Maker::Us, None);
                        }
                        let took = begun.elapsed().as_secs_f64();
                        return Ok(format!("template {name} is ready, baked in {took:.1} s (runner {version})"));
                    }
                    // Another process was faster.
                    Outcome::Clash { .. } => {}
                    Outcome::NotMade { reason, .. } => return Err(self.gave_up(class, &name, reason)),
                    other => return Err(format!("{other:?}")),
                },
            }
        }
    }

    /// Waits while another process bakes it and makes progress: as long as a daemon would.
    fn wait_for_another(&self, class: &Class, name: &str, form: TemplateKind) -> Result<(), String> {
        let quiet = self.config.provision_timeout * 2;
        let mut last = (Instant::now(), 0);
        while let Some(There::Being { progress }) = self.there(class, name, form)? {
            if last.1 != progress {
                last = (Instant::now(), progress);
            }
            if last.0.elapsed() >= quiet {
                return Err(format!(
                    "another process bakes template {name} and has made no progress for {} s (twice provision_timeout); \
                     see its log, or delete the instance {name}",
                    quiet.as_secs()
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn make(&self, class: &Class, bake: &Action) -> Outcome {
        patiently(class, "baking", || self.executor.execute(bake))
    }

    /// Removes what a failed bake left behind.
    fn gave_up(&self, class: &Class, name: &str, reason: String) -> String {
        match self.clear_away(class, name, Maker::Us, None) {
            Outcome::RemoveFailed { reason: left } => format!("{reason}; and {name} is left behind: {left}"),
            _ => reason,
        }
    }

    /// Removes a template that was not finished.
    fn clear_away(&self, class: &Class, name: &str, maker: Maker, made_at: Option<Timestamp>) -> Outcome {
        let judged = Judged {
            reason: RemoveReason::Abandoned,
            scope: None,
            runner: None,
            made_at,
            maker,
            standby: false,
            over: false,
        };
        let (name, project) = (name.to_owned(), class.project.clone());
        self.executor.execute(&Action::Remove { name, project, judged })
    }

    /// The state of the template's name in LXD.
    fn there(&self, class: &Class, name: &str, form: TemplateKind) -> Result<Option<There>, String> {
        if form == TemplateKind::Image {
            let named = self.lxd.image_alias(&class.project, name);
            let image = named.and_then(|found| found.map_or(Ok(None), |found| self.lxd.image(&class.project, &found)));
            if let Some(image) = image.map_err(|error| error.to_string())? {
                return match image_as_template(&image, self.config, &class.project) {
                    Some(_) => Ok(Some(There::Ready)),
                    None => Err(format!("an image {name} that is not ours exists")),
                };
            }
        }
        let Some((instance, _)) = self.lxd.instance(&class.project, name).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let key = |key: &str| instance.config.get(key).map_or("", String::as_str);
        if key(keys::OWNER) != self.config.prefix {
            return Err(format!("an instance {name} that is not ours exists"));
        }
        Ok(Some(match (Phase::parse(key(keys::PHASE)), maker(key(keys::DAEMON), self.lxd.is_shared())) {
            (Phase::Template, _) => There::Ready,
            (_, Maker::Dead) => There::Abandoned(instance.created_at),
            _ => There::Being { progress: key(keys::PROGRESS).parse().unwrap_or_default() },
        }))
    }

    /// The runner package's version; it is fetched where it is not in the cache.
    fn version(&mut self, class: &Class) -> Result<String, String> {
        if let Some(version) = self.versions.get(&class.arch) {
            return Ok(version.clone());
        }
        let scope = self.scope()?;
        let action = Action::FetchPackage { arch: class.arch, scope };
        match patiently(class, "fetching the runner package", || self.executor.execute(&action)) {
            Outcome::PackageReady { version, .. } => {
                self.versions.insert(class.arch, version.clone());
                Ok(version)
            }
            Outcome::PackageFailed { cached: Some(version), reason } => {
                complain!("class {:?}: the runner package could not be looked up: {reason}", class.name);
                Ok(version)
            }
            Outcome::PackageFailed { reason, .. } => {
                Err(format!("no runner package for linux-{}: {reason}", class.arch))
            }
            other => Err(format!("{other:?}")),
        }
    }

    /// A target: GitHub gives the address of the runner package for a target only.
    fn scope(&self) -> Result<Scope, String> {
        let targets = super::explain::targets(self.config, &self.github)?;
        targets.into_iter().next().ok_or_else(|| "GitHub knows no target for this credential".to_owned())
    }

    fn fingerprint(&self, id: ClassId, class: &Class) -> Result<String, String> {
        match image_seen(&self.lxd, class, &mut BTreeMap::new()) {
            ImageSeen::Known(fingerprint) => Ok(fingerprint),
            ImageSeen::Unknown => Err("LXD does not have its image; see lxdrunner check".to_owned()),
            ImageSeen::Unfetched => {
                let fetch = Action::FetchImage { class: id };
                match patiently(class, "LXD fetches the image", || self.executor.execute(&fetch)) {
                    Outcome::ImageFetched { fingerprint } => Ok(fingerprint),
                    Outcome::NotMade { reason, .. } => Err(reason),
                    other => Err(format!("{other:?}")),
                }
            }
        }
    }
}

/// The state of a template's name in LXD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Ready,
    /// A living or unknown process is baking it; the progress that it noted.
    Being {
        progress: u64,
    },
    /// A dead process was baking it, and had begun at this time.
    Abandoned(Option<Timestamp>),
}

/// Runs `work`, and prints every few seconds that it goes on.
fn patiently<T>(class: &Class, what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let (done, over) = bounded::<()>(1);
    let tell = || {
        while over.recv_timeout(PROGRESS_AFTER) == Err(RecvTimeoutError::Timeout) {
            say!("class {:?}: {what}, {} s", class.name, begun.elapsed().as_secs());
        }
    };
    let work = || {
        let result = work();
        drop(done);
        result
    };
    threads::join("progress", tell, work).0
}
