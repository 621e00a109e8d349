//! Selects the repositories whose queues are asked next. **Pure.**
//!
//! GitHub does not list an organisation's queued jobs: each repository is asked. An unchanged answer costs nothing of the hourly
//! limit; a changed or a first one costs a request. So repositories with recent activity are asked in each look, all others in
//! turn, and those never asked a few at a time, the last pushed first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{RepoName, Timestamp};

/// How long after its last activity a repository is asked in each look.
pub const ACTIVE_FOR: Duration = Duration::from_secs(3600);
/// Within this time all others are asked once.
pub const ROUND: Duration = Duration::from_secs(1200);
/// The same without webhooks.
pub const ROUND_POLLING: Duration = Duration::from_secs(600);
/// The most queues in one look, which must end before the next is due.
const MOST: usize = 100;
/// The cost of a queue that was never asked.
const FIRST_COST: u32 = 2;
/// The unit of costs: so many make a request.
const PART: u32 = 16;

/// The budget of a look, and the interval of looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between looks.
    pub interval: Duration,
    /// Within this time all are asked once.
    pub round: Duration,
    /// Requests that may still be counted within the hour, and those that an hour may have; `None`: without limit.
    pub budget: Option<(u64, u64)>,
}

/// The state of one repository.
#[derive(Clone, Debug, Default)]
struct Known {
    pushed_at: Option<Timestamp>,
    /// The last activity: it has, or may have, jobs.
    sign_at: Option<Timestamp>,
    looked_at: Option<Timestamp>,
    /// The average cost of a look at it, in [`PART`]s of a request.
    cost: u32,
}

/// The repositories whose queues are looked at.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    repos: BTreeMap<RepoName, Known>,
}

impl Queues {
    /// Sets the served repositories, with the time of the last push to each. Returns those that are not served any more.
    pub fn serve(
        &mut self,
        repos: impl IntoIterator<Item = (RepoName, Option<Timestamp>)>,
        now: Timestamp,
    ) -> Vec<RepoName> {
        let mut there = BTreeSet::new();
        for (repo, pushed_at) in repos {
            let known =
                self.repos.entry(repo.clone()).or_insert_with(|| Known { cost: FIRST_COST * PART, ..Known::default() });
            let before = std::mem::replace(&mut known.pushed_at, pushed_at);
            // A job of a push that no look has seen may be waiting.
            let lately = pushed_at.is_some_and(|at| now.since(at) < ACTIVE_FOR && at.0 > 0);
            if lately && before != pushed_at {
                known.sign_at = Some(now);
            }
            there.insert(repo);
        }
        let gone: Vec<RepoName> = self.repos.keys().filter(|repo| !there.contains(*repo)).cloned().collect();
        self.repos.retain(|repo, _| there.contains(repo));
        gone
    }

    /// Records activity: a job, or an event that makes one likely.
    pub fn sign(&mut self, repo: &RepoName, now: Timestamp) {
        if let Some(known) = self.repos.get_mut(repo) {
            known.sign_at = Some(now);
        }
    }

    /// Records a look: the requests that counted, and whether it has open jobs.
    pub fn looked(&mut self, repo: &RepoName, counted: u32, busy: bool, now: Timestamp) {
        let Some(known) = self.repos.get_mut(repo) else { return };
        let first = known.looked_at.replace(now).is_none();
        if busy || (counted > 0 && !first) {
            known.sign_at = Some(now);
        }
        // The first look is more expensive than all others.
        known.cost = if first { PART } else { (known.cost * 3 + counted.min(64) * PART) / 4 };
    }

    /// The repositories to ask now, the most urgent first.
    pub fn next(&self, pace: &Pace, now: Timestamp) -> Vec<RepoName> {
        let mut chosen: Vec<&RepoName> = Vec::new();
        let mut left = pace.allowance();
        let (active, others): (Vec<_>, Vec<_>) = self.repos.iter().partition(|(_, known)| known.is_active(now));

        // If the budget is too small for all, those that waited longest come first.
        let mut active: Vec<_> = active.into_iter().filter(|(_, known)| known.is_due(pace.interval, now)).collect();
        active.sort_by_key(|(repo, known)| (known.looked_at, std::cmp::Reverse(known.sign_at), *repo));
        for (repo, known) in active {
            if chosen.len() >= MOST || left < known.cost {
                break;
            }
            left -= known.cost;
            chosen.push(repo);
        }

        let (mut tail, mut fresh): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, known)| known.looked_at.is_some());
        tail.sort_by_key(|(repo, known)| (known.looked_at, *repo));
        // Most of these cost nothing; the next budget shows their real cost.
        let share = tail.len() as u64 * pace.interval.as_millis() as u64 / pace.round.as_millis().max(1) as u64 + 1;
        tail.truncate(usize::try_from(share).unwrap_or(MOST).min(MOST / 2));
        tail.retain(|(_, known)| known.is_due(pace.interval, now));
        chosen.extend(tail.into_iter().map(|(repo, _)| repo).take(if left > 0 { MOST } else { 1 }));

        fresh.sort_by_key(|(repo, known)| (std::cmp::Reverse(known.pushed_at), *repo));
        let affordable = left / 2 / (FIRST_COST * PART);
        chosen.extend(fresh.into_iter().map(|(repo, _)| repo).take(affordable as usize));
        chosen.truncate(MOST);
        chosen.into_iter().cloned().collect()
    }
}

impl Known {
    fn is_active(&self, now: Timestamp) -> bool {
        self.sign_at.is_some_and(|at| now.since(at) < ACTIVE_FOR)
    }

    /// A repository that is almost due counts as due.
    fn is_due(&self, interval: Duration, now: Timestamp) -> bool {
        self.looked_at.is_none_or(|at| now.since(at) >= interval / 2)
    }
}

impl Pace {
    /// The budget of one look, in [`PART`]s of a request: a few looks' part of the rest of the hourly share, so that the looks after
    /// a restart are soon complete, and no hour's share is spent in its first minutes.
    fn allowance(&self) -> u32 {
        let Some((left, share)) = self.budget else { return u32::MAX };
        let looks = (3600 / self.interval.as_secs().max(1)).max(1);
        let fair = left.div_ceil(looks);
        // More while most of the share is left.
        let spare = left.saturating_sub(share * 2 / 3) / 2;
        u32::try_from((fair * 2).max(spare)).unwrap_or(u32::MAX / PART).saturating_mul(PART)
    }
}

#[cfg(test)]
mod tests;
