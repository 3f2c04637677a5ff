//! Node identifiers and the arithmetic of the ring they live on.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of a [`NodeId`] in bytes: 160 bits.
pub const ID_BYTES: usize = 20;

/// A position on the ring of 2^160 points, big-endian.
///
/// A node's own position is a hash of its signing key, so that a position proves itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; ID_BYTES]);

/// A distance on the ring: compares as the number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance {
    /// The 128 upper bits.
    high: u128,
    /// The 32 lower bits.
    low: u32,
}

/// How many distances the upper bits tell apart.
const HIGH_RANGE: f64 = (1u128 << 127) as f64 * 2.0;

impl NodeId {
    /// The position of the node that signs with `key` (an Ed25519 public key).
    pub fn of_signing_key(key: &[u8; 32]) -> Self {
        let input = [b"wow node id v1".as_slice(), key].concat();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &input);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest.as_ref()[..ID_BYTES]);
        NodeId(id)
    }

    /// How far one travels from `self` towards increasing positions to reach `other`.
    pub fn clockwise_to(self, other: NodeId) -> Distance {
        let ((high, low), (less_high, less_low)) = (halves(other.0), halves(self.0));
        let (low, borrow) = low.overflowing_sub(less_low);
        Distance {
            high: high.wrapping_sub(less_high).wrapping_sub(borrow.into()),
            low,
        }
    }

    /// The shorter of both ways between the two positions.
    pub fn distance(self, other: NodeId) -> Distance {
        self.clockwise_to(other).min(other.clockwise_to(self))
    }

    /// The position `distance` further clockwise.
    pub fn offset(self, distance: Distance) -> NodeId {
        let (high, low) = halves(self.0);
        let (low, carry) = low.overflowing_add(distance.low);
        let high = high.wrapping_add(distance.high).wrapping_add(carry.into());
        let mut bytes = [0; ID_BYTES];
        bytes[..16].copy_from_slice(&high.to_be_bytes());
        bytes[16..].copy_from_slice(&low.to_be_bytes());
        NodeId(bytes)
    }

    /// The position farthest from this one.
    pub fn opposite(self) -> NodeId {
        self.offset(Distance::HALF)
    }

    /// The first eight hexadecimal digits, for tables and logs.
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl Distance {
    /// No way at all.
    pub const ZERO: Distance = Distance { high: 0, low: 0 };
    /// Half around the ring: there is no longer way.
    const HALF: Distance = Distance {
        high: 1 << 127,
        low: 0,
    };

    /// The fraction of the whole ring, in 0..1.
    pub fn as_fraction(self) -> f64 {
        // The lower bits are far below what an f64 tells apart beside the upper ones.
        self.high as f64 / HIGH_RANGE
    }

    /// The distance that is `fraction` (clamped to 0..1) of the whole ring, to 53 bits.
    pub fn from_fraction(fraction: f64) -> Distance {
        let fraction = fraction.clamp(0.0, 1.0 - f64::EPSILON);
        Distance {
            high: (fraction * HIGH_RANGE) as u128,
            low: 0,
        }
    }
}

/// The 128 upper and the 32 lower bits: positions are compared and subtracted all the time.
fn halves(bytes: [u8; ID_BYTES]) -> (u128, u32) {
    let (high, low) = bytes.split_at(16);
    let high = high.try_into().map(u128::from_be_bytes);
    let low = low.try_into().map(u32::from_be_bytes);
    (high.expect("16 bytes"), low.expect("4 bytes"))
}

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        halves(self.0).cmp(&halves(other.0))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

/// A text that is no node identifier.
#[derive(Debug, thiserror::Error)]
#[error("not a node id: expected {} hexadecimal digits", 2 * ID_BYTES)]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| ParseNodeIdError)?;
        Ok(NodeId(bytes.try_into().map_err(|_| ParseNodeIdError)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn offset_undoes_clockwise(a: [u8; ID_BYTES], b: [u8; ID_BYTES]) {
            let (a, b) = (NodeId(a), NodeId(b));
            prop_assert_eq!(a.offset(a.clockwise_to(b)), b);
        }

        #[test]
        fn order_is_that_of_the_bytes(a: [u8; ID_BYTES], b: [u8; ID_BYTES]) {
            prop_assert_eq!(NodeId(a).cmp(&NodeId(b)), a.cmp(&b));
        }

        #[test]
        fn distance_is_symmetric_and_at_most_half(a: [u8; ID_BYTES], b: [u8; ID_BYTES]) {
            let (a, b) = (NodeId(a), NodeId(b));
            prop_assert_eq!(a.distance(b), b.distance(a));
            prop_assert!(a.distance(b).as_fraction() <= 0.5);
        }

        #[test]
        fn what_is_farthest_is_nearest_to_the_opposite(a: [u8; ID_BYTES], b: [u8; ID_BYTES]) {
            let (a, b) = (NodeId(a), NodeId(b));
            prop_assert_eq!(a.opposite().opposite(), a);
            let there = a.offset(a.distance(b));
            prop_assert_eq!(there.distance(a.opposite()), b.distance(a.opposite()));
        }

        #[test]
        fn fractions_survive(f in 0.0f64..1.0) {
            prop_assert!((Distance::from_fraction(f).as_fraction() - f).abs() < 1e-9);
        }

        #[test]
        fn text_round_trips(a: [u8; ID_BYTES]) {
            prop_assert_eq!(NodeId(a).to_string().parse::<NodeId>().unwrap(), NodeId(a));
        }
    }
}
