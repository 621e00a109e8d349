//! A snapshot of the state: waiting jobs, instances, failures. **Pure**; printed as text, or as metrics.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::explain::length;
use super::shortened;
use crate::config::Config;
use crate::model::{ClassId, JobId, JobStatus, Phase, Timestamp};
use crate::plan::{Census, Reason, plan};
use crate::table::columns;
use crate::world::{Action, Entry, Instance, JobState, Launch, RunnerState, Subject, World, class_for};

/// Jobs that wait, and instances that are stuck, of which people are told each.
const TOLD: usize = 20;

/// What an instance is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its runner is on its way.
    Starting,
    /// Its runner waits for a job.
    Idle,
    /// Its runner has a job.
    Busy,
    /// Its runner is done or its making failed: it is to go.
    Leaving,
    /// It becomes a standby.
    Preparing,
    Standby,
    /// It becomes a template.
    Baking,
    Template,
}

impl State {
    /// All of them.
    pub const ALL: [State; 8] = [
        State::Starting,
        State::Idle,
        State::Busy,
        State::Leaving,
        State::Preparing,
        State::Standby,
        State::Baking,
        State::Template,
    ];

    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Idle => "idle",
            State::Busy => "busy",
            State::Leaving => "leaving",
            State::Preparing => "preparing",
            State::Standby => "standby",
            State::Baking => "baking",
            State::Template => "template",
        }
    }

    fn of(world: &World, instance: &Instance) -> State {
        match instance.seen.phase {
            Phase::Baking => State::Baking,
            Phase::Template => State::Template,
            Phase::Preparing => State::Preparing,
            Phase::Standby => State::Standby,
            Phase::Provisioning | Phase::Started => match instance.runner {
                _ if instance.stopped_since.is_some() && instance.seen.phase == Phase::Started => State::Leaving,
                RunnerState::Busy => State::Busy,
                // It is to go, and did not yet.
                _ if world.failed_removal(instance).is_some() => State::Leaving,
                RunnerState::Awaited => State::Starting,
                RunnerState::Idle(_) => State::Idle,
                RunnerState::Done(_) => State::Leaving,
            },
        }
    }
}

/// One class, or what is there of a class that the config does not have any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassStatus {
    pub name: String,
    /// Its `max_workers`; `None` where the config does not have the class.
    pub max: Option<usize>,
    /// Instances that count against that.
    pub counted: usize,
    pub queued: usize,
    pub running: usize,
    /// How long the job that waits longest has waited.
    pub oldest: Option<Duration>,
    pub instances: BTreeMap<State, usize>,
    /// True where jobs start from a template now.
    pub has_template: bool,
}

/// A job that nothing is launched for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub job: JobId,
    pub repo: String,
    pub class: String,
    pub since: Duration,
    pub why: Reason,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In the config's order.
    pub classes: Vec<ClassStatus>,
    /// Instances that count against `max_workers`, and that.
    pub counted: usize,
    pub max: usize,
    /// Queued jobs that are not served here, whoever they are for.
    pub others: usize,
    /// Those that are, and wait for more than a runner that is on its way; the one that waits longest first.
    pub waiting: Vec<Waiting>,
    /// Instances that are to go and do not, and why.
    pub stuck: Vec<(String, String)>,
    /// What does not work, and why.
    pub troubles: Vec<(Subject, String)>,
    /// What is tried again only after a pause, and why.
    pub paused: Vec<(String, String)>,
    /// How long ago LXD and GitHub last answered a look; `None`: not yet.
    pub looked_at_lxd: Option<Duration>,
    pub looked_at_github: Option<Duration>,
    /// Why LXD counts as not well.
    pub lxd: Result<(), String>,
}

