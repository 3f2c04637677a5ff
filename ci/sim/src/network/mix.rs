//! Which translators stand before how many domains.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use wow_overlay::Rng;

use super::nat::NatKind;

/// Weights of the kinds of translator, as in `none=1,port-restricted=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatMix {
    weights: Vec<(NatKind, u32)>,
}

impl NatMix {
    /// No translators.
    pub fn public() -> Self {
        NatMix {
            weights: vec![(NatKind::None, 1)],
        }
    }

    /// Whether a kind occurs.
    pub fn has(&self, kind: NatKind) -> bool {
        let mut weights = self.weights.iter();
        weights.any(|(known, weight)| *known == kind && *weight > 0)
    }

    /// Draws a kind by weight.
    pub fn draw(&self, rng: &mut Rng) -> NatKind {
        let total: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut rest = rng.random_range(0..total);
        for &(kind, weight) in &self.weights {
            if rest < weight {
                return kind;
            }
            rest -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

impl FromStr for NatMix {
    type Err = String;

    /// Parses `KIND[=WEIGHT],…`; a kind without weight has weight 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = NatKind::ALL.map(NatKind::name).join(", ");
        let mut weights: Vec<(NatKind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = NatKind::ALL
                .into_iter()
                .find(|kind| kind.name() == name)
                .ok_or_else(|| format!("`{name}` is no kind of NAT: there are {names}"))?;
            let weight: u32 = match weight.parse() {
                Ok(weight) if weight <= 1000 => weight,
                _ => return Err(format!("`{part}`: a weight is a number from 0 to 1000")),
            };
            if weights.iter().any(|(known, _)| *known == kind) {
                return Err(format!("`{name}` is given twice"));
            }
            weights.push((kind, weight));
        }
        if weights.iter().all(|(_, weight)| *weight == 0) {
            return Err(format!("`{text}`: all weights are zero"));
        }
        Ok(NatMix { weights })
    }
}

impl fmt::Display for NatMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (kind, weight)) in self.weights.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match weight {
                1 => write!(f, "{comma}{}", kind.name())?,
                _ => write!(f, "{comma}{}={weight}", kind.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn round_trips_and_refuses_nonsense() {
        for text in ["none", "none,symmetric", "none=2,full-cone,restricted=7"] {
            assert_eq!(text.parse::<NatMix>().unwrap().to_string(), text);
        }
        for text in ["", "cone", "none=x", "none=0", "none,none", "none=1001"] {
            assert!(text.parse::<NatMix>().is_err(), "{text}");
        }
    }

    #[test]
    fn draws_by_weight() {
        let mix: NatMix = "none=1,symmetric=3,restricted=0".parse().unwrap();
        let mut rng = Rng::seed_from_u64(5);
        let draws: Vec<_> = (0..4000).map(|_| mix.draw(&mut rng)).collect();
        let count = |kind| draws.iter().filter(|drawn| **drawn == kind).count();
        assert!((2800..3200).contains(&count(NatKind::Symmetric)));
        assert_eq!(count(NatKind::Restricted), 0);
        assert_eq!(count(NatKind::None) + count(NatKind::Symmetric), 4000);
    }
}
