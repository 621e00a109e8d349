//! LXD's JSON, and its envelope.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::types::{Error, ErrorKind, Instance, Operation};
use crate::model::{ConfigMap, InstanceStatus, InstanceType, Timestamp};
use crate::text::{Line, one_line};

/// The envelope around every answer but a file's.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    /// `sync`, `async` or `error`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub error: Line,
    #[serde(default)]
    pub error_code: u16,
    pub metadata: Option<T>,
}

#[derive(Deserialize)]
pub(super) struct ServerJson {
    #[serde(default)]
    pub auth: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub api_extensions: Vec<String>,
    #[serde(default)]
    pub environment: EnvironmentJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct EnvironmentJson {
    pub server: Line,
    pub server_version: Line,
    pub server_name: Line,
    pub server_clustered: bool,
    /// `lxc`, or `lxc | qemu`.
    pub driver: String,
    /// Not known to LXD 5.0.
    #[serde(deserialize_with = "null_as_default")]
    pub instance_types: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub architectures: Vec<Line>,
}

impl EnvironmentJson {
    /// Whether it runs virtual machines; `None` where it does not say.
    pub fn runs_virtual_machines(&self) -> Option<bool> {
        match self.driver.as_str() {
            _ if !self.instance_types.is_empty() => Some(self.instance_types.iter().any(|t| t == "virtual-machine")),
            "" => None,
            driver => Some(driver.split('|').any(|one| one.trim() == "qemu")),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct InstanceJson {
    name: Line,
    #[serde(default)]
    project: Line,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    location: Line,
    #[serde(default, deserialize_with = "wanted_config")]
    config: ConfigMap,
}

/// Keys of LXD's own that are kept: the image's fingerprint, and the id mapping of the root.
const OF_LXD: [&str; 2] = ["volatile.base_image", "volatile.last_state.idmap"];

/// The used part of an instance's config: LXD keeps some twenty keys of its own there, for every instance of a listing.
fn wanted_config<'de, D: Deserializer<'de>>(input: D) -> Result<ConfigMap, D::Error> {
    struct Wanted;
    impl<'de> Visitor<'de> for Wanted {
        type Value = ConfigMap;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of config keys, or null")
        }

        fn visit_unit<E>(self) -> Result<ConfigMap, E> {
            Ok(ConfigMap::new())
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ConfigMap, M::Error> {
            let mut wanted = ConfigMap::new();
            while let Some(Key(key)) = map.next_key()? {
                if key.starts_with("user.") || OF_LXD.contains(&key.as_ref()) {
                    wanted.insert(one_line(key.into_owned()), map.next_value::<Line>()?.into());
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(wanted)
        }
    }
    #[derive(Deserialize)]
    struct Key<'k>(#[serde(borrow)] Cow<'k, str>);
    input.deserialize_any(Wanted)
}

impl InstanceJson {
    /// `project` is the one that was asked for; old servers omit it.
    pub fn into_instance(self, project: &str) -> Instance {
        Instance {
            name: self.name.into(),
            project: if self.project.is_empty() { project.to_owned() } else { self.project.into() },
            kind: match self.kind.as_str() {
                "virtual-machine" => InstanceType::VirtualMachine,
                _ => InstanceType::Container,
            },
            status: match self.status.as_str() {
                "Running" => InstanceStatus::Running,
                "Stopped" => InstanceStatus::Stopped,
                "Frozen" => InstanceStatus::Frozen,
                _ => InstanceStatus::Other,
            },
            ephemeral: self.ephemeral,
            created_at: Timestamp::parse(&self.created_at),
            // A server outside a cluster calls itself "none".
            location: if self.location == "none" { String::new() } else { self.location.into() },
            config: self.config,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct StateJson {
    #[serde(default)]
    pub processes: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct OperationJson {
    pub id: String,
    pub status_code: u16,
    #[serde(default, deserialize_with = "null_as_default")]
    pub err: Line,
    #[serde(default, deserialize_with = "lenient")]
    pub metadata: OperationMetadata,
}

/// The metadata of an operation of exec, or of an image's fetch; others differ.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OperationMetadata {
    #[serde(rename = "return")]
    pub code: Option<i64>,
    /// Stream's number → URL of what was recorded.
    #[serde(deserialize_with = "null_as_default")]
    pub output: ConfigMap,
    /// Of an image that was fetched.
    pub fingerprint: Line,
    /// The text of its progress.
    #[serde(skip)]
    pub progress: Line,
}

impl OperationJson {
    /// LXD's status codes: 1xx under way, 2xx and above ended.
    pub fn is_over(&self) -> bool {
        self.status_code >= 200
    }

    /// `stream` is the event stream that was open before the operation began.
    pub fn handle(&self, what: &str, stream: u64) -> Operation {
        Operation { id: self.id.clone(), what: what.to_owned(), stream }
    }
}

/// LXD writes `null` for an empty list or map.
pub(super) fn null_as_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// An operation's metadata may have any shape; other shapes are ignored.
fn lenient<'de, D: Deserializer<'de>>(input: D) -> Result<OperationMetadata, D::Error> {
    let any = serde_json::Value::deserialize(input)?;
    // `download_progress`, `create_image_from_container_pack_progress`, …
    let told = any.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_progress"));
    let told: Vec<&str> = told.filter_map(|(_, text)| text.as_str()).collect();
    let progress = Line::from(told.join(", "));
    let known: OperationMetadata = serde_json::from_value(any).unwrap_or_default();
    Ok(OperationMetadata { progress, ..known })
}

/// The result of an ended operation.
pub(super) fn succeeded(tried: &str, ended: &OperationJson) -> Result<(), Error> {
    if ended.status_code == 200 {
        return Ok(());
    }
    let message = if ended.err.is_empty() { "it failed without a reason".to_owned() } else { ended.err.to_string() };
    Err(Error::new(tried, ErrorKind::OperationFailed, message))
}

/// An answer's body.
pub(super) fn envelope<T: DeserializeOwned>(body: &[u8]) -> Result<Envelope<T>, serde_json::Error> {
    serde_json::from_slice(body)
}

/// The metadata of an answer.
pub(super) fn metadata<T: DeserializeOwned>(tried: &str, body: &[u8]) -> Result<T, Error> {
    match envelope::<T>(body) {
        // A long poll sends its 200 before it knows the result.
        Ok(answer) if answer.kind == "error" => Err(refusal(tried, answer.error_code, body)),
        Ok(Envelope { metadata: Some(metadata), .. }) => Ok(metadata),
        Ok(_) => Err(Error::new(tried, ErrorKind::Malformed, "the answer has no metadata")),
        Err(error) => {
            let message = format!("the answer is not LXD's JSON: {error}");
            Err(Error { source: Some(Box::new(error)), ..Error::new(tried, ErrorKind::Malformed, message) })
        }
    }
}

/// The error of an error answer. `status` is HTTP's, or the envelope's if HTTP's was sent too early.
pub(super) fn refusal(tried: &str, status: u16, body: &[u8]) -> Error {
    let kind = match status {
        401 | 403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        412 => ErrorKind::PreconditionFailed,
        other => ErrorKind::Refused(other),
    };
    let message = match envelope::<IgnoredAny>(body) {
        Ok(answer) if !answer.error.is_empty() => format!("{} (HTTP {status})", answer.error),
        _ => format!("HTTP {status}"),
    };
    Error::new(tried, kind, message)
}
