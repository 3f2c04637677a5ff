//! The sliding window that lets each record through once, in any order within its reach.
//!
//! After RFC 6479: a ring of words, whole words cleared as the window moves.

/// How many records behind the newest may still arrive. A superpacket is 45 records, so this covers
/// reordering of well over a hundred of them, or 50 ms at 2 Gbit/s.
pub const WINDOW: u64 = 8192;

const WORD_BITS: u64 = u64::BITS as u64;
/// One word more than the window, since it seldom begins at a word's edge.
const WORDS: usize = (WINDOW / WORD_BITS) as usize + 1;

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Seen before.
    #[error("record seen before")]
    Duplicate,
    /// Further behind the newest than the window reaches; whether it was seen is forgotten.
    #[error("record older than the replay window")]
    TooOld,
}

/// Which counters have been seen. Up to 1 KiB: as much as the counters committed so far need.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    highest: Option<u64>,
    /// Words beyond its end are zero.
    seen: Vec<u64>,
}

impl ReplayWindow {
    /// Whether a record numbered `counter` may be worth opening. Changes nothing: what a counter
    /// says is not to be believed before the record is authenticated.
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        match self.highest {
            Some(highest) if counter <= highest => {
                if highest - counter >= WINDOW {
                    Err(ReplayError::TooOld)
                } else if self.seen.get(word(counter)).unwrap_or(&0) & bit(counter) != 0 {
                    Err(ReplayError::Duplicate)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Notes an authenticated record that [`check`](Self::check) let through.
    pub fn commit(&mut self, counter: u64) {
        match self.highest {
            None => self.highest = Some(counter),
            Some(highest) if counter > highest => {
                let steps = (counter / WORD_BITS - highest / WORD_BITS).min(WORDS as u64);
                for step in 0..steps {
                    if let Some(seen) = self.seen.get_mut(word(counter - step * WORD_BITS)) {
                        *seen = 0;
                    }
                }
                self.highest = Some(counter);
            }
            Some(_) => {}
        }
        if self.seen.len() <= word(counter) {
            self.seen.resize(word(counter) + 1, 0);
        }
        self.seen[word(counter)] |= bit(counter);
    }

    /// The highest counter committed.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

fn word(counter: u64) -> usize {
    (counter / WORD_BITS) as usize % WORDS
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn accept(window: &mut ReplayWindow, counter: u64) -> Result<(), ReplayError> {
        window.check(counter)?;
        window.commit(counter);
        Ok(())
    }

    #[test]
    fn the_window_reaches_exactly_so_far() {
        for highest in [WINDOW, 3 * WINDOW + 17, u64::MAX] {
            let mut window = ReplayWindow::default();
            assert_eq!(accept(&mut window, highest), Ok(()));
            assert_eq!(window.check(highest - WINDOW), Err(ReplayError::TooOld));
            for counter in highest - WINDOW + 1..highest {
                assert_eq!(accept(&mut window, counter), Ok(()), "{counter}");
            }
            for counter in highest - WINDOW + 1..=highest {
                assert_eq!(
                    window.check(counter),
                    Err(ReplayError::Duplicate),
                    "{counter}"
                );
            }
        }
    }

    #[test]
    fn checking_moves_nothing() {
        let mut window = ReplayWindow::default();
        accept(&mut window, 5).unwrap();
        window.check(u64::MAX).unwrap();
        assert_eq!(window.highest(), Some(5));
        assert_eq!(accept(&mut window, 4), Ok(()));
    }

    proptest! {
        /// Against the obvious model: a set of everything seen.
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((0u64..20_000, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut base = 0u64;
            for (offset, leap) in steps {
                if leap { base += offset / 4; }
                let counter = base + offset;
                let highest = seen.last().copied().unwrap_or(0);
                let expected = if counter + WINDOW <= highest {
                    Err(ReplayError::TooOld)
                } else if seen.contains(&counter) {
                    Err(ReplayError::Duplicate)
                } else {
                    Ok(())
                };
                prop_assert_eq!(accept(&mut window, counter), expected);
                if expected.is_ok() { seen.insert(counter); }
            }
        }
    }
}
