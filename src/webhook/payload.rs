//! The fields of GitHub's deliveries that are read. serde_json skips all others without recursion.

use serde::Deserialize;
use std::borrow::Cow;

/// Source of all types here: "Webhook events and payloads" in GitHub's documentation.
#[derive(Debug, Deserialize)]
pub(super) struct WorkflowJobEvent<'a> {
    #[serde(borrow)]
    pub(super) action: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) workflow_job: WorkflowJob<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WorkflowJob<'a> {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) run_id: u64,
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) labels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    pub(super) runner_name: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) runner_id: Option<u64>,
    #[serde(borrow, default)]
    pub(super) created_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CheckRunEvent<'a> {
    #[serde(borrow)]
    pub(super) check_run: CheckRun<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CheckRun<'a> {
    pub(super) id: u64,
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) app: Option<App<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CheckSuiteEvent<'a> {
    #[serde(borrow)]
    pub(super) check_suite: CheckSuite<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CheckSuite<'a> {
    #[serde(borrow, default)]
    pub(super) app: Option<App<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository<'a> {
    #[serde(borrow)]
    pub(super) full_name: Cow<'a, str>,
    pub(super) private: Option<bool>,
}

/// The app that made a check.
#[derive(Debug, Deserialize)]
pub(super) struct App<'a> {
    #[serde(borrow, default)]
    pub(super) slug: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Cow<'a, str>>,
}

impl App<'_> {
    /// True for GitHub Actions. Older servers send no slug.
    pub(super) fn is_actions(&self) -> bool {
        match &self.slug {
            Some(slug) => slug == "github-actions",
            None => self.name.as_deref() == Some("GitHub Actions"),
        }
    }
}
