//! Asks GitHub for a runner's credentials.

use log::debug;

use super::Executor;
use crate::config::{Class, Registration};
use crate::github::{self, JitConfig};
use crate::model::Scope;
use crate::runner::provision::Credentials;
use crate::steps::making::Answer;
use crate::threads::lock;

impl Executor {
    /// Credentials for a runner of this name, or the answer that says why there are none.
    pub(super) fn register(&self, class: &Class, scope: &Scope, name: &str) -> Result<Credentials, Answer> {
        // These calls create no registration, so none can exist if they fail.
        let none_yet = |error: github::Error| Answer::NotRegistered(error.to_string());
        if self.config.registration == Registration::Jit {
            let group = self.group(scope, &class.runner_group).map_err(none_yet)?;
            let labels: Vec<String> = class.labels.iter().map(str::to_owned).collect();
            match self.generate(class, scope, name, group, &labels) {
                Ok(jit) => return Ok(Credentials::Jit { runner: jit.runner, encoded: jit.encoded }),
                Err(error) if error.kind == github::ErrorKind::Conflict => return Err(Answer::NameTaken),
                // An older GHES has no such endpoint; if the credential lacks the right, the next call says so.
                Err(error) if error.kind == github::ErrorKind::NotFound => {
                    debug!("scope={scope} msg=\"no JIT config, asking for a registration token\" error=\"{error}\"");
                }
                Err(error) if error.kind.is_refusal() => return Err(none_yet(error)),
                Err(error) => return Err(Answer::Refused(error.to_string())),
            }
        }
        let token = self.github.registration_token(scope).map_err(none_yet)?;
        Ok(Credentials::Token { token, url: self.github.web_url(scope) })
    }

    /// A JIT config. A group that was deleted, and may have been made again, is looked up again.
    fn generate(
        &self,
        class: &Class,
        scope: &Scope,
        name: &str,
        group: u64,
        labels: &[String],
    ) -> Result<JitConfig, github::Error> {
        match self.github.generate_jit_config(scope, name, group, labels) {
            Err(error) if error.kind == github::ErrorKind::NotFound => {
                let key = (scope.clone(), class.runner_group.clone());
                lock(&self.groups).remove(&key);
                match self.group(scope, &class.runner_group)? {
                    fresh if fresh != group => self.github.generate_jit_config(scope, name, fresh, labels),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    fn group(&self, scope: &Scope, name: &str) -> Result<u64, github::Error> {
        let key = (scope.clone(), name.to_owned());
        let known = || lock(&self.groups);
        if let Some(id) = known().get(&key) {
            return Ok(*id);
        }
        let id = self.github.runner_group(scope, name)?;
        known().insert(key, id);
        Ok(id)
    }
}
