//! Requests on their way from the gate to the server within. What they say stays in memory and only a number goes over
//! the private connection: nothing is held twice or read anew, a connection is free for the next one at once, and those
//! that came together are one request there, a bundle.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that are kept for the next bodies, and how long they may be. To the system, getting and giving back memory
/// of this size costs more than all that is done with it.
const SPARE: usize = 32;
const LONGEST_SPARE: usize = 64 * 1024;

/// The header in which the server hears a bundle's number. Nobody else's of that name gets there.
pub(super) const BUNDLE_HEADER: &str = "Bundle";

/// Headers that the server hears; all others say nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    ContentType,
    Event,
    Delivery,
    Signature,
    OldSignature,
}

impl Field {
    pub(super) const ALL: [(Field, &str); 5] = [
        (Field::ContentType, "content-type"),
        (Field::Event, "x-github-event"),
        (Field::Delivery, "x-github-delivery"),
        (Field::Signature, "x-hub-signature-256"),
        (Field::OldSignature, "x-hub-signature"),
    ];
}

/// The values of those headers, in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    text: String,
    /// Where each begins and ends, by `Field`.
    places: [Option<(usize, usize)>; Field::ALL.len()],
}

impl Words {
    /// Of a header that comes twice, the first counts.
    pub(super) fn set(&mut self, field: Field, value: &str) {
        let begin = self.text.len();
        if let Some(place @ None) = self.places.get_mut(field as usize) {
            // Room for all of them at once.
            self.text.reserve_exact(if begin == 0 { value.len().max(256) } else { value.len() });
            self.text.push_str(value);
            *place = Some((begin, self.text.len()));
        }
    }

    /// The signature; the old one where there is only that.
    pub(super) fn signature(&self) -> Option<&str> {
        self.get(Field::Signature).or_else(|| self.get(Field::OldSignature))
    }

    pub(super) fn get(&self, field: Field) -> Option<&str> {
        let (begin, end) = (*self.places.get(field as usize)?)?;
        self.text.get(begin..end)
    }
}

/// What a request says beyond its method and path.
#[derive(Debug, Default)]
pub(super) struct Letter {
    pub(super) words: Words,
    /// Who asks.
    pub(super) peer: Option<IpAddr>,
    /// True where they may read the metrics.
    pub(super) measures: bool,
    /// True where they may read why the daemon is not well, beside who reads the metrics: this machine.
    pub(super) is_local: bool,
    /// Its body, behind what else was read with it; `None` where it has none, or none that is of interest.
    pub(super) bytes: Option<Vec<u8>>,
    /// Where in them it begins.
    pub(super) body_at: usize,
}

impl Letter {
    pub(super) fn body(&self) -> Option<&[u8]> {
        self.bytes.as_ref()?.get(self.body_at..)
    }
}

/// Letters that came together, of one method and path. Each is answered, in a row.
pub(super) type Bundle = Vec<Letter>;

/// The letters of requests that are under way, by their bundles' numbers. Only the gate writes a number into a request.
#[derive(Debug, Default)]
pub(super) struct Letters(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bundles: HashMap<u64, Bundle>,
    spare: Vec<Vec<u8>>,
}

impl Letters {
    /// Keeps a bundle until it is taken.
    pub(super) fn put(&self, number: u64, bundle: Bundle) {
        self.lock().bundles.insert(number, bundle);
    }

    /// The bundle of that number, once.
    pub(super) fn take(&self, number: u64) -> Option<Bundle> {
        self.lock().bundles.remove(&number)
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
    fn of_a_header_that_comes_twice_the_first_counts() {
        let mut words = Words::default();
        words.set(Field::Event, "a");
        words.set(Field::OldSignature, "");
        words.set(Field::Event, "b");
        let all = Field::ALL.map(|(field, _)| words.get(field));
        assert_eq!(all, [None, Some("a"), None, None, Some("")]);
    }

    #[test]
    fn every_field_has_its_place() {
        assert!(Field::ALL.iter().enumerate().all(|(n, (field, _))| *field as usize == n));
    }

    #[test]
    fn few_and_short_buffers_are_kept() {
        let letters = Letters::default();
        letters.put(7, vec![Letter::default()]);
        assert_eq!([letters.take(7), letters.take(7)].map(|bundle| bundle.map(|bundle| bundle.len())), [Some(1), None]);
        letters.give_back(vec![0; LONGEST_SPARE + 1]);
        assert_eq!(letters.spare().capacity(), 0);
        (0..=SPARE).for_each(|_| letters.give_back(vec![1; LONGEST_SPARE]));
        let spare: Vec<Vec<u8>> = (0..=SPARE).map(|_| letters.spare()).collect();
        assert!(spare.iter().all(Vec::is_empty));
        assert_eq!(spare.iter().filter(|buffer| buffer.capacity() == LONGEST_SPARE).count(), SPARE);
    }
}
