//! The wiring: threads, bounded channels, and the one loop that folds events into the [`World`], plans, and hands
//! actions out.
//!
//! There is no shutdown: SIGTERM ends the process, running jobs do not notice, and the next start reads everything
//! again. A thread that dies ends the process.

mod front;
mod narrate;

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{debug, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::control;
use crate::execute::Executor;
use crate::github::{GitHub, Standing};
use crate::lxd::Lxd;
use crate::model::{Hint, Job, JobStatus, Timestamp};
use crate::observe::Observer;
use crate::plan::{explain, plan, workers};
use crate::runner::provision::scripts_digest;
use crate::threads;
use crate::trace::Trace;
use crate::upkeep::Upkeep;
use crate::webhook::{self, server};
use crate::world::{Action, Event, Instance, Interest, World};
use front::front;
use narrate::Narrator;

/// Events that may wait for the main loop. A delivery that finds it full is answered all the same, and GitHub is
/// looked at instead.
const EVENTS: usize = 1024;
/// The least time between two plannings.
const BREATH: Duration = Duration::from_millis(2);
/// Events taken in before planning again.
const BATCH: usize = 256;
/// The pause before LXD's event stream is opened again, doubling from the first to the last.
const RECONNECT_FIRST: Duration = Duration::from_millis(500);
const RECONNECT_LAST: Duration = Duration::from_secs(30);
/// Stuck instances that a health question's answer names, and characters that it tells of what each last failed with.
const NAMED: usize = 5;
const REASON: usize = 200;
/// The main loop answers a health question within this time, or is not well.
const HEALTH_PATIENCE: Duration = Duration::from_secs(3);

/// Runs the daemon. Returns only where it could not start.
///
/// # Errors
/// Where the webhook address cannot be listened on.
pub fn run(config: Config, trace: bool) -> Result<Infallible, webhook::Error> {
    let config = Arc::new(config);
    let lxd = Arc::new(Lxd::new(&config.socket));
    let github = Arc::new(GitHub::of_config(&config.github));
    let (events, inbox) = bounded::<Event>(EVENTS);
    let (health, health_questions) = bounded::<Sender<server::Health>>(4);
    let lost = Arc::new(AtomicBool::new(false));

    let trace = Arc::new(Trace::new(trace));
    let health_kept = health.clone();
    let listen = match config.listens {
        true => {
            let front = front(&config, &github)?;
            let deliver = deliver_to(events.clone(), Arc::clone(&lost), Arc::clone(&trace));
            let open = server::Receiver::open(front, config.hooksecret.clone(), deliver, move || ask(&health))?;
            open.local_addr().to_string()
        }
        false => "none".to_owned(),
    };
    info!(
        "listen={listen} socket={} classes={} max_workers={} version={} msg=\"lxdrunner is up\"",
        config.socket.display(),
        config.classes.len(),
        config.max_workers,
        env!("CARGO_PKG_VERSION")
    );

    let (asked, questions) = bounded::<Asked>(4);
    // A channel that nobody can send to any more is always ready, and would make the main loop spin.
    let _kept = (asked.clone(), health_kept);
    if let Err(error) = control::listen(control::socket(&config), move |question| ask_why(&asked, question)) {
        warn!("msg=\"lxdrunner explain cannot ask this daemon\" reason=\"{error}\"");
    }

    let workers = workers(config.max_workers);
    let (actions, todo) = bounded::<Action>(workers);
    let executor =
        Arc::new(Executor::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github), Arc::clone(&trace)));
    for n in 0..workers {
        let (executor, todo, events) = (Arc::clone(&executor), todo.clone(), events.clone());
        threads::spawn(&format!("worker-{n}"), move || work(&executor, &todo, &events));
    }
    let observer = |name: &str, at_github: bool| {
        // One look under way and none waiting: the planner asks again when it is back.
        let (ask, asked) = bounded::<Interest>(1);
        let mut observer = Observer::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github));
        let events = events.clone();
        threads::spawn(name, move || {
            for interest in asked {
                let snapshot = observer.look(&interest, at_github);
                if events.send(Event::Snapshot(Box::new(snapshot))).is_err() {
                    return;
                }
                observer.rest();
            }
        });
        ask
    };
    let (listener, heard) = (Arc::clone(&lxd), events.clone());
    let ours = format!("{}-", config.prefix);
    threads::spawn("lxd-events", move || listen_for_ever(&listener, &ours, &heard));
    if Upkeep::is_wanted(&config) {
        let mut upkeep = Upkeep::new(Arc::clone(&config), Arc::clone(&github));
        threads::spawn("upkeep", move || {
            loop {
                std::thread::sleep(upkeep.round());
            }
        });
    }
    let (look_lxd, look_github) = (observer("look-lxd", false), observer("look-github", true));
    let hands = Hands { trace, actions, look_lxd, look_github };
    let questions = Questions { health: health_questions, why: questions };
    turn_for_ever(&config, &github, &inbox, &questions, &lost, &hands)
}

