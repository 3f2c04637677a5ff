//! Token buckets, each one word: the generic cell rate algorithm.

use super::gate::Rate;
use crate::time::Instant;

/// A bucket of tokens that refills at a [`Rate`]; starts full.
///
/// The word is the time at which the bucket will be full again, in microseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let now = now.as_micros();
        let interval = (1_000_000 / u64::from(rate.per_second.max(1))).max(1);
        let depth = interval.saturating_mul(u64::from(rate.burst.max(1)) - 1);
        let full_at = self.0.max(now);
        let free = full_at - now <= depth;
        if free {
            self.0 = full_at.saturating_add(interval);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate {
            per_second: 10,
            burst: 3,
        };
        let mut bucket = Bucket::default();
        let start = Instant::from_micros(5_000_000);
        let taken =
            |bucket: &mut Bucket, at: Instant| (0..9).filter(|_| bucket.take(rate, at)).count();
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(200)), 2);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let rate = Rate {
            per_second: 0,
            burst: u32::MAX,
        };
        let mut bucket = Bucket::default();
        let end = Instant::from_micros(u64::MAX);
        assert!((0..10).all(|_| bucket.take(rate, end)));
    }
}