/// The farm's state at `now`.
pub fn status(world: &World, now: Timestamp) -> Status {
    let config = world.config();
    let census = Census::count(world, now);
    let mut classes: Vec<ClassStatus> = Vec::new();
    for (id, class) in config.class_ids() {
        let of_class = &census.classes[id];
        classes.push(ClassStatus {
            name: class.name.clone(),
            max: Some(class.max_workers),
            counted: of_class.total,
            has_template: of_class.template.is_some(),
            ..ClassStatus::default()
        });
    }
    count_instances(world, &mut classes);
    let mut others = 0;
    for state in world.jobs() {
        let class = class_of(state, config).and_then(|class| classes.get_mut(class.0));
        match (class, state.job.status) {
            (Some(class), JobStatus::Queued) => {
                class.queued += 1;
                class.oldest = class.oldest.max(Some(now.since(state.queued_at)));
            }
            (Some(class), JobStatus::InProgress) => class.running += 1,
            (None, JobStatus::Queued) => others += 1,
            _ => {}
        }
    }
    let trouble = |(what, entry): (&Subject, &Entry)| (what.clone(), entry.reason.clone());
    let pauses = world.failures.iter().filter(|(what, _)| is_paused_by_it(what));
    let pauses = pauses.filter_map(|(what, _)| Some((what, world.paused(what, now)?)));
    let paused = pauses.map(|(blame, (until, pause))| {
        let (blame, reason) = (blame.clone(), shortened(&pause.reason));
        let s = if pause.failures == 1 { "" } else { "s" };
        (format!("after {} failure{s}", pause.failures), Reason::Paused { blame, reason, until }.to_string())
    });
    Status {
        classes,
        counted: census.total,
        max: config.max_workers,
        others,
        waiting: waiting(world, now),
        stuck: stuck(world).collect(),
        troubles: world.troubles().map(trouble).collect(),
        paused: paused.collect(),
        looked_at_lxd: world.lxd_answered_at().map(|at| now.since(at)),
        looked_at_github: world.github_answered_at().map(|at| now.since(at)),
        lxd: world.lxd_health(now),
    }
}

/// Instances that are to go and do not, and why.
pub fn stuck(world: &World) -> impl Iterator<Item = (String, String)> {
    world.stuck().map(|(instance, entry)| {
        let hint = instance.removal_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        let why = format!("{} tries: {}{hint}", entry.failures, shortened(&entry.reason));
        (instance.seen.name.clone(), why)
    })
}

/// True where the pause keeps something from being made: a look or a removal that failed is told otherwise.
fn is_paused_by_it(subject: &Subject) -> bool {
    use Subject::{Bake, Class, Host, Idle, Network, Package, Scope, Standby, Storage, Template};

    matches!(
        subject,
        Scope(_)
            | Package(_)
            | Host
            | Storage(_)
            | Network(_)
            | Class(_)
            | Bake(_)
            | Template(_)
            | Standby(_)
            | Idle(_)
    )
}

/// Counts the instances of each class. Classes that the config does not have are added.
fn count_instances(world: &World, classes: &mut Vec<ClassStatus>) {
    let mut counts: BTreeMap<&str, BTreeMap<State, usize>> = BTreeMap::new();
    let mut count = |class, state| *counts.entry(class).or_default().entry(state).or_default() += 1;
    for instance in world.instances() {
        count(instance.seen.class.as_str(), State::of(world, instance));
    }
    for action in world.flights.values() {
        if action.instance().is_none_or(|name| world.instances.contains_key(name)) {
            continue;
        }
        let (class, state) = match action {
            Action::Launch(Launch { class, .. }) => (*class, State::Starting),
            Action::PrepareStandby { class, .. } => (*class, State::Preparing),
            Action::Bake { class, .. } => (*class, State::Baking),
            _ => continue,
        };
        count(&world.config().class(class).name, state);
    }
    for class in classes.iter_mut() {
        class.instances = counts.remove(class.name.as_str()).unwrap_or_default();
    }
    let others = counts.into_iter();
    classes.extend(others.map(|(name, instances)| ClassStatus {
        name: name.to_owned(),
        instances,
        ..ClassStatus::default()
    }));
}

/// The class that serves the job, or would once GitHub has answered whether it may.
fn class_of(state: &JobState, config: &Config) -> Option<ClassId> {
    match &state.place {
        Ok((_, class)) => Some(*class),
        Err(refusal) if refusal.is_undecided() => class_for(&config.classes, &state.job.labels, &state.job.repo).ok(),
        Err(_) => None,
    }
}

