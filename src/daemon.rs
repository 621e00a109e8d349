//! The wiring: threads, bounded channels, and the one loop that folds events into the [`World`], plans, and hands
//! actions out.
//!
//! There is no shutdown: SIGTERM ends the process, running jobs are not affected, and the next start reads everything
//! again. A panic in a thread ends the process.

mod answers;
mod front;
#[doc(hidden)]
mod tokens;

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{debug, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Question};
use crate::execute::Executor;
use crate::github::GitHub;
use crate::lxd::Lxd;
use crate::model::{Hint, Job, JobStatus, Timestamp};
use crate::observe::{GitHubObserver, LxdObserver};
use crate::plan::{plan, workers};
use crate::report::metrics::Counters;
use crate::report::narrate::Narrator;
use crate::runner::provision::scripts_digest;
use crate::threads;
use crate::trace::Trace;
use crate::upkeep::Upkeep;
use crate::webhook;
use crate::world::{Action, Event, Interest, Launch, World};
use answers::{Asked, Known};
use front::front;
use tokens::TokenLog;

/// Capacity of the main loop's channel. A delivery that finds it full is still answered, and GitHub is looked at instead.
const EVENTS: usize = 1024;
/// The shortest time between two plans.
const BREATH: Duration = Duration::from_millis(2);
/// Events folded before the next plan.
const BATCH: usize = 256;
/// The pause before LXD's event stream is opened again, doubling from the first to the last.
const RECONNECT_FIRST: Duration = Duration::from_millis(500);
const RECONNECT_LAST: Duration = Duration::from_secs(30);

/// Runs the daemon. Returns only if it could not start.
///
/// # Errors
/// The webhook address cannot be bound.
pub fn run(config: Config, trace: bool) -> Result<Infallible, webhook::Error> {
    let config = Arc::new(config);
    let lxd = Arc::new(Lxd::new(&config.socket));
    let github = Arc::new(GitHub::of_config(&config.github));
    let (events, inbox) = bounded::<Event>(EVENTS);
    let clock = Clock::set();
    let (asker, questions) = answers::channel();
    let lost = Arc::new(AtomicBool::new(false));

    let trace = Arc::new(Trace::new(trace));
    let listen = match config.listens {
        true => {
            let front = front(&config, &github)?;
            let deliver = deliver_to(events.clone(), Arc::clone(&lost), Arc::clone(&trace));
            let (health, metrics) = (asker.clone(), asker.clone());
            let metrics = move || Some(metrics.about(Question::Metrics)?.text);
            let secret = config.hooksecret.clone();
            let open = webhook::Receiver::open(front, secret, deliver, move || health.health(), metrics)?;
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

    // A channel without senders is always ready, and would make the main loop spin.
    let _kept = asker.clone();
    if let Err(error) = control::listen(control::socket(&config), move |question| asker.about(question)) {
        warn!(
            "msg=\"control socket unavailable: lxdrunner explain and status will not work\" reason={:?}",
            error.to_string()
        );
    }

    let workers = workers(config.max_workers);
    let (actions, todo) = bounded::<Action>(workers);
    let executor =
        Arc::new(Executor::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github), Arc::clone(&trace)));
    for n in 0..workers {
        let (executor, todo, events) = (Arc::clone(&executor), todo.clone(), events.clone());
        threads::spawn(&format!("worker-{n}"), move || work(&executor, &todo, &events));
    }
    // One look of each kind at a time, none queued: the planner asks again after its end.
    let (ask_lxd, lxd_asked) = bounded::<Interest>(1);
    let mut at_lxd = LxdObserver::new(Arc::clone(&config), Arc::clone(&lxd));
    let found = events.clone();
    threads::spawn("look-lxd", move || {
        for interest in lxd_asked {
            // The end of the loop ends the process.
            let snapshot = at_lxd.look(interest.begun);
            if found.send(Event::Snapshot(Box::new(snapshot))).is_err() {
                return;
            }
            at_lxd.rest();
        }
    });
    let (ask_github, github_asked) = bounded::<Interest>(1);
    let mut at_github = GitHubObserver::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github), clock);
    let (found, asked, mut tokens) = (events.clone(), Arc::clone(&github), TokenLog::default());
    threads::spawn("reconcile", move || {
        for interest in github_asked {
            let snapshot = at_github.look(&interest, &mut |event| drop(found.send(event)));
            tokens.tell(&asked);
            if found.send(Event::Snapshot(Box::new(snapshot))).is_err() {
                return;
            }
        }
    });
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
    let outbox = Outbox { trace, actions, ask_lxd, ask_github, clock };
    turn_for_ever(&config, &github, &inbox, &questions, &lost, &outbox)
}

