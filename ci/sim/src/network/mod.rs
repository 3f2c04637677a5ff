//! The network between hosts: domains, translators, delay, loss, duplication, partitions.
//!
//! It carries no datagrams itself: [`Edge::send`] says when and where one arrives, the world
//! keeps it until then, and [`Edge::receive`] says who gets it. Translators judge incoming
//! datagrams on arrival, as hole punching depends on what happened while they travelled.
//!
//! The [`Map`] is the same for everybody and changes from outside only. What sending and receiving
//! change is one domain's own, its [`Edge`]: so domains can be simulated side by side.

mod edge;
pub mod mix;
pub mod nat;
mod tcp;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::AddAssign;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use wow_overlay::Rng;
use wow_overlay::wire::Remote;

use self::mix::NatMix;
use self::nat::{Nat, NatKind};
use self::tcp::Stream;
use crate::text::Share;

pub use self::edge::{Edge, Sent};

/// The port every host's socket is bound to.
pub const PORT: u16 = 4001;
/// Hosts in one domain, at most.
pub const DOMAIN_HOSTS_MAX: usize = 8;
/// The internet of the simulation: 198.18.0.0/15, which RFC 2544 reserves for tests.
const INTERNET: u32 = 0xc612_0000;
/// The last byte of the first address inside a domain behind a translator.
const FIRST_INSIDE: u8 = 10;
/// One-way delay between two hosts of one domain.
const LAN_DELAY: Duration = Duration::from_micros(200);

/// A host, by its place in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl HostId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the network does to every datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Lost altogether.
    pub loss: Share,
    /// Delivered twice.
    pub duplication: Share,
    /// Added to the delay, evenly from zero to this: above the sending interval it reorders.
    pub jitter: Duration,
}

/// One-way delays between domains, drawn from this range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DelayRange {
    /// Between the closest.
    pub min: Duration,
    /// Between the farthest.
    pub max: Duration,
}

/// Datagrams by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tallies {
    /// Handed to the network.
    pub sent: u64,
    /// Handed to a host.
    pub delivered: u64,
    /// Lost at random.
    pub lost: u64,
    /// Delivered once more.
    pub duplicated: u64,
    /// Sent to an address that nobody has, or that cannot be reached from the sender.
    pub unroutable: u64,
    /// Refused by a translator.
    pub refused: u64,
    /// Cut off by a partition.
    pub partitioned: u64,
}

impl AddAssign for Tallies {
    fn add_assign(&mut self, other: Tallies) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.unroutable += other.unroutable;
        self.refused += other.refused;
        self.partitioned += other.partitioned;
    }
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The source the receiver will see.
    pub from: SocketAddrV4,
    /// The destination as the last network sees it.
    pub to: SocketAddrV4,
    way: Way,
}

/// What a datagram's last part of the way depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On who has the address, and on the translator there.
    Outside,
    /// On nothing: sender and receiver share a local network.
    Local(HostId),
    /// On whether the connection still is, for the one of its ends that this is for.
    Stream(Stream, HostId),
}

impl Flight {
    /// The source as the receiver's node is told it.
    pub fn source(&self) -> Remote {
        match self.way {
            Way::Outside | Way::Local(_) => Remote::udp(self.from.into()),
            Way::Stream(..) => Remote::tcp(self.from.into()),
        }
    }
}

