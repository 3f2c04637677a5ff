//! How many messages somebody may send: a bucket that fills again.

use std::time::Duration;

/// A bucket of whole messages.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    room: u32,
    /// The time in which one message's worth comes back.
    each: Duration,
    left: u32,
    since: Duration,
}

impl Budget {
    /// A full bucket.
    pub const fn new(room: u32, each: Duration) -> Self {
        Budget {
            room,
            each,
            left: room,
            since: Duration::ZERO,
        }
    }

    /// Takes one message's worth, if it is there.
    pub fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.since);
        let back = passed.as_micros() / self.each.as_micros().max(1);
        if back >= u128::from(self.room - self.left) {
            self.left = self.room;
            self.since = now;
        } else {
            let back = u32::try_from(back).unwrap_or(self.room);
            self.left += back;
            self.since += self.each * back;
        }
        let had = self.left > 0;
        self.left -= u32::from(had);
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_by_and_by_and_never_more_than_the_room() {
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(3, second);
        let mut taken = |at: u32| {
            let at = second * at / 2;
            (0..9).filter(|_| budget.take(at)).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(1), 0);
        assert_eq!(taken(2), 1);
        assert_eq!(taken(3), 0);
        assert_eq!(taken(6), 2);
        assert_eq!(taken(1000), 3);
    }
}
