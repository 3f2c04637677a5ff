//! Which path every pair of translator kinds gets, and how soon: one small pool for each pair.

use std::fmt;
use std::time::Duration;

use rand::SeedableRng;
use serde::Serialize;
use wow_overlay::Rng;
use wow_overlay::node::PathInfo;
use wow_overlay::time::Instant;

use crate::crypto::Crypto;
use crate::network::nat::NatKind;
use crate::network::{Conditions, HostId, Network};
use crate::production::Members;
use crate::scenario::{DELAY, PREFIX};
use crate::text::Share;
use crate::world::World;

/// Public nodes that both join by, and that relay where nothing else leads through.
const PUBLIC: usize = 3;
/// The first of the pair has its place by then.
const FIRST_SETTLED: Duration = Duration::from_secs(5);
/// How long a pair may take to its best path: longer than the slowest traversal is tried.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The resolution of the times.
const STEP: Duration = Duration::from_millis(20);

/// The way that a pair talks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Straight, over UDP.
    Udp,
    /// Straight, over TCP.
    Tcp,
    /// By a node that both reach.
    Relay,
    /// From node to node.
    Overlay,
    /// Not at all.
    None,
}

/// One pair's outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// What stands before the first node.
    pub a: &'static str,
    /// What stands before the second.
    pub b: &'static str,
    /// The path at the end, as the first sees it.
    pub path: PathKind,
    /// From the second's start until a guest packet from the first reached it.
    pub connected_ms: Option<f64>,
    /// From the second's start until both had this path for good.
    pub path_ms: Option<f64>,
    /// Datagrams that the two sent to the end.
    pub datagrams: u64,
}

/// Every pair of kinds, from `seed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matrix {
    /// What every random choice came from.
    pub seed: u64,
    /// The pairs, the kinds in the order of [`NatKind::ALL`].
    pub pairs: Vec<Pair>,
}

/// Plays every pair.
pub fn matrix(seed: u64) -> Matrix {
    let kinds = NatKind::ALL.into_iter().enumerate();
    let pairs = kinds.flat_map(|(n, a)| NatKind::ALL[n..].iter().map(move |b| (a, *b)));
    Matrix {
        seed,
        pairs: pairs.map(|(a, b)| play(seed, a, b)).collect(),
    }
}

/// Plays one pair: the first has joined when the second starts.
pub fn play(seed: u64, a: NatKind, b: NatKind) -> Pair {
    Play::new(seed, &[(a, 1), (b, 1)]).run(a, b)
}

struct Play {
    world: World<Members>,
    first: HostId,
    second: HostId,
    /// The numbers of the guest packets sent.
    sent: Vec<u64>,
}

impl Play {
    /// The pair is the first two hosts of `private`, domains and how many hosts are in each.
    fn new(seed: u64, private: &[(NatKind, usize)]) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let mut domains = vec![(NatKind::None, 1); PUBLIC];
        domains.extend(private);
        let hosts = domains.iter().map(|(_, hosts)| hosts).sum();
        let clean = Conditions {
            loss: Share::NONE,
            duplication: Share::NONE,
            jitter: Duration::ZERO,
        };
        let network = Network::of_domains(rng.fork(), &domains, DELAY, clean);
        let members = Members::new(rng.fork(), hosts, Crypto::Real, PREFIX);
        let world = World::new(rng.fork(), network, members, hosts, PUBLIC, 1);
        Play {
            world,
            first: HostId(PUBLIC as u32),
            second: HostId(PUBLIC as u32 + 1),
            sent: Vec::new(),
        }
    }

    fn run(&mut self, a: NatKind, b: NatKind) -> Pair {
        for host in 0..PUBLIC as u32 {
            self.world.start_at(Instant::ZERO, HostId(host));
        }
        let early = Instant::ZERO + Duration::from_secs(1);
        self.world.start_at(early, self.first);
        let start = early + FIRST_SETTLED;
        self.world.start_at(start, self.second);
        self.world.run_until(start);
        let mut connected = None;
        let mut since = start;
        let mut path = (PathKind::None, PathKind::None);
        while self.world.now() < start + LIMIT {
            let now = self.world.now() + STEP;
            self.world.run_until(now);
            if connected.is_none() {
                let (from, to) = (self.first, self.second);
                self.sent.extend(self.world.send_guest(from, to, false, 64));
                if self.sent.iter().any(|n| self.world.has_arrived(*n)) {
                    connected = Some(now);
                }
            }
            let found = (
                self.path(self.first, self.second),
                self.path(self.second, self.first),
            );
            if found != path {
                path = found;
                since = now;
            }
        }
        let ms = |at: Instant| (at - start).as_secs_f64() * 1e3;
        let meters = self.world.meters().skip(PUBLIC);
        Pair {
            a: a.name(),
            b: b.name(),
            path: path.0,
            connected_ms: connected.map(ms),
            path_ms: (path.0 == path.1 && path.0 != PathKind::None).then(|| ms(since)),
            datagrams: meters.map(|meter| meter.datagrams).sum(),
        }
    }

    fn path(&self, from: HostId, to: HostId) -> PathKind {
        match self.path_info(from, to) {
            Some(PathInfo::Direct { remote }) if remote.is_tcp() => PathKind::Tcp,
            Some(PathInfo::Direct { .. }) => PathKind::Udp,
            Some(PathInfo::Relay { .. }) => PathKind::Relay,
            Some(PathInfo::Overlay { .. }) => PathKind::Overlay,
            None => PathKind::None,
        }
    }

    fn path_info(&self, from: HostId, to: HostId) -> Option<PathInfo> {
        let id = self.world.id(to);
        self.world.machine(from)?.path(id)
    }
}

