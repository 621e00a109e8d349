//! Waits for operations: for the event of the end if the event stream is open, else on the server's side. A long operation is
//! looked at now and then, and given up when it makes no progress.
//!
//! Signs of progress (LXD 5.0 to 6, Incus 6): the text in the operation's metadata while the server downloads, packs or unpacks
//! (keys that end in `_progress`), and the length of a command's recorded output, which can be read while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::api::{Call, Lxd};
use super::ends::Waited;
use super::transport::Response;
use super::types::{Error, ErrorKind, Operation};
use super::wire::{OperationJson, metadata, succeeded};
use crate::http1::path_segment;
use crate::text::one_line;

/// An operation is looked at after this time, then after twice as long, and so on.
const LOOK_FIRST: Duration = Duration::from_secs(2);
/// The longest pause between two looks.
const LOOK_LAST: Duration = Duration::from_secs(30);
/// The shortest pause between looks that cost additional calls: most set-ups end before the first.
const COSTLY_AFTER: Duration = Duration::from_secs(8);
/// Characters, or bytes of a command's output, kept of a status.
const STATUS: usize = 200;

/// How long an operation may take.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The longest time without progress.
    pub quiet: Duration,
    /// The deadline, whatever progress it makes.
    pub until: Instant,
    /// Called for each look that finds it under way.
    pub seen: &'a dyn Fn(&Progress),
}

/// The result of a look at an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The server's text (`rootfs: 43% (1.49MB/s)`), or the last line of a command's output. Often empty.
    pub status: String,
    /// Whether it made progress since the look before.
    pub made: bool,
}

/// Where the progress of an operation shows.
#[derive(Clone, Copy, Debug)]
pub enum Signs<'a> {
    /// In its own metadata.
    Own,
    /// In its own metadata, or, without any, in that of all operations: an operation may wait silently for an image that another
    /// one downloads or unpacks.
    Image,
    /// In the output of the command in that instance.
    Output { project: &'a str, name: &'a str },
}

/// The signs of an operation's progress: any change counts.
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

    /// Records the signs; true if they changed.
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
    /// Waits for the operation's end, no longer than `timeout` (in whole seconds, rounded up). The server forgets an operation five
    /// seconds after its end: then, and after its restart, this is `NotFound`, and only a look at the object tells the result.
    pub fn wait(&self, operation: &Operation, timeout: Duration) -> Result<(), Error> {
        let ended = self.end_within(operation, timeout)?;
        succeeded(&operation.what, &ended)
    }

    /// The same, for as long as it makes progress.
    ///
    /// # Errors
    /// [`ErrorKind::Stalled`] without progress, [`ErrorKind::Timeout`] if it takes too long. The server continues it.
    pub fn wait_patiently(
        &self,
        operation: &Operation,
        patience: &Patience<'_>,
        signs: Signs<'_>,
    ) -> Result<(), Error> {
        let ended = self.end_of(operation, patience, signs)?;
        succeeded(&operation.what, &ended)
    }

    /// The operation after its end, success or failure, within `timeout`.
    pub(super) fn end_within(&self, operation: &Operation, timeout: Duration) -> Result<OperationJson, Error> {
        let patience = Patience { quiet: Duration::MAX, until: Instant::now() + timeout, seen: &|_| {} };
        self.end_of(operation, &patience, Signs::Own)
    }

    /// The operation after its end, success or failure, as long as it makes progress.
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

    /// A long poll: the server answers when the operation ends or the time is over.
    fn ask_for_end(&self, tried: &str, operation: &Operation, until: Instant) -> Result<OperationJson, Error> {
        let rest = until.saturating_duration_since(Instant::now());
        // LXD counts whole seconds, so a wait may end up to one second late. The second beyond is for its answer
        // "still running", after which the connection can be used again.
        let slice = Duration::from_secs(rest.as_millis().div_ceil(1000).try_into().unwrap_or(1));
        let path = format!("{}/wait?timeout={}", operation_path(operation), slice.as_secs());
        let waited = self.call(Call { timeout: slice + Duration::from_secs(1), ..Call::new(tried, "GET", path) });
        match waited.and_then(|response| metadata::<OperationJson>(tried, &response.body)) {
            // LXD answers 200 with an operation that goes on, or that failed; Incus 6.0 answers 500 to the one, and
            // with the failure's own status to the other. The operation itself tells.
            Err(error) if matches!(error.kind, ErrorKind::Refused(_) | ErrorKind::NotFound | ErrorKind::Conflict) => {
                self.get(tried, operation_path(operation)).map_err(|_| error)
            }
            answered => answered,
        }
    }

    /// The signs of progress of an operation that was `seen` under way; those that cost calls only if `costly`.
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

    /// The progress texts of all operations under way.
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

    /// The length of a running command's output, and its last line; `None` if the server does not tell.
    fn printed(&self, instance: (&str, &str), operation: &Operation) -> Option<Sign> {
        let look = |stream: &str| {
            let recorded = self.recorded(instance, operation, stream, STATUS)?;
            Some((whole_length(&recorded)?, last_line(&recorded)))
        };
        let ((out, status), (err, beside)) = (look("stdout")?, look("stderr")?);
        Some(Sign { status: if status.is_empty() { beside } else { status }, printed: out + err })
    }
}

/// The length of the file that the answer has a part of, or all.
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
