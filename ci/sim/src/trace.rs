//! A running hash over everything that happens, by which two runs are compared.

use wow_overlay::time::Instant;

/// The hash of a run so far. Not cryptographic: it tells runs apart, nobody attacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Trace {
    /// The hash of a run in which nothing has happened.
    pub const fn new() -> Self {
        Trace(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a number.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    }

    /// Adds a point in time.
    pub fn time(&mut self, at: Instant) {
        self.word(at.as_micros());
    }

    /// Adds `bytes` and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(word));
    }

    /// The value to print and compare.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> u64 {
        let mut trace = Trace::new();
        for part in parts {
            trace.bytes(part);
        }
        trace.value()
    }

    #[test]
    fn order_content_and_boundaries_all_count() {
        let reference = of(&[b"abcdefghi", b"jk"]);
        assert_eq!(reference, of(&[b"abcdefghi", b"jk"]));
        assert_ne!(reference, of(&[b"jk", b"abcdefghi"]));
        assert_ne!(reference, of(&[b"abcdefghij", b"k"]));
        assert_ne!(reference, of(&[b"abcdefghx", b"jk"]));
    }
}
