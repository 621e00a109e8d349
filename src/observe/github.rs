//! Looks at GitHub with few requests: only what can have changed is asked for, and an unchanged answer costs nothing of the
//! hourly limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lxd::list_instances;
use super::queues::{Pace, Queues, ROUND, ROUND_POLLING};
use crate::clock::Clock;
use crate::config::Config;
use crate::github::{Error, ErrorKind, GitHub, Listing, QueueSeen, Repo};
use crate::lxd::Lxd;
use crate::model::{InstanceStatus, Job, RepoName, Runner, Scope, Timestamp};
use crate::world::{Event, GitHubSeen, Interest, Queue, Snapshot};

/// How long listings of repositories are used, and listings of runners of scopes without instances of ours.
const LISTS_KEPT: Duration = Duration::from_secs(600);
/// After so many unanswered questions in a row, the rest is left to the next look.
const GIVE_UP: usize = 3;

/// Looks at GitHub. Its memory only saves requests.
pub struct GitHubObserver {
    config: Arc<Config>,
    lxd: Arc<Lxd>,
    github: Arc<GitHub>,
    clock: Clock,
    targets: Option<(Instant, Vec<Scope>)>,
    runners: BTreeMap<Scope, (Option<Instant>, Listing<Runner>)>,
    repos: BTreeMap<Scope, Repos>,
    queues: Queues,
    seen: BTreeMap<RepoName, QueueSeen>,
}

/// The repositories of one scope.
#[derive(Default)]
struct Repos {
    listed_at: Option<Instant>,
    all: Listing<Repo>,
    /// Those that were pushed to last.
    pushed: Listing<Repo>,
}

