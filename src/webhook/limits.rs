//! Sizes and times that bound what a client may use.

use std::time::Duration;

/// The longest request body, in bytes: GitHub sends no more than 25 MB.
pub const LONGEST_BODY: usize = 25 * 1024 * 1024;

/// The longest response body, in bytes. The metrics are the longest.
pub(super) const LONGEST_ANSWER: usize = 1024 * 1024;

/// The path that webhooks are posted to.
pub const HOOK_PATH: &str = "/hooks/lxdrunner";

/// What clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Few enough for the 1,024 file descriptors that a process usually has.
    pub connections: usize,
    /// Connections of one address at once (of one /64, for IPv6).
    pub per_address: usize,
    /// Bytes of request line and headers.
    pub head: usize,
    /// Bytes held of requests, of all connections together, until they are answered: the longest body and a few usual ones.
    pub memory: usize,
    /// From the connection to the end of the TLS handshake.
    pub handshake_time: Duration,
    /// From the connection, or the first byte of a further request, to the end of the head.
    pub head_time: Duration,
    /// From the end of the head to the end of the body.
    pub body_time: Duration,
    /// For tiny_http's response, and again for sending it.
    pub answer_time: Duration,
    /// From the connection, or the first byte of a further request, until the response is sent.
    pub exchange_time: Duration,
    /// From a response to the first byte of the next request.
    pub idle_time: Duration,
    /// The process ends when tiny_http has not answered a request for this long.
    pub server_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 512,
            per_address: 256,
            head: 16 * 1024,
            memory: LONGEST_BODY + 256 * 1024,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(10),
            exchange_time: Duration::from_secs(45),
            idle_time: Duration::from_secs(30),
            server_time: Duration::from_secs(60),
        }
    }
}
