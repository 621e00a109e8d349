//! Waiting for operations: for the event that tells of the end where the event stream is open, else on the server's side. An
//! operation that takes longer is looked at now and then, and given up when it makes no progress.
//!
//! Signs of progress (LXD 5.0 to 6, Incus 6): the text that the server keeps in the operation's metadata while it
//! downloads, packs or unpacks (keys that end in `_progress`), and the length of what a command printed, which is recorded in
//! files that can be read while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::api::Lxd;
use super::ends::Waited;
use super::transport::{Body, Response};
use super::types::{Error, ErrorKind, Operation};
use super::wire::{OperationJson, metadata, succeeded};
use crate::http1::path_segment;
use crate::text::one_line;

/// An operation whose end was not told is looked at after this, then after twice as long, and so on.
const LOOK_FIRST: Duration = Duration::from_secs(2);
/// The longest pause between two looks.
const LOOK_LAST: Duration = Duration::from_secs(30);
/// Signs that cost calls of their own are looked at after pauses of at least this: most set-ups end before the first.
const COSTLY_AFTER: Duration = Duration::from_secs(8);
/// Characters, or bytes of a command's output, that are kept of a status.
const STATUS: usize = 200;

/// How long an operation may take.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The longest time without progress.
    pub quiet: Duration,
    /// The end, whatever progress it makes.
    pub until: Instant,
    /// Is told of each look that finds it under way.
    pub seen: &'a dyn Fn(&Progress),
}

/// What a look at an operation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The server's words (`rootfs: 43% (1.49MB/s)`), or the last line that a command printed. Often empty.
    pub status: String,
    /// Whether it made progress since the look before.
    pub made: bool,
}

/// Where an operation shows that it makes progress.
#[derive(Clone, Copy, Debug)]
pub enum Signs<'a> {
    /// In its own metadata.
    Own,
    /// In its own metadata, or while that has none, in those of all others: an operation that needs an image which another
    /// one downloads or unpacks waits for that one without telling so.
    Image,
    /// In what the command prints in that instance.
    Output { project: &'a str, name: &'a str },
}

/// What an operation shows of its progress: any change is some.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sign {
    status: String,
    /// Bytes that a command printed.
    printed: u64,
}

/// When an operation is given up.
struct Watch {
    quiet: Duration,
    until: Instant,
    /// When it was last seen to make progress.
    since: Instant,
    last: Sign,
}

impl Watch {
    fn new(patience: &Patience<'_>) -> Watch {
        let Patience { quiet, until, .. } = *patience;
        Watch { quiet, until, since: Instant::now(), last: Sign::default() }
    }

    fn deadline(&self) -> Instant {
        self.since.checked_add(self.quiet).map_or(self.until, |quiet| quiet.min(self.until))
    }

    /// Takes in what was seen; true where that is progress.
    fn saw(&mut self, sign: Sign, now: Instant) -> bool {
        let made = sign != Sign::default() && sign != self.last;
        if made {
            (self.last, self.since) = (sign, now);
        }
        made
    }

    /// Why it is given up now.
    fn over(&self, tried: &str, now: Instant) -> Option<Error> {
        if now >= self.until {
            return Some(Error::new(tried, ErrorKind::Timeout, "it is still running at the deadline"));
        }
        if now < self.deadline() {
            return None;
        }
        let (seconds, status) = (self.quiet.as_secs(), &self.last.status);
        let status = if status.is_empty() { String::new() } else { format!(", its status stays \"{status}\"") };
        Some(Error::new(tried, ErrorKind::Stalled, format!("no progress for {seconds} s{status}")))
    }
}

impl Lxd {
    /// Waits for the operation's end, no longer than `timeout` (in whole seconds, rounded up). The server forgets an operation
    /// five seconds after its end: then, and after its restart, this is `NotFound`, and only a look at the object
    /// itself tells.
    pub fn wait(&self, operation: &Operation, timeout: Duration) -> Result<(), Error> {
        let ended = self.end_within(operation, timeout)?;
        succeeded(&operation.what, &ended)
    }

    /// The same, for as long as it makes progress.
    ///
    /// # Errors
    /// [`ErrorKind::Stalled`] where it makes none, [`ErrorKind::Timeout`] where it takes too long all the same. The server goes
    /// on with it.
    pub fn wait_patiently(
        &self,
        operation: &Operation,
        patience: &Patience<'_>,
        signs: Signs<'_>,
    ) -> Result<(), Error> {
        let ended = self.end_of(operation, patience, signs)?;
        succeeded(&operation.what, &ended)
    }

    /// The operation after its end, good or bad, which comes within `timeout`.
    pub(super) fn end_within(&self, operation: &Operation, timeout: Duration) -> Result<OperationJson, Error> {
        let patience = Patience { quiet: Duration::MAX, until: Instant::now() + timeout, seen: &|_| {} };
        self.end_of(operation, &patience, Signs::Own)
    }

