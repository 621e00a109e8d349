//! LXD's event stream, a websocket over the daemon's socket: ends of instances and operations.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::api::Lxd;
use super::ends::Ends;
use super::transport::Upgraded;
use super::types::{Error, ErrorKind};
use super::wire::OperationJson;
use crate::websocket::{Message, Reader, pong};

/// Limit for the daemon to accept the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for sending a pong: a daemon that does not take it is stuck.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
const TRIED: &str = "listen to LXD's events";

/// An instance stopped or was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub instance: String,
    /// LXD's name of the event, for example `instance-shutdown`.
    pub action: String,
}

/// An open stream. It does not report earlier events: list the instances after opening it.
pub struct Events {
    stream: UnixStream,
    reader: Reader,
    ends: Arc<Ends>,
    /// Its number among all streams; 0 before it is read.
    number: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "metadata", rename_all = "lowercase")]
enum EventJson {
    Lifecycle(LifecycleJson),
    Operation(OperationJson),
}

#[derive(Deserialize)]
struct LifecycleJson {
    #[serde(default)]
    action: String,
    /// `/1.0/instances/NAME?project=PROJECT`
    #[serde(default)]
    source: String,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.ends.closed(self.number);
    }
}

impl Lxd {
    /// Opens the stream of events of instances and operations, in all projects. While it is read ([`Events::next_end`]), it
    /// reports the ends of operations to waiters of this client.
    ///
    /// # Errors
    /// As of any call; `Refused` if the daemon does not accept.
    pub fn events(&self) -> Result<Events, Error> {
        let target = "/1.0/events?type=lifecycle,operation&all-projects=true";
        // The key is for caching proxies (RFC 6455, 1.3): any value works here.
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "bHhkcnVubmVyLWxpc3RlbnM="),
        ];
        match self.upgrade(TRIED, target, &headers, Instant::now() + OPEN_TIMEOUT)? {
            Upgraded::Yes { stream, rest } => {
                let mut reader = Reader::default();
                reader.feed(&rest);
                Ok(Events { stream, reader, ends: Arc::clone(&self.ends), number: 0 })
            }
            Upgraded::No { status } => {
                let message = format!("it answers {status} instead of opening a websocket");
                Err(Error::new(TRIED, ErrorKind::Refused(status), message))
            }
        }
    }
}

impl Events {
    /// Waits for the next end of an instance, without a limit. Skips other events.
    ///
    /// # Errors
    /// The stream ended, as it does when the daemon is restarted: open another one.
    pub fn next_end(&mut self) -> Result<Ended, Error> {
        let broken = |message: String, kind: ErrorKind| Error::new(TRIED, kind, message);
        let mut block = [0; 4096];
        if self.number == 0 {
            self.number = self.ends.opened();
        }
        loop {
            while let Some(message) = self.reader.take().map_err(|e| broken(e.to_string(), ErrorKind::Malformed))? {
                match message {
                    Message::Data(bytes) => match serde_json::from_slice(&bytes) {
                        Ok(EventJson::Lifecycle(event)) => {
                            if let Some(ended) = understand(event) {
                                return Ok(ended);
                            }
                        }
                        Ok(EventJson::Operation(operation)) if operation.is_over() => self.ends.tell(operation),
                        // Not an end, or another kind of event.
                        Ok(EventJson::Operation(_)) | Err(_) => {}
                    },
                    Message::Ping(payload) => self
                        .answer(&pong(&payload))
                        .map_err(|e| broken(format!("cannot answer its ping: {e}"), ErrorKind::Unreachable))?,
                    Message::Close => return Err(broken("the daemon closed it".to_owned(), ErrorKind::Unreachable)),
                }
            }
            match self.stream.read(&mut block) {
                Ok(0) => return Err(broken("the daemon is gone".to_owned(), ErrorKind::Unreachable)),
                Ok(read) => self.reader.feed(block.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error.to_string(), ErrorKind::Unreachable)),
            }
        }
    }

    fn answer(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PONG_TIMEOUT))?;
        self.stream.write_all(frame)
    }
}

/// `None` for other events.
fn understand(event: LifecycleJson) -> Option<Ended> {
    let LifecycleJson { action, source } = event;
    let ends = ["instance-shutdown", "instance-stopped", "instance-deleted"];
    if !ends.contains(&action.as_str()) {
        return None;
    }
    let path = source.split('?').next().unwrap_or_default();
    let instance = path.rsplit('/').next().filter(|name| !name.is_empty())?.to_owned();
    Some(Ended { instance, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_instances_end_is_understood() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let ended = match serde_json::from_str(text) {
                Ok(EventJson::Lifecycle(event)) => understand(event),
                _ => None,
            };
            let seen = ended.as_ref().map(|e| (e.instance.as_str(), e.action.as_str()));
            assert_eq!(seen, expected, "{text}");
        };
        check(
            r#"{"type":"lifecycle","metadata":{"action":"instance-shutdown","source":"/1.0/instances/a-1-1?project=p"}}"#,
            Some(("a-1-1", "instance-shutdown")),
        );
        check(
            r#"{"type":"lifecycle","metadata":{"action":"instance-deleted","source":"/1.0/instances/a-1-1","context":{"x":[1]}}}"#,
            Some(("a-1-1", "instance-deleted")),
        );
        check(r#"{"type":"lifecycle","metadata":{"action":"instance-started","source":"/1.0/instances/a"}}"#, None);
        check(r#"{"type":"logging","metadata":{"action":"instance-deleted","source":"/1.0/instances/a"}}"#, None);
        check(r#"{"type":"lifecycle","metadata":{"action":"instance-deleted","source":""}}"#, None);
        check(r#"{"type":"lifecycle"}"#, None);
        check("nonsense", None);
    }
}
