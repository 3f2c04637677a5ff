//! A question to a server (RFC 4330, section 5), and how far this machine's clock is off by the answer.

use std::fmt;
use std::time::Duration;

use wow_control::{NTP_TO_UNIX, TIME_PACKET_BYTES};

use crate::random;

/// NTP's counter begins anew in 2036 and every 136 years.
const ERA_SECONDS: u64 = 1 << 32;

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no answer to this question.
    #[error("is no answer to what was asked")]
    Foreign,
    /// The server has no time itself, or wants to be left alone.
    #[error("the server has no time to give")]
    Unsynchronised,
}

/// A question. Its transmit time is a random number, which the answer repeats: who cannot see the question
/// cannot answer it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    nonce: [u8; 8],
}

/// What an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The time in the middle between the question's arrival and the answer's departure, since 1970.
    pub time: Duration,
    /// How many servers the answering one is away from a clock that needs none; from 1 to 15.
    pub stratum: u8,
}

impl Question {
    /// One that nobody has asked before.
    pub fn new() -> Self {
        Self {
            nonce: random::number().to_be_bytes(),
        }
    }

    /// As it travels.
    pub fn packet(&self) -> [u8; TIME_PACKET_BYTES] {
        let mut packet = [0; TIME_PACKET_BYTES];
        // No warning, version 4, client.
        packet[0] = 4 << 3 | 3;
        packet[40..].copy_from_slice(&self.nonce);
        packet
    }

    /// Reads an answer that came at about this time.
    pub fn read(&self, answer: &[u8], about: Duration) -> Result<Answer, Refusal> {
        let Some(answer) = answer.first_chunk::<TIME_PACKET_BYTES>() else {
            return Err(Refusal::Foreign);
        };
        const SERVER: u8 = 4;
        if answer[0] & 7 != SERVER || answer[24..32] != self.nonce {
            return Err(Refusal::Foreign);
        }
        let (alarm, stratum) = (answer[0] >> 6, answer[1]);
        let field = |at: usize| {
            let field = answer[at..at + 8]
                .try_into()
                .expect("eight bytes were taken");
            u64::from_be_bytes(field)
        };
        let (received, sent) = (field(32), field(40));
        if alarm == 3 || !(1..16).contains(&stratum) || sent == 0 || received == 0 {
            return Err(Refusal::Unsynchronised);
        }
        let held = sent.wrapping_sub(received) / 2;
        let time = unix(received.wrapping_add(held), about);
        Ok(Answer { time, stratum })
    }
}

/// NTP's time in the era that is nearest to `about`, since 1970.
fn unix(time: u64, about: Duration) -> Duration {
    let seconds = time >> 32;
    let nanos = ((time & 0xffff_ffff) * 1_000_000_000) >> 32;
    let base = (about.as_secs() + NTP_TO_UNIX) / ERA_SECONDS * ERA_SECONDS;
    let near = [base.wrapping_sub(ERA_SECONDS), base, base + ERA_SECONDS];
    let candidates = near.into_iter().map(|era| {
        let since_1900 = era.wrapping_add(seconds);
        Duration::from_secs(since_1900.saturating_sub(NTP_TO_UNIX))
    });
    let seconds = candidates
        .min_by_key(|candidate| candidate.abs_diff(about))
        .expect("there are three");
    seconds + Duration::from_nanos(nanos)
}

/// How far this machine's clock is behind another's; less than nothing is ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset {
    micros: i64,
}

impl Offset {
    /// Of a clock that says `own` where it is `true_time`.
    pub fn of(own: Duration, true_time: Duration) -> Self {
        let size = micros(own.abs_diff(true_time));
        let micros = if own <= true_time { size } else { -size };
        Offset { micros }
    }

    /// Whichever way.
    pub fn size(self) -> Duration {
        Duration::from_micros(self.micros.unsigned_abs())
    }

