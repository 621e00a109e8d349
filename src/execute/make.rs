//! Takes the steps of a [`Making`] against LXD and GitHub.

use std::thread;
use std::time::Duration;

use log::{debug, info};

use super::Executor;
use super::remove::found;
use crate::config::Class;
use crate::identity::process_identity;
use crate::lxd::{ErrorKind, Operation, Source};
use crate::model::{ConfigMap, InstanceType, JobId, Phase, Recipe, RunnerId, keys};
use crate::runner::cause::{full_pool, why_not_created};
use crate::runner::provision::{Credentials, Failure, Limits, Provision, source};
use crate::steps::Next;
use crate::steps::making::{Answer, MakeKind, Making, Step};
use crate::steps::removal::Removal;
use crate::threads::{self, Handle};
use crate::trace::Mark;
use crate::world::{Action, Launch, LaunchSource, Outcome, Subject, Template};

/// The pause before a claimed standby's name is tried again at GitHub, where another daemon has it.
const NAME_PAUSE: Duration = Duration::from_millis(500);

/// LXD is left alone this long after a standby got its credentials: any call would slow the runner's start by a third. (In the
/// longer start from a template or an image it does not show.)
const RUNNER_BEGINS: Duration = Duration::from_millis(100);

/// An instance to be made.
struct Order<'a> {
    class: &'a Class,
    name: &'a str,
    what: MakeKind,
    job: Option<JobId>,
    source: Source,
    keys: ConfigMap,
}

/// The state of a making.
struct MakeSession<'a, 'scope> {
    executor: &'a Executor,
    order: &'a Order<'a>,
    provision: &'a Provision<'a>,
    mark: Mark<'a>,
    /// It was created.
    made: bool,
    /// It was started when it was made.
    runs: bool,
    /// The start, or the arming.
    under_way: Option<Operation>,
    registering: Option<Handle<'scope, Result<Credentials, Answer>>>,
    opening: Option<Handle<'scope, ()>>,
    credentials: Option<Credentials>,
    /// The output of the failed script.
    output: String,
}

impl Executor {
    /// Makes an instance of the class, or fetches its image.
    pub(super) fn make(&self, action: &Action, class: &Class) -> Outcome {
        let keys = |phase, recipe| self.keys(class, phase, recipe);
        let order = match action {
            Action::Launch(Launch { job, scope, name, from, .. }) => {
                if self.github.quiet_for(scope).is_some() {
                    // Without the remaining time, which would make each try another reason.
                    let reason = "GitHub said to slow down; nothing is launched before it may be asked".to_owned();
                    let blame = Subject::Scope(scope.clone());
                    return Outcome::LaunchFailed { blame, reason, made: false, runner: None };
                }
                let source = match from {
                    LaunchSource::Template(template) => copy_of(template),
                    LaunchSource::Image | LaunchSource::Standby { .. } => source(&class.image, self.lxd.product()),
                };
                let mut keys = keys(Phase::Provisioning, None);
                keys.insert(keys::SCOPE.to_owned(), scope.to_string());
                keys.extend(job.map(|job| (keys::JOB.to_owned(), job.to_string())));
                let what = MakeKind::Runner { scope: scope.clone(), from: from.clone() };
                Order { class, name, what, job: *job, source, keys }
            }
            Action::Bake { name, fingerprint, recipe, form, .. } => {
                let source = Source::Fingerprint(fingerprint.clone());
                Order {
                    class,
                    name,
                    what: MakeKind::Template(*form),
                    job: None,
                    source,
                    keys: keys(Phase::Baking, Some(recipe)),
                }
            }
            Action::PrepareStandby { name, template, recipe, .. } => {
                let source = copy_of(template);
                let keys = keys(Phase::Preparing, Some(recipe));
                Order { class, name, what: MakeKind::Standby, job: None, source, keys }
            }
            _ => return self.fetch_image(class),
        };
        match self.make_order(&order) {
            Outcome::LaunchFailed { blame, reason, made, runner } => {
                Outcome::LaunchFailed { blame, reason: nameless(&reason, order.name), made, runner }
            }
            Outcome::NotMade { blame, reason, made } => {
                Outcome::NotMade { blame, reason: nameless(&reason, order.name), made }
            }
            other => other,
        }
    }

