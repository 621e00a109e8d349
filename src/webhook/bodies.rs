//! Bodies on their way from the gate to the server within. They stay in memory and only their number goes over the
//! private connection: a long one is not held twice, and a connection is free for the next head at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that are kept for the next bodies, and how long they may be. To the system, getting and giving back memory
/// of this size costs more than all that is done with it.
const SPARE: usize = 16;
const LONGEST_SPARE: usize = 64 * 1024;

/// The bodies of requests that are under way, by their numbers. Only the gate writes a number into a request.
#[derive(Debug, Default)]
pub(super) struct Bodies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bodies: HashMap<u64, Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Bodies {
    /// Keeps a body until it is taken.
    pub(super) fn put(&self, number: u64, body: Vec<u8>) {
        self.lock().bodies.insert(number, body);
    }

    /// The body of that number, once.
    pub(super) fn take(&self, number: u64) -> Option<Vec<u8>> {
        self.lock().bodies.remove(&number)
    }

    /// An empty buffer for another body.
    pub(super) fn spare(&self) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// A buffer that is not needed any more.
    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        let fits = buffer.capacity() <= LONGEST_SPARE;
        let mut kept = self.lock();
        if fits && kept.spare.len() < SPARE {
            buffer.clear();
            kept.spare.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_short_buffers_are_kept() {
        let bodies = Bodies::default();
        bodies.put(7, vec![1]);
        assert_eq!((bodies.take(7), bodies.take(7)), (Some(vec![1]), None));
        bodies.give_back(vec![0; LONGEST_SPARE + 1]);
        assert_eq!(bodies.spare().capacity(), 0);
        (0..=SPARE).for_each(|_| bodies.give_back(vec![1; LONGEST_SPARE]));
        let spare: Vec<Vec<u8>> = (0..=SPARE).map(|_| bodies.spare()).collect();
        assert!(spare.iter().all(Vec::is_empty));
        assert_eq!(spare.iter().filter(|buffer| buffer.capacity() == LONGEST_SPARE).count(), SPARE);
    }
}