/// The best path that a pair can have in theory.
pub fn expected(a: NatKind, b: NatKind) -> PathKind {
    use NatKind::*;
    let (a, b) = (a.min(b), a.max(b));
    match (a, b) {
        (None, UdpBlocked) => PathKind::Tcp,
        (_, UdpBlocked) => PathKind::Relay,
        (None | FullCone | Restricted, _) => PathKind::Udp,
        (PortRestricted, _) => PathKind::Udp,
        // Both ends change their ports: each would have to guess the other's.
        (Symmetric | SymmetricNext | UdpBlocked, _) => PathKind::Relay,
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:<16} {:<8} {:>13} {:>9} {:>10}",
            "a", "b", "path", "connected, ms", "path, ms", "datagrams"
        )?;
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        for pair in &self.pairs {
            let path = format!("{:?}", pair.path).to_lowercase();
            writeln!(
                f,
                "{:<16} {:<16} {path:<8} {:>13} {:>9} {:>10}",
                pair.a,
                pair.b,
                ms(pair.connected_ms),
                ms(pair.path_ms),
                pair.datagrams,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_gets_the_best_path_that_there_is() {
        let mut wrong = Vec::new();
        for (n, a) in NatKind::ALL.into_iter().enumerate() {
            for b in &NatKind::ALL[n..] {
                let pair = play(1, a, *b);
                if pair.path != expected(a, *b) || pair.connected_ms.is_none() {
                    wrong.push(pair);
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn neighbours_behind_one_translator_meet_on_their_own_network() {
        for kind in &NatKind::ALL[1..] {
            for hairpins in [false, true] {
                let mut pair = Play::new(2, &[(*kind, 2)]);
                pair.world.network_mut().set_hairpin(hairpins);
                let outcome = pair.run(*kind, *kind);
                assert!(outcome.connected_ms.is_some(), "{outcome:?}");
                for (from, to) in [(pair.first, pair.second), (pair.second, pair.first)] {
                    let here = pair.world.network().local_address(to);
                    let path = pair.path_info(from, to);
                    assert_eq!(
                        path,
                        Some(PathInfo::Direct { remote: here }),
                        "{kind:?}, hairpins {hairpins}"
                    );
                }
            }
        }
    }

    #[test]
    fn private_addresses_of_another_site_are_not_tried() {
        let kind = NatKind::PortRestricted;
        let mut pair = Play::new(3, &[(kind, 1), (kind, 2)]);
        let third = HostId(pair.second.0 + 1);
        pair.world.start_at(Instant::ZERO, third);
        let outcome = pair.run(kind, kind);
        assert_eq!(outcome.path, PathKind::Udp, "{outcome:?}");
        assert_eq!(pair.world.network().tallies().unroutable, 0);
    }
}
