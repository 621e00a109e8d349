//! Questions to the main loop: health, status, metrics, and why a job waits.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::control::{Answer, Question};
use crate::github::{GitHub, Standing};
use crate::model::Timestamp;
use crate::report::explain::explain;
use crate::report::metrics::{self, Counters};
use crate::report::status::{self, status};
use crate::webhook::Health;
use crate::world::World;

/// Stuck instances that the answer to a health question names.
const NAMED: usize = 5;
/// A main loop that does not answer within this time is unhealthy.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions while the daemon starts.
const STARTING: Duration = Duration::from_millis(50);
/// Questions that may wait.
const QUESTIONS: usize = 8;

/// A question, and where the answer goes.
pub(super) enum Asked {
    /// `None` is answered until LXD was asked for the first time.
    Health(Sender<Option<Health>>),
    About(Question, Sender<Answer>),
}

/// Asks the main loop.
#[derive(Clone)]
pub(super) struct Asker(Sender<Asked>);

/// The two ends of the channel for questions.
pub(super) fn channel() -> (Asker, Receiver<Asked>) {
    let (asker, questions) = bounded(QUESTIONS);
    (Asker(asker), questions)
}

impl Asker {
    /// The daemon's health.
    pub fn health(&self) -> Health {
        let late = || Health::Bad(format!("main loop unresponsive for {} s", PATIENCE.as_secs()));
        let begun = Instant::now();
        loop {
            match self.ask(Asked::Health) {
                Some(Some(health)) => return health,
                // A question that came during the start waits for the first look.
                Some(None) if begun.elapsed() < PATIENCE => std::thread::sleep(STARTING),
                Some(None) => return Health::Bad("starting: LXD was not listed yet".to_owned()),
                None => return late(),
            }
        }
    }

    /// Other questions; `None` if the main loop does not answer.
    pub fn about(&self, question: Question) -> Option<Answer> {
        self.ask(|answer| Asked::About(question, answer))
    }

    fn ask<T>(&self, asked: impl FnOnce(Sender<T>) -> Asked) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.0.send_timeout(asked(answer), PATIENCE).ok()?;
        answered.recv_timeout(PATIENCE).ok()
    }
}

/// The data for the answers.
pub(super) struct Known<'a> {
    pub world: &'a World,
    pub github: &'a GitHub,
    pub counters: &'a Counters,
    pub now: Timestamp,
}

impl Asked {
    /// Sends the answer, if the asker still waits.
    pub fn answer(self, known: &Known<'_>) {
        match self {
            Asked::Health(answer) => drop(answer.try_send(report(known.world, known.github, known.now))),
            Asked::About(question, answer) => drop(answer.try_send(about(&question, known))),
        }
    }
}

fn about(question: &Question, known: &Known<'_>) -> Answer {
    let Known { world, github, counters, now } = *known;
    match question {
        Question::Job { job, told } => {
            let repo = world.job(*job).map(|state| state.job.repo.to_string());
            let mut explained = explain(world, now, *job, told.as_ref());
            explained.details.push(("budget", limits(github).trim().to_owned()));
            Answer { repo, text: explained.to_string() }
        }
        Question::Status => {
            let limits = limits(github);
            let limits = if limits.is_empty() { String::new() } else { format!("\ngithub:{limits}\n") };
            let tokens: String = github.token_ends().iter().map(|end| format!("\ntrouble: token: {end}\n")).collect();
            Answer { repo: None, text: format!("{}{tokens}{limits}", status(world, now)) }
        }
        Question::Metrics => {
            let text = metrics::text(&status(world, now), world.config(), counters, &github.standings());
            Answer { repo: None, text }
        }
    }
}

fn report(world: &World, github: &GitHub, now: Timestamp) -> Option<Health> {
    world.lxd.as_ref()?;
    let tokens = github.token_ends().into_iter().map(|end| end.to_string());
    let troubles: Vec<String> = world.troubles().map(|(what, _)| what.to_string()).chain(tokens).collect();
    let troubles = if troubles.is_empty() { String::new() } else { format!(" trouble={:?}", troubles.join(", ")) };
    Some(match world.lxd_health(now) {
        Ok(()) => {
            let (jobs, instances) = (world.jobs().count(), world.instances().count());
            let (standby, idle, templates) = world.ready();
            Health::Good(format!(
                "ok jobs={jobs} instances={} standby={standby} idle={idle} templates={templates}{}{troubles}{}",
                instances - templates,
                limits(github),
                stuck(world)
            ))
        }
        Err(reason) => Health::Bad(reason),
    })
}

/// Instances that cannot be removed, and why.
fn stuck(world: &World) -> String {
    let stuck: Vec<String> = status::stuck(world).map(|(name, why)| format!("{name}: {why}")).collect();
    match stuck.get(..NAMED).unwrap_or(&stuck) {
        [] => String::new(),
        named => format!(" stuck={} stuck_instances={:?}", stuck.len(), named.join("; ")),
    }
}

/// The state of GitHub's limits, with the credentials' names if there are several.
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
