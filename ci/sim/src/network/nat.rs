//! Address translators, by the behaviours RFC 4787 names: mapping, filtering, ports, timeouts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::RngExt;
use wow_overlay::Rng;
use wow_overlay::time::Instant;

/// Mappings a translator holds; the one longest unused goes first when full.
pub const MAPPINGS_MAX: usize = 1024;
/// Remote endpoints a mapping remembers having sent to; the longest unused goes first when full.
pub const PERMITS_MAX: usize = 1024;
/// Ports a translator hands out start here.
const FIRST_PORT: u16 = 1024;

/// What of the remote endpoint a decision depends on (RFC 4787, 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing: endpoint-independent.
    None,
    /// On its address: address-dependent.
    Address,
    /// On its address and port: address-and-port-dependent.
    AddressAndPort,
}

/// How a translator chooses the outside port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inside port, when it is free.
    Preserved,
    /// The one after the last.
    Next,
    /// Any.
    Random,
}

/// How a translator behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// For which remotes an inside endpoint gets a mapping of its own.
    pub mapping: Dependence,
    /// From which remotes a mapping lets datagrams in.
    pub filtering: Dependence,
    /// Which outside port a new mapping gets.
    pub ports: Ports,
    /// Whether a datagram from inside to the outside address comes back in.
    pub hairpins: bool,
    /// Whether no UDP passes at all; TCP does.
    pub blocks_udp: bool,
    /// How long a mapping and a permit outlive the last datagram sent through them.
    pub timeout: Duration,
}

/// The usual names for common behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// No translator: hosts have public addresses.
    None,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    Restricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering.
    PortRestricted,
    /// Address-and-port-dependent mapping and filtering, random ports.
    Symmetric,
    /// The same with one port after the other.
    SymmetricNext,
    /// A firewall that lets no UDP pass, but TCP connections from inside.
    UdpBlocked,
}

impl NatKind {
    /// Every kind.
    pub const ALL: [NatKind; 7] = [
        NatKind::None,
        NatKind::FullCone,
        NatKind::Restricted,
        NatKind::PortRestricted,
        NatKind::Symmetric,
        NatKind::SymmetricNext,
        NatKind::UdpBlocked,
    ];

    /// As written on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            NatKind::None => "none",
            NatKind::FullCone => "full-cone",
            NatKind::Restricted => "restricted",
            NatKind::PortRestricted => "port-restricted",
            NatKind::Symmetric => "symmetric",
            NatKind::SymmetricNext => "symmetric-next",
            NatKind::UdpBlocked => "udp-blocked",
        }
    }

    /// What it does, if it is a translator at all.
    pub const fn behaviour(self) -> Option<Behaviour> {
        let dependent = Dependence::AddressAndPort;
        let (mapping, filtering, ports) = match self {
            NatKind::None => return None,
            NatKind::FullCone => (Dependence::None, Dependence::None, Ports::Preserved),
            NatKind::Restricted => (Dependence::None, Dependence::Address, Ports::Preserved),
            NatKind::PortRestricted | NatKind::UdpBlocked => {
                (Dependence::None, dependent, Ports::Preserved)
            }
            NatKind::Symmetric => (dependent, dependent, Ports::Random),
            NatKind::SymmetricNext => (dependent, dependent, Ports::Next),
        };
        Some(Behaviour {
            mapping,
            filtering,
            ports,
            blocks_udp: matches!(self, NatKind::UdpBlocked),
            // Many home routers do not, so that is the case to survive.
            hairpins: false,
            // RFC 4787 asks for two minutes; Linux's conntrack forgets an unanswered flow after
            // 30 s, and that is what is met in the field.
            timeout: Duration::from_secs(30),
        })
    }
}

/// One translator with one outside address.
#[derive(Debug)]
pub struct Nat {
    behaviour: Behaviour,
    outside: Ipv4Addr,
    by_port: BTreeMap<u16, Mapping>,
    by_inside: BTreeMap<(SocketAddrV4, Scope), u16>,
    /// The last port that was handed out one after the other.
    last: u16,
}

/// The part of a remote endpoint that a [`Dependence`] looks at.
type Scope = Option<(Ipv4Addr, Option<u16>)>;