/// Ends the process when standard input ends, for a parent that may be killed, such as the demo.
pub fn end_with_stdin() {
    threads::spawn("stdin", || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// The main thread's channels to the workers.
struct Outbox {
    trace: Arc<Trace>,
    actions: Sender<Action>,
    ask_lxd: Sender<Interest>,
    ask_github: Sender<Interest>,
    clock: Clock,
}

/// A number that differs in each process, for the names of standbys and idle runners.
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
            // The channel is full, so the main loop will run, and see this.
            if !lost.swap(true, Ordering::SeqCst) {
                warn!("msg=\"more deliveries than can be taken in; GitHub is looked at instead\"");
            }
        }
    }
}

/// Reads ends of instances from LXD's event stream, and reopens the stream when it breaks.
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

fn turn_for_ever(
    config: &Arc<Config>,
    github: &GitHub,
    inbox: &Receiver<Event>,
    questions: &Receiver<Asked>,
    lost: &AtomicBool,
    outbox: &Outbox,
) -> ! {
    let mut world = World::new(Arc::clone(config), seed(), &scripts_digest());
    let mut narrator = Narrator::default();
    let mut counters = Counters::default();
    let (clock, mut turned) = (outbox.clock, Instant::now());
    loop {
        let now = clock.now();
        let wake_at = decide(&mut world, outbox, &mut narrator, now);
        let pause = wake_at.map_or(Duration::from_secs(60), |at| at.since(clock.now()));
        let first = select! {
            recv(inbox) -> event => event.ok(),
            recv(questions) -> asked => {
                if let Ok(asked) = asked {
                    asked.answer(&Known { world: &world, github, counters: &counters, now: clock.now() });
                }
                None
            }
            default(pause) => None,
        };
        if first.is_some() {
            // In a burst several events are folded before the next plan.
            std::thread::sleep(BREATH.saturating_sub(turned.elapsed()));
        }
        let now = clock.now();
        turned = Instant::now();
        if lost.swap(false, Ordering::SeqCst) {
            narrator.tell(&world.fold(Event::HintsLost, now));
        }
        for event in first.into_iter().chain(inbox.try_iter().take(BATCH)) {
            counters.count(&event, &world, now);
            let notes = world.fold(event, now);
            counters.count_notes(&notes);
            narrator.tell(&notes);
        }
    }
}

/// Plans, and hands actions to free workers; the rest is planned again at the next event. Returns the latest time of the next
/// plan.
fn decide(world: &mut World, outbox: &Outbox, narrator: &mut Narrator, now: Timestamp) -> Option<Timestamp> {
    let plan = plan(world, now);
    if plan.look_at_lxd && outbox.ask_lxd.try_send(Interest { begun: world.seq(), ..Interest::default() }).is_ok() {
        world.look_begun(false);
    }
    if plan.look_at_github && outbox.ask_github.try_send(world.interest()).is_ok() {
        world.look_begun(true);
    }
    for action in plan.actions {
        match outbox.actions.try_send(action.clone()) {
            Ok(()) => {
                if let Action::Launch(Launch { job, .. }) = &action {
                    outbox.trace.of(*job).at("planned");
                }
                world.dispatched(&action);
            }
            Err(_) => break,
        }
    }
    let more = narrator.tell_deferred(&plan.deferred, world);
    let wake_at = if more { Some(now) } else { plan.wake_at };
    // A look that is due while another is under way must not make the loop spin: its end is an event.
    wake_at.map(|at| if at <= now { now.after(Duration::from_millis(100)) } else { at })
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
        let mut world = World::new(Arc::new(config), 1, "");
        let now = Timestamp(1_000_000);
        world.look_begun(true);
        let instances = Some(Ok(vec![]));
        let looked = crate::world::Snapshot { begun: 1, instances, images: None, github: Some(Default::default()) };
        world.fold(Event::Snapshot(Box::new(looked)), now);
        assert!(!plan(&world, now).look_at_github);
        world.fold(Event::HintsLost, now);
        assert!(plan(&world, now.after(Duration::from_secs(5))).look_at_github);
    }
}
