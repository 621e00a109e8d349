//! Typed calls of LXD's REST API.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::json;

use super::ends::Ends;
use super::transport::{Body, Failure, Keep, Request, Response, Transport, Upgraded};
use super::types::{Error, ErrorKind, Instance, NewInstance, Operation, Server, Source};
use super::wire::{InstanceJson, OperationJson, ServerJson, StateJson, metadata, refusal};
use crate::http1::{path_segment, query_value};
use crate::model::Product;

/// Limit for a call that the daemon answers immediately.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The API extension of servers that can start an instance as they create it. Others ignore the request to start.
const STARTS_AT_CREATION: &str = "instance_create_start";
/// The API extension of servers that know the instance's key `cluster.evacuate`.
const EVACUATES: &str = "clustering_evacuation";

/// A call of the API.
pub(super) struct Call<'a> {
    /// For people: `create instance lxdrunner-7-1`.
    pub tried: &'a str,
    pub method: &'static str,
    /// Path and query, percent-encoded.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body<'a>,
    /// The part of the answer's body that is wanted.
    pub keep: Keep,
    pub timeout: Duration,
}

impl<'a> Call<'a> {
    /// A call without headers and body, within [`CALL_TIMEOUT`], of whose answer all is wanted.
    pub fn new(tried: &'a str, method: &'static str, target: String) -> Call<'a> {
        let (headers, body, keep, timeout) = (Vec::new(), Body::Empty, Keep::All, CALL_TIMEOUT);
        Call { tried, method, target, headers, body, keep, timeout }
    }

    /// A GET of the last `limit` bytes. A server without ranges sends all; the end is kept.
    pub fn tail(tried: &'a str, target: String, limit: usize) -> Call<'a> {
        let range = vec![("Range", format!("bytes=-{limit}"))];
        Call { headers: range, keep: Keep::Tail(limit), ..Call::new(tried, "GET", target) }
    }
}

/// A client of one LXD daemon. Cheap to share between threads; it keeps idle connections only.
#[derive(Debug)]
pub struct Lxd {
    transport: Transport,
    pub(super) ends: Arc<Ends>,
    /// By the last [`Lxd::server`]; false before.
    starts_at_creation: AtomicBool,
    /// By the first answer; another product has another socket.
    product: OnceLock<Product>,
    shared: AtomicBool,
    evacuates: AtomicBool,
}

