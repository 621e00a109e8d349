//! Calls that are made to fail, and the record of all calls.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Calls that are remembered; older ones are forgotten.
const MAX_CALLS: usize = 100_000;

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// For example `GET`.
    pub method: String,
    /// Percent-encoded, without the query.
    pub path: String,
    /// As it was sent, empty where there is none.
    pub query: String,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; this status with these bytes (as they are) is the answer.
    Status(u16, String),
    /// Nothing is done, and the connection is closed without an answer.
    Close,
    /// Nothing is done and nothing answered until [`Faults::clear`], or until the stand-in ends; then as [`Fault::Close`].
    Stall,
    /// It is done this much later.
    Delay(Duration),
    /// It is done, and so many bytes of the answer are sent before the connection is closed.
    CutAfter(usize),
    /// It is done, and not answered: as [`Fault::Stall`] from there on.
    StallAfter,
}

#[derive(Debug)]
struct Rule {
    /// Empty: any.
    method: String,
    prefix: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<Rule>,
    calls: VecDeque<Call>,
    /// Counts the clearings, so that a stalled call sees one.
    epoch: u64,
    stopped: bool,
}

/// The seam through which tests make calls fail and see which were made.
#[derive(Debug, Default)]
pub struct Faults {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Faults {
    /// The next call of that method (empty: any) whose path starts with `prefix` has this fault, once.
    pub fn next(&self, method: &str, prefix: &str, fault: Fault) {
        self.add(method, prefix, 0, 1, fault);
    }

    /// Of the calls of that method (empty: any) whose path starts with `prefix`, `skip` pass and the `times` after
    /// them have this fault. With an empty method and prefix, `skip` is the index of a call, counted from now.
    pub fn add(&self, method: &str, prefix: &str, skip: usize, times: usize, fault: Fault) {
        let (method, prefix) = (method.to_owned(), prefix.to_owned());
        self.lock().rules.push(Rule { method, prefix, skip, times, fault });
    }

    /// Ends all faults; stalled calls are closed.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.rules.clear();
        inner.epoch += 1;
        self.changed.notify_all();
    }

    /// The calls so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.iter().cloned().collect()
    }

    /// How many calls of that method (empty: any) had a path that starts with `prefix`.
    pub fn count(&self, method: &str, prefix: &str) -> usize {
        self.lock().calls.iter().filter(|call| matches(method, prefix, call)).count()
    }

    /// Waits until `wanted` holds for the calls so far; false where it does not within `patience`.
    pub fn wait_until(&self, patience: Duration, mut wanted: impl FnMut(&[Call]) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        loop {
            if wanted(inner.calls.make_contiguous()) {
                return true;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            inner = self.changed.wait_timeout(inner, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes a call and takes the fault that it is to have, and the epoch that [`Faults::hold`] asks for: a clearing
    /// between the two must not be missed.
    pub(super) fn arrived(&self, call: Call) -> (Option<Fault>, u64) {
        let mut inner = self.lock();
        let mut found = None;
        for rule in &mut inner.rules {
            if !matches(&rule.method, &rule.prefix, &call) || rule.times == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if found.is_none() {
                rule.times -= 1;
                found = Some(rule.fault.clone());
            }
        }
        inner.rules.retain(|rule| rule.times > 0);
        if inner.calls.len() == MAX_CALLS {
            inner.calls.pop_front();
        }
        inner.calls.push_back(call);
        self.changed.notify_all();
        (found, inner.epoch)
    }

    /// Waits until the faults are cleared, the stand-in ends, or the time is over.
    pub(super) fn hold(&self, epoch: u64, time: Duration) {
        let deadline = Instant::now().checked_add(time);
        let mut inner = self.lock();
        while inner.epoch == epoch && !inner.stopped {
            let rest = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if rest.is_zero() {
                return;
            }
            inner = self.changed.wait_timeout(inner, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(method: &str, prefix: &str, call: &Call) -> bool {
    (method.is_empty() || method == call.method) && call.path.starts_with(prefix)
}
