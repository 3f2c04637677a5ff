//! The network between hosts: domains, translators, delay, loss, duplication, partitions.
//!
//! It carries no datagrams itself: [`Network::send`] says when and where one arrives, the world
//! keeps it until then, and [`Network::receive`] says who gets it. Translators judge incoming
//! datagrams on arrival, as hole punching depends on what happened while they travelled.

pub mod mix;
pub mod nat;
mod tcp;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use wow_overlay::Rng;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use self::mix::NatMix;
use self::nat::{Nat, NatKind};
use self::tcp::{StreamId, Streams};
use crate::text::Share;

/// The port every host's socket is bound to.
pub const PORT: u16 = 4001;
/// Hosts in one domain, at most.
pub const DOMAIN_HOSTS_MAX: usize = 8;
/// The internet of the simulation: 198.18.0.0/15, which RFC 2544 reserves for tests.
const INTERNET: u32 = 0xc612_0000;
/// The last byte of the first address inside a domain behind a translator.
const FIRST_INSIDE: u8 = 10;
/// Times a connection sends again what is lost before this is taken to have arrived.
const RETRANSMISSIONS_MAX: u32 = 6;
/// What a retransmission costs beside a round trip (Linux's TCP_RTO_MIN).
const RETRANSMISSION_MIN: Duration = Duration::from_millis(200);
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
    /// On whether the connection still is.
    Stream(StreamId, HostId),
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
    nat: Option<Nat>,
    hosts: Vec<HostId>,
    /// Hosts that have come from elsewhere, each to an address of its own.
    moved_in: u16,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    domain: usize,
    address: SocketAddrV4,
}

#[derive(Clone, Copy, Debug)]
enum Outside {
    Host(HostId),
    Gateway(usize),
    /// Its host has moved away.
    Nobody,
}

