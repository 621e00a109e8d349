//! Ends of operations from the event stream, which save the question for the end.
//!
//! An end may arrive before the answer to the call that began the operation, so the latest ends are kept. Only operations that
//! began while the stream was open are waited for here, and even these are looked at now and then: LXD subscribes a listener a
//! moment after it has accepted the stream, and a cluster member may fail to forward the events of another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::wire::OperationJson;
use crate::threads::lock;

/// How many ends are kept; a later waiter asks LXD.
const KEPT: usize = 512;

/// Shared by the listener and the waiters.
#[derive(Debug, Default)]
pub(super) struct Ends {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    /// The number of the open stream; 0 without one.
    stream: u64,
    streams: u64,
    by_id: BTreeMap<String, OperationJson>,
    /// Ids in the order of their ends.
    order: VecDeque<String>,
}

/// The result of waiting.
#[derive(Debug)]
pub(super) enum Waited {
    /// The operation has ended.
    Ended(OperationJson),
    /// The time is over.
    Late,
    /// No stream is open that would report the end.
    Deaf,
}

impl Ends {
    /// A stream was opened; returns its number.
    pub fn opened(&self) -> u64 {
        let mut told = lock(&self.told);
        told.streams += 1;
        told.stream = told.streams;
        told.stream
    }

    /// The stream was closed.
    pub fn closed(&self, stream: u64) {
        let mut told = lock(&self.told);
        if told.stream == stream {
            told.stream = 0;
        }
        self.changed.notify_all();
    }

    /// The number of the open stream; 0: none.
    pub fn stream(&self) -> u64 {
        lock(&self.told).stream
    }

    /// Records the end of an operation.
    pub fn tell(&self, operation: OperationJson) {
        let mut told = lock(&self.told);
        if told.order.len() >= KEPT
            && let Some(oldest) = told.order.pop_front()
        {
            told.by_id.remove(&oldest);
        }
        told.order.push_back(operation.id.clone());
        told.by_id.insert(operation.id.clone(), operation);
        self.changed.notify_all();
    }

    /// Waits for the end of an operation that began while `stream` was open.
    pub fn wait(&self, id: &str, stream: u64, until: Instant) -> Waited {
        let mut told = lock(&self.told);
        loop {
            if let Some(ended) = told.by_id.remove(id) {
                told.order.retain(|other| other != id);
                return Waited::Ended(ended);
            }
            if stream == 0 || told.stream != stream {
                return Waited::Deaf;
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Waited::Late;
            }
            told = self.changed.wait_timeout(told, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ended(id: &str) -> OperationJson {
        OperationJson { id: id.to_owned(), status_code: 200, err: Default::default(), metadata: Default::default() }
    }

    #[test]
    fn an_end_is_heard_before_and_while_it_is_waited_for_and_a_break_wakes_who_waits() {
        let ends = Ends::default();
        let far = || Instant::now() + Duration::from_secs(60);
        assert!(matches!(ends.wait("a", ends.stream(), far()), Waited::Deaf), "nobody listens");
        let stream = ends.opened();
        ends.tell(ended("a"));
        assert!(matches!(ends.wait("a", stream, far()), Waited::Ended(it) if it.id == "a"));
        assert!(matches!(ends.wait("a", stream, Instant::now()), Waited::Late), "an end is told once");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ends.wait("b", stream, far()));
            ends.tell(ended("x"));
            ends.tell(ended("b"));
            assert!(matches!(waiting.join().unwrap(), Waited::Ended(it) if it.id == "b"));
            let waiting = scope.spawn(|| ends.wait("c", stream, far()));
            ends.closed(stream);
            assert!(matches!(waiting.join().unwrap(), Waited::Deaf));
        });
        // What ended between the two streams was not told: who waits since before must ask.
        let next = ends.opened();
        assert!(matches!(ends.wait("c", stream, far()), Waited::Deaf));
        ends.closed(stream);
        assert_eq!(ends.stream(), next, "an older stream's end is not the newer one's");
    }

    #[test]
    fn no_more_ends_are_kept_than_the_cap() {
        let ends = Ends::default();
        let stream = ends.opened();
        (0..=KEPT).for_each(|n| ends.tell(ended(&n.to_string())));
        assert_eq!(lock(&ends.told).by_id.len(), KEPT);
        assert_eq!(lock(&ends.told).order.len(), KEPT);
        assert!(matches!(ends.wait("0", stream, Instant::now()), Waited::Late));
        assert!(matches!(ends.wait("1", stream, Instant::now()), Waited::Ended(_)));
    }
}
