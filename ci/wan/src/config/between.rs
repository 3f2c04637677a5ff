//! What lies between two domains: latencies from a map of all of them, and settings of single pairs.

use std::{collections::BTreeSet, time::Duration};

use super::{Domain, Fault, MAX_LATENCY, MAX_PAIRS, Place};

/// Latencies of all pairs from a map: each domain lies somewhere in a square, and the round trip
/// between two grows with their distance. So near ones share their far ones, as on the internet,
/// and no detour is much shorter than the straight way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Of the domains' places.
    pub seed: u64,
    /// Between two in one place, and in opposite corners; the links' own latencies come on top.
    pub round_trip: [Duration; 2],
}

/// What two domains have for themselves; their order does not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The domains' names.
    pub between: [String; 2],
    /// One-way latency instead of the matrix's.
    pub latency: Option<Duration>,
    /// Whether nothing passes between them.
    pub cut: bool,
}

impl Matrix {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let fault = |key, message: String| {
            Err(Fault {
                place: Place::Matrix(key),
                message,
            })
        };
        let [shortest, longest] = self.round_trip;
        if shortest > longest || longest > 2 * MAX_LATENCY {
            let limit = 2 * MAX_LATENCY.as_secs();
            let message = format!(
                "the matrix has round trips from {shortest:?} to {longest:?}; write the shorter \
                 first, at most {limit} s"
            );
            return fault("round_trip_ms", message);
        }
        if i64::try_from(self.seed).is_err() {
            let message = format!("the matrix has seed {}; take one below 2^63", self.seed);
            return fault("seed", message);
        }
        Ok(())
    }
}

pub(super) fn check_pairs(domains: &[Domain], pairs: &[Pair]) -> Result<(), Fault> {
    if pairs.len() > MAX_PAIRS {
        return Err(Fault {
            place: Place::Whole,
            message: format!("{} pairs; at most {MAX_PAIRS} are possible", pairs.len()),
        });
    }
    let known: BTreeSet<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (index, pair) in pairs.iter().enumerate() {
        let [a, b] = pair.between.each_ref().map(String::as_str);
        let fault = |key, message: String| {
            Err(Fault {
                place: Place::Pair(index, key),
                message: format!("the pair of \"{a}\" and \"{b}\" {message}"),
            })
        };
        if let Some(unknown) = [a, b].iter().find(|name| !known.contains(*name)) {
            return fault(
                "between",
                format!("names \"{unknown}\", but no domain is called so"),
            );
        }
        if a == b {
            return fault(
                "between",
                "is one domain; inside a domain nothing is delayed".to_owned(),
            );
        }
        if !seen.insert((a.min(b), a.max(b))) {
            return fault("between", "comes a second time; keep one".to_owned());
        }
        if pair.latency.is_some_and(|latency| latency > MAX_LATENCY) {
            let limit = MAX_LATENCY.as_secs();
            return fault("latency_ms", format!("delays by more than {limit} s"));
        }
    }
    Ok(())
}
