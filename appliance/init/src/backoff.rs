//! Doubling pauses between attempts, with a ceiling. No jitter: what retries here talks to its own
//! machine or its own LAN, once.

use std::time::Duration;

/// A pause that doubles from `first` to `most`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Starts at `first`, never exceeds `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            next: first,
            most,
        }
    }

    /// The pause to make now; the following one is twice as long, up to the ceiling.
    pub fn pause(&mut self) -> Duration {
        let now = self.next.min(self.most);
        self.next = now.saturating_mul(2).min(self.most);
        now
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_ceiling_and_start_over_after_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_secs(1));
    }
}