#[derive(Debug)]
struct Mapping {
    inside: SocketAddrV4,
    scope: Scope,
    used: Instant,
    permits: BTreeMap<Scope, Instant>,
}

fn scope(dependence: Dependence, remote: SocketAddrV4) -> Scope {
    match dependence {
        Dependence::None => None,
        Dependence::Address => Some((*remote.ip(), None)),
        Dependence::AddressAndPort => Some((*remote.ip(), Some(remote.port()))),
    }
}

impl Nat {
    /// A translator with an empty table behind `outside`.
    pub fn new(behaviour: Behaviour, outside: Ipv4Addr) -> Self {
        Nat {
            behaviour,
            outside,
            by_port: BTreeMap::new(),
            by_inside: BTreeMap::new(),
            last: FIRST_PORT,
        }
    }

    /// Whether what goes from inside to the outside address comes back in.
    pub fn set_hairpin(&mut self, hairpins: bool) {
        self.behaviour.hairpins = hairpins;
    }

    /// Its address on the internet.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Translates a datagram on its way out: what its source becomes.
    pub fn outbound(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> SocketAddrV4 {
        let key = (inside, scope(self.behaviour.mapping, remote));
        let port = match self.by_inside.get(&key) {
            Some(&port) if self.is_fresh(now, port) => port,
            known => {
                if let Some(&stale) = known {
                    self.forget(stale);
                }
                self.open(now, rng, key)
            }
        };
        let permit = scope(self.behaviour.filtering, remote);
        let mapping = self
            .by_port
            .get_mut(&port)
            .expect("every port in `by_inside` has a mapping");
        mapping.used = now;
        if mapping.permits.len() >= PERMITS_MAX && !mapping.permits.contains_key(&permit) {
            let oldest = mapping
                .permits
                .iter()
                .min_by_key(|(_, used)| **used)
                .map(|(scope, _)| *scope);
            if let Some(oldest) = oldest {
                mapping.permits.remove(&oldest);
            }
        }
        mapping.permits.insert(permit, now);
        SocketAddrV4::new(self.outside, port)
    }

    /// Translates a datagram from `remote` that arrived at outside `port`: whom it is for, if the
    /// filter lets it in. Incoming datagrams refresh nothing (RFC 4787, REQ-6).
    pub fn inbound(&self, now: Instant, port: u16, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        if !self.is_fresh(now, port) {
            return None;
        }
        let mapping = self.by_port.get(&port)?;
        let permit = mapping
            .permits
            .get(&scope(self.behaviour.filtering, remote))?;
        (now - *permit < self.behaviour.timeout).then_some(mapping.inside)
    }

    /// Forgets everything, as a restarted gateway does.
    pub fn reset(&mut self) {
        self.by_port.clear();
        self.by_inside.clear();
    }

    fn is_fresh(&self, now: Instant, port: u16) -> bool {
        self.by_port
            .get(&port)
            .is_some_and(|mapping| now - mapping.used < self.behaviour.timeout)
    }

    fn open(&mut self, now: Instant, rng: &mut Rng, key: (SocketAddrV4, Scope)) -> u16 {
        if self.by_port.len() >= MAPPINGS_MAX {
            let oldest = self
                .by_port
                .iter()
                .min_by_key(|(_, mapping)| mapping.used)
                .map(|(port, _)| *port);
            if let Some(oldest) = oldest {
                self.forget(oldest);
            }
        }
        let mut port = key.0.port();
        let wanted_is_taken = self.by_port.contains_key(&port) && self.is_fresh(now, port);
        if self.behaviour.ports != Ports::Preserved || wanted_is_taken {
            // Ends: the table holds far fewer mappings than there are ports.
            port = loop {
                let candidate = match self.behaviour.ports {
                    Ports::Next => self.last.checked_add(1).unwrap_or(FIRST_PORT),
                    Ports::Preserved | Ports::Random => rng.random_range(FIRST_PORT..=u16::MAX),
                };
                self.last = candidate;
                if !self.by_port.contains_key(&candidate) {
                    break candidate;
                }
            };
        } else {
            self.forget(port);
        }
        let (inside, scope) = key;
        self.by_inside.insert(key, port);
        self.by_port.insert(
            port,
            Mapping {
                inside,
                scope,
                used: now,
                permits: BTreeMap::new(),
            },
        );
        port
    }

    fn forget(&mut self, port: u16) {
        if let Some(mapping) = self.by_port.remove(&port) {
            self.by_inside.remove(&(mapping.inside, mapping.scope));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const INSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 10), 4001);
    const NEIGHBOUR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 11), 4001);
    const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 9, 9), 4001);
    const SAME_HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 9, 9), 5555);
    const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 8, 8), 4001);

    fn nat(kind: NatKind) -> (Nat, Rng) {
        let behaviour = kind.behaviour().unwrap();
        (Nat::new(behaviour, OUTSIDE), Rng::seed_from_u64(1))
    }

    /// Whether, after one datagram to REMOTE, each of REMOTE, SAME_HOST and OTHER gets in.
    fn admitted(kind: NatKind) -> [bool; 3] {
        let (mut nat, mut rng) = nat(kind);
        let outside = nat.outbound(Instant::ZERO, &mut rng, INSIDE, REMOTE);
        assert_eq!(*outside.ip(), OUTSIDE);
        [REMOTE, SAME_HOST, OTHER]
            .map(|from| nat.inbound(Instant::ZERO, outside.port(), from) == Some(INSIDE))
    }

    #[test]
    fn each_kind_filters_as_named() {
        assert_eq!(admitted(NatKind::FullCone), [true, true, true]);
        assert_eq!(admitted(NatKind::Restricted), [true, true, false]);
        assert_eq!(admitted(NatKind::PortRestricted), [true, false, false]);
        assert_eq!(admitted(NatKind::Symmetric), [true, false, false]);
    }

    #[test]
    fn cones_keep_one_mapping_and_symmetric_ones_do_not() {
        for kind in NatKind::ALL {
            if kind == NatKind::None {
                continue;
            }
            let (mut nat, mut rng) = nat(kind);
            let first = nat.outbound(Instant::ZERO, &mut rng, INSIDE, REMOTE);
            let second = nat.outbound(Instant::ZERO, &mut rng, INSIDE, OTHER);
            let symmetric = matches!(kind, NatKind::Symmetric | NatKind::SymmetricNext);
            assert_eq!(first == second, !symmetric, "{kind:?}");
            assert_eq!(first.port() == INSIDE.port(), !symmetric, "{kind:?}");
            if kind == NatKind::SymmetricNext {
                assert_eq!(second.port(), first.port() + 1);
            }
        }
    }

    #[test]
    fn two_hosts_with_one_port_get_two_mappings() {
        let (mut nat, mut rng) = nat(NatKind::PortRestricted);
        let first = nat.outbound(Instant::ZERO, &mut rng, INSIDE, REMOTE);
        let second = nat.outbound(Instant::ZERO, &mut rng, NEIGHBOUR, REMOTE);
        assert_ne!(first, second);
        assert_eq!(
            nat.inbound(Instant::ZERO, second.port(), REMOTE),
            Some(NEIGHBOUR)
        );
    }

    #[test]
    fn a_mapping_expires_unless_sent_through() {
        let (mut nat, mut rng) = nat(NatKind::PortRestricted);
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let outside = nat.outbound(at(0), &mut rng, INSIDE, REMOTE);
        nat.outbound(at(20), &mut rng, INSIDE, REMOTE);
        assert!(nat.inbound(at(49), outside.port(), REMOTE).is_some());
        assert!(nat.inbound(at(50), outside.port(), REMOTE).is_none());
        // Another permit keeps the mapping alive, not this one's.
        let again = nat.outbound(at(60), &mut rng, INSIDE, REMOTE);
        nat.outbound(at(80), &mut rng, INSIDE, OTHER);
        assert!(nat.inbound(at(95), again.port(), OTHER).is_some());
        assert!(nat.inbound(at(95), again.port(), REMOTE).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut nat, mut rng) = nat(NatKind::Symmetric);
        for n in 0..2 * MAPPINGS_MAX as u32 {
            let remote = SocketAddrV4::new(Ipv4Addr::from(0x0101_0000 + n), 4001);
            nat.outbound(Instant::from_micros(u64::from(n)), &mut rng, INSIDE, remote);
        }
        assert_eq!(nat.by_port.len(), MAPPINGS_MAX);
        assert_eq!(nat.by_inside.len(), MAPPINGS_MAX);
    }
}