    /// Between two.
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_micros(self.micros.abs_diff(other.micros))
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        let micros = self.micros.saturating_add(other.micros);
        Offset { micros }
    }

    /// The true time when the clock says this.
    pub fn correct(self, own: Duration) -> Duration {
        match self.micros {
            0.. => own + self.size(),
            _ => own.saturating_sub(self.size()),
        }
    }

    /// For people.
    pub fn milliseconds(self) -> f64 {
        self.micros as f64 / 1000.0
    }

    #[cfg(test)]
    pub fn from_milliseconds(milliseconds: i64) -> Self {
        let micros = milliseconds.saturating_mul(1000);
        Offset { micros }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.micros < 0 { "ahead" } else { "behind" };
        write!(f, "{:?} {way}", self.size())
    }
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! An entrance for fuzzers.

    use super::*;

    /// Reads an answer to the question with this number, as it may come from anywhere.
    pub fn time(nonce: [u8; 8], answer: &[u8]) {
        let about = Duration::from_secs(1_800_000_000);
        if let Ok(Answer { time, stratum }) = (Question { nonce }).read(answer, about) {
            assert!((1..16).contains(&stratum));
            // Half an era at most, and what the answer itself took.
            assert!(time.abs_diff(about) <= Duration::from_secs(ERA_SECONDS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: Duration = Duration::from_secs(1_800_000_000);

    /// The NTP time of a time since 1970.
    fn ntp(time: Duration) -> [u8; 8] {
        let seconds = (time.as_secs() + NTP_TO_UNIX) % ERA_SECONDS;
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        (seconds << 32 | fraction).to_be_bytes()
    }

    fn answer(question: &Question, received: Duration, sent: Duration) -> [u8; TIME_PACKET_BYTES] {
        let mut packet = [0; TIME_PACKET_BYTES];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&question.packet()[40..]);
        packet[32..40].copy_from_slice(&ntp(received));
        packet[40..].copy_from_slice(&ntp(sent));
        packet
    }

    #[test]
    fn an_answer_tells_the_time_in_its_middle() {
        let question = Question::new();
        let check = |about: Duration| {
            let sent = about + Duration::from_secs(4);
            let read = question
                .read(&answer(&question, about, sent), ABOUT)
                .unwrap();
            assert_eq!(read.stratum, 2);
            let expected = about + Duration::from_secs(2);
            assert!(
                read.time.abs_diff(expected) < Duration::from_micros(1),
                "{read:?}"
            );
        };
        check(ABOUT + Duration::from_millis(1500));
        check(ABOUT - Duration::from_secs(3600));
        // Beyond 2036, where NTP's counter has begun anew.
        check(Duration::from_secs(2_090_000_000));
    }

    #[test]
    fn what_is_no_answer_does_not_count() {
        let question = Question::new();
        let good = answer(&question, ABOUT, ABOUT);
        let check = |change: &dyn Fn(&mut [u8; TIME_PACKET_BYTES]), expected: Refusal| {
            let mut packet = good;
            change(&mut packet);
            assert_eq!(question.read(&packet, ABOUT), Err(expected));
        };
        check(&|packet| packet[24] ^= 1, Refusal::Foreign);
        check(&|packet| packet[0] = 4 << 3 | 3, Refusal::Foreign);
        check(&|packet| packet[0] |= 3 << 6, Refusal::Unsynchronised);
        check(&|packet| packet[1] = 0, Refusal::Unsynchronised);
        check(&|packet| packet[1] = 16, Refusal::Unsynchronised);
        check(&|packet| packet[40..].fill(0), Refusal::Unsynchronised);
        assert_eq!(question.read(&good[..47], ABOUT), Err(Refusal::Foreign));
    }

    #[test]
    fn an_offset_leads_from_a_clock_to_the_truth() {
        for (own, truth) in [(ABOUT, ABOUT * 2), (ABOUT * 2, ABOUT), (ABOUT, ABOUT)] {
            assert_eq!(Offset::of(own, truth).correct(own), truth);
        }
        let [behind, ahead] = [ABOUT * 2, Duration::ZERO].map(|truth| Offset::of(ABOUT, truth));
        assert!(ahead < Offset::default() && Offset::default() < behind);
        assert_eq!(ahead.distance(behind), ABOUT * 2);
        assert_eq!(ahead.and(behind), Offset::default());
    }
}
