//! Failures to order: which requests go wrong, and how.

use super::wire::{Reply, Request, Response};

/// Where runners, as opposed to clients of the REST API, talk to.
pub(super) const RUNNERS: &str = "/_runner/";

/// A failure that waits for its requests.
#[derive(Clone, Debug)]
pub struct Fault {
    method: Option<String>,
    path: String,
    skip: usize,
    times: usize,
    what: Mischief,
}

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub enum Mischief {
    /// This answer, without doing anything.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// Never an answer.
    Stall,
    /// The connection is closed without an answer, and nothing is done.
    Close,
    /// Done and answered, but the connection is closed after this many bytes of the body.
    CutAfter(u64),
    /// Done, and then the connection is closed without an answer.
    ActThenLose,
    /// Done, but never an answer.
    ActThenStall,
    /// These bytes instead of an answer.
    Raw(Vec<u8>),
}

impl Fault {
    /// The next request whose path begins with `path` (without the `/api/v3` of a base) goes wrong like this.
    pub fn on(path: &str, what: Mischief) -> Fault {
        Fault { method: None, path: path.to_owned(), skip: 0, times: 1, what }
    }

    /// The next request of whoever is no runner.
    pub fn on_rest(what: Mischief) -> Fault {
        Fault::on("", what)
    }

    /// Only requests with this method.
    pub fn method(mut self, method: &str) -> Fault {
        self.method = Some(method.to_owned());
        self
    }

    /// Lets so many matching requests pass first.
    pub fn after(mut self, skip: usize) -> Fault {
        self.skip = skip;
        self
    }

    /// So many times, not once.
    pub fn times(mut self, times: usize) -> Fault {
        self.times = times;
        self
    }

    /// GitHub's JSON for an error.
    pub fn status(path: &str, status: u16, message: &str) -> Fault {
        let body = serde_json::json!({"message": message, "documentation_url": "https://docs.github.com/rest"});
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Fault::on(path, Mischief::Answer { status, headers, body: body.to_string() })
    }

    /// A web page, as proxies and wrong addresses send.
    pub fn html(path: &str, status: u16) -> Fault {
        let headers = vec![("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned())];
        let body = "<!DOCTYPE html>\n<html><body><h1>Sorry</h1></body></html>\n".to_owned();
        Fault::on(path, Mischief::Answer { status, headers, body })
    }

    /// A secondary rate limit that names its time.
    pub fn retry_after(path: &str, seconds: u64) -> Fault {
        let mut fault = Fault::status(path, 403, "You have exceeded a secondary rate limit.");
        fault.add_header("Retry-After", &seconds.to_string());
        fault
    }

    /// A primary rate limit that is reset at `reset`, in seconds since 1970.
    pub fn limit_until(path: &str, reset: u64) -> Fault {
        let mut fault = Fault::status(path, 403, "API rate limit exceeded for user ID 1.");
        fault.add_header("X-RateLimit-Remaining", "0");
        fault.add_header("X-RateLimit-Reset", &reset.to_string());
        fault
    }

    /// One header more, where the fault is an answer.
    pub fn add_header(&mut self, name: &str, value: &str) {
        if let Mischief::Answer { headers, .. } = &mut self.what {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn fits(&self, method: &str, path: &str) -> bool {
        // What runners say among themselves is only meant where it is named.
        let meant = !self.path.is_empty() || !path.starts_with(RUNNERS);
        self.times > 0
            && meant
            && path.starts_with(&self.path)
            && self.method.as_deref().is_none_or(|own| own == method)
    }
}

/// The first fault that is due for this request; its counters are turned.
pub(super) fn due(faults: &mut [Fault], request: &Request, path: &str) -> Option<Mischief> {
    for fault in faults.iter_mut().filter(|fault| fault.fits(&request.method, path)) {
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        fault.times -= 1;
        return Some(fault.what.clone());
    }
    None
}

/// The reply under a fault; `act` does what was asked and gives the honest answer.
pub(super) fn reply(what: Mischief, act: impl FnOnce() -> Response) -> Reply {
    match what {
        Mischief::Answer { status, headers, body } => {
            let mut response = Response::text(status, "text/plain", body);
            response.headers = headers;
            Reply::Answer(response)
        }
        Mischief::Stall => Reply::Stall,
        Mischief::Close => Reply::Close,
        Mischief::CutAfter(bytes) => Reply::Cut(act(), bytes),
        Mischief::ActThenLose => {
            drop(act());
            Reply::Close
        }
        Mischief::ActThenStall => {
            drop(act());
            Reply::Stall
        }
        Mischief::Raw(bytes) => Reply::Raw(bytes),
    }
}
