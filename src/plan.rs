//! Decides what to do. **Pure**: the World and the time go in; actions, and the reasons of deferred jobs,
//! come out. Calling it twice gives the same answer twice; executing nothing of it harms nothing.
//!
//! Supply is counted against demand for each (scope, class): GitHub gives a job to any matching runner, so no job is
//! ever paired with an instance.

mod census;
mod launch;
mod ready;
mod reason;
mod remove;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Config, ForkPolicy};
use crate::model::{Job, JobId, RepoName, RunnerArch, Scope, Timestamp};
use crate::world::{Action, Flight, Instance, JobState, RunnerState, Subject, UnknownJob, World, scope_for};
use census::Crowded;
pub(crate) use census::{Census, Group};
pub use census::{LAUNCHES_AT_ONCE, leaving_free};
pub use reason::Reason;

/// Removals under way at once: they go on behind launches, and are not to keep LXD from those.
pub const REMOVALS_AT_ONCE: usize = 3;
/// Questions to GitHub and removals of dead registrations under way at once: a flood of deliveries, or a GitHub that
/// answers slowly, must leave workers for launches.
const ERRANDS_AT_ONCE: usize = 2;
/// How often GitHub is asked which runner package is the newest.
const PACKAGE_LOOKUP: Duration = Duration::from_secs(24 * 3600);
/// How often that is asked for the reason that runners end without a job.
const SUSPICION: Duration = Duration::from_secs(300);
/// A look at GitHub that does not wait for its turn comes no sooner than this after the last one.
const GITHUB_SPACING: Duration = Duration::from_secs(5);
/// The same for LXD.
const LXD_SPACING: Duration = Duration::from_millis(200);
/// LXD is listed at least so often; where it tells by itself what ends, even less often.
const LXD_SELDOM: Duration = Duration::from_secs(10);
const LXD_LISTENING: Duration = Duration::from_secs(30);

/// How many workers are never too few: for launches and the preparing of standbys together, removals, errands, one bake
/// and one download.
pub fn workers(max_workers: usize) -> usize {
    LAUNCHES_AT_ONCE.min(max_workers) + REMOVALS_AT_ONCE + ERRANDS_AT_ONCE + 2
}

/// The decisions of one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they should be begun.
    pub actions: Vec<Action>,
    /// Every queued job that nothing is launched for now, with the reason.
    pub deferred: Vec<(JobId, Reason)>,
    /// Look at LXD now.
    pub look_at_lxd: bool,
    /// Look at LXD and GitHub now.
    pub look_at_github: bool,
    /// Plan again at this moment, should nothing happen before.
    pub wake_at: Option<Timestamp>,
}

/// Decides what to do now.
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let mut planner = Planner::new(world, now);
    planner.looks();
    planner.packages();
    let demand = planner.demand();
    // Launches use the free places first; removals then make places; readiness and errands come last.
    planner.launches(demand);
    if planner.lxd_is_known() {
        planner.removals();
        planner.keep_ready();
    }
    planner.errands();
    planner.plan
}

