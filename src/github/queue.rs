//! A repository's open jobs: its open runs, and the jobs of each.
//!
//! GitHub does not list the jobs of a repository, so each open run is asked for its own. Most cannot have changed: if all open
//! jobs of a run are running in instances of ours, a job of it becomes queued only when another one ends, or is listed as
//! waiting. Such a run is asked once more after it was first seen like that, and from then on in turn.

use std::collections::{BTreeMap, BTreeSet};

use super::address::repo_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use super::json;
use super::listing::Listing;
use super::pages::MAX_PAGES;
use super::wire::Call;
use crate::model::{Job, JobId, JobStatus, RepoName};

/// A run that cannot have changed is still asked in one of so many looks, in case GitHub behaves differently.
pub const TURNS: u64 = 10;

/// The states in which GitHub lists runs that may have queued jobs. A run waits for an approval, or for its concurrency group,
/// while other jobs of it are queued.
const STATES: [&str; 5] = ["queued", "in_progress", "waiting", "pending", "requested"];
/// The first so many states are asked in each look; of the others one in turn, from the second look on: GitHub counts each
/// request against its limit per minute, unchanged or not.
const ALWAYS: usize = 2;

/// The result of the last look at a repository's queue; see [`GitHub::open_jobs_if_changed`].
#[derive(Clone, Debug, Default)]
pub struct QueueSeen {
    /// The open runs, by the index of their state in [`STATES`].
    open: [Listing<(u64, Option<bool>)>; STATES.len()],
    runs: BTreeMap<u64, Run>,
    looks: u64,
    /// Something changed that was not returned yet.
    owed: bool,
}

/// An open run.
#[derive(Clone, Debug, Default)]
struct Run {
    jobs: Listing<Job>,
    /// Its jobs were the same at its last two questions.
    unchanged: bool,
    /// Its jobs were not asked for at the last look.
    unasked: bool,
}

impl Run {
    /// True if nothing of it can have changed. GitHub may create a follow-up job a moment after the end of another was seen,
    /// hence the second question, a whole look later.
    fn is_settled(&self, at_work: &BTreeSet<String>) -> bool {
        let works = |job: &Job| {
            let runner = job.runner_name.as_ref();
            job.status == JobStatus::InProgress && runner.is_some_and(|runner| at_work.contains(runner))
        };
        self.unchanged && self.jobs.items().next().is_some() && self.jobs.items().all(works)
    }
}

impl QueueSeen {
    /// The open jobs of the runs that were asked at the last look.
    pub fn jobs(&self) -> Vec<Job> {
        let all = self.runs.values().filter(|run| !run.unasked).flat_map(|run| run.jobs.items());
        let jobs: BTreeMap<JobId, &Job> = all.map(|job| (job.id, job)).collect();
        jobs.into_values().cloned().collect()
    }

    /// The open runs that were not asked at the last look.
    pub fn unasked(&self) -> BTreeSet<u64> {
        self.runs.iter().filter(|(_, run)| run.unasked).map(|(id, _)| *id).collect()
    }

    /// How many runs were open at the last look: a look takes three requests, and at most one for each of them.
    pub fn open_runs(&self) -> usize {
        self.runs.len()
    }
}

impl GitHub {
    /// Every job that is not completed, of all open runs. For a single look; [`GitHub::open_jobs_if_changed`] is for repeated
    /// ones.
    ///
    /// A run in any of the [`STATES`] may have queued jobs. A run that vanishes meanwhile has none.
    pub fn open_jobs(&self, repo: &RepoName) -> Result<Vec<Job>, Error> {
        let mut seen = QueueSeen::default();
        self.bring_up_to_date(Purpose::Ask, repo, &mut seen, &BTreeSet::new())?;
        Ok(seen.jobs())
    }

    /// The same for repeated looks: `seen`, which starts as [`QueueSeen::default`], is kept between them, and `None` means that
    /// nothing changed since the last `Some`. `at_work` are the runners whose instances were just seen to run: runs that are
    /// served by these alone are not asked each time.
    ///
    /// An unchanged page is answered by 304, which costs nothing of the hourly limit. A look takes three requests, and one more
    /// for each open run that may have changed. They count as listings: when their share is used up, the error is
    /// [`ErrorKind::RateLimited`] with the time to wait, and `seen` has the pages that were read before.
    ///
    /// `seen` holds ETags (some 100 bytes a page) and the open jobs, never GitHub's text.
    pub fn open_jobs_if_changed(
        &self,
        repo: &RepoName,
        seen: &mut QueueSeen,
        at_work: &BTreeSet<String>,
    ) -> Result<Option<Vec<Job>>, Error> {
        self.bring_up_to_date(Purpose::List, repo, seen, at_work)?;
        Ok(std::mem::take(&mut seen.owed).then(|| seen.jobs()))
    }