#[derive(Debug)]
struct Domain {
    x: f64,
    y: f64,
    /// The address of its translator, if it has one.
    gateway: Option<Ipv4Addr>,
    hosts: Vec<HostId>,
    /// Hosts that have come from elsewhere, each to an address of its own.
    moved_in: u16,
    /// The map's epoch since the translator last forgot everything.
    reset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    domain: usize,
    address: SocketAddrV4,
    /// The map's epoch since all connections of the host last ended at once.
    closed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Outside {
    Host(HostId),
    Gateway(usize),
    /// Its host has moved away.
    Nobody,
}

/// Who is where, and what becomes of datagrams between domains.
#[derive(Debug)]
pub struct Map {
    delay: DelayRange,
    conditions: Conditions,
    domains: Vec<Domain>,
    places: Vec<Place>,
    /// Who has the n-th address of the internet.
    outside: Vec<Outside>,
    cut_off: BTreeSet<usize>,
    /// Public hosts listen on TCP: somebody's domain blocks UDP.
    listening: bool,
    /// How often connections were ended: by this older ones are told from newer ones.
    epoch: u64,
}

/// Hosts in domains, and everything between them.
#[derive(Debug)]
pub struct Network {
    map: Map,
    edges: Vec<Edge>,
}

impl Network {
    /// `hosts` hosts in domains of one to [`DOMAIN_HOSTS_MAX`], the first `public` of them (the
    /// seeds) alone in domains without translators, the others behind what `mix` draws.
    pub fn new(
        mut rng: Rng,
        hosts: usize,
        public: usize,
        mix: &NatMix,
        delay: DelayRange,
        conditions: Conditions,
    ) -> Self {
        let mut network = Network::empty(delay, conditions, mix.has(NatKind::UdpBlocked));
        while network.map.places.len() < hosts {
            let placed = network.map.places.len();
            let (kind, size) = if placed < public {
                (NatKind::None, 1)
            } else {
                (mix.draw(&mut rng), rng.random_range(1..=DOMAIN_HOSTS_MAX))
            };
            network.add_domain(&mut rng, kind, size.min(hosts - placed));
        }
        network
    }

    /// A network of precisely these domains, each a kind and its number of hosts.
    pub fn of_domains(
        mut rng: Rng,
        domains: &[(NatKind, usize)],
        delay: DelayRange,
        conditions: Conditions,
    ) -> Self {
        let mut network = Network::empty(delay, conditions, true);
        for (kind, hosts) in domains {
            network.add_domain(&mut rng, *kind, *hosts);
        }
        network
    }

    fn empty(delay: DelayRange, conditions: Conditions, listening: bool) -> Self {
        Network {
            map: Map {
                delay,
                conditions,
                domains: Vec::new(),
                places: Vec::new(),
                outside: Vec::new(),
                cut_off: BTreeSet::new(),
                listening,
                epoch: 0,
            },
            edges: Vec::new(),
        }
    }

    fn add_domain(&mut self, rng: &mut Rng, kind: NatKind, size: usize) {
        let map = &mut self.map;
        let domain = map.domains.len();
        let nat = kind.behaviour().map(|behaviour| {
            let address = map.next_outside(Outside::Gateway(domain));
            Nat::new(behaviour, address)
        });
        let mut hosts = Vec::with_capacity(size);
        for n in 0..size {
            let host = HostId(u32::try_from(map.places.len()).expect("fewer than 2^32 hosts"));
            let ip = match nat {
                None => map.next_outside(Outside::Host(host)),
                // The same in each domain, as it is in homes.
                Some(_) => Ipv4Addr::new(192, 168, 1, FIRST_INSIDE + n as u8),
            };
            map.places.push(Place {
                domain,
                address: SocketAddrV4::new(ip, PORT),
                closed: 0,
            });
            hosts.push(host);
        }
        map.domains.push(Domain {
            x: rng.random(),
            y: rng.random(),
            gateway: nat.as_ref().map(Nat::outside),
            hosts,
            moved_in: 0,
            reset: 0,
        });
        self.edges.push(Edge::new(domain, rng.fork(), nat));
    }

    /// The map alone, and every domain's edge.
    pub fn parts_mut(&mut self) -> (&Map, &mut [Edge]) {
        (&self.map, &mut self.edges)
    }

    /// The map.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Takes `host` to another domain, drawn at random, and to an address there. The connections it
    /// has are to its old address, and end.
    pub fn move_host(&mut self, rng: &mut Rng, host: HostId) {
        self.close(host);
        let map = &mut self.map;
        let Place {
            domain, address, ..
        } = map.places[host.index()];
        map.domains[domain].hosts.retain(|there| *there != host);
        if let Some(index) = u32::from(*address.ip()).checked_sub(INTERNET + 1)
            && let Some(owner) = map.outside.get_mut(index as usize)
        {
            *owner = Outside::Nobody;
        }
        let target = (domain + rng.random_range(1..map.domains.len().max(2))) % map.domains.len();
        let ip = match map.domains[target].gateway {
            None => map.next_outside(Outside::Host(host)),
            Some(_) => {
                let domain = &mut map.domains[target];
                domain.moved_in += 1;
                let [high, low] = domain.moved_in.to_be_bytes();
                // 192.168.1.0/24 is of those who have been there from the beginning.
                Ipv4Addr::new(192, 168, high + 2, low)
            }
        };
        map.domains[target].hosts.push(host);
        let place = &mut map.places[host.index()];
        place.domain = target;
        place.address = SocketAddrV4::new(ip, PORT);
    }