/// Builds one [`Plan`]: its inputs, and the decisions so far.
pub(crate) struct Planner<'a> {
    pub(crate) world: &'a World,
    pub(crate) config: &'a Config,
    now: Timestamp,
    /// The counts, including the actions planned so far.
    pub(crate) census: Census<'a>,
    /// All queued jobs, those included that are held back.
    queued: BTreeMap<Group<'a>, usize>,
    crowded: Crowded,
    /// The number of the next name that is not for a job, and the names that are taken; found out when one is needed.
    names: Option<(u64, BTreeSet<&'a str>)>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    /// A planner that has counted the census and decided nothing.
    pub(crate) fn new(world: &'a World, now: Timestamp) -> Planner<'a> {
        Planner {
            world,
            config: world.config(),
            now,
            census: Census::count(world, now),
            queued: BTreeMap::new(),
            crowded: Crowded::default(),
            names: None,
            plan: Plan::default(),
        }
    }

    fn lxd_is_known(&self) -> bool {
        matches!(self.world.lxd, Some(Ok(_)))
    }

    /// True while the subject is paused, after which the plan is made again.
    fn paused(&mut self, subject: Subject) -> bool {
        let paused = self.world.paused(&subject, self.now);
        paused.inspect(|(until, _)| self.plan.wake(*until)).is_some()
    }

    /// Runners on their way or idle beyond the queued jobs.
    fn spare(&self) -> BTreeMap<Group<'a>, usize> {
        let beyond = |(group, supply): (&Group<'a>, &usize)| {
            (*group, supply.saturating_sub(self.queued.get(group).copied().unwrap_or(0)))
        };
        self.census.supply.iter().map(beyond).collect()
    }

    /// Questions to GitHub and removals of registrations: a few at once.
    fn errands(&mut self) {
        let mut errands = self.questions();
        if self.lxd_is_known() {
            errands.extend(self.deregistrations());
        }
        let errand = |flight: &&Flight| {
            matches!(flight, Flight::Job(_) | Flight::Run(..) | Flight::Repo(_) | Flight::Runner(..))
        };
        let under_way = self.world.flights.keys().filter(errand).count();
        self.plan.actions.extend(errands.into_iter().take(ERRANDS_AT_ONCE.saturating_sub(under_way)));
    }

    fn looks(&mut self) {
        let (world, now) = (self.world, self.now);
        let due = |look: &crate::world::Look, interval: Duration, spacing: Duration| match look.ended_at {
            None => now,
            Some(ended) if look.wanted => ended.after(spacing),
            Some(ended) => ended.after(interval),
        };
        let github = due(&world.github_look, self.config.reconcile_interval, GITHUB_SPACING);
        let github = unanswered(world).map_or(github, |at| github.min(at));
        let lxd = due(&world.lxd_look, lxd_interval(world), LXD_SPACING);
        if !world.github_look.under_way {
            self.plan.look_at_github = github <= now;
            self.plan.wake(github.max(now));
        }
        if !world.lxd_look.under_way {
            self.plan.look_at_lxd = lxd <= now;
            self.plan.wake(lxd.max(now));
        }
    }

    /// Jobs and repositories that GitHub must be asked about.
    fn questions(&mut self) -> Vec<Action> {
        let (world, now) = (self.world, self.now);
        let served = |repo: &RepoName| world.targets.as_deref().is_none_or(|t| scope_for(t, repo).is_some());
        let idle = |flight: Flight| !world.flights.contains_key(&flight);
        let mut actions = Vec::new();
        // Questions that keep jobs waiting come first.
        for (id, question) in &world.questions {
            let Some(state) = world.jobs.get(id).filter(|_| idle(Flight::Job(*id))) else { continue };
            match question.not_before.filter(|until| *until > now) {
                Some(until) => self.plan.wake(until),
                None => actions.push(look_up(state)),
            }
        }
        for (job, UnknownJob { repo, public, .. }) in &world.unknown_jobs {
            if idle(Flight::Job(*job)) && served(repo) {
                actions.push(Action::LookUpJob { repo: repo.clone(), job: *job, public: *public });
            }
        }
        for ((repo, run), state) in &world.runs {
            let asked = state.origin.is_some() || !idle(Flight::Run(repo.clone(), *run));
            if !asked && !self.paused(Subject::ForkOrigin(repo.clone())) {
                let trust = self.config.fork_policy != Some(ForkPolicy::Deny);
                actions.push(Action::LookUpRun { repo: repo.clone(), run: *run, trust });
            }
        }
        let not_taken = not_taken(world, now, &self.plan.deferred);
        actions.extend(not_taken.filter(|state| idle(Flight::Job(state.job.id))).map(look_up));
        for repo in world.repos_to_check.keys() {
            if idle(Flight::Repo(repo.clone())) && served(repo) {
                actions.push(Action::LookAtRepo { repo: repo.clone() });
            }
        }
        actions
    }

    fn packages(&mut self) {
        let (world, now) = (self.world, self.now);
        let Some(targets) = world.targets.as_deref() else { return };
        // One at a time: `workers` counts one download.
        if world.flights.keys().any(|flight| matches!(flight, Flight::Package(_))) {
            return;
        }
        let wanted: BTreeSet<RunnerArch> = self.config.classes.iter().map(|class| class.arch).collect();
        for arch in wanted {
            let state = world.packages.get(&arch);
            let fresh = state
                .is_some_and(|s| s.version.is_some() && s.checked_at.is_some_and(|at| now.since(at) < PACKAGE_LOOKUP));
            // A suspicion makes it stale, though not again and again.
            let suspect = state.filter(|s| s.suspect_since.is_some());
            let stale = suspect.is_some_and(|s| s.suspected_at.is_none_or(|at| now.since(at) >= SUSPICION));
            if fresh && !stale {
                continue;
            }
            let subject = Subject::Package(arch);
            // Every target offers the same; one that refuses must not keep the others from theirs.
            let failures = world.failures.get(&subject).map_or(0, |entry| entry.failures as usize);
            let Some(scope) = targets.get(failures % targets.len().max(1)) else { return };
            if !self.paused(subject) {
                self.plan.actions.push(Action::FetchPackage { arch, scope: scope.clone() });
                return;
            }
        }
    }
}

