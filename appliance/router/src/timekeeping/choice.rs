//! What several members say of this clock, made one correction that no single one of them decides: pure.
//!
//! The greatest number that agree within [`AGREEMENT`] must be more than half of those who answered; the middle one
//! of these counts. Of two both must agree. One alone is believed as far as [`ALONE_MAX`] goes in all, which lets a
//! pool with one good clock set the others' by hours, and a liar move them no further.

use std::time::Duration;

use super::question::Offset;

/// How far apart those are who say the same: as an answer is waited for, its error is half of that at most.
const AGREEMENT: Duration = Duration::from_secs(2);

/// By how much single members may move this clock together, until several agree: hypervisors set the hardware's clock
/// to local time, up to 14 hours off, and somebody's day is wrong by one.
const ALONE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);

/// Decides, and remembers what single members have done.
#[derive(Debug, Default)]
pub struct Judge {
    alone: Offset,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody said anything.
    Silence,
    /// So many agree on this.
    Agreed {
        /// How far the clock is off.
        offset: Offset,
        /// Those who agree.
        members: usize,
    },
    /// No more than half agree.
    Disagreed,
    /// One alone says what one alone may not decide.
    TooFar(Offset),
}

impl Judge {
    /// Decides about what the members say, each once.
    pub fn decide(&mut self, said: &[Offset]) -> Verdict {
        let mut said = said.to_vec();
        said.sort();
        match said[..] {
            [] => Verdict::Silence,
            [offset] => {
                let moved = self.alone.and(offset);
                if moved.size() > ALONE_MAX {
                    return Verdict::TooFar(offset);
                }
                self.alone = moved;
                Verdict::Agreed { offset, members: 1 }
            }
            _ => {
                let agreed = largest(&said);
                if agreed.len() * 2 <= said.len() {
                    return Verdict::Disagreed;
                }
                self.alone = Offset::default();
                Verdict::Agreed {
                    offset: agreed[(agreed.len() - 1) / 2],
                    members: agreed.len(),
                }
            }
        }
    }
}

/// The most that lie within [`AGREEMENT`] of each other; of as many, those that lie closest.
fn largest(sorted: &[Offset]) -> &[Offset] {
    let mut best = 0..0;
    let mut best_spread = AGREEMENT;
    let mut from = 0;
    for to in 0..sorted.len() {
        while sorted[from].distance(sorted[to]) > AGREEMENT {
            from += 1;
        }
        let spread = sorted[from].distance(sorted[to]);
        let count = to + 1 - from;
        if count > best.len() || count == best.len() && spread < best_spread {
            best = from..to + 1;
            best_spread = spread;
        }
    }
    &sorted[best]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn decide(judge: &mut Judge, said: &[i64]) -> Verdict {
        let said: Vec<_> = said
            .iter()
            .map(|ms| Offset::from_milliseconds(*ms))
            .collect();
        judge.decide(&said)
    }

    fn agreed(offset: i64, members: usize) -> Verdict {
        let offset = Offset::from_milliseconds(offset);
        Verdict::Agreed { offset, members }
    }

    #[test]
    fn more_than_half_must_agree_and_the_middle_one_counts() {
        let check = |said: &[i64], expected| {
            assert_eq!(decide(&mut Judge::default(), said), expected, "{said:?}");
        };
        check(&[], Verdict::Silence);
        check(&[-70, 30], agreed(-70, 2));
        check(&[0, 2001], Verdict::Disagreed);
        check(&[5, 9_999_999, 10], agreed(5, 2));
        check(&[DAY, DAY + 10, DAY + 20, 0], agreed(DAY + 10, 3));
        check(&[0, 1, DAY, DAY + 1], Verdict::Disagreed);
        check(&[0, 1, 2, DAY, -DAY], agreed(1, 3));
        check(&[0, 1, DAY, DAY + 1, 5 * DAY], Verdict::Disagreed);
    }

    #[test]
    fn one_liar_among_three_moves_nothing_further_than_the_others_are_apart() {
        for lie in (-10_000..10_000)
            .step_by(7)
            .chain([i64::MIN / 1000, i64::MAX / 1000])
        {
            let Verdict::Agreed { offset, .. } = decide(&mut Judge::default(), &[0, 40, lie])
            else {
                panic!("two of three agree");
            };
            let offset = offset.milliseconds();
            assert!((0.0..=40.0).contains(&offset), "{lie}: {offset}");
        }
    }

    #[test]
    fn one_alone_moves_the_clock_by_two_days_in_all_until_others_agree() {
        let mut judge = Judge::default();
        assert_eq!(decide(&mut judge, &[DAY]), agreed(DAY, 1));
        assert_eq!(decide(&mut judge, &[DAY]), agreed(DAY, 1));
        let far = Verdict::TooFar(Offset::from_milliseconds(1));
        assert_eq!(decide(&mut judge, &[1]), far);
        assert_eq!(decide(&mut judge, &[-DAY]), agreed(-DAY, 1));
        assert_eq!(decide(&mut judge, &[-3 * DAY]), agreed(-3 * DAY, 1));
        let far = Verdict::TooFar(Offset::from_milliseconds(-2 * DAY));
        assert_eq!(decide(&mut judge, &[-2 * DAY]), far);
        assert_eq!(decide(&mut judge, &[7 * DAY, 7 * DAY]), agreed(7 * DAY, 2));
        assert_eq!(decide(&mut judge, &[2 * DAY]), agreed(2 * DAY, 1));
    }
}