    /// The operation after its end, good or bad, for as long as it makes progress.
    pub(super) fn end_of(
        &self,
        operation: &Operation,
        patience: &Patience<'_>,
        signs: Signs<'_>,
    ) -> Result<OperationJson, Error> {
        let tried = operation.what.as_str();
        let (mut watch, mut pause) = (Watch::new(patience), LOOK_FIRST);
        loop {
            let next_look = watch.deadline().min(Instant::now() + pause);
            let seen = match self.ends.wait(&operation.id, operation.stream, next_look) {
                Waited::Ended(ended) => {
                    log::debug!("lxd ended={tried:?} status={}", ended.status_code);
                    return Ok(ended);
                }
                Waited::Deaf => self.ask_for_end(tried, operation, next_look)?,
                Waited::Late => self.get(tried, operation_path(operation))?,
            };
            if seen.is_over() {
                return Ok(seen);
            }
            let costly = pause >= COSTLY_AFTER || Instant::now() >= watch.deadline();
            let sign = self.sign(operation, &seen, signs, costly);
            let made = watch.saw(sign, Instant::now());
            if let Some(error) = watch.over(tried, Instant::now()) {
                return Err(error);
            }
            (patience.seen)(&Progress { status: watch.last.status.clone(), made });
            pause = (pause * 2).min(LOOK_LAST);
        }
    }

    /// Has the server hold back its answer until the operation ends or the time is over.
    fn ask_for_end(&self, tried: &str, operation: &Operation, until: Instant) -> Result<OperationJson, Error> {
        let rest = until.saturating_duration_since(Instant::now());
        // LXD counts whole seconds, so a wait may end up to one second late. The second beyond is for its answer
        // "still running", after which the connection can be used again.
        let slice = Duration::from_secs(rest.as_millis().div_ceil(1000).try_into().unwrap_or(1));
        let path = format!("{}/wait?timeout={}", operation_path(operation), slice.as_secs());
        let waited = self.call(tried, "GET", path, Body::Empty, slice + Duration::from_secs(1));
        match waited.and_then(|response| metadata::<OperationJson>(tried, &response.body)) {
            // LXD answers 200 with an operation that goes on, or that failed; Incus 6.0 answers 500 to the one, and
            // with the failure's own status to the other. The operation itself tells.
            Err(error) if matches!(error.kind, ErrorKind::Refused(_) | ErrorKind::NotFound | ErrorKind::Conflict) => {
                self.get(tried, operation_path(operation)).map_err(|_| error)
            }
            answered => answered,
        }
    }

    /// What the operation, which was `seen` under way, shows of its progress; where that costs calls, only when it is `costly`.
    fn sign(&self, operation: &Operation, seen: &OperationJson, signs: Signs<'_>, costly: bool) -> Sign {
        let own: String = seen.metadata.progress.chars().take(STATUS).collect();
        match signs {
            Signs::Output { project, name } if costly => self.printed((project, name), operation).unwrap_or_default(),
            Signs::Output { .. } => Sign::default(),
            Signs::Image if own.is_empty() && costly => {
                Sign { status: self.others_progress().unwrap_or_default(), printed: 0 }
            }
            Signs::Own | Signs::Image => Sign { status: own, printed: 0 },
        }
    }

    /// What all operations that are under way tell of their progress.
    fn others_progress(&self) -> Option<String> {
        // By status: `running`, `success`, …
        let path = "/1.0/operations?recursion=1&all-projects=true".to_owned();
        let all: BTreeMap<String, Vec<OperationJson>> = self.get("list the operations", path).ok()?;
        let under_way = all.into_values().flatten().filter(|other| !other.is_over());
        // The server lists them in no order.
        let told: BTreeSet<String> = under_way
            .map(|other| other.metadata.progress.into())
            .filter(|progress: &String| !progress.is_empty())
            .collect();
        Some(told.into_iter().collect::<Vec<_>>().join(", ").chars().take(STATUS).collect())
    }

    /// How much a running command has printed, and its last line; `None` where the server does not tell.
    fn printed(&self, instance: (&str, &str), operation: &Operation) -> Option<Sign> {
        let look = |stream: &str| {
            let recorded = self.recorded(instance, operation, stream, STATUS)?;
            Some((whole_length(&recorded)?, last_line(&recorded)))
        };
        let ((out, status), (err, beside)) = (look("stdout")?, look("stderr")?);
        Some(Sign { status: if status.is_empty() { beside } else { status }, printed: out + err })
    }
}

/// How long the file is of which an answer is a part, or all.
fn whole_length(response: &Response) -> Option<u64> {
    let whole = response.headers.get("content-range").and_then(|range| range.rsplit('/').next());
    whole.or_else(|| response.headers.get("content-length"))?.trim().parse().ok()
}

fn last_line(response: &Response) -> String {
    let text = String::from_utf8_lossy(&response.body);
    one_line(text.trim_end().lines().next_back().unwrap_or_default().to_owned())
}

fn operation_path(operation: &Operation) -> String {
    format!("/1.0/operations/{}", path_segment(&operation.id))
}