impl Plan {
    /// Plan again at `at`, or sooner.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |already| already.min(at)));
    }
}

/// How often LXD is listed: seldom where it tells by itself what ends, or where there is nothing of ours; else often
/// enough to notice soon.
fn lxd_interval(world: &World) -> Duration {
    match world.instances.len() {
        _ if world.listening => LXD_LISTENING,
        0 if world.flights.is_empty() => LXD_SELDOM,
        n => Duration::from_secs(1 + n as u64 / 50).min(LXD_SELDOM),
    }
}

/// When GitHub should be looked at because runners could not be registered and it has not answered since.
fn unanswered(world: &World) -> Option<Timestamp> {
    let retry = world.failures.iter().filter_map(|(subject, entry)| match subject {
        Subject::Scope(scope) if !world.answered_since(scope, entry.failed_at()) => {
            let listing = world.failures.get(&Subject::Runners(scope.clone()));
            Some(listing.map_or(entry.until, |listing| listing.until))
        }
        _ => None,
    });
    let spaced = |at: Timestamp| world.github_look.ended_at.map_or(at, |ended| at.max(ended.after(GITHUB_SPACING)));
    retry.min().map(spaced)
}

/// GitHub gives a job to an idle runner within seconds: where it did not for this long, the job may be over, or was given to
/// another runner, and the delivery that told of it was lost.
const NOT_TAKEN: Duration = Duration::from_secs(180);

/// Jobs that wait beside a runner that could have taken them long ago, and that GitHub has not told of for as long. An
/// enterprise's queues are never listed.
fn not_taken<'a>(world: &'a World, now: Timestamp, deferred: &[(JobId, Reason)]) -> impl Iterator<Item = &'a JobState> {
    let long_idle = |i: &&Instance| matches!(i.runner, RunnerState::Idle(since) if now.since(since) > NOT_TAKEN);
    let idle: BTreeSet<&Scope> =
        world.instances.values().filter(long_idle).filter_map(|i| i.seen.scope.as_ref()).collect();
    let covered = deferred.iter().filter(|(_, reason)| *reason == Reason::Covered);
    let states: Vec<&JobState> = match idle.is_empty() {
        true => Vec::new(),
        false => covered.filter_map(|(job, _)| world.job(*job)).collect(),
    };
    let fits = move |state: &&JobState| state.place.as_ref().is_ok_and(|(scope, _)| idle.contains(scope));
    states.into_iter().filter(fits).filter(move |state| state.unheard(now) > NOT_TAKEN)
}

fn look_up(state: &JobState) -> Action {
    let Job { id, repo, public, .. } = &state.job;
    Action::LookUpJob { repo: repo.clone(), job: *id, public: *public }
}
