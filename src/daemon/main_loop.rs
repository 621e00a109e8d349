//! The main loop: folds events into the World, plans, and hands actions to the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::answers::{Asked, Known};
use crate::clock::Clock;
use crate::config::Config;
use crate::github::GitHub;
use crate::model::Timestamp;
use crate::plan::plan;
use crate::report::metrics::Counters;
use crate::report::narrate::Narrator;
use crate::runner::provision::scripts_digest;
use crate::trace::Trace;
use crate::world::{Action, Event, Interest, Launch, World};

/// The shortest time between two plans.
const BREATH: Duration = Duration::from_millis(2);
/// Events folded before the next plan.
const BATCH: usize = 256;
/// The longest time without a plan.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause before a plan that is due already, so that the loop does not spin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The main thread's channels to the other threads.
pub(super) struct Outbox {
    pub trace: Arc<Trace>,
    pub actions: Sender<Action>,
    pub ask_lxd: Sender<Interest>,
    pub ask_github: Sender<Interest>,
}

/// The owner of the World.
pub(super) struct MainLoop {
    world: World,
    github: Arc<GitHub>,
    clock: Clock,
    narrator: Narrator,
    counters: Counters,
    outbox: Outbox,
}

impl MainLoop {
    pub fn new(config: &Arc<Config>, github: Arc<GitHub>, clock: Clock, outbox: Outbox) -> MainLoop {
        let world = World::new(Arc::clone(config), seed(), &scripts_digest());
        MainLoop { world, github, clock, narrator: Narrator::default(), counters: Counters::default(), outbox }
    }

    /// Runs until the process ends. `lost` is set when the inbox was full for a delivery.
    pub fn run(mut self, inbox: &Receiver<Event>, questions: &Receiver<Asked>, lost: &AtomicBool) -> ! {
        let mut turned = Instant::now();
        loop {
            let wake_at = self.decide(self.clock.now());
            let now = self.clock.now();
            let first = select! {
                recv(inbox) -> event => event.ok(),
                recv(questions) -> asked => {
                    if let Ok(asked) = asked {
                        let MainLoop { world, github, counters, .. } = &self;
                        asked.answer(&Known { world, github, counters, now: self.clock.now() });
                    }
                    None
                }
                default(wake_at.map_or(LONGEST_PAUSE, |at| at.since(now))) => None,
            };
            if first.is_some() {
                // In a burst several events are folded before the next plan.
                std::thread::sleep(BREATH.saturating_sub(turned.elapsed()));
            }
            turned = Instant::now();
            let lost = lost.swap(false, Ordering::SeqCst).then_some(Event::HintsLost);
            for event in lost.into_iter().chain(first).chain(inbox.try_iter().take(BATCH)) {
                self.fold(event, self.clock.now());
            }
        }
    }

    fn fold(&mut self, event: Event, now: Timestamp) {
        self.counters.count(&event, &self.world, now);
        let notes = self.world.fold(event, now);
        self.counters.count_notes(&notes);
        self.narrator.tell(&notes);
    }

    /// Plans, and hands actions to free workers; the rest is planned again at the next event. Returns the latest time of the
    /// next plan.
    fn decide(&mut self, now: Timestamp) -> Option<Timestamp> {
        let MainLoop { world, outbox, narrator, .. } = self;
        let plan = plan(world, now);
        let interest = Interest { begun: world.seq(), ..Interest::default() };
        if plan.look_at_lxd && outbox.ask_lxd.try_send(interest).is_ok() {
            world.look_begun(false);
        }
        if plan.look_at_github && outbox.ask_github.try_send(world.interest()).is_ok() {
            world.look_begun(true);
        }
        for action in plan.actions {
            if outbox.actions.try_send(action.clone()).is_err() {
                break;
            }
            if let Action::Launch(Launch { job, .. }) = &action {
                outbox.trace.of(*job).at("planned");
            }
            world.dispatched(&action);
        }
        let more = narrator.tell_deferred(&plan.deferred, world);
        let wake_at = if more { Some(now) } else { plan.wake_at };
        // A look may be due while another is under way, whose end is an event.
        wake_at.map(|at| if at <= now { now.after(SHORTEST_PAUSE) } else { at })
    }
}

/// A number that differs in each process, for the names of standbys and idle runners.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds it from the system's randomness.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
