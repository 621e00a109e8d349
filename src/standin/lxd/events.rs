//! The event stream: a websocket that tells of instances that end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::server::Shared;
use crate::http1;
use crate::websocket::server_text;

/// How often a listener that is gone is noticed.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// Something that happened to an instance.
#[derive(Clone, Debug)]
pub struct Happened {
    pub action: &'static str,
    pub project: String,
    pub name: String,
}

/// Speaks on the connection until it or the stand-in ends.
pub(super) fn stream(mut stream: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    // The real one hashes the client's key; a client on a unix socket has no use for it.
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "standin")];
    let head = http1::encode_response(101, &headers).map_err(io::Error::other)?;
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
        for Happened { action, project, name } in news {
            let source = match project.as_str() {
                "default" => format!("/1.0/instances/{name}"),
                _ => format!("/1.0/instances/{name}?project={project}"),
            };
            let metadata = json!({"action": action, "source": source, "name": name, "project": project});
            let event = json!({"type": "lifecycle", "project": project, "location": "none", "metadata": metadata});
            stream.write_all(&server_text(event.to_string().as_bytes()))?;
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
