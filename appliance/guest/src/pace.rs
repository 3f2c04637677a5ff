//! How packets come, and so how many are read before the first goes on its way.

/// Where packets come one by one, as in a conversation, each goes on its way before it is asked whether another came
/// with it: that costs as much as reading does. Where they come together, all that wait are read first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Many came together last.
    #[default]
    Many,
    /// The last one came alone.
    Lone,
    /// So did the last one, and one has gone on its way since.
    Asking,
}

impl Pace {
    /// Whether so many packets are to go on their way before it is asked for more.
    pub(crate) fn is_enough(&mut self, packets: usize) -> bool {
        let is_enough = *self == Pace::Lone && packets > 0;
        if is_enough {
            *self = Pace::Asking;
        }
        is_enough
    }

    /// So many packets were read, and those were all.
    pub(crate) fn note_all(&mut self, packets: usize) {
        *self = match (*self, packets) {
            (Pace::Many, 1) | (Pace::Lone | Pace::Asking, 0) => Pace::Lone,
            _ => Pace::Many,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from a queue as a device does; how many packets each turn takes, until it has to wait.
    fn turns(pace: &mut Pace, mut waiting: usize) -> Vec<usize> {
        let mut turns = Vec::new();
        loop {
            let mut read = 0;
            while waiting > 0 && !pace.is_enough(read) {
                waiting -= 1;
                read += 1;
            }
            // The device says that nothing is left, unless it is not asked.
            if waiting == 0 && !pace.is_enough(read) {
                pace.note_all(read);
                if read == 0 {
                    return turns;
                }
            }
            turns.push(read);
        }
    }

    #[test]
    fn lone_packets_go_on_at_once_and_bursts_together() {
        let mut pace = Pace::default();
        assert_eq!(turns(&mut pace, 5), [5]);
        assert_eq!(turns(&mut pace, 1), [1]);
        assert_eq!(pace, Pace::Lone);
        assert_eq!(turns(&mut pace, 1), [1]);
        assert_eq!(pace, Pace::Lone);
        // The first of a burst goes ahead, once.
        assert_eq!(turns(&mut pace, 6), [1, 5]);
        assert_eq!(pace, Pace::Many);
        assert_eq!(turns(&mut pace, 6), [6]);
    }
}
