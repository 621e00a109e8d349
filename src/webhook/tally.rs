//! The log under attack: whatever anybody can make happen is one line a second of its kind, with a count.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of a kind.
const QUIET: Duration = Duration::from_secs(1);

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not signed with our secret, or of a content type that cannot be.
    Unsigned,
    /// Signed, and yet of no use.
    Useless,
    /// Not HTTP as it should be, or too long.
    Malformed,
    /// Too slow.
    Late,
    /// Ended because others need its place, or not let in.
    Crowded,
    /// From an address that `web_allow` does not name.
    NotAllowed,
    /// No TLS connection came about.
    Handshake,
    /// The server within gave no answer.
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

/// Counts what is refused and says it seldom.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<[Count; KINDS]>,
    unsaid: AtomicBool,
}

#[derive(Debug, Default)]
struct Count {
    kind: Option<Kind>,
    said: Option<Instant>,
    unsaid: u64,
    /// Of the last one.
    peer: Option<IpAddr>,
    reason: String,
}

impl Tally {
    /// Something was refused: it is said now, or counted until it is due.
    pub fn note(&self, kind: Kind, peer: Option<IpAddr>, reason: &str) {
        self.note_at(Instant::now(), kind, peer, reason);
    }

    fn note_at(&self, now: Instant, kind: Kind, peer: Option<IpAddr>, reason: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(kind as usize) else { return };
        count.kind = Some(kind);
        count.unsaid += 1;
        count.peer = peer;
        count.reason.clear();
        count.reason.push_str(reason);
        if count.due_at().is_none_or(|at| at <= now) {
            count.say(now);
        } else {
            self.unsaid.store(true, Ordering::Release);
        }
    }

    /// Says what is due; returns when there is more to say.
    pub fn flush(&self, now: Instant) -> Option<Instant> {
        if !self.unsaid.load(Ordering::Acquire) {
            return None;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next: Option<Instant> = None;
        for count in counts.iter_mut().filter(|count| count.unsaid > 0) {
            match count.due_at().filter(|at| *at > now) {
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => count.say(now),
            }
        }
        self.unsaid.store(next.is_some(), Ordering::Release);
        next
    }
}

impl Count {
    fn due_at(&self) -> Option<Instant> {
        self.said.map(|said| said + QUIET)
    }

    fn say(&mut self, now: Instant) {
        if let Some(kind) = self.kind {
            let (level, event) = kind.event();
            log::log!(level, "{}", self.line(event));
        }
        self.said = Some(now);
        self.unsaid = 0;
    }

    fn line(&self, event: &str) -> String {
        let mut line = event.to_owned();
        // Writing to a String cannot fail.
        if let Some(peer) = self.peer {
            let _ = write!(line, " peer={peer}");
        }
        let _ = write!(line, " count={} reason={:?}", self.unsaid, self.reason);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsaid(tally: &Tally, kind: Kind) -> u64 {
        tally.counts.lock().unwrap()[kind as usize].unsaid
    }

    #[test]
    fn a_flood_is_told_once_a_second_and_to_its_end() {
        let tally = Tally::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let note = |millis: u64, kind: Kind, left: u64| {
            tally.note_at(at(millis), kind, None, "why");
            assert_eq!(unsaid(&tally, kind), left, "{millis}");
        };
        note(0, Kind::Unsigned, 0);
        assert_eq!(tally.flush(at(0)), None);
        note(1, Kind::Unsigned, 1);
        // Another kind has its own second.
        note(500, Kind::Late, 0);
        note(999, Kind::Unsigned, 2);
        note(1000, Kind::Unsigned, 0);
        note(1001, Kind::Unsigned, 1);
        assert_eq!(tally.flush(at(1999)), Some(at(2000)));
        assert_eq!(tally.flush(at(2000)), None);
        assert_eq!(unsaid(&tally, Kind::Unsigned), 0);
    }

    #[test]
    fn every_kind_has_its_place() {
        assert_eq!(Kind::Unanswered as usize + 1, KINDS);
    }

    #[test]
    fn a_line_tells_how_many_and_who() {
        let count = Count { unsaid: 7, peer: "::1".parse().ok(), reason: "a \"b\"\n".to_owned(), ..Count::default() };
        assert_eq!(count.line("x"), r#"x peer=::1 count=7 reason="a \"b\"\n""#);
    }
}