/// Hosts in domains, and everything between them.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    delay: DelayRange,
    conditions: Conditions,
    domains: Vec<Domain>,
    places: Vec<Place>,
    /// Who has the n-th address of the internet.
    outside: Vec<Outside>,
    cut_off: BTreeSet<usize>,
    tallies: Tallies,
    streams: Streams,
    /// Public hosts listen on TCP: somebody's domain blocks UDP.
    listening: bool,
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
        let mut network = Network::empty(rng.fork(), delay, conditions);
        network.listening = mix.has(NatKind::UdpBlocked);
        while network.places.len() < hosts {
            let (kind, size) = if network.places.len() < public {
                (NatKind::None, 1)
            } else {
                (mix.draw(&mut rng), rng.random_range(1..=DOMAIN_HOSTS_MAX))
            };
            let size = size.min(hosts - network.places.len());
            network.add_domain(&mut rng, kind, size);
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
        let mut network = Network::empty(rng.fork(), delay, conditions);
        network.listening = true;
        for (kind, hosts) in domains {
            network.add_domain(&mut rng, *kind, *hosts);
        }
        network
    }

    fn empty(rng: Rng, delay: DelayRange, conditions: Conditions) -> Self {
        Network {
            delay,
            conditions,
            domains: Vec::new(),
            places: Vec::new(),
            outside: Vec::new(),
            cut_off: BTreeSet::new(),
            tallies: Tallies::default(),
            streams: Streams::default(),
            listening: false,
            rng,
        }
    }

    fn add_domain(&mut self, rng: &mut Rng, kind: NatKind, size: usize) {
        let domain = self.domains.len();
        let nat = kind.behaviour().map(|behaviour| {
            let address = self.next_outside(Outside::Gateway(domain));
            Nat::new(behaviour, address)
        });
        let mut hosts = Vec::with_capacity(size);
        for n in 0..size {
            let host = HostId(u32::try_from(self.places.len()).expect("fewer than 2^32 hosts"));
            let ip = match nat {
                None => self.next_outside(Outside::Host(host)),
                // The same in each domain, as it is in homes.
                Some(_) => Ipv4Addr::new(192, 168, 1, FIRST_INSIDE + n as u8),
            };
            self.places.push(Place {
                domain,
                address: SocketAddrV4::new(ip, PORT),
            });
            hosts.push(host);
        }
        self.domains.push(Domain {
            x: rng.random(),
            y: rng.random(),
            nat,
            hosts,
            moved_in: 0,
        });
    }

    fn next_outside(&mut self, owner: Outside) -> Ipv4Addr {
        self.outside.push(owner);
        Ipv4Addr::from(INTERNET + self.outside.len() as u32)
    }

    /// Takes `host` to another domain, drawn at random, and to an address there.
    pub fn move_host(&mut self, rng: &mut Rng, host: HostId) {
        let Place { domain, address } = self.places[host.index()];
        self.domains[domain].hosts.retain(|there| *there != host);
        if let Some(index) = u32::from(*address.ip()).checked_sub(INTERNET + 1)
            && let Some(owner) = self.outside.get_mut(index as usize)
        {
            *owner = Outside::Nobody;
        }
        let target = (domain + rng.random_range(1..self.domains.len().max(2))) % self.domains.len();
        let ip = match self.domains[target].nat {
            None => self.next_outside(Outside::Host(host)),
            Some(_) => {
                let domain = &mut self.domains[target];
                domain.moved_in += 1;
                let [high, low] = domain.moved_in.to_be_bytes();
                // 192.168.1.0/24 is of those who have been there from the beginning.
                Ipv4Addr::new(192, 168, high + 2, low)
            }
        };
        self.domains[target].hosts.push(host);
        self.places[host.index()] = Place {
            domain: target,
            address: SocketAddrV4::new(ip, PORT),
        };
    }

    fn owner(&self, ip: Ipv4Addr) -> Option<Outside> {
        let index = u32::from(ip).checked_sub(INTERNET + 1)?;
        self.outside.get(index as usize).copied()
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
        self.listening && self.is_public(host)
    }

    /// Whether translators send what goes from inside to their outside address back in.
    pub fn set_hairpin(&mut self, hairpins: bool) {
        for domain in &mut self.domains {
            if let Some(nat) = &mut domain.nat {
                nat.set_hairpin(hairpins);
            }
        }
    }

    /// The kind of domain `host` is in, for reports.
    pub fn is_public(&self, host: HostId) -> bool {
        self.domains[self.places[host.index()].domain].nat.is_none()
    }

    /// What became of all datagrams so far.
    pub fn tallies(&self) -> Tallies {
        self.tallies
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Replaces the conditions from now on; datagrams on their way keep theirs.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// The conditions now.
    pub fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// Cuts `domains` off from all others (not from each other); an empty set heals.
    pub fn set_partition(&mut self, domains: BTreeSet<usize>) {
        self.cut_off = domains;
    }

    /// Lets the translator of `domain`, if it has one, forget everything.
    pub fn reset_nat(&mut self, domain: usize) {
        if let Some(nat) = &mut self.domains[domain].nat {
            nat.reset();
            self.streams.close_domain(domain);
        }
    }

    /// Ends the connections of a host whose node is gone.
    pub fn close(&mut self, host: HostId) {
        self.streams.close_host(host);
    }

    /// Sends a datagram from `host`'s socket: its flight and the times it arrives, none if it is
    /// lost, two if it is duplicated.
    pub fn send(
        &mut self,
        now: Instant,
        host: HostId,
        to: Remote,
    ) -> Option<(Flight, [Option<Instant>; 2])> {
        self.tallies.sent += 1;
        let (is_tcp, lane) = (to.is_tcp(), to.lane());
        let SocketAddr::V4(to) = to.address() else {
            self.tallies.unroutable += 1;
            return None;
        };
        if is_tcp {
            return self.send_stream(now, host, to);
        }
        let (flight, domains) = self.route(now, host, lane, to)?;
        let (source, target) = domains;
        if self.cut_off.contains(&source) != self.cut_off.contains(&target) {
            self.tallies.partitioned += 1;
            return None;
        }
        if self.chance(self.conditions.loss) {
            self.tallies.lost += 1;
            return None;
        }
        let base = self.base_delay(source, target);
        let first = now + base + self.draw_jitter();
        let second = self.chance(self.conditions.duplication).then(|| {
            self.tallies.duplicated += 1;
            now + base + self.draw_jitter()
        });
        Some((flight, [Some(first), second]))
    }

    /// Sends a datagram in a connection, which is opened if need be.
    fn send_stream(
        &mut self,
        now: Instant,
        host: HostId,
        to: SocketAddrV4,
    ) -> Option<(Flight, [Option<Instant>; 2])> {
        if self.streams.find(now, host, to).is_none() {
            self.connect(now, host, to);
        }
        let Some(way) = self.streams.find(now, host, to) else {
            self.tallies.unroutable += 1;
            return None;
        };
        let (source, target) = way.domains;
        if self.cut_off.contains(&source) != self.cut_off.contains(&target) {
            self.tallies.partitioned += 1;
            return None;
        }
        let base = self.base_delay(source, target);
        let mut travel = base + self.draw_jitter();
        // What is lost is sent again, and all that follows waits for it.
        let mut tries = 0;
        while tries < RETRANSMISSIONS_MAX && self.chance(self.conditions.loss) {
            travel += RETRANSMISSION_MIN + base * 2;
            tries += 1;
        }
        let arrival = self.streams.arrival(now, &way, travel)?;
        let flight = Flight {
            from: way.from,
            to,
            way: Way::Stream(way.stream, way.to),
        };
        Some((flight, [Some(arrival), None]))
    }

    /// Opens a connection from `host` to a socket that listens and can be reached.
    fn connect(&mut self, now: Instant, host: HostId, to: SocketAddrV4) {
        let place = &self.places[host.index()];
        let (source, inside) = (place.domain, *place.address.ip());
        let server = match self.local_host(&self.domains[source], to) {
            Some(neighbour) => neighbour,
            None => match self.owner(*to.ip()) {
                Some(Outside::Host(server)) => server,
                // No connection comes in through a translator.
                Some(Outside::Gateway(_) | Outside::Nobody) | None => return,
            },
        };
        let target = self.places[server.index()].domain;
        let cut = self.cut_off.contains(&source) != self.cut_off.contains(&target);
        if cut || to.port() != PORT || !self.listens(server) {
            return;
        }
        let seen = match &self.domains[source].nat {
            Some(nat) if source != target => nat.outside(),
            _ => inside,
        };
        let ready = now + self.base_delay(source, target) * 2;
        self.streams
            .open((host, source, seen), (server, target, to), now, ready);
    }

    /// Who gets a datagram that has arrived, if anybody.
    pub fn receive(&mut self, now: Instant, flight: &Flight) -> Option<HostId> {
        self.receive_on(now, flight).map(|(host, _)| host)
    }

    /// Who gets a datagram that has arrived, if anybody, and by which of its sockets.
    pub fn receive_on(&mut self, now: Instant, flight: &Flight) -> Option<(HostId, u16)> {
        let mut lane = 0;
        let host = match flight.way {
            Way::Local(host) => {
                lane = flight.to.port().wrapping_sub(PORT);
                Some(host)
            }
            Way::Stream(stream, host) => self.streams.is_open(stream).then_some(host),
            Way::Outside => match self.owner(*flight.to.ip()) {
                Some(Outside::Host(host)) if flight.to.port() == PORT => Some(host),
                Some(Outside::Gateway(domain)) => {
                    let domain = &self.domains[domain];
                    let nat = domain.nat.as_ref().expect("a gateway has a translator");
                    let inside = nat.inbound(now, flight.to.port(), flight.from);
                    if inside.is_none() {
                        self.tallies.refused += 1;
                        return None;
                    }
                    inside.and_then(|inside| {
                        lane = inside.port().wrapping_sub(PORT);
                        self.local_host(domain, inside)
                    })
                }
                _ => None,
            },
        };
        match host {
            Some(_) => self.tallies.delivered += 1,
            None => self.tallies.unroutable += 1,
        }
        host.map(|host| (host, lane))
    }

    fn local_host(&self, domain: &Domain, address: SocketAddrV4) -> Option<HostId> {
        domain
            .hosts
            .iter()
            .copied()
            .find(|host| self.places[host.index()].address.ip() == address.ip())
    }

    /// The flight of a datagram and the domains it leaves and enters.
    fn route(
        &mut self,
        now: Instant,
        host: HostId,
        lane: u16,
        to: SocketAddrV4,
    ) -> Option<(Flight, (usize, usize))> {
        let place = &self.places[host.index()];
        let source = place.domain;
        let inside = SocketAddrV4::new(*place.address.ip(), PORT.wrapping_add(lane));
        if let Some(local) = self.local_host(&self.domains[source], to) {
            let flight = Flight {
                from: inside,
                to,
                way: Way::Local(local),
            };
            return Some((flight, (source, source)));
        }
        let Some(owner) = self.owner(*to.ip()) else {
            self.tallies.unroutable += 1;
            return None;
        };
        let target = match owner {
            Outside::Host(host) => self.places[host.index()].domain,
            Outside::Gateway(domain) => domain,
            Outside::Nobody => {
                self.tallies.unroutable += 1;
                return None;
            }
        };
        let mut from = inside;
        if let Some(nat) = &mut self.domains[source].nat {
            let hairpin = target == source;
            if nat.behaviour().blocks_udp || (hairpin && !nat.behaviour().hairpins) {
                self.tallies.refused += 1;
                return None;
            }
            from = nat.outbound(now, &mut self.rng, inside, to);
        }
        let flight = Flight {
            from,
            to,
            way: Way::Outside,
        };
        Some((flight, (source, target)))
    }

    /// By the distance of two points in the unit square, so that the triangle holds, as it mostly
    /// does on the internet.
    fn base_delay(&self, a: usize, b: usize) -> Duration {
        if a == b {
            return LAN_DELAY;
        }
        let (a, b) = (&self.domains[a], &self.domains[b]);
        let distance = (a.x - b.x).hypot(a.y - b.y) / std::f64::consts::SQRT_2;
        self.delay.min + (self.delay.max.saturating_sub(self.delay.min)).mul_f64(distance)
    }

    fn draw_jitter(&mut self) -> Duration {
        let micros = u64::try_from(self.conditions.jitter.as_micros()).unwrap_or(u64::MAX);
        match micros {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.rng.random_range(0..=micros)),
        }
    }

    fn chance(&mut self, share: Share) -> bool {
        share != Share::NONE && self.rng.random_bool(share.probability())
    }
}

#[cfg(test)]
mod tests;
