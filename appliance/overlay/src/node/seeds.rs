//! The seeds: nodes to join by, known by their addresses alone, and visited later to find a ring beside
//! one's own.

use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::Rng;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;

use super::Node;
use super::attempts::Goal;
use super::neighbourhood::jitter;

/// Seeds that are tried.
const SEEDS_MAX: usize = 32;
/// First and longest time between two tries of a seed while isolated.
const SEED_FIRST: Duration = Duration::from_millis(500);
const SEED_LONGEST: Duration = Duration::from_secs(30);
/// How much later a seed is tried over TCP: by then one that UDP leads to has answered.
const SEED_TCP_DELAY: Duration = Duration::from_millis(500);
/// A seed that nodes ask for has answered within this, or is called silent.
const SEED_SILENT: Duration = Duration::from_secs(30);
/// How often a joined node visits a seed, to find a ring beside its own; in a large ring less
/// often, so that a seed has no more than about three visits a second.
const SEED_VISIT: Duration = Duration::from_secs(60);

struct Seed {
    address: Remote,
    node: Option<NodeId>,
    /// When it last answered.
    answered: Option<Instant>,
    due: Instant,
    pause: Duration,
}

/// The seeds, and when each is tried next.
#[derive(Default)]
pub(super) struct Seeds {
    all: Vec<Seed>,
}

impl Seeds {
    /// When the next one is to be tried.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.iter().map(|seed| seed.due).min()
    }

    /// A seed's address turned out to be this node.
    pub(super) fn answered(&mut self, now: Instant, address: Remote, node: NodeId) {
        for seed in &mut self.all {
            if seed.address == address {
                seed.node = Some(node);
                seed.answered = Some(now);
                seed.pause = SEED_FIRST;
                seed.due = now + SEED_VISIT;
            }
        }
    }

    /// A seed did not answer.
    pub(super) fn failed(&mut self, now: Instant, address: Remote, rng: &mut Rng) {
        for seed in &mut self.all {
            if seed.address == address {
                seed.due = now + jitter(seed.pause, rng);
                seed.pause = (seed.pause * 2).min(SEED_LONGEST);
            }
        }
    }

    /// There is nobody else left: each is tried after its pause.
    pub(super) fn hasten(&mut self, now: Instant) {
        for seed in &mut self.all {
            seed.due = seed.due.min(now + seed.pause);
        }
    }
}

impl Node {
    /// Replaces the seeds to join by.
    pub fn set_seeds(&mut self, now: Instant, mut seeds: Vec<Remote>) {
        seeds.truncate(SEEDS_MAX);
        let old = std::mem::take(&mut self.ring.seeds.all);
        for address in seeds {
            let known = old.iter().find(|seed| seed.address == address);
            let first = match address.is_tcp() {
                true => now + SEED_TCP_DELAY,
                false => now,
            };
            self.ring.seeds.all.push(Seed {
                address,
                node: known.and_then(|seed| seed.node),
                answered: known.and_then(|seed| seed.answered),
                due: known.map_or(first, |seed| seed.due),
                pause: SEED_FIRST,
            });
        }
        self.stabilise(now);
    }

    /// The seeds that have not answered lately.
    pub fn silent_seeds(&self, now: Instant) -> impl Iterator<Item = Remote> {
        let silent = move |seed: &&Seed| match seed.answered {
            Some(last) => now - last > SEED_SILENT,
            None => true,
        };
        self.ring
            .seeds
            .all
            .iter()
            .filter(silent)
            .map(|seed| seed.address)
    }

    /// Whether there is nobody to join: the pool has no seed but this node. A pool whose seeds are
    /// names has none here until they are looked up.
    pub(super) fn is_first(&self) -> bool {
        let mut seeds = self.ring.seeds.all.iter();
        let unnamed = !self.ring.seeds.all.is_empty() || self.pool.seeds.is_empty();
        unnamed && seeds.all(|seed| seed.node == Some(self.id))
    }

    /// Tries the seeds that are due.
    pub(super) fn try_seeds(&mut self, now: Instant) {
        if self.ring.seeds.all.iter().all(|seed| seed.due > now) {
            return;
        }
        let visit = SEED_VISIT.max(Duration::from_secs_f64(self.size_estimate() / 3.0));
        let udp_works = self
            .peers
            .values()
            .any(|peer| peer.active().is_some_and(|path| path.remote.is_udp()));
        let mut due = Vec::new();
        for i in 0..self.ring.seeds.all.len() {
            let seed = &self.ring.seeds.all[i];
            if seed.due > now {
                continue;
            }
            let linked = seed.node.is_some_and(|id| {
                id == self.id || self.peers.get(&id).is_some_and(|p| p.is_established())
            });
            let joined = self.ring.joined;
            let pause = if joined || linked { visit } else { seed.pause };
            let pause = jitter(pause, &mut self.rng);
            let seed = &mut self.ring.seeds.all[i];
            seed.due = now + pause;
            // The ring may have grown a lot since it answered.
            let early = seed.answered.is_some_and(|last| now - last < visit / 2);
            let needless = seed.address.is_tcp() && udp_works;
            if linked || needless || (joined && early) {
                continue;
            }
            due.push(seed.address);
        }
        if self.ring.joined {
            due = due.into_iter().choose(&mut self.rng).into_iter().collect();
        }
        for address in due {
            self.begin_handshake(now, Goal::Seed(address));
        }
    }
}
