//! The decisions of the budget. **Pure**: the time and the random number are arguments.
//!
//! ```text
//! admit(purpose, now) ──▶ Go ───────────▶ the request ──▶ settle(purpose, now, what came back)
//!                     ├─▶ Full            too many are under way: when one ends, ask again
//!                     └─▶ Wait(until)     nothing is sent before; the caller is told so at once
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

/// Time since the budget was made, by a clock that only goes forward.
pub type Moment = Duration;

/// The purpose of a request, in order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Registering a runner: a job waits for it.
    Register,
    /// Removing a registration, before its instance is removed.
    Remove,
    /// A single question: one job, one repository, one queue.
    Ask,
    /// Periodic listings. They get a share of the hourly limit only.
    List,
}

/// Requests under way at once. GitHub allows 100 for one user, all of their programs together.
const AT_ONCE: usize = 8;
/// How many of them may be listings.
const LISTINGS_AT_ONCE: usize = 4;
/// The hourly limit, until GitHub has told it.
const USUAL_LIMIT: u64 = 5000;
const MINUTE: Duration = Duration::from_secs(60);
/// The minutes of the hour that the listings' share is of.
const MINUTES: u64 = 60;
/// GitHub's documentation, "Rate limits for the REST API": without a header that says how long, at least one minute, and
/// longer each time that it happens again.
const LIMIT_WITHOUT_A_TIME: Duration = Duration::from_secs(60);
/// The primary limit's window is an hour: no longer wait is accepted.
pub const LONGEST_LIMIT: Duration = Duration::from_secs(3600);
/// So many 5xx in a row count as an outage.
const OUTAGE: u32 = 3;
const OUTAGE_FIRST: Duration = Duration::from_secs(1);
const OUTAGE_LONGEST: Duration = Duration::from_secs(60);
/// Two answers whose resets are no farther apart belong to the same window.
const SAME_WINDOW: Duration = Duration::from_secs(5);
/// The most resources that are counted; GitHub has about a dozen.
const MOST_RESOURCES: usize = 32;

impl Purpose {
    const ALL: [Purpose; 4] = [Purpose::Register, Purpose::Remove, Purpose::Ask, Purpose::List];

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Register => "registrations",
            Purpose::Remove => "removals",
            Purpose::Ask => "questions",
            Purpose::List => "listings",
        }
    }

    /// The part of `limit` that is reserved for higher priorities.
    fn reserve(self, limit: u64) -> u64 {
        match self {
            Purpose::Register | Purpose::Remove => 0,
            Purpose::Ask => limit / 50,
            Purpose::List => limit / 10,
        }
    }
}

/// Whether a request may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts as under way now, and must be settled.
    Go,
    /// Too many are under way: ask again when one ends.
    Full,
    /// Not before `until`.
    Wait { until: Moment, why: Why },
}

/// Why a request must wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// GitHub said to wait.
    Told,
    /// The hourly limit is used up, or the rest is reserved for higher priorities.
    Kept { left: u64, limit: u64 },
    /// The listings have used up their share.
    Share { spent: u64, share: u64, limit: u64 },
    /// GitHub failed repeatedly.
    Outage { status: u16, failures: u32 },
}

/// The result of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// `None` if no answer came.
    pub status: Option<u16>,
    /// The primary limit, by the headers.
    pub window: Option<WindowSeen>,
    /// GitHub says to slow down.
    pub told: Option<Told>,
}

/// `x-ratelimit-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSeen {
    pub resource: String,
    pub limit: u64,
    pub remaining: u64,
    pub resets_in: Duration,
}

/// GitHub says to slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// For this long, for every purpose.
    For(Duration),
    /// For an unstated time.
    Somehow,
    /// The primary limit of one resource is used up for this long; others may go on.
    Resource(Duration),
}

/// The primary limit of one resource, by the last answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    limit: u64,
    remaining: u64,
    resets_at: Moment,
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Of these: answered by 304, which costs nothing of the primary limit.
    pub unchanged: u64,
    /// Not sent, because they had to wait.
    pub held_back: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    status: u16,
    failures: u32,
    until: Moment,
}

