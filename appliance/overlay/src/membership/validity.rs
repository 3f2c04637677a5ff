//! From when until when something signed holds, and how an instant of that is shown to people.

use std::fmt;
use std::time::Duration;

use crate::time::UnixTime;

/// How early a ticket or certificate is already accepted.
///
/// Hypervisors on some hosts set the hardware clock to local time, up to 14 hours off UTC: a day
/// covers any time zone. The end has no tolerance.
pub const EARLY_TOLERANCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A span of wall-clock time that is not empty: from `not_before`, until just before `not_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: UnixTime,
    not_after: UnixTime,
}

/// How a moment misses a [`Validity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfTime {
    /// It comes more than [`EARLY_TOLERANCE`] before the beginning, which is given.
    NotYetValid(UnixTime),
    /// It is not before the end, which is given.
    Expired(UnixTime),
}

impl Validity {
    /// The span; `None` when it would be empty.
    pub fn new(not_before: UnixTime, not_after: UnixTime) -> Option<Self> {
        (not_before < not_after).then_some(Validity {
            not_before,
            not_after,
        })
    }

    /// The first second that belongs to it.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The first second that no longer belongs to it.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether `inner` lies wholly within.
    pub fn encloses(&self, inner: &Validity) -> bool {
        self.not_before <= inner.not_before && inner.not_after <= self.not_after
    }

    /// Whether it holds at `now`.
    pub fn check(&self, now: UnixTime) -> Result<(), OutOfTime> {
        if now >= self.not_after {
            return Err(OutOfTime::Expired(self.not_after));
        }
        if now + EARLY_TOLERANCE < self.not_before {
            return Err(OutOfTime::NotYetValid(self.not_before));
        }
        Ok(())
    }
}

/// Shows a time as `2026-11-23 14:05:09 UTC`.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub UnixTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 86_400;
        /// Days in 400 Gregorian years.
        const ERA: u64 = 146_097;
        /// From 0000-03-01 to 1970-01-01.
        const EPOCH: u64 = 719_468;
        let (days, second) = (self.0.0 / DAY, self.0.0 % DAY);
        // Howard Hinnant's civil_from_days: years begin in March, so that a leap day comes last.
        let days = days + EPOCH;
        let (era, day_of_era) = (days / ERA, days % ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_then_exclusive_with_a_day_of_tolerance_before() {
        let (from, until) = (UnixTime(1_000_000), UnixTime(2_000_000));
        let validity = Validity::new(from, until).unwrap();
        let day = EARLY_TOLERANCE.as_secs();
        assert_eq!(
            validity.check(UnixTime(from.0 - day - 1)),
            Err(OutOfTime::NotYetValid(from))
        );
        assert_eq!(validity.check(UnixTime(from.0 - day)), Ok(()));
        assert_eq!(validity.check(from), Ok(()));
        assert_eq!(validity.check(UnixTime(until.0 - 1)), Ok(()));
        assert_eq!(validity.check(until), Err(OutOfTime::Expired(until)));
        assert_eq!(
            validity.check(UnixTime(u64::MAX)),
            Err(OutOfTime::Expired(until))
        );
        assert_eq!(
            validity.check(UnixTime(0)),
            Err(OutOfTime::NotYetValid(from))
        );
    }

    #[test]
    fn an_empty_span_does_not_exist_and_enclosing_counts_the_ends() {
        let span = |a, b| Validity::new(UnixTime(a), UnixTime(b));
        assert_eq!(span(5, 5), None);
        assert_eq!(span(6, 5), None);
        let outer = span(10, 20).unwrap();
        assert!(outer.encloses(&outer) && outer.encloses(&span(11, 19).unwrap()));
        assert!(!outer.encloses(&span(9, 20).unwrap()));
        assert!(!outer.encloses(&span(10, 21).unwrap()));
    }

    #[test]
    fn dates_are_the_calendar_s() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (1_767_225_600, "2026-01-01 00:00:00 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(UnixTime(seconds)).to_string(), text);
        }
        assert!(Utc(UnixTime(u64::MAX)).to_string().ends_with("UTC"));
    }
}
