//! Time as the emulator's core sees it: nanoseconds from an arbitrary zero, always an argument.
//! Reading a clock is the shell's business.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time, in nanoseconds from an arbitrary zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The arbitrary zero.
    pub const ZERO: Instant = Instant(0);

    /// Nanoseconds from zero.
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates: a time that far away never comes.
    fn add(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero when `earlier` is in fact later.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