/// The account of one credential.
#[derive(Debug, Default)]
pub struct Ledger {
    windows: BTreeMap<String, Window>,
    /// The resource that each purpose was last counted against.
    resources: [Option<String>; 4],
    /// True if an answer named no limits: a GitHub Enterprise Server with rate limits disabled.
    unlimited: bool,
    /// Nothing is sent before.
    quiet_until: Option<Moment>,
    /// Secondary limits in a row that named no time.
    strikes: u32,
    outage: Option<Outage>,
    /// Listings that counted, by minute, oldest first.
    listed: Vec<(u64, u64)>,
    under_way: [usize; 4],
    waiting: [usize; 4],
    counts: Counts,
}

impl Ledger {
    /// Whether a request may be sent now. `percent` is the listings' share of the hourly limit.
    pub fn admit(&mut self, purpose: Purpose, now: Moment, percent: u8) -> Verdict {
        if let Some((until, why)) = self.wait(purpose, now, percent) {
            self.counts.held_back += 1;
            return Verdict::Wait { until, why };
        }
        let total: usize = self.under_way.iter().sum();
        let listings = at(&self.under_way, Purpose::List);
        let earlier_wait = Purpose::ALL.iter().any(|other| *other < purpose && at(&self.waiting, *other) > 0);
        if total >= AT_ONCE || earlier_wait || (purpose == Purpose::List && listings >= LISTINGS_AT_ONCE) {
            return Verdict::Full;
        }
        if let Some(count) = self.under_way.get_mut(purpose as usize) {
            *count += 1;
        }
        self.counts.sent += 1;
        if purpose == Purpose::List {
            // Refunded if the answer costs nothing.
            self.spend(now);
        }
        Verdict::Go
    }

