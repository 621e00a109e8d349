//! Connections: accept, parse, answer. Threads are bounded, bodies are capped.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::answer::{Answer, Ask};
use super::exec::ExecHook;
use super::faults::{Call, Fault, Faults};
use super::state::State;
use super::wire::{encode_chunk, encode_response, split_target};
use super::{Options, files, images, instances, objects, operations};
use lxdrunner::http1::{self, Event, Head, Parser, Start};

/// Connections at once; more wait until one is closed.
const MAX_CONNECTIONS: usize = 128;
/// Bytes of a request's body: a runner package and then some.
const MAX_BODY: usize = 512 * 1024 * 1024;
/// Bodies longer than this are sent in chunks, as Go does.
const CHUNKED_FROM: usize = 2048;

/// What all threads of a stand-in share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told after every change of the state.
    pub changed: Condvar,
    pub faults: Faults,
    pub exec: Box<ExecHook>,
    pub stopping: AtomicBool,
    connections: Mutex<Connections>,
    closed: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, UnixStream>,
}

impl Shared {
    pub fn new(options: Options) -> Shared {
        Shared {
            state: Mutex::new(State::new(&options)),
            changed: Condvar::new(),
            faults: Faults::default(),
            exec: options.exec,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            closed: Condvar::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change of the state, no longer than `time`.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends every wait, after `stopping` was set.
    pub fn wake(&self) {
        self.faults.stop();
        drop(self.lock());
        self.changed.notify_all();
    }

    pub fn close_connections(&self) {
        for stream in self.connections().open.values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to listen; the thread ends when a connection comes after `stopping` was set.
pub(super) fn listen(socket: &Path, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket)?;
    let shared = Arc::clone(shared);
    thread::Builder::new().name("lxd-standin".to_owned()).spawn(move || {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for stream in listener.incoming() {
            if shared.is_stopping() {
                break;
            }
            threads.retain(|thread| !thread.is_finished());
            if let Ok(stream) = stream
                && let Ok(thread) = serve(stream, &shared)
            {
                threads.push(thread);
            }
        }
        shared.close_connections();
        for thread in threads {
            drop(thread.join());
        }
    })
}

fn serve(stream: UnixStream, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let handle = stream.try_clone()?;
    let mut connections = shared.connections();
    while connections.open.len() >= MAX_CONNECTIONS && !shared.is_stopping() {
        let patience = Duration::from_millis(100);
        connections = shared.closed.wait_timeout(connections, patience).unwrap_or_else(PoisonError::into_inner).0;
    }
    let number = connections.next;
    connections.next += 1;
    connections.open.insert(number, handle);
    drop(connections);
    let inside = Arc::clone(shared);
    let started = thread::Builder::new().name("lxd-standin-conn".to_owned()).spawn(move || {
        if let Err(error) = converse(&stream, &inside) {
            log::debug!("standin connection=ended reason={error}");
        }
        drop(stream.shutdown(Shutdown::Both));
        inside.connections().open.remove(&number);
        inside.closed.notify_all();
    });
    if started.is_err() {
        shared.connections().open.remove(&number);
    }
    started
}

fn converse(mut stream: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let mut pending = Vec::new();
    while let Some((head, body)) = take_request(stream, &mut pending)? {
        let Start::Request { method, target } = head.start else { return Ok(()) };
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let call = Call { method: method.clone(), path: path.to_owned(), query: query.to_owned() };
        let (fault, epoch) = shared.faults.arrived(call);
        match &fault {
            Some(Fault::Close) => return Ok(()),
            Some(Fault::Stall) => {
                shared.faults.hold(epoch, Duration::MAX);
                return Ok(());
            }
            Some(Fault::Delay(time)) => shared.faults.hold(epoch, *time),
            _ => {}
        }
        if fault.is_none() && path == "/1.0/events" {
            return super::events::stream(stream, query, shared);
        }
        let answer = match (&fault, split_target(&target)) {
            (Some(Fault::Status(status, body)), _) => {
                Answer { status: *status, headers: Vec::new(), body: body.clone().into_bytes() }
            }
            (_, None) => Answer::error(400, "Bad Request"),
            (_, Some(target)) => route(shared, &Ask { method, target, headers: head.headers, body }),
        };
        if shared.is_stopping() {
            return Ok(());
        }
        let mut bytes = encoded(&answer)?;
        if fault == Some(Fault::StallAfter) {
            shared.faults.hold(epoch, Duration::MAX);
            return Ok(());
        }
        if let Some(Fault::CutAfter(most)) = fault {
            bytes.truncate(most);
            stream.write_all(&bytes)?;
            return Ok(());
        }
        stream.write_all(&bytes)?;
        if !head.keep_alive {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request; `None` where the client has closed between two. `pending` has bytes beyond it, if any.
fn take_request(mut stream: &UnixStream, pending: &mut Vec<u8>) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut parser = Parser::request();
    let (mut head, mut body) = (None, Vec::new());
    let mut block = vec![0; 64 * 1024];
    loop {
        let mut used = 0;
        loop {
            let rest = pending.get(used..).unwrap_or_default();
            let (took, event) = parser.step(rest).map_err(io::Error::other)?;
            used += took;
            match event {
                Event::NeedInput => break,
                Event::Head(it) => head = Some(it),
                Event::Body(piece) if body.len() + piece.len() > MAX_BODY => {
                    return Err(io::Error::other("the request's body is too long"));
                }
                Event::Body(piece) => body.extend_from_slice(piece),
                Event::End => {
                    pending.drain(..used);
                    return Ok(head.map(|head| (head, body)));
                }
            }
        }
        pending.clear();
        match stream.read(&mut block)? {
            0 => {
                return match parser.end_of_input() {
                    Err(http1::Error::ClosedBefore) => Ok(None),
                    other => other.map(|()| None).map_err(io::Error::other),
                };
            }
            read => pending.extend_from_slice(block.get(..read).unwrap_or_default()),
        }
    }
}

fn encoded(answer: &Answer) -> io::Result<Vec<u8>> {
    let json = answer.headers.iter().any(|(_, value)| value == "application/json");
    let chunked = json && answer.body.len() > CHUNKED_FROM;
    let length = answer.body.len().to_string();
    let mut headers: Vec<(&str, &str)> = answer.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    headers.push(if chunked { ("Transfer-Encoding", "chunked") } else { ("Content-Length", &length) });
    let mut bytes = encode_response(answer.status, &headers);
    if chunked {
        for piece in answer.body.chunks(CHUNKED_FROM) {
            bytes.extend(encode_chunk(piece));
        }
        bytes.extend(encode_chunk(b""));
    } else {
        bytes.extend_from_slice(&answer.body);
    }
    Ok(bytes)
}

fn route(shared: &Arc<Shared>, ask: &Ask) -> Answer {
    let segments: Vec<&str> = ask.target.0.iter().map(String::as_str).collect();
    let not_found = || Answer::error(404, "not found");
    let Some((&"1.0", path)) = segments.split_first() else { return not_found() };
    let answer = match (ask.method.as_str(), path) {
        ("GET", []) => Ok(objects::server(&shared.lock())),
        ("GET", ["instances"]) => instances::list(&shared.lock(), ask),
        ("POST", ["instances"]) => instances::create(shared, ask),
        ("GET", ["instances", name]) => instances::get(&shared.lock(), ask, name),
        ("PATCH", ["instances", name]) => instances::patch(shared, ask, name),
        ("DELETE", ["instances", name]) => instances::delete(shared, ask, name),
        ("GET", ["instances", name, "state"]) => instances::state(shared, ask, name),
        ("PUT", ["instances", name, "state"]) => instances::set_state(shared, ask, name),
        ("POST", ["instances", name, "exec"]) => super::exec::exec(shared, ask, name),
        ("GET", ["instances", name, "logs", log]) => files::get_log(&mut shared.lock(), ask, name, log),
        ("DELETE", ["instances", name, "logs", log]) => files::delete_log(shared, ask, name, log),
        ("GET", ["instances", name, "files"]) => files::get(&shared.lock(), ask, name),
        ("POST", ["instances", name, "files"]) => files::post(shared, ask, name),
        ("POST", ["images"]) => images::make(shared, ask),
        ("DELETE", ["images", fingerprint]) => images::delete(shared, ask, fingerprint),
        ("GET", ["operations"]) => Ok(operations::list(&mut shared.lock())),
        ("GET", ["operations", id]) => operations::get(&mut shared.lock(), id),
        ("GET", ["operations", id, "wait"]) => operations::wait(shared, ask, id),
        ("DELETE", ["operations", id]) => operations::cancel(&shared.lock(), id),
        ("GET", path) => objects::get(&shared.lock(), ask, path),
        _ => Err(not_found()),
    };
    answer.unwrap_or_else(|refusal| refusal)
}