    /// Takes all steps; returns the outcome.
    fn make_order(&self, order: &Order<'_>) -> Outcome {
        let Order { class, name, what, job, .. } = order;
        let mark = self.trace.of(*job);
        let provision =
            Provision::new(&self.lxd, class, name, Limits::of(&self.config), mark).reaching(&self.config.github.api);
        let mut making = Making::new(what.clone(), class, &self.config.prefix);
        thread::scope(|scope| {
            let mut session = MakeSession {
                executor: self,
                order,
                provision: &provision,
                mark,
                made: false,
                runs: false,
                under_way: None,
                registering: None,
                opening: None,
                credentials: None,
                output: String::new(),
            };
            loop {
                let step = making.step();
                let came = match step {
                    Step::BeginRegister(of) => {
                        let of = of.clone();
                        let register = move || self.register(class, &of, name).inspect(|_| mark.at("credentials"));
                        session.registering = Some(threads::spawn_scoped(scope, "register", register));
                        Answer::Done
                    }
                    Step::OpenFiles => {
                        session.opening = Some(threads::spawn_scoped(scope, "open-files", || provision.open_files()));
                        Answer::Done
                    }
                    step => session.take(step),
                };
                if let Next::End(outcome) = making.next(came) {
                    return outcome;
                }
            }
        })
    }

    /// The keys of an instance that we make.
    fn keys(&self, class: &Class, phase: Phase, recipe: Option<&Recipe>) -> ConfigMap {
        let keys = [
            (keys::OWNER, self.config.prefix.clone()),
            (keys::CLASS, class.name.clone()),
            (keys::PHASE, phase.as_str().to_owned()),
            (keys::DAEMON, process_identity()),
        ];
        let recipe = recipe.map(|recipe| (keys::TEMPLATE.to_owned(), recipe.to_string()));
        keys.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(recipe).collect()
    }
}

