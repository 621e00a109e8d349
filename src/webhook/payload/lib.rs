//! What is read of GitHub's deliveries; what it means is said in `../event.rs`. All beyond these fields is skipped,
//! however long or deep (serde_json does that without recursion).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Result;

/// Reads a `workflow_job` delivery.
///
/// # Errors
/// It is not JSON, or has another shape. So with the others below.
pub fn workflow_job(text: &str) -> Result<WorkflowJobEvent<'_>> {
    serde_json::from_str(text)
}

/// Reads a `check_run` delivery.
///
/// # Errors
/// As above.
pub fn check_run(text: &str) -> Result<CheckRunEvent<'_>> {
    serde_json::from_str(text)
}

/// Reads a `check_suite` delivery.
///
/// # Errors
/// As above.
pub fn check_suite(text: &str) -> Result<CheckSuiteEvent<'_>> {
    serde_json::from_str(text)
}

/// Reads any delivery; it only has to be an object.
///
/// # Errors
/// As above.
pub fn any(text: &str) -> Result<()> {
    serde_json::from_str::<BTreeMap<Cow<'_, str>, IgnoredAny>>(text).map(drop)
}

/// See "Webhook events and payloads" in GitHub's documentation, for this and what follows.
#[derive(Debug, Deserialize)]
pub struct WorkflowJobEvent<'a> {
    /// What happened to the job.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// The job.
    #[serde(borrow)]
    pub workflow_job: WorkflowJob<'a>,
    /// Whose job it is.
    #[serde(borrow)]
    pub repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct WorkflowJob<'a> {
    pub id: u64,
    #[serde(default)]
    pub run_id: u64,
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    #[serde(borrow, default)]
    pub labels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    pub runner_name: Option<Cow<'a, str>>,
    #[serde(default)]
    pub runner_id: Option<u64>,
    #[serde(borrow, default)]
    pub created_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct CheckRunEvent<'a> {
    #[serde(borrow)]
    pub check_run: CheckRun<'a>,
    #[serde(borrow)]
    pub repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct CheckRun<'a> {
    pub id: u64,
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    #[serde(borrow, default)]
    pub app: Option<App<'a>>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct CheckSuiteEvent<'a> {
    #[serde(borrow)]
    pub check_suite: CheckSuite<'a>,
    #[serde(borrow)]
    pub repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct CheckSuite<'a> {
    #[serde(borrow, default)]
    pub app: Option<App<'a>>,
}

#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Repository<'a> {
    #[serde(borrow)]
    pub full_name: Cow<'a, str>,
    pub private: Option<bool>,
}

/// Who made a check.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct App<'a> {
    #[serde(borrow, default)]
    pub slug: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
}

impl App<'_> {
    /// True for GitHub Actions. Older servers send no slug.
    pub fn is_actions(&self) -> bool {
        match &self.slug {
            Some(slug) => slug == "github-actions",
            None => self.name.as_deref() == Some("GitHub Actions"),
        }
    }
}
