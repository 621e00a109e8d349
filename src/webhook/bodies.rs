//! Bodies on their way from the gate to the server within. They stay in memory and only their number goes over the
//! private connection: a long one is not held twice, and a connection is free for the next head at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The bodies of requests that are under way, by their numbers. Only the gate writes a number into a request.
#[derive(Debug, Default)]
pub(super) struct Bodies(Mutex<HashMap<u64, Vec<u8>>>);

impl Bodies {
    /// Keeps a body until it is taken.
    pub(super) fn put(&self, number: u64, body: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, body);
    }

    /// The body of that number, once.
    pub(super) fn take(&self, number: u64) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}