impl Lxd {
    /// A client of the daemon behind `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Lxd {
        Lxd {
            transport: Transport::new(socket),
            ends: Arc::default(),
            starts_at_creation: AtomicBool::new(false),
            product: OnceLock::new(),
            shared: AtomicBool::new(true),
            evacuates: AtomicBool::new(false),
        }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        self.transport.socket()
    }

    /// Whether other machines use this LXD, too, as in a cluster; true until `server` was asked.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether it knows `cluster.evacuate`; false until `server` was asked.
    pub fn evacuates(&self) -> bool {
        self.evacuates.load(Ordering::Relaxed)
    }

    /// The server's product, version and abilities.
    pub fn server(&self) -> Result<Server, Error> {
        let server: ServerJson = self.get("ask LXD who it is", "/1.0".to_owned())?;
        let product = *self.product.get_or_init(|| Product::named(&server.environment.server));
        let has = |wanted: &str| server.api_extensions.iter().any(|extension| extension == wanted);
        self.starts_at_creation.store(has(STARTS_AT_CREATION), Ordering::Relaxed);
        self.evacuates.store(has(EVACUATES), Ordering::Relaxed);
        self.shared.store(server.environment.server_clustered, Ordering::Relaxed);
        Ok(Server {
            product,
            virtual_machines: server.environment.runs_virtual_machines(),
            version: server.environment.server_version.into(),
            trusted: server.auth == "trusted",
            clustered: server.environment.server_clustered,
            extensions: server.api_extensions,
            architectures: server.environment.architectures.into_iter().map(String::from).collect(),
        })
    }

    /// LXD or Incus, by its answer, or by its socket's path if it does not answer.
    pub fn product(&self) -> Product {
        let known = self.product.get().copied().or_else(|| self.server().ok().map(|server| server.product));
        known.unwrap_or_else(|| Product::of_socket(self.socket()))
    }

    /// All instances of `project` whose config has the key `user.lxdrunner.owner`=`owner`. The server filters if it
    /// can, and the answer is filtered again here. A project that does not exist may answer as an empty one (LXD 5.0).
    pub fn instances(&self, project: &str, owner: &str) -> Result<Vec<Instance>, Error> {
        let tried = format!("list the instances of project {project}");
        let all = format!("/1.0/instances?recursion=1&project={}", query_value(project));
        // The filter language has no common quoting, so only a plain word is used.
        let plain = !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let filter = format!("config.{} eq {owner}", crate::model::keys::OWNER);
        let listed: Result<Vec<InstanceJson>, Error> = match plain {
            true => match self.get(&tried, format!("{all}&filter={}", query_value(&filter))) {
                // A server that does not understand the filter refuses with 400 or 500.
                Err(Error { kind: ErrorKind::Refused(_), .. }) => self.get(&tried, all),
                other => other,
            },
            false => self.get(&tried, all),
        };
        let instances = listed?.into_iter().map(|i| i.into_instance(project));
        let ours = |i: &Instance| i.config.get(crate::model::keys::OWNER).is_some_and(|o| o == owner);
        Ok(instances.filter(ours).collect())
    }

    /// One instance and its ETag; `None` where there is none.
    pub fn instance(&self, project: &str, name: &str) -> Result<Option<(Instance, String)>, Error> {
        let tried = format!("look at instance {name}");
        let found = unless_missing(self.call(Call::new(&tried, "GET", instance_path(project, name, ""))))?;
        let Some(response) = found else { return Ok(None) };
        let etag = response.headers.get("etag").unwrap_or_default().to_owned();
        let instance: InstanceJson = metadata(&tried, &response.body)?;
        Ok(Some((instance.into_instance(project), etag)))
    }

    /// Creates an instance, which is stopped after the operation. `target` is a cluster member, `@group`, or empty. A taken name
    /// fails in the operation; an image or profile that does not exist fails here.
    pub fn create(&self, project: &str, target: &str, new: &NewInstance) -> Result<Operation, Error> {
        self.create_as(project, target, new, false)
    }

    /// The same, and starts it in the same operation if the server can: true then. False until [`Lxd::server`] was asked.
    pub fn create_started(&self, project: &str, target: &str, new: &NewInstance) -> Result<(Operation, bool), Error> {
        let starts = self.starts_at_creation.load(Ordering::Relaxed);
        Ok((self.create_as(project, target, new, starts)?, starts))
    }

    fn create_as(&self, project: &str, target: &str, new: &NewInstance, start: bool) -> Result<Operation, Error> {
        let source = match &new.source {
            Source::Alias(alias) => json!({"type": "image", "alias": alias}),
            Source::Fingerprint(fingerprint) => json!({"type": "image", "fingerprint": fingerprint}),
            // LXD copies the id mapping of the root, so that the first start has nothing to remap, and gives the copy a
            // network card's address and ids of its own.
            Source::Copy(instance) => json!({"type": "copy", "source": instance}),
            Source::Remote { server, protocol, alias } => {
                json!({"type": "image", "mode": "pull", "server": server, "protocol": protocol, "alias": alias})
            }
        };
        let mut body = json!({
            "name": new.name,
            "type": new.kind.as_str(),
            "source": source,
            "profiles": new.profiles,
            "config": new.config,
            "devices": new.devices,
            "ephemeral": new.ephemeral,
        });
        if let Some(body) = body.as_object_mut().filter(|_| start) {
            body.insert("start".to_owned(), true.into());
        }
        let mut path = format!("/1.0/instances?project={}", query_value(project));
        if !target.is_empty() {
            path = format!("{path}&target={}", query_value(target));
        }
        self.start_operation(&format!("create instance {}", new.name), "POST", path, Some(&body))
    }

    /// `start`, `stop`, `freeze`, `unfreeze`.
    pub fn set_state(&self, project: &str, name: &str, action: &str, force: bool) -> Result<Operation, Error> {
        let body = json!({"action": action, "force": force, "timeout": -1});
        let path = instance_path(project, name, "/state");
        self.start_operation(&format!("{action} instance {name}"), "PUT", path, Some(&body))
    }

    /// The number of processes in it; -1 if a virtual machine's agent does not answer yet, 0 if it is stopped.
    pub fn processes(&self, project: &str, name: &str) -> Result<i64, Error> {
        let tried = format!("ask for the state of instance {name}");
        let state: StateJson = self.get(&tried, instance_path(project, name, "/state"))?;
        Ok(state.processes)
    }

    /// Deletes a stopped instance; a running one is refused with 400.
    pub fn delete(&self, project: &str, name: &str) -> Result<Operation, Error> {
        self.start_operation(&format!("delete instance {name}"), "DELETE", instance_path(project, name, ""), None)
    }

    pub(super) fn start_operation(
        &self,
        tried: &str,
        method: &'static str,
        path: String,
        body: Option<&serde_json::Value>,
    ) -> Result<Operation, Error> {
        let body = body.map_or(Body::Empty, |body| Body::Json(body.to_string().into_bytes()));
        let stream = self.ends.stream();
        let response = self.call(Call { body, ..Call::new(tried, method, path) })?;
        let operation: OperationJson = metadata(tried, &response.body)?;
        Ok(operation.handle(tried, stream))
    }

    /// A GET; returns the metadata of the answer.
    pub(super) fn get<T: DeserializeOwned>(&self, tried: &str, path: String) -> Result<T, Error> {
        metadata(tried, &self.call(Call::new(tried, "GET", path))?.body)
    }

    /// The same, with `None` for 404.
    pub(super) fn find<T: DeserializeOwned>(&self, tried: &str, path: String) -> Result<Option<T>, Error> {
        unless_missing(self.get(tried, path))
    }

    /// Makes one call and logs it; an error status is an error.
    pub(super) fn call(&self, call: Call<'_>) -> Result<Response, Error> {
        let Call { tried, timeout, method, target, headers, body, keep } = call;
        let began = Instant::now();
        let request = Request { method, target, headers, body, keep, deadline: began + timeout };
        let answer = self.transport.exchange(request);
        let took = began.elapsed();
        match answer {
            Ok(response) => {
                log::debug!("lxd call={tried:?} status={} took={took:.1?}", response.status);
                if response.status < 400 { Ok(response) } else { Err(refusal(tried, response.status, &response.body)) }
            }
            Err(failure) => {
                log::debug!("lxd call={tried:?} failed={failure:?} took={took:.1?}");
                Err(self.failed(tried, failure, timeout))
            }
        }
    }

    /// Opens a connection for another protocol.
    pub(super) fn upgrade(
        &self,
        tried: &str,
        target: &str,
        headers: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<Upgraded, Error> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        self.transport.upgrade(target, headers, deadline).map_err(|failure| self.failed(tried, failure, timeout))
    }

    fn failed(&self, tried: &str, failure: Failure, timeout: Duration) -> Error {
        let socket = self.socket().display();
        let product = self.product.get().copied().unwrap_or_else(|| Product::of_socket(self.socket()));
        let (kind, message) = match &failure {
            Failure::Connect(error) => {
                let fix = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        let group = product.group();
                        format!("add the user that lxdrunner runs as to the group that owns the socket ({group})")
                    }
                    io::ErrorKind::NotFound => {
                        format!("is {product} installed and running? `socket` in the config says where it is")
                    }
                    _ => format!("is {product} running?"),
                };
                (ErrorKind::Unreachable, format!("{failure} ({socket}); {fix}"))
            }
            Failure::Broken(_) => (ErrorKind::Unreachable, format!("{failure} ({socket}); was {product} restarted?")),
            Failure::Timeout => {
                let fix = "see its log; a restart of it leaves instances running";
                let what = format!("{failure} of {timeout:.1?} ({socket})");
                (ErrorKind::Timeout, format!("{what}; {product} is stuck or overloaded: {fix}"))
            }
            Failure::Http(_) | Failure::TooLong(_) => (ErrorKind::Malformed, format!("{failure} ({socket})")),
            Failure::Content(_) => (ErrorKind::Content, failure.to_string()),
        };
        Error { source: Some(Box::new(failure)), ..Error::new(tried, kind, message) }
    }
}