    /// The UDP socket `host` finds on its own interface.
    pub fn local_address(&self, host: HostId) -> Remote {
        self.map.local_address(host)
    }

    /// Every socket that `host` listens on, on its own interface.
    pub fn local_remotes(&self, host: HostId) -> Vec<Remote> {
        self.map.local_remotes(host)
    }

    /// Whether translators send what goes from inside to their outside address back in.
    pub fn set_hairpin(&mut self, hairpins: bool) {
        for edge in &mut self.edges {
            edge.set_hairpin(hairpins);
        }
    }

    /// What became of all datagrams so far.
    pub fn tallies(&self) -> Tallies {
        let mut sum = Tallies::default();
        for edge in &self.edges {
            sum += edge.tallies();
        }
        sum
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.map.domains.len()
    }

    /// Replaces the conditions from now on; datagrams on their way keep theirs.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.map.conditions = conditions;
    }

    /// The conditions now.
    pub fn conditions(&self) -> Conditions {
        self.map.conditions
    }

    /// Cuts `domains` off from all others (not from each other); an empty set heals.
    pub fn set_partition(&mut self, domains: BTreeSet<usize>) {
        self.map.cut_off = domains;
    }

    /// Lets the translator of `domain`, if it has one, forget everything.
    pub fn reset_nat(&mut self, domain: usize) {
        if self.map.domains[domain].gateway.is_some() {
            self.edges[domain].reset();
            self.map.epoch += 1;
            self.map.domains[domain].reset = self.map.epoch;
        }
    }

    /// Ends the connections of a host whose node is gone.
    pub fn close(&mut self, host: HostId) {
        self.map.epoch += 1;
        let place = &mut self.map.places[host.index()];
        place.closed = self.map.epoch;
        self.edges[place.domain].close(host);
    }
}

impl Map {
    /// The domain that a host is in.
    pub fn domain_of(&self, host: HostId) -> usize {
        self.places[host.index()].domain
    }

    /// What a datagram takes at least from one domain to another.
    pub fn lookahead(&self) -> Duration {
        self.delay.min.max(LAN_DELAY)
    }

    /// The UDP socket `host` finds on its own interface.
    pub fn local_address(&self, host: HostId) -> Remote {
        Remote::udp(self.places[host.index()].address.into())
    }

    /// Every socket that `host` listens on, on its own interface.
    pub fn local_remotes(&self, host: HostId) -> Vec<Remote> {
        let udp = self.local_address(host);
        let tcp = self.listens(host).then(|| Remote::tcp(udp.address()));
        [Some(udp), tcp].into_iter().flatten().collect()
    }

    /// Whether `host` takes TCP connections: where nobody outside could connect nobody listens.
    fn listens(&self, host: HostId) -> bool {
        self.listening && self.domains[self.domain_of(host)].gateway.is_none()
    }

    fn next_outside(&mut self, owner: Outside) -> Ipv4Addr {
        self.outside.push(owner);
        Ipv4Addr::from(INTERNET + self.outside.len() as u32)
    }

    fn owner(&self, ip: Ipv4Addr) -> Option<Outside> {
        let index = u32::from(ip).checked_sub(INTERNET + 1)?;
        self.outside.get(index as usize).copied()
    }

    /// The host in `domain` that has an address there.
    fn local_host(&self, domain: usize, address: SocketAddrV4) -> Option<HostId> {
        let mut hosts = self.domains[domain].hosts.iter().copied();
        hosts.find(|host| self.places[host.index()].address.ip() == address.ip())
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut_off.contains(&a) != self.cut_off.contains(&b)
    }

    /// By the distance of two points in the unit square, so that the triangle holds, as it mostly
    /// does on the internet.
    fn base_delay(&self, a: usize, b: usize) -> Duration {
        if a == b {
            return LAN_DELAY;
        }
        let (a, b) = (&self.domains[a], &self.domains[b]);
        let distance = (a.x - b.x).hypot(a.y - b.y) / std::f64::consts::SQRT_2;
        let more = self.delay.max.saturating_sub(self.delay.min);
        self.lookahead() + more.mul_f64(distance)
    }
}

#[cfg(test)]
mod tests;
