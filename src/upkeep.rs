//! Maintains webhooks, lost deliveries and placeholder runners at GitHub, in a thread of its own. No job depends on it.

pub mod choose;
pub mod hooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info};

use crate::config::Config;
use crate::github::{Deletion, Error, ErrorKind, GitHub, Purpose};
use crate::model::{Scope, Timestamp};
use choose::{is_placeholder, placeholders, reaches_back, to_redeliver};

/// The shortest pause between two looks at a hook's deliveries.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Added to the pause for each hook, so that many hooks do not use up the hourly share of listings.
const LOOK_PAUSE_EACH: Duration = Duration::from_secs(30);
/// Pages of deliveries that are read at most, of 100 each.
const PAGES: usize = 10;
/// How far two looks overlap: GitHub lists a delivery only after its attempt has ended.
const OVERLAP: Duration = Duration::from_secs(300);
/// Deliveries that are remembered as asked for.
const MOST_ASKED: usize = 10_000;
/// Between two checks of placeholders, and two attempts to correct a hook.
const SELDOM: Duration = Duration::from_secs(600);

/// The maintenance of one GitHub. It remembers only what saves requests.
pub struct Upkeep {
    config: Arc<Config>,
    github: Arc<GitHub>,
    targets: Option<(Instant, Vec<Scope>)>,
    hooks: BTreeMap<Scope, Watched>,
    seldom: Option<Instant>,
    /// When the hook was last found to be wrong.
    repaired: BTreeMap<Scope, Instant>,
    /// The last failure, so that only changes are logged.
    told: BTreeMap<String, String>,
}

/// One of our hooks.
#[derive(Debug, Default)]
struct Watched {
    id: u64,
    /// When the last look that worked was begun, by GitHub's clock.
    looked: Option<Timestamp>,
    asked: BTreeSet<String>,
}

impl Upkeep {
    pub fn new(config: Arc<Config>, github: Arc<GitHub>) -> Upkeep {
        let (hooks, repaired, told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Upkeep { config, github, targets: None, hooks, seldom: None, repaired, told }
    }

    /// Whether the config asks for any maintenance.
    pub fn is_wanted(config: &Config) -> bool {
        config.webhook_url.is_some() || config.placeholders
    }

    /// Does one round; returns the pause until the next.
    pub fn round(&mut self) -> Duration {
        match self.targets() {
            Ok(targets) => {
                if self.seldom.is_none_or(|at| at.elapsed() >= SELDOM) {
                    self.seldom = Some(Instant::now());
                    targets.iter().for_each(|scope| self.seldom(scope));
                }
                let hooks: Vec<Scope> = self.hooks.keys().cloned().collect();
                for scope in hooks {
                    let looked = self.redeliver(&scope);
                    self.tell(&format!("deliveries of {scope}"), looked);
                }
            }
            Err(error) => self.tell("targets", Err(error)),
        }
        let each = LOOK_PAUSE_EACH * u32::try_from(self.hooks.len()).unwrap_or(u32::MAX);
        LOOK_EVERY.max(each)
    }

    fn targets(&mut self) -> Result<Vec<Scope>, Error> {
        if !self.config.targets.is_empty() {
            return Ok(self.config.targets.clone());
        }
        if let Some((at, targets)) = &self.targets
            && at.elapsed() < SELDOM
        {
            return Ok(targets.clone());
        }
        let targets = self.github.discover()?;
        self.targets = Some((Instant::now(), targets.clone()));
        Ok(targets)
    }

    fn seldom(&mut self, scope: &Scope) {
        if let Some(url) = self.config.webhook_url.clone()
            && !self.hooks.contains_key(scope)
        {
            let wanted = hooks::wanted(&self.config, &url);
            let installed = hooks::install(&self.github, scope, &wanted).map(|(id, done)| {
                info!("scope={scope} hook={id} url={url} done={done:?} msg=\"webhook is right\"");
                self.hooks.insert(scope.clone(), Watched { id, ..Watched::default() });
            });
            self.tell(&format!("webhook of {scope}"), installed);
            if let Some(id) = self.hooks.get(scope).map(|hook| hook.id) {
                match hooks::ping(&self.github, scope, id, &url) {
                    Ok(Err(why)) => error!("scope={scope} hook={id} msg={why:?}"),
                    Ok(Ok(())) => debug!("scope={scope} hook={id} msg=\"GitHub reaches us\""),
                    Err(error) => {
                        debug!("scope={scope} hook={id} msg=\"not known whether GitHub reaches us\" error=\"{error}\"")
                    }
                }
            }
        }
        if self.config.placeholders {
            let kept = keep_placeholders(&self.github, &self.config, scope);
            self.tell(&format!("placeholders of {scope}"), kept);
        }
    }

    /// Asks GitHub to repeat deliveries that did not arrive.
    fn redeliver(&mut self, scope: &Scope) -> Result<(), Error> {
        let Some(hook) = self.hooks.get_mut(scope) else { return Ok(()) };
        // Taken before the listing, so that no delivery falls between two listings.
        let now = self.github.now();
        let since = hook.looked.map(|at| Timestamp(at.0.saturating_sub(OVERLAP.as_millis() as u64)));
        let more = |listed: &[_]| reaches_back(listed, since, now, PAGES);
        let listed = match self.github.deliveries(scope, hook.id, Purpose::List, more) {
            // Somebody removed the hook: the next round makes it again.
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.repair(scope);
                return Err(error);
            }
            other => other?,
        };
        if listed.first().is_some_and(|newest| newest.code == 401) {
            let tried = format!("receive what the webhook {} of {scope} sends", hook.id);
            let message = "its secret is not hooksecret: we refuse its deliveries";
            self.repair(scope);
            let fix = "it is set right; where this stays, a proxy in front of lxdrunner asks for a password";
            return Err(Error::new(tried, ErrorKind::Unauthorized, message).with_fix(fix));
        }
        for lost in to_redeliver(&listed, &hook.asked, now) {
            self.github.redeliver(scope, hook.id, lost.id)?;
            info!(
                "scope={scope} hook={} delivery={} event={} status={:?} msg=\"did not arrive, asked for again\"",
                hook.id, lost.guid, lost.event, lost.status
            );
            if hook.asked.len() >= MOST_ASKED {
                hook.asked.clear();
            }
            hook.asked.insert(lost.guid.clone());
        }
        hook.looked = Some(now);
        Ok(())
    }