fn waiting(world: &World, now: Timestamp) -> Vec<Waiting> {
    let config = world.config();
    let mut waiting = Vec::new();
    for (job, why) in plan(world, now).deferred {
        let Some(state) = world.jobs.get(&job) else { continue };
        let Some(class) = class_of(state, config) else { continue };
        if why == Reason::Covered {
            continue;
        }
        waiting.push(Waiting {
            job,
            repo: state.job.repo.to_string(),
            class: config.class(class).name.clone(),
            since: now.since(state.queued_at),
            why,
        });
    }
    waiting.sort_by_key(|waiting| (std::cmp::Reverse(waiting.since), waiting.job));
    waiting
}

impl ClassStatus {
    fn of(&self, state: State) -> usize {
        self.instances.get(&state).copied().unwrap_or(0)
    }

    fn row(&self) -> Vec<String> {
        let template = match (self.has_template, self.of(State::Baking)) {
            (true, 0) => "ready",
            (true, _) => "ready, a new one is baked",
            (false, 0) => "none",
            (false, _) => "is baked",
        };
        let ready = match self.of(State::Preparing) {
            0 => self.of(State::Standby).to_string(),
            more => format!("{} (+{more})", self.of(State::Standby)),
        };
        let places = match self.max {
            Some(max) => format!("{} of {max}", self.counted),
            None => "not in the config any more".to_owned(),
        };
        let count = |state| self.of(state).to_string();
        vec![
            self.name.clone(),
            self.queued.to_string(),
            self.running.to_string(),
            count(State::Starting),
            count(State::Idle),
            count(State::Busy),
            count(State::Leaving),
            ready,
            places,
            template.to_owned(),
        ]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |looked: Option<Duration>| looked.map_or("not yet".to_owned(), |ago| format!("{} ago", length(ago)));
        writeln!(f, "looked at LXD {}, at GitHub {}", ago(self.looked_at_lxd), ago(self.looked_at_github))?;
        let sum = |count: fn(&ClassStatus) -> usize| self.classes.iter().map(count).sum::<usize>();
        let (queued, running) = (sum(|class| class.queued), sum(|class| class.running));
        let others = self.others;
        write!(f, "jobs: {queued} queued, {running} running")?;
        if others > 0 {
            write!(f, "; {others} queued that are not served here")?;
        }
        write!(f, "\ninstances: {} of {} (max_workers)", self.counted, self.max)?;
        let head = "CLASS QUEUED RUNNING STARTING IDLE BUSY LEAVING STANDBY PLACES TEMPLATE";
        let head = head.split(' ').map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(self.classes.iter().map(ClassStatus::row)).collect();
        write!(f, "\n\n{}", columns(&rows))?;
        if !self.waiting.is_empty() {
            let row = |w: &Waiting| {
                let why = shortened(&w.why.to_string());
                vec![w.job.to_string(), w.repo.clone(), w.class.clone(), length(w.since), why]
            };
            let head = ["JOB", "REPO", "CLASS", "WAITS", "BECAUSE"].map(str::to_owned).to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(head).chain(self.waiting.iter().take(TOLD).map(row)).collect();
            write!(f, "\n{}", columns(&rows))?;
            if let Some(more @ 1..) = self.waiting.len().checked_sub(TOLD) {
                writeln!(f, "and {more} more")?;
            }
        }
        let told = self.troubles.iter().any(|(what, _)| *what == Subject::Lxd);
        let lxd = self.lxd.as_ref().err().filter(|_| !told).map(|why| (Subject::Lxd.to_string(), why.clone()));
        let troubles = self.troubles.iter().map(|(what, why)| (what.to_string(), why.clone()));
        let troubles: Vec<_> = troubles.chain(lxd).collect();
        for (about, list) in [("trouble", &troubles), ("paused", &self.paused), ("stuck", &self.stuck)] {
            if !list.is_empty() {
                writeln!(f)?;
            }
            for (what, why) in list.iter().take(TOLD) {
                writeln!(f, "{about}: {what}: {}", shortened(why))?;
            }
        }
        Ok(())
    }
}