/// Ends the process when standard input ends: for a parent that may die without a word, such as the demo.
pub fn end_with_stdin() {
    threads::spawn("stdin", || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Where the main thread puts what it wants done.
struct Hands {
    trace: Arc<Trace>,
    actions: Sender<Action>,
    look_lxd: Sender<Interest>,
    look_github: Sender<Interest>,
}

/// Another number in each process, so that the names that follow from it do not meet.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds it from the system's randomness.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn deliver_to(
    events: Sender<Event>,
    lost: Arc<AtomicBool>,
    trace: Arc<Trace>,
) -> impl Fn(Hint) + Send + Sync + 'static {
    move |hint| {
        if let Hint::Job(Job { id, status: JobStatus::Queued, .. }) = &hint {
            trace.of(Some(*id)).at("accepted");
        }
        if let Err(TrySendError::Full(_)) = events.try_send(Event::Hint(hint)) {
            // The channel is full, so the main loop will turn, and see this.
            if !lost.swap(true, Ordering::SeqCst) {
                warn!("msg=\"more deliveries than can be taken in; GitHub is looked at instead\"");
            }
        }
    }
}

/// Hears from LXD which instances end, and opens the stream again whenever it breaks.
fn listen_for_ever(lxd: &Lxd, ours: &str, events: &Sender<Event>) {
    let mut pause = RECONNECT_FIRST;
    loop {
        let trouble = match lxd.events() {
            Ok(mut stream) => {
                pause = RECONNECT_FIRST;
                if events.send(Event::Listening(true)).is_err() {
                    return;
                }
                let error = loop {
                    match stream.next_end() {
                        Ok(ended) if ended.instance.starts_with(ours) => {
                            debug!("instance={} lxd_event={}", ended.instance, ended.action);
                            if events.send(Event::InstanceEnded).is_err() {
                                return;
                            }
                        }
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                if events.send(Event::Listening(false)).is_err() {
                    return;
                }
                error
            }
            Err(error) => error,
        };
        debug!("msg=\"not listening to LXD, it is listed more often\" again_in={pause:?} reason=\"{trouble}\"");
        std::thread::sleep(pause);
        pause = (pause * 2).min(RECONNECT_LAST);
    }
}

fn work(executor: &Executor, todo: &Receiver<Action>, events: &Sender<Event>) {
    for action in todo {
        let outcome = executor.execute(&action);
        if events.send(Event::Outcome(action, outcome)).is_err() {
            return;
        }
    }
}

/// Asks the main loop how it is.
fn ask(health: &Sender<Sender<server::Health>>) -> server::Health {
    let (answer, answered) = bounded(1);
    let late = || server::Health::Bad(format!("the main loop has not turned for {} s", HEALTH_PATIENCE.as_secs()));
    if health.send_timeout(answer, HEALTH_PATIENCE).is_err() {
        return late();
    }
    answered.recv_timeout(HEALTH_PATIENCE).unwrap_or_else(|_| late())
}

/// A question about a job, and where the answer goes.
type Asked = (control::Question, Sender<control::Answer>);

/// What others want to know of the main loop.
struct Questions {
    health: Receiver<Sender<server::Health>>,
    why: Receiver<Asked>,
}

/// Asks the main loop why a job stands as it does.
fn ask_why(asked: &Sender<Asked>, question: control::Question) -> Option<control::Answer> {
    let (answer, answered) = bounded(1);
    asked.send_timeout((question, answer), HEALTH_PATIENCE).ok()?;
    answered.recv_timeout(HEALTH_PATIENCE).ok()
}

fn why(
    world: &World,
    config: &Config,
    github: &GitHub,
    question: &control::Question,
    now: Timestamp,
) -> control::Answer {
    let known = world.jobs().find(|state| state.job.id == question.job);
    let repo = known.map(|state| state.job.repo.to_string());
    let mut explained = explain(world, config, now, question.job, question.told.as_ref());
    explained.details.push(("budget", limits(github).trim().to_owned()));
    control::Answer { repo, text: explained.to_string() }
}

fn turn_for_ever(
    config: &Config,
    github: &GitHub,
    inbox: &Receiver<Event>,
    questions: &Questions,
    lost: &AtomicBool,
    hands: &Hands,
) -> ! {
    let mut world = World::new(config, seed(), &scripts_digest());
    let mut narrator = Narrator::default();
    let clock = Clock::set();
    let mut turned = Instant::now();
    loop {
        let now = clock.now();
        let wake_at = decide(&mut world, config, hands, &mut narrator, now);
        let pause = wake_at.map_or(Duration::from_secs(60), |at| at.since(clock.now()));
        let first = select! {
            recv(inbox) -> event => event.ok(),
            recv(questions.health) -> answer => {
                if let Ok(answer) = answer {
                    let _ = answer.try_send(report(&world, github, clock.now()));
                }
                None
            }
            recv(questions.why) -> asked => {
                if let Ok((question, answer)) = asked {
                    let _ = answer.try_send(why(&world, config, github, &question, clock.now()));
                }
                None
            }
            default(pause) => None,
        };
        if first.is_some() {
            // In a burst, more are taken in at once: planning anew for each is work that nobody has anything of.
            std::thread::sleep(BREATH.saturating_sub(turned.elapsed()));
        }
        let now = clock.now();
        turned = Instant::now();
        if lost.swap(false, Ordering::SeqCst) {
            narrator.tell(&world.fold(Event::HintsLost, config, now));
        }
        for event in first.into_iter().chain(inbox.try_iter().take(BATCH)) {
            narrator.tell(&world.fold(event, config, now));
        }
    }
}

/// Plans, and hands out what the hands are free for; the rest is planned again at the next event. Returns when to plan
/// again at the latest.
fn decide(
    world: &mut World,
    config: &Config,
    hands: &Hands,
    narrator: &mut Narrator,
    now: Timestamp,
) -> Option<Timestamp> {
    let plan = plan(world, config, now);
    if plan.look_at_lxd && hands.look_lxd.try_send(Interest { begun: world.seq(), ..Interest::default() }).is_ok() {
        world.look_begun(false);
    }
    if plan.look_at_github && hands.look_github.try_send(world.interest(config)).is_ok() {
        world.look_begun(true);
    }
    for action in plan.actions {
        match hands.actions.try_send(action.clone()) {
            Ok(()) => {
                if let Action::Launch { job, .. } = &action {
                    hands.trace.of(*job).at("planned");
                }
                world.dispatched(&action);
            }
            Err(_) => break,
        }
    }
    narrator.tell_deferred(&plan.deferred, world);
    // A look that is due but whose hands are busy must not make the loop spin: its end is an event.
    plan.wake_at.map(|at| if at <= now { now.after(Duration::from_millis(100)) } else { at })
}

fn report(world: &World, github: &GitHub, now: Timestamp) -> server::Health {
    let troubles: Vec<&str> = world.troubles().collect();
    let troubles = if troubles.is_empty() { String::new() } else { format!(" trouble={:?}", troubles.join(", ")) };
    match world.lxd_health(now) {
        Ok(()) => {
            let (jobs, instances) = (world.jobs().count(), world.instances().count());
            let (standby, idle, templates) = world.ready();
            server::Health::Good(format!(
                "ok jobs={jobs} instances={} standby={standby} idle={idle} templates={templates}{}{troubles}{}",
                instances - templates,
                limits(github),
                stuck(world)
            ))
        }
        Err(reason) => server::Health::Bad(reason),
    }
}

/// Instances that are to go and do not, and why.
fn stuck(world: &World) -> String {
    let stuck: Vec<&Instance> = world.instances().filter(|instance| instance.is_stuck()).collect();
    if stuck.is_empty() {
        return String::new();
    }
    let one = |instance: &&Instance| {
        let removal = instance.removal.as_ref()?;
        let reason: String = removal.reason.chars().take(REASON).collect();
        Some(format!("{} ({} tries): {reason}", instance.seen.name, removal.failures))
    };
    let told: Vec<String> = stuck.iter().take(NAMED).filter_map(one).collect();
    format!(" stuck={} stuck_instances={:?}", stuck.len(), told.join("; "))
}

/// How GitHub's limits stand, with the credentials' names where there are several.
fn limits(github: &GitHub) -> String {
    let standings = github.standings();
    let several = standings.len() > 1;
    let one = |(name, standing): &(String, Standing)| match several {
        true => format!(" credential={name}{standing}"),
        false => standing.to_string(),
    };
    let trouble = github.clock_trouble().map(|told| format!(" clock={told:?}")).unwrap_or_default();
    standings.iter().map(one).collect::<String>() + &trouble
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_finds_the_channel_full_makes_us_look_at_github() {
        let (events, inbox) = bounded(1);
        let lost = Arc::new(AtomicBool::new(false));
        let deliver = deliver_to(events, Arc::clone(&lost), Arc::default());
        deliver(Hint::Ping);
        assert!(!lost.load(Ordering::SeqCst));
        deliver(Hint::Ping);
        assert!(lost.load(Ordering::SeqCst));
        assert_eq!(inbox.len(), 1);

        let config = crate::world::testkit::config();
        let mut world = World::new(&config, 1, "");
        let now = Timestamp(1_000_000);
        world.look_begun(true);
        let instances = Some(Ok(vec![]));
        let looked = crate::world::Snapshot { begun: 1, instances, images: None, github: Some(Default::default()) };
        world.fold(Event::Snapshot(Box::new(looked)), &config, now);
        assert!(!plan(&world, &config, now).look_at_github);
        world.fold(Event::HintsLost, &config, now);
        assert!(plan(&world, &config, now.after(Duration::from_secs(5))).look_at_github);
    }
}
