//! Which repositories' queues are asked for next. **Pure.**
//!
//! GitHub has no listing of an organisation's queued jobs: each repository is asked for itself. An answer that has not
//! changed costs nothing of the hourly limit, one that has costs a request, and so does whatever is asked for the first
//! time. So the ones where something happened lately are asked every time; all others come in turn; and those that were
//! never asked are taken up little by little, the one that was pushed to last first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{RepoName, Timestamp};

/// How long after the last sign of life a repository is asked every time.
pub const ACTIVE_FOR: Duration = Duration::from_secs(3600);
/// Within this all others have had their turn, where nothing else is known of them than that they are there.
pub const ROUND: Duration = Duration::from_secs(1200);
/// The same where no webhook tells of anything.
pub const ROUND_POLLING: Duration = Duration::from_secs(600);
/// Queues in one look at most: a look must end before the next is due.
const MOST: usize = 100;
/// What a queue that was never asked for costs.
const FIRST_COST: u32 = 2;
/// Costs are kept in this part of a request.
const PART: u32 = 16;

/// What a look may spend, and how often looks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between looks.
    pub interval: Duration,
    /// Within this all have had their turn.
    pub round: Duration,
    /// Requests that may still be counted within the hour, and those that an hour may have; `None`: without limit.
    pub budget: Option<(u64, u64)>,
}

/// What is known of one repository.
#[derive(Clone, Debug, Default)]
struct Known {
    pushed_at: Option<Timestamp>,
    /// The last sign that it has jobs, or may have.
    sign_at: Option<Timestamp>,
    looked_at: Option<Timestamp>,
    /// What a look at it costs on average, in [`PART`]s of a request.
    cost: u32,
}

/// The repositories whose queues are looked at.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    repos: BTreeMap<RepoName, Known>,
}

impl Queues {
    /// These, all of them, are served now; with the moment at which each was last pushed to. Returns those that are not
    /// any more.
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
            // What was pushed while nobody looked may wait since then.
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

    /// A job was heard of there, or something else that makes one likely.
    pub fn sign(&mut self, repo: &RepoName, now: Timestamp) {
        if let Some(known) = self.repos.get_mut(repo) {
            known.sign_at = Some(now);
        }
    }

    /// It was looked at: how many requests counted, and whether anything is queued or runs there.
    pub fn looked(&mut self, repo: &RepoName, counted: u32, busy: bool, now: Timestamp) {
        let Some(known) = self.repos.get_mut(repo) else { return };
        let first = known.looked_at.replace(now).is_none();
        if busy || (counted > 0 && !first) {
            known.sign_at = Some(now);
        }
        // The first look costs what no other does.
        known.cost = if first { PART } else { (known.cost * 3 + counted.min(64) * PART) / 4 };
    }

    /// The repositories to ask now, the most urgent first.
    pub fn next(&self, pace: &Pace, now: Timestamp) -> Vec<RepoName> {
        let mut chosen: Vec<&RepoName> = Vec::new();
        let mut left = pace.allowance();
        let (active, others): (Vec<_>, Vec<_>) = self.repos.iter().partition(|(_, known)| known.is_active(now));

        // Where not all can be afforded, those that were not asked for longest: so they take turns.
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
        // Most of these cost nothing; what they do cost is seen in what is left.
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

    /// A look that comes a little early is no reason to leave it out.
    fn is_due(&self, interval: Duration, now: Timestamp) -> bool {
        self.looked_at.is_none_or(|at| now.since(at) >= interval / 2)
    }
}

impl Pace {
    /// What one look may cost, in [`PART`]s of a request: of what is left of the hour's share a few looks' worth, so that a
    /// restart, which knows nothing, is soon over, and no hour's share is spent in its first minutes.
    fn allowance(&self) -> u32 {
        let Some((left, share)) = self.budget else { return u32::MAX };
        let looks = (3600 / self.interval.as_secs().max(1)).max(1);
        let fair = left.div_ceil(looks);
        // As long as most of the share is there, it may go faster.
        let spare = left.saturating_sub(share * 2 / 3) / 2;
        u32::try_from((fair * 2).max(spare)).unwrap_or(u32::MAX / PART).saturating_mul(PART)
    }
}

#[cfg(test)]
mod tests;
