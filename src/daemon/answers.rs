//! What others ask the main loop: how it is, why a job stands as it does, how all stands.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::metrics::{self, Counters};
use crate::config::Config;
use crate::control::{Answer, Question};
use crate::github::{GitHub, Standing};
use crate::model::Timestamp;
use crate::plan::explain;
use crate::plan::status::status;
use crate::webhook::Health;
use crate::world::{Blame, Instance, World};

/// Stuck instances that a health question's answer names, and characters that it tells of what each last failed with.
const NAMED: usize = 5;
const REASON: usize = 200;
/// Failures in a row after which launches are trouble, and no hiccup.
const FAILING: u32 = 3;
/// The main loop answers within this time, or is not well.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions that may wait.
const QUESTIONS: usize = 8;

/// A question, and where the answer goes.
pub(super) enum Asked {
    Health(Sender<Health>),
    About(Question, Sender<Answer>),
}

/// The way to the main loop.
#[derive(Clone)]
pub(super) struct Asker(Sender<Asked>);

/// The way there, and where the questions come out.
pub(super) fn channel() -> (Asker, Receiver<Asked>) {
    let (asker, questions) = bounded(QUESTIONS);
    (Asker(asker), questions)
}

impl Asker {
    /// How it is.
    pub fn health(&self) -> Health {
        let late = || Health::Bad(format!("the main loop has not turned for {} s", PATIENCE.as_secs()));
        self.ask(Asked::Health).unwrap_or_else(late)
    }

    /// Anything else; `None` where the main loop does not answer.
    pub fn about(&self, question: Question) -> Option<Answer> {
        self.ask(|answer| Asked::About(question, answer))
    }

    fn ask<T>(&self, asked: impl FnOnce(Sender<T>) -> Asked) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.0.send_timeout(asked(answer), PATIENCE).ok()?;
        answered.recv_timeout(PATIENCE).ok()
    }
}

/// What the answers are made of.
pub(super) struct Known<'a> {
    pub world: &'a World,
    pub config: &'a Config,
    pub github: &'a GitHub,
    pub counters: &'a Counters,
    pub now: Timestamp,
}

impl Asked {
    /// Answers; whoever does not wait any more has nothing of it.
    pub fn answer(self, known: &Known<'_>) {
        match self {
            Asked::Health(answer) => drop(answer.try_send(report(known.world, known.github, known.now))),
            Asked::About(question, answer) => drop(answer.try_send(about(&question, known))),
        }
    }
}

fn about(question: &Question, known: &Known<'_>) -> Answer {
    let Known { world, config, github, counters, now } = *known;
    match question {
        Question::Job { job, told } => {
            let known = world.jobs().find(|state| state.job.id == *job);
            let repo = known.map(|state| state.job.repo.to_string());
            let mut explained = explain(world, config, now, *job, told.as_ref());
            explained.details.push(("budget", limits(github).trim().to_owned()));
            Answer { repo, text: explained.to_string() }
        }
        Question::Status => {
            let limits = limits(github);
            let limits = if limits.is_empty() { String::new() } else { format!("\ngithub:{limits}\n") };
            Answer { repo: None, text: format!("{}{limits}", status(world, config, now)) }
        }
        Question::Metrics => {
            let text = metrics::text(&status(world, config, now), config, counters, &github.standings());
            Answer { repo: None, text }
        }
    }
}

fn report(world: &World, github: &GitHub, now: Timestamp) -> Health {
    let troubles: Vec<String> = world.troubles().map(str::to_owned).chain(failing(world)).collect();
    let troubles = if troubles.is_empty() { String::new() } else { format!(" trouble={:?}", troubles.join(", ")) };
    match world.lxd_health(now) {
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
    }
}

/// For what launches fail, and not just once.
fn failing(world: &World) -> impl Iterator<Item = String> {
    let broken = world.pauses.iter().filter(|(_, pause)| pause.failures >= FAILING);
    broken.filter_map(|(blame, _)| match blame {
        Blame::Class(class) => Some(format!("launches of class {class:?}")),
        Blame::Scope(scope) => Some(format!("launches for {scope}")),
        Blame::Standby(class) => Some(format!("standbys of class {class:?}")),
        Blame::Idle(class) => Some(format!("idle runners of class {class:?}")),
        // Troubles of their own, or told as LXD's state.
        Blame::Package(_) | Blame::Bake(_) | Blame::Host => None,
        // Jobs start from the image, and the copies are tried again.
        Blame::Template(_) => None,
    })
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
    use crate::world::Pause;

    #[test]
    fn launches_that_fail_again_and_again_are_trouble() {
        let mut world = World::new(&crate::world::testkit::config(), 1, "");
        let mut fail = |blame: Blame, failures| {
            let pause = Pause { until: Timestamp(0), failures, reason: "no such profile".to_owned() };
            world.pauses.insert(blame, pause);
            failing(&world).collect::<Vec<_>>()
        };
        let class = Blame::Class("small".to_owned());
        assert!(fail(class.clone(), FAILING - 1).is_empty(), "a hiccup");
        assert_eq!(fail(class, FAILING), ["launches of class \"small\""]);
        assert_eq!(fail(Blame::Host, FAILING).len(), 1, "LXD's state tells that");
        assert_eq!(fail(Blame::Idle("small".to_owned()), FAILING)[1], "idle runners of class \"small\"");
    }
}
