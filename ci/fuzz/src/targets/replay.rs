//! A session's replay window against the obvious model: a set of everything seen.

use std::collections::BTreeSet;

use wow_overlay::session::{ReplayError, ReplayWindow, WINDOW};

use crate::Target;
use crate::script::{Script, Writer};

pub(super) const REPLAY_WINDOW: Target = Target {
    name: "replay-window",
    input_bytes_max: 1024,
    run: replay_window,
    seeds: || {
        let step = |w: Writer, kind, number| w.byte(kind).short(number);
        let mut script = Writer::default();
        for (kind, number) in [
            (0, 1),
            (0, 1),
            (1, 100),
            (2, 3),
            (0, 8191),
            (3, 0),
            (2, 9000),
        ] {
            script = step(script, kind, number);
        }
        vec![script.0]
    },
};

/// Steps: ahead of the highest, behind it, a leap ahead, or from the end of numbers.
fn replay_window(input: &[u8]) {
    let mut script = Script::new(input);
    let mut window = ReplayWindow::default();
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    while !script.is_empty() {
        let (kind, number) = (script.byte() % 4, u64::from(script.short()));
        let highest = seen.last().copied();
        let counter = match kind {
            0 => highest.unwrap_or(0).saturating_add(number),
            1 => highest.unwrap_or(0).saturating_sub(number),
            2 => highest.unwrap_or(0).saturating_add(number << 16),
            _ => u64::MAX - number,
        };
        let expected = match highest {
            Some(highest) if counter <= highest && highest - counter >= WINDOW => {
                Err(ReplayError::TooOld)
            }
            _ if seen.contains(&counter) => Err(ReplayError::Duplicate),
            _ => Ok(()),
        };
        assert_eq!(window.check(counter), expected, "record {counter}");
        if expected.is_ok() {
            window.commit(counter);
            seen.insert(counter);
        }
        assert_eq!(window.highest(), seen.last().copied());
    }
}
