//! The clock that decisions use.

use std::time::Instant;

use crate::model::Timestamp;

/// The wall clock at the start of the process plus the time that has really passed. A board without a battery boots with any
/// date and has it corrected later, by years: with the wall clock, deadlines would pass at once or never.
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

    /// Never goes back.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.set.elapsed())
    }
}
