//! The event stream: a websocket that tells of instances that end, and of operations.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::server::Shared;
use super::wire::encode_response;
use lxdrunner::model::Timestamp;
use lxdrunner::websocket::server_text;

/// How often a listener that is gone is noticed.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Happened {
    /// To an instance.
    Lifecycle { action: &'static str, project: String, name: String },
    /// To an operation: as it is shown now.
    Operation { project: String, shown: Value },
}

impl Happened {
    fn kind(&self) -> &'static str {
        match self {
            Happened::Lifecycle { .. } => "lifecycle",
            Happened::Operation { .. } => "operation",
        }
    }

    fn to_json(&self) -> Value {
        let (project, metadata) = match self {
            Happened::Lifecycle { action, project, name } => {
                let source = match project.as_str() {
                    "default" => format!("/1.0/instances/{name}"),
                    _ => format!("/1.0/instances/{name}?project={project}"),
                };
                (project, json!({"action": action, "source": source, "name": name, "project": project}))
            }
            Happened::Operation { project, shown } => (project, shown.clone()),
        };
        json!({"type": self.kind(), "project": project, "location": "none", "metadata": metadata,
            "timestamp": Timestamp::now().to_rfc3339()})
    }
}

/// Speaks on the connection until it or the stand-in ends; of the events whose types the query names.
pub(super) fn stream(mut stream: &UnixStream, query: &str, shared: &Arc<Shared>) -> io::Result<()> {
    let types = query.split('&').find_map(|pair| pair.strip_prefix("type=")).unwrap_or("lifecycle,operation");
    // The real one hashes the client's key; a client on a unix socket has no use for it.
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "standin")];
    let head = encode_response(101, &headers);
    let mut told = shared.lock().happened.len();
    stream.write_all(&head)?;
    while !shared.is_stopping() && !is_closed(stream)? {
        let mut state = shared.lock();
        if state.happened.len() <= told {
            state = shared.wait(state, LOOK_AFTER);
        }
        let news: Vec<Happened> = state.happened.iter().skip(told).cloned().collect();
        drop(state);
        told += news.len();
        for event in news.iter().filter(|event| types.split(',').any(|kind| kind == event.kind())) {
            stream.write_all(&server_text(event.to_json().to_string().as_bytes()))?;
        }
    }
    Ok(())
}

fn is_closed(mut stream: &UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; 512]);
    stream.set_nonblocking(false)?;
    Ok(match read {
        Ok(0) => true,
        // Pongs and the like.
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    })
}