    /// A request that got [`Verdict::Full`] starts or stops waiting for its turn.
    pub fn waits(&mut self, purpose: Purpose, waits: bool) {
        if let Some(count) = self.waiting.get_mut(purpose as usize) {
            *count = if waits { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Until when, and why, a request for this purpose must wait. Counts nothing.
    pub fn wait(&self, purpose: Purpose, now: Moment, percent: u8) -> Option<(Moment, Why)> {
        if let Some(until) = self.quiet_until.filter(|until| *until > now) {
            return Some((until, Why::Told));
        }
        if let Some(outage) = self.outage.filter(|outage| outage.failures >= OUTAGE && outage.until > now) {
            return Some((outage.until, Why::Outage { status: outage.status, failures: outage.failures }));
        }
        if let Some(window) = self.window(purpose).filter(|window| window.resets_at > now)
            && window.remaining <= purpose.reserve(window.limit)
        {
            let why = Why::Kept { left: window.remaining, limit: window.limit };
            return Some((window.resets_at, why));
        }
        if purpose == Purpose::List && !self.unlimited {
            let (limit, share) = self.share(percent);
            let spent = self.spent(now);
            if spent >= share {
                return Some((self.share_returns(now), Why::Share { spent, share, limit }));
            }
        }
        None
    }

    /// A request is over. `die` is a random number below 1000, so that many hosts do not retry at once. Returns the new wait, if
    /// there is one.
    pub fn settle(&mut self, purpose: Purpose, now: Moment, came: &Settlement, die: u32) -> Option<Duration> {
        if let Some(count) = self.under_way.get_mut(purpose as usize) {
            *count = count.saturating_sub(1);
        }
        if came.status == Some(304) {
            self.counts.unchanged += 1;
            if purpose == Purpose::List {
                self.unspend();
            }
        }
        if let Some(seen) = &came.window {
            self.see(purpose, seen, now);
        } else if came.status.is_some_and(|status| (200..300).contains(&status)) {
            self.unlimited = true;
        }
        match came.status {
            Some(status @ 500..) => {
                let failures = self.outage.map_or(0, |outage| outage.failures) + 1;
                let pause = doubled(OUTAGE_FIRST, failures.saturating_sub(OUTAGE), OUTAGE_LONGEST);
                self.outage = Some(Outage { status, failures, until: now + spread(pause, die) });
            }
            Some(_) => self.outage = None,
            // A broken connection is no answer of GitHub's.
            None => (),
        }
        let told = match came.told {
            None => {
                if came.status.is_some_and(|status| status < 400) {
                    self.strikes = 0;
                }
                return None;
            }
            Some(Told::For(wait)) => wait,
            Some(Told::Somehow) => {
                self.strikes += 1;
                doubled(LIMIT_WITHOUT_A_TIME, self.strikes - 1, LONGEST_LIMIT)
            }
            Some(Told::Resource(wait)) => {
                let wait = wait.clamp(Duration::from_secs(1), LONGEST_LIMIT);
                if let Some(window) = self.window_mut(purpose) {
                    window.remaining = 0;
                    window.resets_at = now + spread(wait, die);
                    return Some(wait);
                }
                wait
            }
        };
        let told = told.clamp(Duration::from_secs(1), LONGEST_LIMIT);
        let until = now + spread(told, die);
        self.quiet_until = Some(self.quiet_until.map_or(until, |already| already.max(until)));
        Some(told)
    }

    /// How many listings may still go within this hour, and how many an hour may have; `None`: without limit.
    pub fn listings(&self, now: Moment, percent: u8) -> Option<(u64, u64)> {
        let (_, share) = self.share(percent);
        (!self.unlimited).then(|| (share.saturating_sub(self.spent(now)), share))
    }

    /// What is left of the hourly limit of what most requests are counted against, and the limit.
    pub fn left(&self, now: Moment) -> Option<(u64, u64)> {
        let window = self.window(Purpose::Ask).or_else(|| self.window(Purpose::List))?;
        Some((if window.resets_at > now { window.remaining } else { window.limit }, window.limit))
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn window(&self, purpose: Purpose) -> Option<&Window> {
        self.windows.get(self.resources.get(purpose as usize)?.as_ref()?)
    }

    fn window_mut(&mut self, purpose: Purpose) -> Option<&mut Window> {
        self.windows.get_mut(self.resources.get(purpose as usize)?.as_ref()?)
    }

    fn see(&mut self, purpose: Purpose, seen: &WindowSeen, now: Moment) {
        self.unlimited = false;
        let heard =
            Window { limit: seen.limit, remaining: seen.remaining, resets_at: now + seen.resets_in.min(LONGEST_LIMIT) };
        if let Some(resource) = self.resources.get_mut(purpose as usize) {
            *resource = Some(seen.resource.clone());
        }
        let room = self.windows.len() < MOST_RESOURCES;
        match self.windows.get_mut(&seen.resource) {
            // Answers overtake each other: within one window it never becomes more.
            Some(known) if known.resets_at.abs_diff(heard.resets_at) <= SAME_WINDOW && known.resets_at > now => {
                known.remaining = known.remaining.min(heard.remaining);
                known.limit = heard.limit;
            }
            Some(known) => *known = heard,
            None if room => drop(self.windows.insert(seen.resource.clone(), heard)),
            None => (),
        }
    }

    fn share(&self, percent: u8) -> (u64, u64) {
        let limit = self.window(Purpose::List).map_or(USUAL_LIMIT, |window| window.limit);
        (limit, (limit.saturating_mul(percent.into()) / 100).max(1))
    }

    fn spend(&mut self, now: Moment) {
        let minute = now.as_secs() / MINUTE.as_secs();
        self.listed.retain(|(at, _)| at + MINUTES > minute);
        match self.listed.last_mut() {
            Some((at, count)) if *at == minute => *count += 1,
            _ => self.listed.push((minute, 1)),
        }
    }

    fn unspend(&mut self) {
        if let Some((_, count)) = self.listed.iter_mut().rev().find(|(_, count)| *count > 0) {
            *count -= 1;
        }
    }

    fn spent(&self, now: Moment) -> u64 {
        let minute = now.as_secs() / MINUTE.as_secs();
        self.listed.iter().filter(|(at, _)| at + MINUTES > minute).map(|(_, count)| count).sum()
    }

    /// When the oldest minute of the hour is no longer of it.
    fn share_returns(&self, now: Moment) -> Moment {
        let minute = now.as_secs() / MINUTE.as_secs();
        let oldest = self.listed.iter().find(|(at, count)| at + MINUTES > minute && *count > 0);
        oldest.map_or(now + MINUTE, |(at, _)| Duration::from_secs((at + MINUTES) * MINUTE.as_secs()))
    }
}

fn at(counts: &[usize; 4], purpose: Purpose) -> usize {
    counts.get(purpose as usize).copied().unwrap_or(0)
}

/// `first`, doubled `times` times, within `most`.
fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times.min(16))).min(most)
}

/// `wait` and up to a tenth of it more. Never less.
fn spread(wait: Duration, die: u32) -> Duration {
    wait + wait * die.min(1000) / 10_000
}

#[cfg(test)]
mod tests;