impl GitHubObserver {
    pub fn new(config: Arc<Config>, lxd: Arc<Lxd>, github: Arc<GitHub>, clock: Clock) -> GitHubObserver {
        let (targets, runners, repos, seen) = (None, BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        GitHubObserver { config, lxd, github, clock, targets, runners, repos, queues: Queues::default(), seen }
    }

    /// Looks at LXD and then at GitHub, so that "instance there, runner absent" means that the runner is done. `interest` is the
    /// World's at the request for the look.
    pub fn look(&mut self, interest: &Interest, report: &mut dyn FnMut(Event)) -> Snapshot {
        let instances = list_instances(&self.lxd, &self.config);
        let running = instances.iter().flatten().filter(|instance| instance.status == InstanceStatus::Running);
        let at_work: BTreeSet<String> = running.map(|instance| instance.name.clone()).collect();
        let github = Some(self.look_at_github(interest, &at_work, report));
        let instances = Some(instances.map_err(|error| error.to_string()));
        Snapshot { begun: interest.begun, instances, images: None, github }
    }

    /// `at_work` are the instances that were seen to run. Each queue is reported at once, so that no job waits for the other
    /// queues. The runners come last: the job of a runner that is listed as busy was reported before.
    fn look_at_github(
        &mut self,
        interest: &Interest,
        at_work: &BTreeSet<String>,
        report: &mut dyn FnMut(Event),
    ) -> GitHubSeen {
        let mut seen = GitHubSeen::default();
        let targets = match self.targets() {
            Ok(targets) => targets,
            Err(error) => {
                seen.targets = Some(Err(error.to_string()));
                return seen;
            }
        };
        report(Event::Targets(targets.clone()));
        seen.targets = Some(Ok(targets.clone()));
        for scope in &targets {
            if let Some(runners) = self.runners(scope, interest.scopes.contains(scope)) {
                seen.runners.push((scope.clone(), runners));
            }
        }
        seen.gone = self.find_repos(&targets);
        self.look_at_queues(interest, at_work, report);
        seen
    }

    /// The scopes that the config names, or all that the credential can see.
    fn targets(&mut self) -> Result<Vec<Scope>, Error> {
        if !self.config.targets.is_empty() {
            return Ok(self.config.targets.clone());
        }
        if let Some((at, targets)) = &self.targets
            && at.elapsed() < LISTS_KEPT
        {
            return Ok(targets.clone());
        }
        let targets = self.github.discover()?;
        self.targets = Some((Instant::now(), targets.clone()));
        Ok(targets)
    }

    /// The runners of a scope, if they are due: in each look while something of ours is there.
    fn runners(&mut self, scope: &Scope, of_interest: bool) -> Option<Result<Vec<Runner>, String>> {
        let (at, listing) = self.runners.entry(scope.clone()).or_default();
        if !of_interest && at.is_some_and(|at| at.elapsed() < LISTS_KEPT) {
            return None;
        }
        Some(match self.github.runners_if_changed(scope, listing) {
            Ok(_) => {
                *at = Some(Instant::now());
                Ok(GitHub::listed_runners(listing))
            }
            Err(error) => {
                *at = None;
                Err(error.to_string())
            }
        })
    }

    /// Updates the list of repositories, and returns those that are gone.
    fn find_repos(&mut self, targets: &[Scope]) -> Vec<RepoName> {
        self.repos.retain(|scope, _| targets.contains(scope));
        let mut complete = true;
        for scope in targets {
            let repos = self.repos.entry(scope.clone()).or_default();
            if let Err(error) = repos.refresh(&self.github, scope) {
                complete &= repos.listed_at.is_some();
                // Not reported: listing the scope's runners fails for the same reason and is.
                log::debug!("scope={scope} msg=\"repositories not listed\" error=\"{error}\"");
            }
        }
        let mut served: BTreeMap<RepoName, Option<Timestamp>> = BTreeMap::new();
        for repos in self.repos.values() {
            for repo in repos.all.items().filter(|repo| is_served(&self.config, repo)) {
                served.insert(repo.name.clone(), repo.pushed_at);
            }
            for repo in repos.pushed.items() {
                // That list may be younger.
                if let Some(pushed_at) = served.get_mut(&repo.name) {
                    *pushed_at = (*pushed_at).max(repo.pushed_at);
                }
            }
        }
        if !complete {
            // Unknown is not gone.
            served.extend(
                self.seen
                    .keys()
                    .filter(|repo| !served.contains_key(*repo))
                    .map(|repo| (repo.clone(), None))
                    .collect::<Vec<_>>(),
            );
        }
        let gone = self.queues.serve(served, self.clock.now());
        gone.iter().for_each(|repo| drop(self.seen.remove(repo)));
        gone
    }

    fn look_at_queues(&mut self, interest: &Interest, at_work: &BTreeSet<String>, report: &mut dyn FnMut(Event)) {
        interest.repos.iter().for_each(|repo| self.queues.sign(repo, self.clock.now()));
        let (mut unanswered, mut limited) = (0, BTreeSet::new());
        for repo in self.queues.next(&self.pace(), self.clock.now()) {
            // Another owner's may be asked for with another credential.
            if unanswered >= GIVE_UP || limited.contains(&repo.owner.to_lowercase()) {
                continue;
            }
            let asked_at = self.clock.now();
            let queue = self.seen.entry(repo.clone()).or_default();
            let jobs = match self.github.open_jobs_if_changed(&repo, queue, at_work) {
                Ok(changed) => {
                    unanswered = 0;
                    let open = queue.open_runs();
                    let counted = if changed.is_some() { u32::try_from(1 + open).unwrap_or(u32::MAX) } else { 0 };
                    self.queues.looked(&repo, counted, open > 0, self.clock.now());
                    Ok(self.with_visibility(&repo, self.jobs_seen(&repo)))
                }
                Err(error) => {
                    match error.kind {
                        ErrorKind::RateLimited(_) => drop(limited.insert(repo.owner.to_lowercase())),
                        ErrorKind::NotFound => {
                            // Perhaps it was removed: then it is not in the list any more.
                            self.repos.values_mut().for_each(|repos| repos.listed_at = None);
                            unanswered = 0;
                        }
                        ErrorKind::Unauthorized | ErrorKind::Forbidden => unanswered = 0,
                        _ => unanswered += 1,
                    }
                    self.queues.looked(&repo, 1, false, self.clock.now());
                    Err(error.to_string())
                }
            };
            let unasked = self.seen.get(&repo).map(QueueSeen::unasked).unwrap_or_default();
            report(Event::Queue(Box::new(Queue { repo, begun: interest.begun, asked_at, jobs, unasked })));
        }
    }

    fn jobs_seen(&self, repo: &RepoName) -> Vec<Job> {
        self.seen.get(repo).map(QueueSeen::jobs).unwrap_or_default()
    }

    /// Completes jobs with the visibility of their repository, if the queue does not tell it.
    fn with_visibility(&self, repo: &RepoName, mut jobs: Vec<Job>) -> Vec<Job> {
        if jobs.iter().any(|job| job.public.is_none()) {
            let mut all = self.repos.values().flat_map(|repos| repos.all.items());
            let public = all.find(|known| known.name == *repo).map(|known| known.public);
            jobs.iter_mut().for_each(|job| job.public = job.public.or(public));
        }
        jobs
    }

    fn pace(&self) -> Pace {
        let listings = self.github.standings().into_iter().filter_map(|(_, standing)| standing.listings);
        let budget = listings.reduce(|sum, one| (sum.0 + one.0, sum.1 + one.1));
        let round = if self.config.polling { ROUND_POLLING } else { ROUND };
        Pace { interval: self.config.reconcile_interval, round, budget }
    }
}

impl Repos {
    fn refresh(&mut self, github: &GitHub, scope: &Scope) -> Result<(), Error> {
        let whole = self.listed_at.is_none_or(|at| at.elapsed() >= LISTS_KEPT);
        match scope {
            Scope::Org(org) if whole => drop(github.org_repos_if_changed(org, &mut self.all)?),
            Scope::Org(org) => {
                let known: BTreeSet<RepoName> = self.all.items().map(|repo| repo.name.clone()).collect();
                let changed = github.org_repos_pushed(org, &mut self.pushed)?;
                if changed && self.pushed.items().any(|repo| !known.contains(&repo.name)) {
                    // A new one, or an old one with a new name: the whole list is asked for next time.
                    self.listed_at = None;
                }
                return Ok(());
            }
            Scope::Repo(repo) if whole => drop(github.repo_if_changed(repo, &mut self.all)?),
            // An enterprise's queues are learnt of by webhooks; its organisations can be named as targets.
            Scope::Repo(_) | Scope::Enterprise(_) => return Ok(()),
        }
        self.listed_at = Some(Instant::now());
        Ok(())
    }
}

/// False if its jobs would be refused anyway.
fn is_served(config: &Config, repo: &Repo) -> bool {
    !repo.archived && (config.allow_public_repos || !repo.public) && config.repos.judge(&repo.name).is_ok()
}
