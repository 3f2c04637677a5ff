//! Whether datagrams that leave a machine together arrive: some cards and drivers damage them, and say nothing.
//!
//! Pure arithmetic on points in time; the caller sends the probes and draws the tokens. A probe travels
//! within a batch now and then. When it has no answer, whole batches of probes are compared with probes by
//! themselves: only where the one arrives and the other does not, time after time, batches are to blame.

use std::time::Duration;

use crate::time::Instant;

/// Batches are looked at so often while they are used.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Comparisons that batches lose before they are given up. Of a batch all probes were lost then, and of
/// those by themselves none.
const LOST_MAX: u8 = 3;
/// Comparisons before it is left undecided: the path carries nothing, or hardly anything.
const ROUNDS_MAX: u8 = 12;
/// How long answers are waited for, at least.
const TIMEOUT_MIN: Duration = Duration::from_millis(150);

/// What is known of batches on one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Together {
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// They arrive, up to such a length; they are to be looked at again from then on.
    Trusted { again: Instant, bytes: usize },
    /// A probe is within one.
    Watched {
        token: u64,
        due: Instant,
        batch: Batch,
    },
    /// They are compared.
    Tested(Test),
    /// They do harm.
    GivenUp,
}

/// What a batch was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The length of its datagrams.
    pub datagram_bytes: usize,
    /// How many they were.
    pub count: usize,
}

impl Batch {
    fn bytes(self) -> usize {
        self.datagram_bytes * self.count
    }
}

#[derive(Clone, Copy, Debug)]
struct Test {
    batch: Batch,
    rounds: u8,
    lost: u8,
    /// The round that is under way; none before the first.
    round: Option<Round>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    /// Of the batch's probes, and of the one by itself.
    tokens: [u64; 2],
    is_alone_answered: bool,
    due: Instant,
}

/// What came of time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is to be done.
    Wait,
    /// A batch like this of probes is to be sent, and one probe by itself.
    Compare(Batch),
    /// From now on datagrams go one by one.
    GiveUp,
}

impl Together {
    pub(super) fn new(now: Instant) -> Self {
        Together {
            phase: Phase::Trusted {
                again: now,
                bytes: 0,
            },
        }
    }

    /// Whether a batch of that length that goes out now is to carry a probe.
    pub(super) fn wants_probe(&self, now: Instant, length: usize) -> bool {
        matches!(self.phase, Phase::Trusted { again, bytes } if again <= now || length > bytes)
    }

    /// A probe went out within a batch.
    pub(super) fn on_watched(&mut self, token: u64, batch: Batch, now: Instant, timeout: Duration) {
        self.phase = Phase::Watched {
            token,
            due: now + timeout.max(TIMEOUT_MIN),
            batch,
        };
    }

    /// A batch of probes went out, and one by itself.
    pub(super) fn on_compared(&mut self, tokens: [u64; 2], now: Instant, timeout: Duration) {
        if let Phase::Tested(test) = &mut self.phase {
            test.rounds += 1;
            test.round = Some(Round {
                tokens,
                is_alone_answered: false,
                due: now + timeout.max(TIMEOUT_MIN) * 2,
            });
        }
    }

    /// A probe's answer came. Returns whether the probe was one of these.
    pub(super) fn on_ack(&mut self, token: u64, now: Instant) -> bool {
        let trusted = |batch: Batch| Phase::Trusted {
            again: now + WATCH_EVERY,
            bytes: batch.bytes(),
        };
        match &mut self.phase {
            Phase::Watched {
                token: watched,
                batch,
                ..
            } if *watched == token => self.phase = trusted(*batch),
            Phase::Tested(Test {
                batch,
                round: Some(round),
                ..
            }) => {
                let [together, alone] = round.tokens;
                if together == token {
                    self.phase = trusted(*batch);
                } else if alone == token {
                    round.is_alone_answered = true;
                } else {
                    return false;
                }
            }
            _ => return false,
        }
        true
    }

