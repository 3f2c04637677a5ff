//! The core between the domains: how long a packet takes from one to another, and whether it may.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::config::Config;

/// Delays and cuts of all pairs of domains.
pub(super) struct Between {
    map: Option<Map>,
    pairs: BTreeMap<(usize, usize), Own>,
}

/// Where the domains lie, in a square with sides of 1.
struct Map {
    places: Vec<[f64; 2]>,
    one_way: [Duration; 2],
}

/// Settings of one pair.
#[derive(Clone, Copy)]
struct Own {
    latency: Option<Duration>,
    cut: bool,
}

impl Between {
    pub(super) fn new(config: &Config) -> Between {
        let map = config.matrix().map(|matrix| Map {
            places: (0..config.domains().len())
                .map(|index| place(matrix.seed, index))
                .collect(),
            one_way: matrix.round_trip.map(|round_trip| round_trip / 2),
        });
        let pairs = config.pairs().iter().map(|pair| {
            let index = |name: &String| {
                config
                    .domain_index(name)
                    .expect("a validated configuration names only its own domains")
            };
            let key = key(index(&pair.between[0]), index(&pair.between[1]));
            let own = Own {
                latency: pair.latency,
                cut: pair.cut,
            };
            (key, own)
        });
        Between {
            map,
            pairs: pairs.collect(),
        }
    }

    /// The time a packet takes through the core; `None` where nothing passes.
    pub(super) fn latency(&self, from: usize, to: usize) -> Option<Duration> {
        if from == to {
            return Some(Duration::ZERO);
        }
        let own = self.pairs.get(&key(from, to));
        if own.is_some_and(|own| own.cut) {
            return None;
        }
        let mapped = || {
            self.map
                .as_ref()
                .map_or(Duration::ZERO, |map| map.latency(from, to))
        };
        Some(own.and_then(|own| own.latency).unwrap_or_else(mapped))
    }
}

impl Map {
    fn latency(&self, from: usize, to: usize) -> Duration {
        let [a, b] = [self.places[from], self.places[to]];
        let distance = ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt();
        let [shortest, longest] = self.one_way;
        // Of the longest distance there can be.
        let share = distance / std::f64::consts::SQRT_2;
        shortest + (longest - shortest).mul_f64(share.min(1.0))
    }
}

/// A domain's place depends on nothing but the seed and its number.
fn place(seed: u64, index: usize) -> [f64; 2] {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    [rng.random(), rng.random()]
}

fn key(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Domain, Matrix};
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn between(seed: u64, domains: u8) -> Between {
        let domains = (0..domains)
            .map(|n| {
                let subnet = format!("198.18.{n}.0/24").parse().unwrap();
                Domain::public(format!("d{n}"), subnet)
            })
            .collect();
        let matrix = Matrix {
            seed,
            round_trip: [20 * MS, 200 * MS],
        };
        let config = Config::new(1, domains, Vec::new()).unwrap();
        Between::new(&config.with_matrix(matrix).unwrap())
    }

    proptest! {
        #[test]
        fn the_map_is_symmetric_bounded_and_has_no_shortcuts(seed in 0..1000u64) {
            const COUNT: usize = 12;
            let between = between(seed, COUNT as u8);
            let latency = |a, b| between.latency(a, b).unwrap();
            for a in 0..COUNT {
                prop_assert_eq!(latency(a, a), Duration::ZERO);
                for b in (0..COUNT).filter(|b| *b != a) {
                    prop_assert!((10 * MS..=100 * MS).contains(&latency(a, b)));
                    prop_assert_eq!(latency(a, b), latency(b, a));
                    for c in (0..COUNT).filter(|c| *c != a && *c != b) {
                        prop_assert!(latency(a, b) <= latency(a, c) + latency(c, b) + MS);
                    }
                }
            }
        }
    }

    #[test]
    fn a_seed_is_a_map_and_more_domains_move_nobody() {
        let all = |between: &Between| [(0, 1), (1, 2), (0, 2)].map(|(a, b)| between.latency(a, b));
        assert_eq!(all(&between(5, 3)), all(&between(5, 9)));
        assert_ne!(all(&between(5, 3)), all(&between(6, 3)));
    }

    #[test]
    fn a_pair_has_its_own_latency_or_is_cut() {
        let domains = ["a", "b", "c"].map(|name| {
            let subnet = format!("198.18.{}.0/24", name.as_bytes()[0]);
            Domain::public(name, subnet.parse().unwrap())
        });
        let config = Config::new(1, domains.into(), Vec::new()).unwrap();
        let config = config
            .with_pair(["b", "a"], |pair| pair.latency = Some(7 * MS))
            .unwrap()
            .with_pair(["b", "c"], |pair| pair.cut = true)
            .unwrap();
        let between = Between::new(&config);
        assert_eq!(between.latency(0, 1), Some(7 * MS));
        assert_eq!(between.latency(0, 2), Some(Duration::ZERO));
        assert_eq!(between.latency(2, 1), None);
        let healed = config
            .with_pair(["c", "b"], |pair| pair.cut = false)
            .unwrap();
        assert_eq!(healed.pairs().len(), 1);
        assert_eq!(Between::new(&healed).latency(2, 1), Some(Duration::ZERO));
    }
}
