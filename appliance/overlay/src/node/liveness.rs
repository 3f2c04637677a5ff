//! Whether one path still works: round-trip estimation, probing, and when to give up.
//!
//! Pure arithmetic on points in time; the caller sends the probes and draws the tokens.

use std::time::Duration;

use crate::time::Instant;

/// Unanswered probes in a row after which a path is dead. With 10% loss a round trip, a working
/// path is given up once in 100,000 probes, and its peer is still there by another.
const TRIES_MAX: usize = 5;
/// The round-trip time assumed before one was measured.
const RTT_INITIAL: Duration = Duration::from_millis(150);
/// Bounds on the wait for an answer to a probe.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_millis(1000);
/// How long traffic may go out without any coming back before the path is questioned, at least. A
/// probe is cheaper than the packets that a dead path swallows before TCP repeats the first of them,
/// which it does 200 ms after a round trip.
const SILENCE_MIN: Duration = Duration::from_millis(40);
/// The same where records keep coming in, as they do in a transfer.
const STEADY_SILENCE: Duration = Duration::from_millis(20);
/// What an answer may be late by beyond the variation of the round trip.
const SLACK: Duration = Duration::from_millis(10);
/// Records keep coming in when gaps of that length fill no more than a fifth of a window. So an alarm is
/// false a few times a second at most.
const PACE_WINDOW: Duration = Duration::from_millis(500);
const QUIET_MAX: Duration = Duration::from_millis(100);

/// Smoothed round-trip time and its variation, as in RFC 6298.
#[derive(Clone, Copy, Debug)]
struct Rtt {
    smoothed: Duration,
    variation: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    token: u64,
    sent: Instant,
}

/// How long it was quiet between records, in the present window and in the one before.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    quiet: Duration,
    before: Option<Duration>,
}

impl Pace {
    fn note(&mut self, gap: Duration, now: Instant) {
        let age = now - self.since;
        if age >= PACE_WINDOW {
            *self = Pace {
                since: now,
                quiet: Duration::ZERO,
                before: (age < PACE_WINDOW * 2).then_some(self.quiet),
            };
        }
        if gap >= STEADY_SILENCE {
            self.quiet += gap;
        }
    }

    fn is_steady(&self) -> bool {
        self.before
            .is_some_and(|before| before.max(self.quiet) <= QUIET_MAX)
    }
}

/// The state of one path's health.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    rtt: Option<Rtt>,
    last_heard: Instant,
    pace: Pace,
    unanswered_since: Option<Instant>,
    tries: Vec<Try>,
    /// [`Health::Late`] was seen to since the last probe, or since anything was heard.
    told_late: bool,
}