    fn bring_up_to_date(
        &self,
        purpose: Purpose,
        repo: &RepoName,
        seen: &mut QueueSeen,
        at_work: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let mut open = BTreeMap::new();
        let turn = (seen.looks > 0).then_some(ALWAYS + seen.looks as usize % (STATES.len() - ALWAYS));
        for (place, (status, listing)) in STATES.iter().zip(&mut seen.open).enumerate() {
            if purpose == Purpose::List && place >= ALWAYS && Some(place) != turn {
                open.extend(listing.items().copied());
                continue;
            }
            let tried = format!("list the {status} runs of repo:{repo}");
            let path = format!("{}/actions/runs?status={status}&per_page=100", repo_path(repo));
            let runs = |page: json::RunPage| page.workflow_runs.iter().map(|run| (run.id, run.public())).collect();
            seen.owed |= self.http.pages_if_changed(Call::get(&tried, purpose), &path, listing, runs, MAX_PAGES)?;
            open.extend(listing.items().copied());
        }
        let before = seen.runs.len();
        seen.runs.retain(|run, _| open.contains_key(run));
        seen.owed |= seen.runs.len() < before;
        seen.looks += 1;
        for (id, public) in open {
            let run = seen.runs.entry(id).or_default();
            run.unasked = run.is_settled(at_work) && id % TURNS != seen.looks % TURNS;
            if run.unasked {
                continue;
            }
            let tried = format!("list the jobs of run {id} of repo:{repo}");
            let path = format!("{}/actions/runs/{id}/jobs?filter=latest&per_page=100", repo_path(repo));
            let jobs = |page: json::JobPage| {
                let jobs = page.jobs.into_iter().map(|job| job.into_job(repo, public));
                jobs.filter(|job| job.status != JobStatus::Completed).collect()
            };
            let before: Vec<Job> = run.jobs.items().cloned().collect();
            match self.http.pages_if_changed(Call::get(&tried, purpose), &path, &mut run.jobs, jobs, MAX_PAGES) {
                Ok(changed) => {
                    // GitHub's text changes with every step of a job; the jobs as read here do not.
                    run.unchanged = run.jobs.items().eq(before.iter());
                    seen.owed |= changed;
                }
                Err(error) if error.kind == ErrorKind::NotFound => {
                    seen.runs.remove(&id);
                    seen.owed = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing::Page;
    use super::*;
    use crate::model::Labels;

    #[test]
    fn a_run_is_settled_while_each_of_its_open_jobs_is_at_work_with_us() {
        #[track_caller]
        fn check(jobs: &[(JobStatus, Option<&str>)], unchanged: bool, expected: bool) {
            let job = |(n, (status, runner)): (usize, &(JobStatus, Option<&str>))| Job {
                id: JobId(n as u64),
                run_id: 1,
                repo: "acme/app".parse().unwrap(),
                public: None,
                labels: Labels::default(),
                status: *status,
                runner_name: runner.map(str::to_owned),
                runner_id: None,
                created_at: None,
                name: String::new(),
            };
            let items = jobs.iter().enumerate().map(job).collect();
            let mut run = Run { unchanged, ..Run::default() };
            run.jobs.put(0, Page { url: String::new(), etag: None, next: None, items });
            let at_work = BTreeSet::from(["ours".to_owned()]);
            assert_eq!(run.is_settled(&at_work), expected, "{jobs:?}, unchanged: {unchanged}");
        }
        use JobStatus::{InProgress, Queued, Waiting};
        check(&[(InProgress, Some("ours"))], true, true);
        check(&[(InProgress, Some("ours"))], false, false);
        check(&[(InProgress, Some("ours")), (InProgress, Some("ours"))], true, true);
        check(&[(InProgress, Some("others"))], true, false);
        check(&[(InProgress, None)], true, false);
        check(&[(InProgress, Some("ours")), (Queued, None)], true, false);
        check(&[(Waiting, None), (InProgress, Some("ours"))], true, false);
        // GitHub may name the runner of a job that it gives to another one.
        check(&[(Queued, Some("ours"))], true, false);
        // All jobs are over, and the run is not: the next ones are about to be made.
        check(&[], true, false);
    }
}
