//! Changes of an instance's config.

use serde_json::json;

use super::api::{CALL_TIMEOUT, Call, Lxd, instance_path};
use super::transport::Body;
use super::types::{Error, ErrorKind, Instance};
use super::wire::{Envelope, OperationJson, envelope};
use crate::model::ConfigMap;

impl Lxd {
    /// Merges `config` into the instance's own. 412 where `etag` is given and stale.
    ///
    /// LXD commits the change before it notifies the agent of a virtual machine, and answers with a failure if the agent does not
    /// listen: always for a frozen one, and in LXD 5.0.2, 5.0.3, 5.21.0 to 5.21.2 and 6.1 before the agent has started. So a
    /// failure of the server is followed by a look at the keys.
    pub fn patch_config(&self, project: &str, name: &str, config: &ConfigMap, etag: Option<&str>) -> Result<(), Error> {
        match self.try_patch_config(project, name, config, etag) {
            Err(error) if matches!(error.kind, ErrorKind::Refused(500..) | ErrorKind::OperationFailed) => {
                let has_all = |i: &Instance| config.iter().all(|(key, value)| i.config.get(key) == Some(value));
                match self.instance(project, name) {
                    Ok(Some((instance, _))) if has_all(&instance) => {
                        log::debug!("instance={name} msg=\"keys are set all the same\" error=\"{error}\"");
                        Ok(())
                    }
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    fn try_patch_config(&self, project: &str, name: &str, config: &ConfigMap, etag: Option<&str>) -> Result<(), Error> {
        let tried = format!("set keys of instance {name}");
        let body = Body::Json(json!({"config": config}).to_string().into_bytes());
        let headers = etag.map(|etag| ("If-Match", etag.to_owned())).into_iter().collect();
        let path = instance_path(project, name, "");
        let stream = self.ends.stream();
        let response = self.call(Call { headers, body, ..Call::new(&tried, "PATCH", path) })?;
        // Incus and a server with many members may do it in the background.
        match envelope::<OperationJson>(&response.body) {
            Ok(Envelope { kind, metadata: Some(operation), .. }) if kind == "async" => {
                self.wait(&operation.handle(&tried, stream), CALL_TIMEOUT)
            }
            _ => Ok(()),
        }
    }
}
