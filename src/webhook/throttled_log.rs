//! Log lines that clients can cause: at most one a second of each kind, with a count.

use crate::threads::lock;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of a kind.
const QUIET: Duration = Duration::from_secs(1);

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not signed with the secret, or of a content type that is never signed.
    Unsigned,
    /// Signed, but unreadable.
    Useless,
    /// Not valid HTTP, or too long.
    Malformed,
    /// Too slow.
    Late,
    /// Closed because its place or memory was needed, or not accepted.
    Crowded,
    /// From an address that `web_allow` does not name.
    NotAllowed,
    /// The TLS handshake failed.
    Handshake,
    /// tiny_http gave no answer in time.
    Unanswered,
}

const KINDS: usize = 8;

impl Kind {
    fn event(self) -> (log::Level, &'static str) {
        use log::Level::{Error, Info, Warn};
        match self {
            Kind::Unsigned | Kind::Useless => (Warn, "delivery_refused"),
            Kind::Malformed => (Info, "request_refused"),
            Kind::Late => (Info, "request_late"),
            Kind::Crowded => (Warn, "connection_shed"),
            Kind::NotAllowed => (Warn, "address_refused"),
            Kind::Handshake => (Info, "tls_refused"),
            Kind::Unanswered => (Error, "answer_missing"),
        }
    }
}

/// Counts what is refused and logs it at most once a second.
#[derive(Debug, Default)]
pub struct ThrottledLog {
    counts: Mutex<[Count; KINDS]>,
    pending: AtomicBool,
}

#[derive(Debug, Default)]
struct Count {
    kind: Option<Kind>,
    emitted: Option<Instant>,
    pending: u64,
    /// Of the last one.
    peer: Option<IpAddr>,
    reason: String,
}

impl ThrottledLog {
    /// Records a refusal: it is logged now, or counted until the next line is due.
    pub fn record(&self, kind: Kind, peer: Option<IpAddr>, reason: &str) {
        self.record_at(Instant::now(), kind, peer, reason);
    }

    fn record_at(&self, now: Instant, kind: Kind, peer: Option<IpAddr>, reason: &str) {
        let mut counts = lock(&self.counts);
        let Some(count) = counts.get_mut(kind as usize) else { return };
        count.kind = Some(kind);
        count.pending += 1;
        count.peer = peer;
        count.reason.clear();
        count.reason.push_str(reason);
        if count.due_at().is_none_or(|at| at <= now) {
            count.emit(now);
        } else {
            self.pending.store(true, Ordering::Release);
        }
    }

    /// Writes the lines that are due; returns when the next one is.
    pub fn flush(&self, now: Instant) -> Option<Instant> {
        if !self.pending.load(Ordering::Acquire) {
            return None;
        }
        let mut counts = lock(&self.counts);
        let mut next: Option<Instant> = None;
        for count in counts.iter_mut().filter(|count| count.pending > 0) {
            match count.due_at().filter(|at| *at > now) {
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => count.emit(now),
            }
        }
        self.pending.store(next.is_some(), Ordering::Release);
        next
    }
}

impl Count {
    fn due_at(&self) -> Option<Instant> {
        self.emitted.map(|emitted| emitted + QUIET)
    }

    fn emit(&mut self, now: Instant) {
        if let Some(kind) = self.kind {
            let (level, event) = kind.event();
            log::log!(level, "{}", self.line(event));
        }
        self.emitted = Some(now);
        self.pending = 0;
    }

    fn line(&self, event: &str) -> String {
        let mut line = event.to_owned();
        // Writing to a String cannot fail.
        if let Some(peer) = self.peer {
            let _ = write!(line, " peer={peer}");
        }
        let _ = write!(line, " count={} reason={:?}", self.pending, self.reason);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(log: &ThrottledLog, kind: Kind) -> u64 {
        log.counts.lock().unwrap()[kind as usize].pending
    }

    #[test]
    fn a_flood_is_told_once_a_second_and_to_its_end() {
        let log = ThrottledLog::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let record = |millis: u64, kind: Kind, left: u64| {
            log.record_at(at(millis), kind, None, "why");
            assert_eq!(pending(&log, kind), left, "{millis}");
        };
        record(0, Kind::Unsigned, 0);
        assert_eq!(log.flush(at(0)), None);
        record(1, Kind::Unsigned, 1);
        // Another kind has its own second.
        record(500, Kind::Late, 0);
        record(999, Kind::Unsigned, 2);
        record(1000, Kind::Unsigned, 0);
        record(1001, Kind::Unsigned, 1);
        assert_eq!(log.flush(at(1999)), Some(at(2000)));
        assert_eq!(log.flush(at(2000)), None);
        assert_eq!(pending(&log, Kind::Unsigned), 0);
    }

    #[test]
    fn every_kind_has_its_place() {
        assert_eq!(Kind::Unanswered as usize + 1, KINDS);
    }

    #[test]
    fn a_line_tells_how_many_and_who() {
        let count = Count { pending: 7, peer: "::1".parse().ok(), reason: "a \"b\"\n".to_owned(), ..Count::default() };
        assert_eq!(count.line("x"), r#"x peer=::1 count=7 reason="a \"b\"\n""#);
    }
}