    /// Has the scope's hook corrected soon, but not repeatedly where that does not help.
    fn repair(&mut self, scope: &Scope) {
        self.hooks.remove(scope);
        if self.repaired.get(scope).is_none_or(|at| at.elapsed() >= SELDOM) {
            self.repaired.insert(scope.clone(), Instant::now());
            self.seldom = None;
        }
    }

    /// Logs a failure when it begins and when its reason changes, and the recovery.
    fn tell(&mut self, what: &str, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => {
                if self.told.remove(what).is_some() {
                    info!("what=\"{what}\" msg=\"works again\"");
                }
            }
            // Being rate-limited is not a failure.
            Err(error) if matches!(error.kind, ErrorKind::RateLimited(_)) => {
                debug!("what=\"{what}\" error=\"{error}\"")
            }
            Err(error) => {
                let text = error.to_string();
                if self.told.get(what) != Some(&text) {
                    error!("what={what:?} error={text:?}");
                    self.told.insert(what.to_owned(), text);
                }
            }
        }
    }
}

/// Registers the missing placeholders of each class in this scope and removes the old ones.
///
/// # Errors
/// As for every call.
pub fn keep_placeholders(github: &GitHub, config: &Config, scope: &Scope) -> Result<(), Error> {
    let runners = github.runners(scope)?;
    let plan = placeholders(&config.classes, &runners, github.now());
    for (name, place) in plan.register {
        let Some(class) = config.classes.get(place) else { continue };
        let labels: Vec<String> = class.labels.iter().map(str::to_owned).collect();
        let group = github.runner_group(scope, &class.runner_group)?;
        match github.generate_jit_config(scope, &name, group, &labels) {
            Ok(made) => info!(
                "scope={scope} class={:?} runner={} name={name} msg=\"placeholder registered\"",
                class.name, made.runner
            ),
            // Another daemon was first.
            Err(error) if error.kind == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    for runner in plan.remove {
        github.delete_runner(scope, runner)?;
        debug!("scope={scope} runner={runner} msg=\"placeholder removed, its time is over\"");
    }
    Ok(())
}

/// Removes all placeholders of a scope; returns their number.
///
/// # Errors
/// As for every call.
pub fn remove_placeholders(github: &GitHub, scope: &Scope) -> Result<usize, Error> {
    let mut count = 0;
    for runner in github.runners(scope)?.iter().filter(|runner| is_placeholder(&runner.name) && !runner.online) {
        count += usize::from(github.delete_runner(scope, runner.id)? == Deletion::Deleted);
    }
    Ok(count)
}