impl MakeSession<'_, '_> {
    fn take(&mut self, step: &Step) -> Answer {
        let (executor, provision) = (self.executor, self.provision);
        let Order { class, name, what, .. } = self.order;
        match step {
            Step::Create => self.create(),
            Step::Look(_) => match executor.lxd.instance(&class.project, name) {
                Ok(Some((instance, etag))) => Answer::Found(found(&executor.lxd, &instance, etag)),
                Ok(None) => Answer::Gone,
                Err(error) => self.failed(error.into()),
            },
            Step::FindCause => {
                let of_image =
                    matches!(what, MakeKind::Template(_) | MakeKind::Runner { from: LaunchSource::Image, .. });
                Answer::Cause(why_not_created(&executor.lxd, class, of_image))
            }
            Step::Start if self.runs => Answer::Done,
            Step::Start => self.begun(provision.start()),
            Step::Started if self.runs => self.done(provision.usable()),
            Step::Started => self.ended(|starting| provision.started(starting)),
            Step::SetUp => self.set_up(),
            Step::Arm => self.begun(provision.arm()),
            Step::Armed => self.ended(|arming| provision.armed(arming)),
            Step::Credentials => match self.registering.take().map(Handle::join) {
                Some(registered) => self.heard(registered),
                None => Answer::Refused("GitHub was not asked".to_owned()),
            },
            Step::RegisterAgain(scope) => {
                thread::sleep(NAME_PAUSE);
                self.heard(executor.register(class, scope, name))
            }
            Step::NoteRunner(runner) => self.done(provision.note_runner(*runner)),
            Step::Claim { etag } => self.claim(etag),
            Step::Thaw | Step::ThawUnclaimed => self.done(provision.thaw().inspect(|()| self.mark.at("thawed"))),
            Step::SetClock => self.done(provision.set_clock()),
            Step::HandOver => self.hand_over(),
            Step::NoteStarted(runner) => self.note_started(*runner),
            Step::Seal => self.done(provision.seal()),
            Step::Settle => self.done(provision.settle()),
            Step::Freeze => self.freeze(),
            Step::Finish { etag } => match provision.finish(what.phases().1, etag) {
                Err(error) if matches!(error.kind, ErrorKind::PreconditionFailed | ErrorKind::NotFound) => {
                    Answer::Changed
                }
                finished => self.done(finished.map_err(Failure::from)),
            },
            Step::Publish => self.publish(),
            Step::TakeBack(scope, runner) => match executor.github.delete_runner(scope, *runner) {
                Ok(deletion) => Answer::Deregistered(deletion),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Step::KeepLogs { why } => {
                executor.keep_of_failed(&class.project, name, (why, &self.output));
                Answer::Done
            }
            Step::Drop(why) => {
                let removal = Removal::of_our_own(&executor.config.prefix, *why);
                match executor.remove(&class.project, name, removal) {
                    Outcome::RemoveFailed { reason } => Answer::Failed { unreachable: false, reason },
                    _ => Answer::Done,
                }
            }
            // `make_order` starts these on threads of its own.
            Step::BeginRegister(_) | Step::OpenFiles => Answer::Done,
        }
    }

    fn create(&mut self) -> Answer {
        let Order { what, source, keys, .. } = self.order;
        let (source, keys, ephemeral) = (source.clone(), keys.clone(), !matches!(what, MakeKind::Template(_)));
        let made = match what {
            // The registration begins once the name is ours, and runs during the boot.
            MakeKind::Runner { .. } => self.provision.create(source, keys, ephemeral),
            _ => self.provision.create_started(source, keys, ephemeral).map(|runs| self.runs = runs),
        };
        if made.is_ok() {
            self.made = true;
            self.log_made();
        }
        self.done(made)
    }

    fn claim(&mut self, etag: &str) -> Answer {
        match self.provision.claim(&self.order.keys, etag) {
            Ok(()) => {
                self.mark.at("claimed");
                self.log_made();
                Answer::Done
            }
            Err(error) => match error.kind {
                ErrorKind::PreconditionFailed => Answer::Changed,
                ErrorKind::NotFound => Answer::Gone,
                // The claim may have succeeded: a listing will show it.
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Malformed => Answer::Unsure(error.to_string()),
                _ => self.failed(error.into()),
            },
        }
    }

    fn hand_over(&mut self) -> Answer {
        self.opening.take().map(Handle::join);
        let Some(credentials) = &self.credentials else { return Answer::Refused("there are none".to_owned()) };
        let handed_over = self.provision.hand_over(credentials);
        if let (Ok(()), MakeKind::Runner { from, .. }) = (&handed_over, &self.order.what) {
            self.mark.tell(self.order.name, from.as_str());
        }
        self.done(handed_over)
    }

    fn note_started(&self, runner: Option<RunnerId>) -> Answer {
        if matches!(self.order.what, MakeKind::Runner { from: LaunchSource::Standby { .. }, .. }) {
            // LXD has no event for the runner's start.
            thread::sleep(RUNNER_BEGINS);
        }
        if let Err(error) = self.provision.note_started(runner) {
            debug!("instance={} msg=\"could not note that it is started\" error={error:?}", self.order.name);
        }
        Answer::Done
    }

    fn freeze(&mut self) -> Answer {
        let frozen = self.provision.freeze();
        if frozen.is_ok() && self.order.class.kind == InstanceType::Container {
            // `observe::warm` keeps the connection open from now on.
            self.provision.open_files();
        }
        self.done(frozen)
    }

    /// Publishes the baked instance under the same name, with the properties that listings need.
    fn publish(&mut self) -> Answer {
        let Order { class, name, source, keys, .. } = self.order;
        let lxd = &self.executor.lxd;
        // LXD needs the properties of the source image in instances of this image.
        let of_image = match source {
            Source::Fingerprint(fingerprint) => lxd.image(&class.project, fingerprint).ok().flatten(),
            _ => None,
        };
        // A crashed process may have published it. LXD checks the alias only after it has made the image, and leaves the image
        // without one.
        if let Ok(Some(fingerprint)) = lxd.image_alias(&class.project, name) {
            return Answer::Published(fingerprint);
        }
        let mut properties = of_image.map(|image| image.properties).unwrap_or_default();
        properties.extend(template_properties(class, keys));
        match self.provision.publish(name, &properties) {
            Ok(fingerprint) => Answer::Published(fingerprint),
            Err(failure) => match lxd.image_alias(&class.project, name) {
                // The answer was lost.
                Ok(Some(fingerprint)) => Answer::Published(fingerprint),
                _ => self.failed(failure),
            },
        }
    }

    fn log_made(&self) {
        let Order { class, name, what, job, .. } = self.order;
        let class = &class.name;
        match what {
            MakeKind::Runner { scope, from } => {
                let (job, from) = (job.map(|job| format!("job={job} ")).unwrap_or_default(), from.as_str());
                info!("{job}class={class:?} instance={name} scope={scope} from={from} msg=\"instance made\"");
            }
            MakeKind::Template(_) => info!("class={class:?} template={name} msg=\"baking a template\""),
            MakeKind::Standby => {}
        }
    }

    fn set_up(&mut self) -> Answer {
        let (executor, class) = (self.executor, self.order.class);
        match executor.packages.cached(class.arch, executor.config.runner_version.as_deref()) {
            Some(package) => {
                let set_up = self.provision.prepare(&package, matches!(self.order.what, MakeKind::Template(_)));
                self.done(set_up.inspect(|()| self.mark.at("set_up")))
            }
            None => Answer::NoPackage(format!(
                "the runner package is not in {} any more; it is fetched again",
                executor.config.cache_home.display()
            )),
        }
    }

    fn heard(&mut self, registered: Result<Credentials, Answer>) -> Answer {
        match registered {
            Ok(credentials) => Answer::Registered(self.credentials.insert(credentials).runner()),
            Err(answer) => answer,
        }
    }

    fn done(&mut self, result: Result<(), Failure>) -> Answer {
        result.map_or_else(|failure| self.failed(failure), |()| Answer::Done)
    }

    fn begun(&mut self, result: Result<Operation, Failure>) -> Answer {
        let begun = result.map(|operation| self.under_way = Some(operation));
        self.done(begun)
    }

    /// Waits for the operation that was begun before.
    fn ended(&mut self, wait: impl FnOnce(&Operation) -> Result<(), Failure>) -> Answer {
        match self.under_way.take() {
            Some(operation) => self.done(wait(&operation)),
            None => Answer::Refused("it was not begun".to_owned()),
        }
    }

    fn failed(&mut self, failure: Failure) -> Answer {
        self.output = failure.output().to_owned();
        if let Failure::NoNetwork { told, .. } = &failure {
            return Answer::NoNetwork(told.clone());
        }
        let unreachable = matches!(&failure, Failure::Lxd(error) if error.kind == ErrorKind::Unreachable);
        let reason = failure.to_string();
        // `FindCause` looks into a failed creation.
        let full = if self.made && !unreachable { full_pool(&self.executor.lxd, self.order.class) } else { None };
        match full {
            Some(full) => Answer::NoSpace(format!("{reason}\n{full}")),
            None => Answer::Failed { unreachable, reason },
        }
    }
}

/// The source of a copy of the template.
fn copy_of(template: &Template) -> Source {
    match template {
        Template::Instance(name) => Source::Copy(name.clone()),
        Template::Image(fingerprint) => Source::Fingerprint(fingerprint.clone()),
    }
}

/// The properties of an image that is a template of the class, from its instance's keys.
fn template_properties(class: &Class, keys: &ConfigMap) -> ConfigMap {
    let kept = [keys::OWNER, keys::CLASS, keys::TEMPLATE, keys::DAEMON]
        .map(|key| (key, keys.get(key).cloned().unwrap_or_default()));
    let description = format!("lxdrunner's template of class {}", class.name);
    let more = [(keys::PROJECT, class.project.clone()), ("description", description)];
    kept.into_iter().chain(more).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The reason without the instance's name, so that the same failure of the next instance is no news. Within a path or a longer
/// word, `<instance>` replaces the name.
fn nameless(reason: &str, name: &str) -> String {
    let reason = reason.replace(&format!("instance {name}"), "the instance");
    let mut parts = reason.split(name);
    let mut text = parts.next().unwrap_or_default().to_owned();
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '-');
    for part in parts {
        let in_word = text.chars().next_back().is_some_and(joins) || part.chars().next().is_some_and(joins);
        text.push_str(if in_word { "<instance>" } else { "the instance" });
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_does_not_name_the_instance_and_a_path_stays_a_path() {
        let check = |reason: &str, expected: &str| assert_eq!(nameless(reason, "ci-7-1"), expected);
        check("start instance ci-7-1: no", "start the instance: no");
        check(
            "forkstart ci-7-1 /logs/ci-7-1/lxc.conf: exit status 1",
            "forkstart the instance /logs/<instance>/lxc.conf: exit status 1",
        );
        check("/pool/other_ci-7-1", "/pool/other_<instance>");
        check("spawn \"ci-7-1\".", "spawn \"the instance\".");
        check("no space", "no space");
    }
}
