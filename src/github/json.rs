//! GitHub's answers as they lie on the wire, and how they become our words. Only the fields that we use; whatever may
//! be missing on an older server has a default.

use std::fmt;

use serde::Deserialize;

use super::types::{Download, Repo};
use crate::model::{Job, JobId, JobStatus, RepoName, Runner, RunnerId, Secret, Timestamp};
use crate::text::Line;

/// The body of an error answer.
#[derive(Deserialize)]
pub(super) struct Refusal {
    message: String,
    #[serde(default)]
    documentation_url: Option<String>,
    #[serde(default)]
    errors: Option<serde_json::Value>,
}

impl Refusal {
    /// True where GitHub's reference goes to its page about rate limits (of secondary limits there is no other sign
    /// than this and the message).
    pub fn is_about_limits(&self) -> bool {
        self.documentation_url.as_deref().is_some_and(|url| url.contains("rate-limit"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => Some(text.clone()),
            other => other.get("message").or_else(|| other.get("code"))?.as_str().map(str::to_owned),
        };
        let details: Vec<String> = match &self.errors {
            Some(serde_json::Value::Array(errors)) => errors.iter().filter_map(text).take(5).collect(),
            Some(other) => text(other).into_iter().collect(),
            None => Vec::new(),
        };
        if !details.is_empty() {
            write!(f, ": {}", details.join("; "))?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
pub(super) struct User {
    pub login: Line,
}

#[derive(Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    pub hooks: Vec<Line>,
}

#[derive(Deserialize)]
pub(super) struct Org {
    pub login: Line,
}

#[derive(Deserialize)]
pub(super) struct RepoWire {
    full_name: String,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    pushed_at: Option<String>,
    #[serde(default)]
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
struct Permissions {
    #[serde(default)]
    admin: bool,
}

impl RepoWire {
    /// `None` where the name is not one that GitHub allows.
    pub fn into_repo(self) -> Option<Repo> {
        let name: RepoName = self.full_name.parse().ok()?;
        let admin = self.permissions.is_some_and(|permissions| permissions.admin);
        let pushed_at = self.pushed_at.as_deref().and_then(Timestamp::parse);
        Some(Repo { name, public: !self.private, archived: self.archived, admin, pushed_at })
    }
}

#[derive(Deserialize)]
pub(super) struct RunPage {
    pub workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
pub(super) struct Run {
    pub id: u64,
    #[serde(default)]
    repository: Option<RunRepository>,
}

#[derive(Deserialize)]
struct RunRepository {
    #[serde(default)]
    private: Option<bool>,
}

impl Run {
    /// Whether everybody sees its repository, where the listing tells.
    pub fn public(&self) -> Option<bool> {
        self.repository.as_ref()?.private.map(|private| !private)
    }
}

#[derive(Deserialize)]
pub(super) struct JobPage {
    pub jobs: Vec<JobWire>,
}

#[derive(Deserialize)]
pub(super) struct JobWire {
    id: u64,
    run_id: u64,
    status: String,
    #[serde(default)]
    labels: Option<Vec<Line>>,
    #[serde(default)]
    runner_name: Option<Line>,
    #[serde(default)]
    runner_id: Option<u64>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    name: Option<Line>,
}

impl JobWire {
    pub fn into_job(self, repo: &RepoName, public: Option<bool>) -> Job {
        let status = match self.status.as_str() {
            "queued" => JobStatus::Queued,
            "in_progress" => JobStatus::InProgress,
            "completed" => JobStatus::Completed,
            // waiting, pending, requested, and what is yet to be invented: no runner would get it.
            _ => JobStatus::Waiting,
        };
        // Older servers tell no time of creation; a queued job's start is the time at which it was queued.
        let created = self.created_at.or(self.started_at);
        Job {
            id: JobId(self.id),
            run_id: self.run_id,
            repo: repo.clone(),
            public,
            labels: self.labels.unwrap_or_default().iter().map(|label| &**label).collect(),
            status,
            runner_name: self.runner_name.map(String::from).filter(|name| !name.is_empty()),
            runner_id: self.runner_id.filter(|id| *id > 0).map(RunnerId),
            created_at: created.as_deref().and_then(Timestamp::parse),
            name: self.name.unwrap_or_default().into(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RunnerPage {
    pub runners: Vec<RunnerWire>,
}

#[derive(Deserialize)]
pub(super) struct RunnerWire {
    id: u64,
    name: Line,
    #[serde(default)]
    status: String,
    #[serde(default)]
    busy: bool,
    #[serde(default)]
    labels: Vec<LabelWire>,
}

#[derive(Deserialize)]
struct LabelWire {
    name: Line,
}

impl RunnerWire {
    pub fn into_runner(self) -> Runner {
        Runner {
            id: RunnerId(self.id),
            name: self.name.into(),
            online: self.status == "online",
            busy: self.busy,
            labels: self.labels.iter().map(|label| &*label.name).collect(),
        }
    }
}

/// Not `Debug`: it carries the credentials of a runner.
#[derive(Deserialize)]
pub(super) struct Jit {
    pub runner: JitRunner,
    pub encoded_jit_config: String,
}

#[derive(Deserialize)]
pub(super) struct JitRunner {
    pub id: u64,
}

/// Not `Debug`: it is a credential.
#[derive(Deserialize)]
pub(super) struct Token {
    pub token: String,
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DownloadWire {
    os: Line,
    architecture: Line,
    download_url: Line,
    filename: Line,
    #[serde(default)]
    sha256_checksum: Option<Line>,
    #[serde(default)]
    temp_download_token: Option<String>,
}

impl From<DownloadWire> for Download {
    fn from(wire: DownloadWire) -> Download {
        fn filled<T: Into<String>>(text: Option<T>) -> Option<String> {
            text.map(Into::into).filter(|text| !text.is_empty())
        }
        Download {
            os: wire.os.into(),
            architecture: wire.architecture.into(),
            url: wire.download_url.into(),
            filename: wire.filename.into(),
            sha256: filled(wire.sha256_checksum).map(|sum| sum.to_lowercase()),
            token: filled(wire.temp_download_token).map(Secret::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_details() {
        let check = |json: &str, text: &str| {
            let refusal: Refusal = serde_json::from_str(json).unwrap();
            assert_eq!(refusal.to_string(), text);
        };
        check(r#"{"message":"Not Found"}"#, "Not Found");
        check(r#"{"message":"Invalid","errors":["a","b"]}"#, "Invalid: a; b");
        check(r#"{"message":"Invalid","errors":[{"message":"a"},{"code":"missing"},{},7]}"#, "Invalid: a; missing");
        check(r#"{"message":"Invalid","errors":"Only one"}"#, "Invalid: Only one");
        check(r#"{"message":"Invalid","errors":null}"#, "Invalid");
    }

    #[test]
    fn a_job_is_read_in_every_state() {
        #[track_caller]
        fn check(status: &str, expected: JobStatus) {
            let json = format!(r#"{{"id":7,"run_id":3,"status":"{status}","labels":["Linux"],"runner_name":""}}"#);
            let wire: JobWire = serde_json::from_str(&json).unwrap();
            let job = wire.into_job(&"a/b".parse().unwrap(), Some(true));
            assert_eq!((job.status, job.runner_name, job.public), (expected, None, Some(true)));
            assert_eq!(job.labels.to_string(), "linux");
        }
        check("queued", JobStatus::Queued);
        check("waiting", JobStatus::Waiting);
        check("pending", JobStatus::Waiting);
        check("requested", JobStatus::Waiting);
        check("in_progress", JobStatus::InProgress);
        check("completed", JobStatus::Completed);
        check("dreaming", JobStatus::Waiting);
    }
}
