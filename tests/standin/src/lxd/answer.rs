//! Requests as the routes see them, and answers in LXD's envelope.

use serde_json::{Value, json};

use super::wire::Target;
use lxdrunner::http1::Headers;

/// A request, its body included.
pub(super) struct Ask {
    pub method: String,
    pub target: Target,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Ask {
    /// A query's value.
    pub fn query(&self, name: &str) -> Option<&str> {
        let found = self.target.1.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The project that is meant.
    pub fn project(&self) -> &str {
        self.query("project").unwrap_or("default")
    }

    /// The body as JSON, or LXD's refusal.
    pub fn json(&self) -> Result<Value, Answer> {
        serde_json::from_slice(&self.body).map_err(|error| Answer::error(400, &error.to_string()))
    }

    /// A header that LXD and Incus name differently: `X-LXD-mode`, `X-Incus-mode`.
    pub fn file_header(&self, name: &str) -> Option<&str> {
        let either = |product: &str| self.headers.get(&format!("X-{product}-{name}"));
        either("LXD").or_else(|| either("Incus"))
    }
}

/// What is answered.
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A result that is there at once.
    pub fn sync(metadata: Value) -> Answer {
        Answer::envelope(
            200,
            json!({"type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0,
                "error": "", "metadata": metadata}),
        )
    }

    /// An operation that was begun.
    pub fn operation(operation: Value) -> Answer {
        let id = operation.get("id").and_then(Value::as_str).unwrap_or_default();
        let location = format!("/1.0/operations/{id}");
        let answer = Answer::envelope(
            202,
            json!({"type": "async", "status": "Operation created", "status_code": 100, "operation": location,
                "error_code": 0, "error": "", "metadata": operation}),
        );
        answer.with("Location", &location)
    }

    /// A refusal.
    pub fn error(code: u16, message: &str) -> Answer {
        Answer::envelope(
            code,
            json!({"type": "error", "status": "", "status_code": 0, "operation": "", "error_code": code,
                "error": message, "metadata": null}),
        )
    }

    /// A file's content.
    pub fn bytes(body: Vec<u8>) -> Answer {
        Answer { status: 200, headers: Vec::new(), body }.with("Content-Type", "application/octet-stream")
    }

    /// One header more.
    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn envelope(status: u16, json: Value) -> Answer {
        let mut body = json.to_string().into_bytes();
        body.push(b'\n');
        Answer { status, headers: Vec::new(), body }.with("Content-Type", "application/json")
    }
}