    /// When [`Together::step`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Watched { due, .. } => Some(due),
            Phase::Tested(test) => Some(test.round.map_or(Instant::ZERO, |round| round.due)),
            Phase::Trusted { .. } | Phase::GivenUp => None,
        }
    }

    /// What is to be done at `now`.
    pub(super) fn step(&mut self, now: Instant) -> Verdict {
        if self.deadline().is_none_or(|due| due > now) {
            return Verdict::Wait;
        }
        match &mut self.phase {
            Phase::Watched { batch, .. } => {
                let batch = *batch;
                self.phase = Phase::Tested(Test {
                    batch,
                    rounds: 0,
                    lost: 0,
                    round: None,
                });
                Verdict::Compare(batch)
            }
            Phase::Tested(test) => {
                let is_lost = test.round.is_some_and(|round| round.is_alone_answered);
                test.lost += u8::from(is_lost);
                if test.lost >= LOST_MAX {
                    self.phase = Phase::GivenUp;
                    return Verdict::GiveUp;
                }
                if test.rounds >= ROUNDS_MAX {
                    self.phase = Phase::Trusted {
                        again: now + WATCH_EVERY,
                        bytes: test.batch.bytes(),
                    };
                    return Verdict::Wait;
                }
                Verdict::Compare(test.batch)
            }
            Phase::Trusted { .. } | Phase::GivenUp => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rand::{RngExt, SeedableRng};

    use crate::Rng;

    const RTT: Duration = Duration::from_millis(20);
    const BATCH: Batch = Batch {
        datagram_bytes: 1452,
        count: 45,
    };

    /// Uses batches for so long on a path that loses a share of all datagrams, and all batches or none.
    /// Returns when batches were given up, in seconds, and how many comparisons there were.
    fn check(seconds: u64, loss: f64, damages: bool, is_down: bool) -> (Option<f64>, u64) {
        let mut now = Instant::ZERO;
        let end = now + Duration::from_secs(seconds);
        let mut together = Together::new(now);
        let mut dice = Rng::seed_from_u64(5);
        let (mut tokens, mut compared) = (0, 0);
        while now < end {
            let mut arrives = |count: usize, damaged: bool| {
                let answered = (0..count).any(|_| !dice.random_bool(loss));
                answered && !damaged && !is_down
            };
            if together.wants_probe(now, BATCH.bytes()) {
                tokens += 1;
                together.on_watched(tokens, BATCH, now, RTT);
                if arrives(1, damages) {
                    assert!(together.on_ack(tokens, now + RTT));
                }
            }
            match together.step(now) {
                Verdict::Wait => {}
                Verdict::Compare(batch) => {
                    assert_eq!(batch, BATCH);
                    compared += 1;
                    tokens += 2;
                    together.on_compared([tokens - 1, tokens], now, RTT);
                    let alone = arrives(1, false);
                    if alone {
                        assert!(together.on_ack(tokens, now + RTT));
                    }
                    if arrives(batch.count, damages) {
                        assert!(together.on_ack(tokens - 1, now + RTT));
                    }
                }
                Verdict::GiveUp => {
                    let since = (now - Instant::ZERO).as_secs_f64();
                    return (Some(since), compared);
                }
            }
            now = now + Duration::from_millis(10);
        }
        (None, compared)
    }

    #[test]
    fn batches_that_never_arrive_are_given_up_within_two_seconds() {
        let (since, _) = check(60, 0.0, true, false);
        assert!(since.is_some_and(|since| since < 2.0), "{since:?}");
    }

    #[test]
    fn they_are_given_up_though_a_tenth_is_lost() {
        assert!(check(60, 0.19, true, false).0.is_some());
    }

    #[test]
    fn loss_alone_is_no_reason() {
        let (since, compared) = check(3600, 0.19, false, false);
        assert_eq!(since, None);
        assert!(compared > 100, "it has been suspected {compared} times");
    }

    #[test]
    fn a_path_that_is_down_is_no_reason() {
        assert_eq!(check(600, 0.0, false, true).0, None);
    }

    #[test]
    fn a_longer_batch_than_the_last_that_arrived_is_watched_at_once() {
        let mut together = Together::new(Instant::ZERO);
        let now = Instant::ZERO + RTT;
        together.on_watched(1, BATCH, Instant::ZERO, RTT);
        assert!(
            !together.wants_probe(now, BATCH.bytes() + 1),
            "one at a time"
        );
        assert!(together.on_ack(1, now));
        assert!(!together.wants_probe(now, BATCH.bytes()));
        assert!(together.wants_probe(now, BATCH.bytes() + 1));
        assert!(together.wants_probe(now + WATCH_EVERY, 1));
    }

    #[test]
    fn where_nothing_is_lost_nothing_is_compared_and_unused_nothing_is_due() {
        assert_eq!(check(60, 0.0, false, false), (None, 0));
        assert_eq!(Together::new(Instant::ZERO).deadline(), None);
    }
}