/// `None` for 404.
pub(super) fn unless_missing<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error { kind: ErrorKind::NotFound, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// `/1.0/instances/NAME…?project=PROJECT`
pub(super) fn instance_path(project: &str, name: &str, below: &str) -> String {
    format!("/1.0/instances/{}{below}?project={}", path_segment(name), query_value(project))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_not_reaching_the_daemon_has_its_fix() {
        let check = |kind: io::ErrorKind, fix: &str| {
            let failure = Failure::Connect(kind.into());
            let error = Lxd::new("/run/x.socket").failed("ask", failure, CALL_TIMEOUT);
            let incus = Lxd::new("/run/incus/x.socket").failed("ask", Failure::Connect(kind.into()), CALL_TIMEOUT);
            assert!(!incus.message.contains("LXD") && !incus.message.contains("(lxd)"), "{incus}");
            assert_eq!(error.kind, ErrorKind::Unreachable);
            assert!(error.message.contains(fix) && error.message.contains("/run/x.socket"), "{error}");
            assert!(std::error::Error::source(&error).is_some_and(|source| source.source().is_some()));
        };
        check(io::ErrorKind::PermissionDenied, "group");
        check(io::ErrorKind::NotFound, "`socket`");
        check(io::ErrorKind::ConnectionRefused, "running?");
    }
}
