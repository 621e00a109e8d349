//! Verifies and reads deliveries: the signature, then the content. Pure functions over hostile bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::Sha256;

use super::payload::{CheckRunEvent, CheckSuiteEvent, Repository, WorkflowJobEvent};
use crate::model::{Hint, Job, JobId, JobStatus, Labels, RepoName, RunnerId, Secret, Timestamp};
use crate::text::one_line;

/// Why a delivery is refused. The text is for the person who sets up the hook; it says nothing about the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// There is no signature.
    Missing,
    /// Only the old SHA-1 signature is there.
    OnlySha1,
    /// Not `sha256=` and 64 hexadecimal digits.
    Malformed,
    /// Not the HMAC of this body with the secret.
    Wrong,
}

impl SignatureError {
    /// The reason and the fix.
    pub const fn text(self) -> &'static str {
        match self {
            SignatureError::Missing => "no X-Hub-Signature-256: set the hook's Secret to the hooksecret of lxdrunner",
            SignatureError::OnlySha1 => {
                "only the old X-Hub-Signature (sha1): X-Hub-Signature-256 is needed; update GitHub Enterprise Server, \
                 or let the proxy in between pass that header on"
            }
            SignatureError::Malformed => "X-Hub-Signature-256 is not sha256= and 64 hexadecimal digits",
            SignatureError::Wrong => "wrong signature: the hook's Secret is not the hooksecret of lxdrunner",
        }
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for SignatureError {}

/// Checks that `body` was signed with `secret`, in constant time. `header` is the value of `X-Hub-Signature-256`, or
/// of `X-Hub-Signature` where there is only that (see "Validating webhook deliveries" in GitHub's documentation).
pub fn verify(secret: &Secret, body: &[u8], header: Option<&str>) -> Result<(), SignatureError> {
    let claimed = claimed(header)?;
    if secret.is_empty() {
        return Err(SignatureError::Wrong);
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(|_| SignatureError::Wrong)?;
    mac.update(body);
    mac.verify_slice(&claimed).map_err(|_| SignatureError::Wrong)
}

/// The signature that a header claims, `sha256=` and 64 hexadecimal digits.
pub(super) fn claimed(header: Option<&str>) -> Result<[u8; 32], SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?.trim();
    if header.starts_with("sha1=") {
        return Err(SignatureError::OnlySha1);
    }
    header.strip_prefix("sha256=").and_then(decode_hex).ok_or(SignatureError::Malformed)
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |n: usize| pair.get(n).and_then(|d| char::from(*d).to_digit(16));
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// A signed delivery that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An event to act on.
    Hint(Hint),
    /// Not of interest, and why.
    Ignored(&'static str),
}

/// A signed delivery whose body does not fit its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// Reads the body of a delivery whose `X-GitHub-Event` is `event`.
pub fn parse(event: &str, body: &[u8]) -> Result<Parsed, ParseError> {
    match event {
        "workflow_job" => workflow_job(read(event, body)?),
        "check_run" => check_run(read(event, body)?),
        "check_suite" => {
            let delivery: CheckSuiteEvent<'_> = read(event, body)?;
            if delivery.check_suite.app.is_some_and(|app| !app.is_actions()) {
                return Ok(Parsed::Ignored("a check suite of another app than GitHub Actions"));
            }
            Ok(Parsed::Hint(Hint::LookAt(name(&delivery.repository)?)))
        }
        "ping" => {
            read::<BTreeMap<Cow<'_, str>, IgnoredAny>>(event, body)?;
            Ok(Parsed::Hint(Hint::Ping))
        }
        _ => Ok(Parsed::Ignored("an event that says nothing about jobs")),
    }
}

fn read<'a, T: Deserialize<'a>>(event: &str, body: &'a [u8]) -> Result<T, ParseError> {
    // serde_json would not look into the strings that it skips.
    let text =
        std::str::from_utf8(body).map_err(|_| ParseError(format!("{event}: the body is not JSON: not UTF-8")))?;
    serde_json::from_str(text).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "has not the shape of that event",
            serde_json::error::Category::Eof => "ends too early",
            _ => "is not JSON",
        };
        // Line and column only: serde_json's own text may quote what was sent.
        ParseError(format!("{event}: the body {what} (line {}, column {})", error.line(), error.column()))
    })
}

fn name(repository: &Repository<'_>) -> Result<RepoName, ParseError> {
    let error = |_| ParseError("repository.full_name is not OWNER/NAME".to_owned());
    repository.full_name.parse().map_err(error)
}

/// GitHub registers no runner with more labels, so a job with more is not ours.
const MOST_LABELS: usize = 100;

fn workflow_job(event: WorkflowJobEvent<'_>) -> Result<Parsed, ParseError> {
    let job = event.workflow_job;
    // Both must say queued: the queued delivery of a job that waits for an approval has the status waiting.
    let status = match (event.action.as_ref(), job.status.as_ref()) {
        ("queued", "queued") => JobStatus::Queued,
        ("queued", "completed") | ("in_progress", "completed") | ("completed", _) => JobStatus::Completed,
        ("in_progress", _) => JobStatus::InProgress,
        ("queued" | "waiting", _) => JobStatus::Waiting,
        _ => return Ok(Parsed::Ignored("an action that says nothing about a job's queue")),
    };
    let labels = job.labels.unwrap_or_default();
    if labels.len() > MOST_LABELS {
        return Err(ParseError(format!("workflow_job.labels: more than {MOST_LABELS}")));
    }
    Ok(Parsed::Hint(Hint::Job(Job {
        id: JobId(job.id),
        run_id: job.run_id,
        repo: name(&event.repository)?,
        public: event.repository.private.map(|private| !private),
        labels: labels.iter().collect::<Labels>(),
        status,
        runner_name: job.runner_name.map(|name| one_line(name.into_owned())).filter(|name| !name.is_empty()),
        runner_id: job.runner_id.filter(|id| *id > 0).map(RunnerId),
        created_at: job.created_at.and_then(|text| Timestamp::parse(&text)),
        name: job.name.map(|name| one_line(name.chars().take(200).collect())).unwrap_or_default(),
    })))
}

fn check_run(event: CheckRunEvent<'_>) -> Result<Parsed, ParseError> {
    let run = event.check_run;
    if !run.app.is_some_and(|app| app.is_actions()) {
        return Ok(Parsed::Ignored("a check run of another app than GitHub Actions"));
    }
    let repo = name(&event.repository)?;
    let public = event.repository.private.map(|private| !private);
    Ok(Parsed::Hint(Hint::CheckRun { repo, public, job: JobId(run.id), completed: run.status == "completed" }))
}
