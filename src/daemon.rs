//! The wiring: threads, bounded channels, and the one loop that folds events into the [`World`], plans, and hands
//! actions out.
//!
//! There is no shutdown: SIGTERM ends the process, running jobs are not affected, and the next start reads everything
//! again. A panic in a thread ends the process.

mod answers;
mod front;
mod main_loop;
mod tokens;

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use log::{debug, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Question};
use crate::execute::Executor;
use crate::github::GitHub;
use crate::lxd::{self, Lxd};
use crate::model::{Hint, Job, JobStatus};
use crate::observe::{GitHubObserver, LxdObserver};
use crate::plan::workers;
use crate::threads;
use crate::trace::Trace;
use crate::upkeep::Upkeep;
use crate::webhook;
use crate::world::{Action, Event, Interest};
use front::front;
use main_loop::{MainLoop, Outbox};
use tokens::TokenLog;

/// Capacity of the main loop's channel. A delivery that finds it full is still answered, and GitHub is looked at instead.
const EVENTS: usize = 1024;
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
    let (asker, questions) = answers::channel();
    let (clock, trace, lost) = (Clock::set(), Arc::new(Trace::new(trace)), Arc::new(AtomicBool::new(false)));
    let listen = match config.listens {
        true => {
            let deliver = deliver_to(events.clone(), Arc::clone(&lost), Arc::clone(&trace));
            let (health, metrics) = (asker.clone(), asker.clone());
            let metrics = move || Some(metrics.about(Question::Metrics)?.text);
            let (front, secret) = (front(&config, &github)?, config.hooksecret.clone());
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
        let reason = error.to_string();
        warn!("msg=\"control socket unavailable: lxdrunner explain and status will not work\" reason={reason:?}");
    }

    let executor = Executor::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github), Arc::clone(&trace));
    let actions = start_workers(workers(config.max_workers), executor, &events);
    let ask_lxd = look_at_lxd(LxdObserver::new(Arc::clone(&config), Arc::clone(&lxd)), events.clone());
    let at_github = GitHubObserver::new(Arc::clone(&config), Arc::clone(&lxd), Arc::clone(&github), clock);
    let ask_github = look_at_github(at_github, Arc::clone(&github), events.clone());
    let ours = format!("{}-", config.prefix);
    threads::spawn("lxd-events", move || listen_for_ever(&lxd, &ours, &events));
    if Upkeep::is_wanted(&config) {
        let mut upkeep = Upkeep::new(Arc::clone(&config), Arc::clone(&github));
        threads::spawn("upkeep", move || {
            loop {
                std::thread::sleep(upkeep.round());
            }
        });
    }
    let outbox = Outbox { trace, actions, ask_lxd, ask_github };
    MainLoop::new(&config, github, clock, outbox).run(&inbox, &questions, &lost)
}

/// Starts so many workers; returns the channel for their actions.
fn start_workers(count: usize, executor: Executor, events: &Sender<Event>) -> Sender<Action> {
    let (actions, todo) = bounded::<Action>(count);
    let executor = Arc::new(executor);
    for n in 0..count {
        let (executor, todo, events) = (Arc::clone(&executor), todo.clone(), events.clone());
        threads::spawn(&format!("worker-{n}"), move || {
            for action in todo {
                let outcome = executor.execute(&action);
                drop(events.send(Event::Outcome(action, outcome)));
            }
        });
    }
    actions
}

/// Starts the thread that looks at LXD. One look at a time, none queued: the planner asks again after its end.
fn look_at_lxd(mut at_lxd: LxdObserver, events: Sender<Event>) -> Sender<Interest> {
    let (ask, asked) = bounded::<Interest>(1);
    threads::spawn("look-lxd", move || {
        for interest in asked {
            let snapshot = at_lxd.look(interest.begun);
            drop(events.send(Event::Snapshot(Box::new(snapshot))));
            at_lxd.rest();
        }
    });
    ask
}

/// The same for GitHub.
fn look_at_github(mut at_github: GitHubObserver, github: Arc<GitHub>, events: Sender<Event>) -> Sender<Interest> {
    let (ask, asked) = bounded::<Interest>(1);
    let mut tokens = TokenLog::default();
    threads::spawn("reconcile", move || {
        for interest in asked {
            let snapshot = at_github.look(&interest, &mut |event| drop(events.send(event)));
            tokens.tell(&github);
            drop(events.send(Event::Snapshot(Box::new(snapshot))));
        }
    });
    ask
}

/// Ends the process when standard input ends, for a parent that may be killed, such as the demo.
pub fn end_with_stdin() {
    threads::spawn("stdin", || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
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
            Ok(stream) => {
                pause = RECONNECT_FIRST;
                drop(events.send(Event::Listening(true)));
                let error = read_ends(stream, ours, events);
                drop(events.send(Event::Listening(false)));
                error
            }
            Err(error) => error,
        };
        debug!("msg=\"not listening to LXD, it is listed more often\" again_in={pause:?} reason=\"{trouble}\"");
        std::thread::sleep(pause);
        pause = (pause * 2).min(RECONNECT_LAST);
    }
}

/// Reports ends of instances with a name like ours; returns the error that ended the stream.
fn read_ends(mut stream: lxd::Events, ours: &str, events: &Sender<Event>) -> lxd::Error {
    loop {
        match stream.next_end() {
            Ok(ended) if ended.instance.starts_with(ours) => {
                debug!("instance={} lxd_event={}", ended.instance, ended.action);
                drop(events.send(Event::InstanceEnded));
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::plan::plan;
    use crate::world::World;

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
