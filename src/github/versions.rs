//! How long GitHub accepts a version of the runner.

use serde::Deserialize;

use super::address::scope_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use crate::http1::path_segment;
use crate::model::{RunnerEnd, Scope, Timestamp};

#[derive(Deserialize)]
struct EndWire {
    #[serde(default)]
    registration_deprecates_at: Option<String>,
    #[serde(default)]
    runtime_deprecates_at: Option<String>,
}

impl GitHub {
    /// When runners of this version will be refused ("Get runner version end-of-life schedule"); `None` on 404: Enterprise
    /// Servers and some plans do not tell.
    ///
    /// # Errors
    /// As for every call.
    pub fn runner_end(&self, scope: &Scope, version: &str) -> Result<Option<RunnerEnd>, Error> {
        let tried = format!("ask how long runner {version} is taken by {scope}");
        let path = format!("{}/actions/runners/deprecations/{}", scope_path(scope), path_segment(version));
        match self.http.get::<EndWire>(&tried, Purpose::Ask, &path) {
            Ok(wire) => {
                let moment = |text: Option<String>| text.as_deref().and_then(Timestamp::parse);
                let ends = [moment(wire.registration_deprecates_at), moment(wire.runtime_deprecates_at)];
                // Each job's runner is a new registration, so the earlier of the two counts.
                Ok(Some(RunnerEnd { at: ends.into_iter().flatten().min() }))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
