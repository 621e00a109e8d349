//! Makes what is kept ready: templates, standbys; and claims the latter.

use std::time::Duration;

use log::{debug, info};

use super::{Executor, Stop, of_blame};
use crate::config::{Class, ImageRef};
use crate::identity::process_identity;
use crate::lxd;
use crate::lxd::api::Source;
use crate::model::{ConfigMap, JobId, Phase, Recipe, RunnerId, Scope, keys};
use crate::runner::provision::{Claim, Credentials, Failure, Provision};
use crate::threads;
use crate::world::{Blame, Outcome};

/// How often, and after which pause each, a claimed standby's name is tried at GitHub where another daemon has it.
const NAME_TRIES: u32 = 5;
const NAME_PAUSE: Duration = Duration::from_millis(500);

impl Executor {
    /// Bakes a template: made of the image, set up, sealed, stopped, and only then called a template.
    pub fn bake(&self, class: &Class, name: &str, fingerprint: &str, recipe: &Recipe) -> Outcome {
        let blame = Blame::Bake(class.name.clone());
        let mark = self.trace.of(None);
        let steps = Provision::new(&self.lxd, class, name, self.config.provision_timeout, mark);
        let keys = self.keys(class, Phase::Baking, Some(recipe));
        if let Err(failure) = steps.create(Source::Fingerprint(fingerprint.to_owned()), keys, false) {
            return self.not_begun(class, name, blame, &failure);
        }
        info!("class={:?} template={name} msg=\"baking a template\"", class.name);
        let baked = self.bake_steps(&steps, class, &blame);
        match baked {
            Ok(()) => Outcome::Baked,
            Err(Stop::Failed { blame, reason, output }) => {
                self.keep_of_failed(&class.project, name, &blame, (&reason, &output));
                Outcome::NotMade { blame, reason: nameless(&reason, name), made: true }
            }
            Err(Stop::Clash(reason)) => Outcome::Clash { reason },
        }
    }

    fn bake_steps(&self, steps: &Provision<'_>, class: &Class, blame: &Blame) -> Result<(), Stop> {
        let failed = |failure| of_blame(blame, failure);
        let starting = steps.start().map_err(failed)?;
        steps.started(&starting).map_err(failed)?;
        let package = self.package(class)?;
        steps.prepare(&package, true).map_err(failed)?;
        steps.seal().map_err(failed)?;
        steps.finish(Phase::Baking, Phase::Template, &process_identity()).map_err(failed)?;
        Ok(())
    }

    /// Has LXD fetch an image server's image.
    pub fn fetch_image(&self, class: &Class) -> Outcome {
        let failed = |error: lxd::Error| Outcome::NotMade {
            blame: Blame::Bake(class.name.clone()),
            reason: error.to_string(),
            made: false,
        };
        let ImageRef::Remote { server, protocol, alias, .. } = &class.image else {
            return Outcome::Clash { reason: "its image is this server's own".to_owned() };
        };
        match self.lxd.fetch_image(&class.project, server, protocol, alias, self.config.provision_timeout) {
            Ok(fingerprint) => {
                info!("class={:?} image={alias} fingerprint={fingerprint} msg=\"image fetched\"", class.name);
                Outcome::ImageFetched { fingerprint }
            }
            Err(error) => failed(error),
        }
    }

    /// Makes a standby: a copy of the template, booted, armed and frozen.
    pub fn prepare_standby(&self, class: &Class, name: &str, template: &str, recipe: &Recipe) -> Outcome {
        let blame = Blame::Standby(class.name.clone());
        let mark = self.trace.of(None);
        let steps = Provision::new(&self.lxd, class, name, self.config.provision_timeout, mark);
        let keys = self.keys(class, Phase::Preparing, Some(recipe));
        if let Err(failure) = steps.create(Source::Copy(template.to_owned()), keys, true) {
            return self.not_begun(class, name, blame, &failure);
        }
        let prepared = || -> Result<Option<String>, Failure> {
            let starting = steps.start()?;
            steps.started(&starting)?;
            let arming = steps.arm()?;
            steps.armed(&arming)?;
            steps.freeze()?;
            steps.finish(Phase::Preparing, Phase::Standby, &process_identity())
        };
        match prepared() {
            Ok(etag) => Outcome::Prepared { etag },
            Err(failure) => match of_blame(&blame, failure) {
                Stop::Failed { blame, reason, output } => {
                    self.keep_of_failed(&class.project, name, &blame, (&reason, &output));
                    Outcome::NotMade { blame, reason: nameless(&reason, name), made: true }
                }
                Stop::Clash(reason) => Outcome::Clash { reason },
            },
        }
    }

