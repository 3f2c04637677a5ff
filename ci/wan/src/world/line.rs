//! One direction of the line between a domain and the core: when a packet that enters now comes
//! out, if it does. Packets keep their order whatever the jitter.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use crate::{config::Link, counters::DropReason, time::Instant};

/// Longest wait for the line to be free, when its bandwidth is limited; then packets are dropped.
const MAX_QUEUE: Duration = Duration::from_millis(200);

pub(super) struct Line {
    latency: Duration,
    jitter: Duration,
    loss: f64,
    nanos_per_byte: f64,
    free_at: Instant,
    last_out: Instant,
}

impl Line {
    pub(super) fn new(link: &Link) -> Line {
        Line {
            latency: link.latency,
            jitter: link.jitter,
            loss: link.loss_percent / 100.0,
            nanos_per_byte: link.bandwidth_mbit.map_or(0.0, |mbit| 8000.0 / mbit),
            free_at: Instant::ZERO,
            last_out: Instant::ZERO,
        }
    }

    /// When a packet of this size comes out.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        bytes: usize,
        rng: &mut ChaCha12Rng,
    ) -> Result<Instant, DropReason> {
        let starts = self.free_at.max(now);
        if starts - now > MAX_QUEUE {
            return Err(DropReason::QueueFull);
        }
        let sending = Duration::from_nanos((bytes as f64 * self.nanos_per_byte) as u64);
        self.free_at = starts + sending;
        // After queueing: a lost packet has used the line.
        if self.loss > 0.0 && rng.random::<f64>() < self.loss {
            return Err(DropReason::Lost);
        }
        let jitter = match self.jitter.is_zero() {
            true => Duration::ZERO,
            false => self.jitter.mul_f64(rng.random::<f64>()),
        };
        let out = (self.free_at + self.latency + jitter).max(self.last_out);
        self.last_out = out;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(link: Link) -> (Line, ChaCha12Rng) {
        (Line::new(&link), ChaCha12Rng::seed_from_u64(1))
    }

    #[test]
    fn jitter_varies_the_delay_within_its_bounds_and_keeps_order() {
        let (mut line, mut rng) = line(Link {
            latency: 10 * MS,
            jitter: 5 * MS,
            ..Link::default()
        });
        let mut delays = Vec::new();
        let mut last = Instant::ZERO;
        for n in 0..1000 {
            let now = Instant::ZERO + n * MS;
            let out = line.admit(now, 100, &mut rng).unwrap();
            assert!(out >= last);
            last = out;
            delays.push(out - now);
        }
        assert!(
            delays
                .iter()
                .all(|delay| (10 * MS..=15 * MS).contains(delay))
        );
        assert!(
            delays
                .iter()
                .max()
                .unwrap()
                .abs_diff(*delays.iter().min().unwrap())
                > 2 * MS
        );
    }

    #[test]
    fn loss_takes_about_its_share() {
        let (mut line, mut rng) = line(Link {
            loss_percent: 20.0,
            ..Link::default()
        });
        let lost = (0..10_000)
            .filter(|_| line.admit(Instant::ZERO, 9, &mut rng).is_err())
            .count();
        assert!((1800..2200).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn bandwidth_spaces_packets_and_a_long_queue_drops() {
        // 8 Mbit/s is a byte a microsecond.
        let (mut line, mut rng) = line(Link {
            bandwidth_mbit: Some(8.0),
            ..Link::default()
        });
        let first = line.admit(Instant::ZERO, 1000, &mut rng).unwrap();
        let second = line.admit(Instant::ZERO, 1000, &mut rng).unwrap();
        assert_eq!((first - Instant::ZERO, second - first), (MS, MS));
        let admitted = (0..1000)
            .filter(|_| line.admit(Instant::ZERO, 1000, &mut rng).is_ok())
            .count();
        assert_eq!(admitted, 199);
    }
}
