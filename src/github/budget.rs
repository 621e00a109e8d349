//! The request budget of one credential, shared by all threads.
//!
//! Nothing is sent while GitHub said to wait, nor once a limit is used up; only a few requests are under way at once;
//! registrations go before questions, and questions before listings, which have their own share of the hour. A request that
//! must wait fails immediately and says until when: no worker sleeps here. `ledger` decides; this file reads the clock.

pub mod ledger;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use ledger::{Counts, Purpose};
use ledger::{Ledger, Moment, Settlement, Verdict, Why};

use super::error::{Error, ErrorKind};
use crate::model::Timestamp;
use crate::threads::lock;

/// The listings' share of the hourly limit where the config names none, in percent.
pub const USUAL_SHARE: u8 = 20;

/// The account of one credential; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Mutex<Ledger>,
    ended: Condvar,
    made: Instant,
    percent: u8,
    /// When the token ends, by GitHub's last answer.
    token_ends: Mutex<Option<Timestamp>>,
}

/// A request under way. Dropping it settles it without an answer.
pub(super) struct Pass<'a> {
    budget: &'a Budget,
    purpose: Purpose,
    settled: bool,
}

/// The state of one credential's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is left of the hourly limit, and the limit; `None` until GitHub told.
    pub left: Option<(u64, u64)>,
    /// Listings that may still be made within the hour, and those that an hour may have; `None`: without limit.
    pub listings: Option<(u64, u64)>,
    /// The purposes that must wait, for how long, and why.
    pub waits: Vec<(Purpose, Duration, String)>,
    /// Since the start.
    pub counts: Counts,
}

impl Budget {
    /// `percent` is the listings' share of the hourly limit.
    pub fn new(percent: u8) -> Budget {
        let ledger = Mutex::default();
        Budget(Arc::new(Inner {
            ledger,
            ended: Condvar::new(),
            made: Instant::now(),
            percent,
            token_ends: Mutex::default(),
        }))
    }

    /// Records when the token ends.
    pub fn set_token_end(&self, at: Timestamp) {
        *lock(&self.0.token_ends) = Some(at);
    }

    /// When the token ends; `None` if unknown or never.
    pub fn token_end(&self) -> Option<Timestamp> {
        *lock(&self.0.token_ends)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.0.ledger)
    }

    fn now(&self) -> Moment {
        self.0.made.elapsed()
    }

    /// Waits for the request's turn among those under way. `Err`: it must not be sent before the time in the error.
    pub fn enter(&self, tried: &str, purpose: Purpose) -> Result<Pass<'_>, Error> {
        let mut ledger = self.ledger();
        let mut waited = false;
        let (now, verdict) = loop {
            let now = self.now();
            let verdict = ledger.admit(purpose, now, self.0.percent);
            if verdict != Verdict::Full {
                break (now, verdict);
            }
            // Every request has a deadline, so one of those under way ends.
            waited = true;
            ledger.waits(purpose, true);
            ledger = self.0.ended.wait(ledger).unwrap_or_else(PoisonError::into_inner);
            ledger.waits(purpose, false);
        };
        drop(ledger);
        if waited {
            // Requests of a lower priority may have waited for this one alone.
            self.0.ended.notify_all();
        }
        let Verdict::Wait { until, why } = verdict else { return Ok(Pass { budget: self, purpose, settled: false }) };
        let left = until.saturating_sub(now);
        log::debug!("github_waits for={} seconds={} why=\"{why}\"", purpose.as_str(), left.as_secs() + 1);
        Err(held_back(tried, &why, left))
    }

    /// How long a request for this purpose would have to wait.
    pub fn wait(&self, purpose: Purpose) -> Option<Duration> {
        let now = self.now();
        let (until, _) = self.ledger().wait(purpose, now, self.0.percent)?;
        Some(until.saturating_sub(now)).filter(|left| !left.is_zero())
    }

    /// The state of the limits.
    pub fn standing(&self) -> Standing {
        let now = self.now();
        let ledger = self.ledger();
        let waits =
            [Purpose::Register, Purpose::Remove, Purpose::Ask, Purpose::List].into_iter().filter_map(|purpose| {
                let (until, why) = ledger.wait(purpose, now, self.0.percent)?;
                Some((purpose, until.saturating_sub(now), why.to_string()))
            });
        Standing {
            left: ledger.left(now),
            listings: ledger.listings(now, self.0.percent),
            waits: waits.collect(),
            counts: ledger.counts(),
        }
    }
}

impl Pass<'_> {
    /// The request is over. Returns how long GitHub asked to wait, if it did.
    pub fn settle(mut self, came: &Settlement) -> Option<Duration> {
        self.settled = true;
        self.end(came)
    }

    fn end(&self, came: &Settlement) -> Option<Duration> {
        let told = self.budget.ledger().settle(self.purpose, self.budget.now(), came, die());
        self.budget.0.ended.notify_all();
        told
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.end(&Settlement::default());
        }
    }
}

/// ` github_left=4711/5000 listings_left=800/1000 waits="listings for 120 s: …"`: as much of it as is known.
impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((left, limit)) = self.left {
            write!(f, " github_left={left}/{limit}")?;
        }
        if let Some((left, share)) = self.listings {
            write!(f, " listings_left={left}/{share}")?;
        }
        let wait = |(purpose, left, why): &(Purpose, Duration, String)| {
            format!("{} for {} s: {why}", purpose.as_str(), left.as_secs() + 1)
        };
        if !self.waits.is_empty() {
            write!(f, " waits={:?}", self.waits.iter().map(wait).collect::<Vec<_>>().join("; "))?;
        }
        Ok(())
    }
}

fn held_back(tried: &str, why: &Why, left: Duration) -> Error {
    let kind = match why {
        Why::Outage { status, .. } => ErrorKind::Server(*status),
        _ => ErrorKind::RateLimited(left),
    };
    let message = match why {
        Why::Outage { .. } => format!("{why}, not asked again for {} s", left.as_secs() + 1),
        _ => format!("not asked: {why}"),
    };
    Error::new(tried, kind, message)
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Told => f.write_str("GitHub said to slow down"),
            Why::Kept { left: 0, limit } => write!(f, "all {limit} requests of the hour are used up"),
            Why::Kept { left, limit } => {
                write!(f, "the last {left} of the hour's {limit} requests are kept for registrations")
            }
            Why::Share { share, limit, .. } => {
                write!(f, "listings have had their share of the hour, {share} of {limit} requests (see api_budget)")
            }
            Why::Outage { failures, .. } => write!(f, "it failed {failures} times in a row"),
        }
    }
}

/// A random number below 1000.
fn die() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    u32::try_from(std::hash::RandomState::new().build_hasher().finish() % 1000).unwrap_or(0)
}