    /// Claims a standby for a runner of `scope`. Once it is claimed it is used, or goes.
    pub(super) fn claim(
        &self,
        job: Option<JobId>,
        class: &Class,
        scope: &Scope,
        name: &str,
        etag: Option<&str>,
    ) -> Outcome {
        let mark = self.trace.of(job);
        let steps = Provision::new(&self.lxd, class, name, self.config.provision_timeout, mark);
        let blame = Blame::Standby(class.name.clone());
        let mut keys = self.keys(class, Phase::Provisioning, None);
        keys.insert(keys::SCOPE.to_owned(), scope.to_string());
        keys.extend(job.map(|job| (keys::JOB.to_owned(), job.to_string())));
        // GitHub answers while LXD does.
        let (claimed, credentials) = threads::beside(
            "register",
            || self.register(class, scope, name).inspect(|_| mark.at("credentials")),
            || {
                let claim = || match steps.claim(&self.config.prefix, &keys, etag)? {
                    Claim::Ours => {
                        mark.at("claimed");
                        steps.thaw().map(|()| mark.at("thawed")).map(|()| Claim::Ours)
                    }
                    lost => Ok(lost),
                };
                threads::beside("open-files", || steps.open_files(), claim).0
            },
        );
        let credentials = match (&claimed, credentials) {
            (Ok(Claim::Ours), Err(Stop::Clash(_))) => self.register_after_another(class, scope, name),
            (_, credentials) => credentials,
        };
        let registered = credentials.as_ref().ok().and_then(|c| c.runner());
        let job = job.map(|job| format!("job={job} ")).unwrap_or_default();
        let stop = match (claimed, credentials) {
            (Ok(Claim::Lost(reason)), _) => {
                self.take_back(scope, name, registered);
                return Outcome::StandbyLost { reason };
            }
            (Err(failure), _) => of_blame(&blame, failure),
            (Ok(Claim::Ours), Err(stop)) => stop,
            (Ok(Claim::Ours), Ok(credentials)) => {
                info!("{job}class={:?} instance={name} scope={scope} from=standby msg=\"instance made\"", class.name);
                match steps.hand_over(&credentials) {
                    Ok(()) => {
                        mark.tell(name, "standby");
                        if let Err(error) = steps.note_started(registered) {
                            debug!("instance={name} msg=\"could not note that it is started\" error={error:?}");
                        }
                        return Outcome::Launched { runner: registered };
                    }
                    Err(failure) => of_blame(&blame, failure),
                }
            }
        };
        let runner = self.take_back(scope, name, registered);
        self.stopped(class, name, stop, runner)
    }

    /// Two daemons went for one standby: the other was first at GitHub and lost at LXD, and gives the name back in a
    /// moment. Nothing tells when, hence the tries.
    fn register_after_another(&self, class: &Class, scope: &Scope, name: &str) -> Result<Credentials, Stop> {
        for _ in 1..NAME_TRIES {
            std::thread::sleep(NAME_PAUSE);
            match self.register(class, scope, name) {
                Err(Stop::Clash(_)) => {}
                other => return other,
            }
        }
        self.register(class, scope, name)
    }

    /// The keys of an instance that we make.
    pub(super) fn keys(&self, class: &Class, phase: Phase, recipe: Option<&Recipe>) -> ConfigMap {
        let keys = [
            (keys::OWNER, self.config.prefix.clone()),
            (keys::CLASS, class.name.clone()),
            (keys::PHASE, phase.as_str().to_owned()),
            (keys::DAEMON, process_identity()),
        ];
        let recipe = recipe.map(|recipe| (keys::TEMPLATE.to_owned(), recipe.to_string()));
        keys.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(recipe).collect()
    }

    /// What became of something that could not be created.
    fn not_begun(&self, class: &Class, name: &str, blame: Blame, failure: &Failure) -> Outcome {
        match self.not_created(class, name, blame, failure) {
            Outcome::LaunchFailed { blame, reason, made, .. } => {
                Outcome::NotMade { blame, reason: nameless(&reason, name), made }
            }
            other => other,
        }
    }

    /// Takes a registration back that no runner will come for, most likely. One may be there all the same, even busy,
    /// where only an answer was lost: then it is returned, and whoever removes the instance must ask once more.
    pub(super) fn take_back(&self, scope: &Scope, name: &str, registered: Option<RunnerId>) -> Option<RunnerId> {
        use crate::github::Deletion;
        registered.filter(|runner| match self.github.delete_runner(scope, *runner) {
            Ok(Deletion::Deleted | Deletion::Gone) => false,
            Ok(Deletion::Busy) => true,
            Err(error) => {
                debug!(
                    "instance={name} runner={runner} msg=\"could not take the registration back\" error=\"{error}\""
                );
                true
            }
        })
    }
}

/// A reason that does not name the instance: the same failure of the next instance is no news.
pub(super) fn nameless(reason: &str, name: &str) -> String {
    reason.replace(&format!("instance {name}"), "the instance").replace(name, "the instance")
}
