//! The wall clock, carried forward on the monotonic one: what certificates are judged by.

use crate::time::{Instant, UnixTime};

pub(super) struct WallClock {
    set_at: Instant,
    wall: UnixTime,
}

impl WallClock {
    pub(super) fn new(now: Instant, wall: UnixTime) -> Self {
        WallClock { set_at: now, wall }
    }

    pub(super) fn at(&self, now: Instant) -> UnixTime {
        self.wall + (now - self.set_at)
    }
}
