//! The time that decisions go by.

use std::time::Instant;

use crate::model::Timestamp;

/// The wall clock as it was when this was set, and from there on what really passed. A board without a battery boots with
/// any date and is set right later, by years, and others are set back: deadlines would be over at once, or never.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    set: Instant,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn set() -> Clock {
        Clock { wall: Timestamp::now(), set: Instant::now() }
    }

    /// Never earlier than the time before.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.set.elapsed())
    }
}