/// What a path needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing before its deadline.
    Fine,
    /// What was sent last by another way too: it may be lost.
    Late,
    /// A probe.
    Probe,
    /// It does not work any more.
    Dead,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Liveness {
            rtt: None,
            last_heard: now,
            pace: Pace {
                since: now,
                quiet: Duration::ZERO,
                before: None,
            },
            unanswered_since: None,
            tries: Vec::new(),
            told_late: false,
        }
    }

    /// The smoothed round-trip time, once measured.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.smoothed)
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Something authentic came in by this path.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.pace.note(now - self.last_heard, now);
        self.last_heard = now;
        self.unanswered_since = None;
        self.told_late = false;
    }

    /// Traffic that deserves some answer went out.
    pub(super) fn on_sent(&mut self, now: Instant) {
        if self.unanswered_since.is_some() {
            return;
        }
        if now - self.last_heard >= STEADY_SILENCE {
            // The peer had nothing to answer.
            self.pace.before = None;
        }
        self.unanswered_since = Some(now);
    }

    /// A probe went out.
    pub(super) fn on_probe_sent(&mut self, token: u64, now: Instant) {
        self.told_late = false;
        self.tries.push(Try { token, sent: now });
    }

    /// What was sent last goes by another way now.
    pub(super) fn on_repeated(&mut self) {
        self.told_late = true;
    }

    /// The answer to a probe came in. Returns whether the probe was this path's.
    pub(super) fn on_ack(&mut self, token: u64, now: Instant) -> bool {
        let Some(probe) = self.tries.iter().find(|probe| probe.token == token) else {
            return false;
        };
        self.sample(now - probe.sent);
        self.tries.clear();
        self.on_heard(now);
        true
    }

    /// Doubts the path: it is probed at once.
    pub(super) fn suspect(&mut self) {
        self.unanswered_since = Some(Instant::ZERO);
        self.tries.clear();
    }

    /// Probes that wait for their answers.
    pub(super) fn tries(&self) -> usize {
        self.tries.len()
    }

    /// Whether the path is in doubt: a probe is out, or due.
    pub(super) fn is_suspect(&self) -> bool {
        !self.tries.is_empty() || self.unanswered_since == Some(Instant::ZERO)
    }

    /// Whether the path had better not be relied on: something says that it is gone, or a probe stayed
    /// unanswered, and nothing has come by it since.
    pub(super) fn is_doubtful(&self) -> bool {
        self.open_tries().len() > 1 || self.unanswered_since == Some(Instant::ZERO)
    }

    /// Whether nobody knows if the path still works: traffic had better go by another way too.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.is_doubtful() || self.is_overdue(now)
    }

    /// Whether an answer, or the next of many records, is later than it usually is: time for another
    /// way beside this one.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.overdue_from().is_some_and(|due| due <= now)
    }

    fn overdue_from(&self) -> Option<Instant> {
        let stopped = self.unanswered_since.filter(|_| self.pace.is_steady());
        let stopped = stopped.map(|since| since + STEADY_SILENCE);
        let usual = self.rtt.map_or(RTT_INITIAL * 2, |rtt| {
            rtt.smoothed + rtt.variation * 2 + SLACK
        });
        let late = self.open_tries().first().map(|probe| probe.sent + usual);
        stopped.into_iter().chain(late).min()
    }

    /// The probes that nothing was heard after.
    fn open_tries(&self) -> &[Try] {
        let heard = self
            .tries
            .partition_point(|probe| probe.sent <= self.last_heard);
        &self.tries[heard..]
    }

    /// Takes a measured round trip into the estimate.
    pub(super) fn sample(&mut self, measured: Duration) {
        self.rtt = Some(match self.rtt {
            None => Rtt {
                smoothed: measured,
                variation: measured / 2,
            },
            Some(old) => Rtt {
                smoothed: (old.smoothed * 7 + measured) / 8,
                variation: (old.variation * 3 + old.smoothed.abs_diff(measured)) / 4,
            },
        });
    }

    /// What to do at `now`, when an idle path is to be probed every `keepalive`.
    pub(super) fn health(&self, now: Instant, keepalive: Duration) -> Health {
        if now < self.deadline(keepalive) {
            Health::Fine
        } else if self.tries.is_empty() {
            Health::Probe
        } else if self.late_from().is_some_and(|due| due <= now) {
            Health::Late
        } else if self.tries.len() >= TRIES_MAX {
            Health::Dead
        } else {
            Health::Probe
        }
    }

    /// When [`Liveness::health`] may change next.
    pub(super) fn deadline(&self, keepalive: Duration) -> Instant {
        if let Some(last) = self.tries.last() {
            let timeout = last.sent + self.timeout();
            return self.late_from().map_or(timeout, |late| late.min(timeout));
        }
        let idle = self.last_heard + keepalive;
        match self.unanswered_since {
            Some(since) => idle.min(since + self.silence()),
            None => idle,
        }
    }

    /// How long the answer to a probe may take.
    pub(super) fn patience(&self) -> Duration {
        let base = match self.rtt {
            Some(rtt) => rtt.smoothed + rtt.variation * 4,
            None => RTT_INITIAL * 2,
        };
        base.clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    fn timeout(&self) -> Duration {
        let doublings = u32::try_from(self.tries.len().saturating_sub(1)).unwrap_or(0);
        (self.patience() * 2u32.pow(doublings.min(4))).min(TIMEOUT_MAX)
    }

    /// When [`Health::Late`] is due.
    fn late_from(&self) -> Option<Instant> {
        self.overdue_from().filter(|_| !self.told_late)
    }

    fn silence(&self) -> Duration {
        if self.pace.is_steady() {
            return STEADY_SILENCE;
        }
        (self.rtt().unwrap_or(RTT_INITIAL) / 2).max(SILENCE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(5);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn an_idle_path_is_probed_after_the_keepalive_interval() {
        let path = Liveness::new(at(0));
        assert_eq!(path.health(at(4999), KEEPALIVE), Health::Fine);
        assert_eq!(path.health(at(5000), KEEPALIVE), Health::Probe);
    }

    #[test]
    fn traffic_without_an_answer_is_questioned_within_a_second() {
        let mut path = Liveness::new(at(0));
        path.on_sent(at(1000));
        assert_eq!(path.health(at(1900), KEEPALIVE), Health::Probe);
    }

    #[test]
    fn an_unanswered_probe_brings_doubt_and_any_record_ends_it() {
        let mut path = Liveness::new(at(0));
        path.on_probe_sent(1, at(5000));
        assert!(!path.is_doubtful(), "the answer is under way");
        assert!(!path.is_overdue(at(5299)) && path.is_overdue(at(5301)));
        path.on_probe_sent(2, at(5300));
        assert!(path.is_doubtful());
        path.on_heard(at(5310));
        assert!(!path.is_doubtful() && !path.is_overdue(at(6000)));
        path.suspect();
        assert!(path.is_doubtful(), "somebody knows better");
        assert_eq!(path.health(at(5311), KEEPALIVE), Health::Probe);
        path.on_probe_sent(3, at(5320));
        assert!(path.on_ack(3, at(5400)));
        assert!(!path.is_doubtful());
    }

    #[test]
    fn unanswered_probes_end_a_path_within_six_seconds() {
        let mut path = Liveness::new(at(0));
        let mut now = at(5000);
        for token in 0.. {
            match path.health(now, KEEPALIVE) {
                Health::Probe => path.on_probe_sent(token, now),
                Health::Late => path.on_repeated(),
                Health::Dead => break,
                Health::Fine => panic!("woken before the deadline"),
            }
            now = path.deadline(KEEPALIVE);
        }
        assert!(now - at(5000) < Duration::from_secs(6), "{now}");
    }

    #[test]
    fn a_late_answer_is_told_once_for_each_probe() {
        let mut path = Liveness::new(at(0));
        path.on_probe_sent(1, at(5000));
        assert_eq!(path.health(at(5299), KEEPALIVE), Health::Fine);
        assert_eq!(
            path.health(path.deadline(KEEPALIVE), KEEPALIVE),
            Health::Late
        );
        path.on_repeated();
        assert_eq!(
            path.health(path.deadline(KEEPALIVE), KEEPALIVE),
            Health::Probe
        );
        path.on_probe_sent(2, at(5301));
        assert_eq!(path.health(at(5301), KEEPALIVE), Health::Late);
        path.on_heard(at(5302));
        assert_eq!(path.health(at(5303), KEEPALIVE), Health::Fine);
    }

    #[test]
    fn many_records_that_stop_are_missed_at_once_and_few_are_not() {
        let (mut many, mut few) = (Liveness::new(at(0)), Liveness::new(at(0)));
        for path in [&mut many, &mut few] {
            path.sample(Duration::from_millis(200));
        }
        for ms in 0..3000 {
            many.on_heard(at(ms));
            if ms % 60 == 0 {
                few.on_heard(at(ms));
            }
        }
        for path in [&mut many, &mut few] {
            path.on_heard(at(3000));
            path.on_sent(at(3000));
        }
        assert_eq!(many.health(at(3020), KEEPALIVE), Health::Probe);
        assert_eq!(few.health(at(3099), KEEPALIVE), Health::Fine);
        assert_eq!(few.health(at(3100), KEEPALIVE), Health::Probe);
        many.on_probe_sent(1, at(3020));
        few.on_probe_sent(1, at(3100));
        assert!(many.is_overdue(at(3020)) && !few.is_overdue(at(3300)));
        // A last one that was under way does not hide the end.
        many.on_heard(at(3021));
        assert!(!many.is_overdue(at(3030)));
        many.on_sent(at(3022));
        assert_eq!(many.health(at(3042), KEEPALIVE), Health::Late);
    }

    #[test]
    fn a_straggler_after_a_probe_does_not_hide_that_the_path_is_dead() {
        let mut path = Liveness::new(at(0));
        path.on_probe_sent(1, at(5000));
        path.on_heard(at(5010));
        path.on_probe_sent(2, at(5300));
        path.on_probe_sent(3, at(5900));
        assert!(path.is_doubtful() && path.is_overdue(at(5900)));
    }

    #[test]
    fn an_answer_measures_the_round_trip_of_its_own_probe() {
        let mut path = Liveness::new(at(0));
        path.on_probe_sent(1, at(5000));
        path.on_probe_sent(2, at(5300));
        assert!(!path.on_ack(3, at(5310)));
        assert!(path.on_ack(2, at(5340)));
        assert_eq!(path.rtt(), Some(Duration::from_millis(40)));
        assert!(!path.on_ack(1, at(5350)), "answered once");
    }
}
