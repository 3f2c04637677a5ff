//! One domain's end of the network: its translator, its connections, its share of chance.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use rand::RngExt;
use wow_overlay::Rng;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use super::nat::Nat;
use super::tcp::{Stream, Streams};
use super::{Flight, HostId, Map, Outside, PORT, Tallies, Way};
use crate::text::Share;

/// Times a connection sends again what is lost before this is taken to have arrived.
const RETRANSMISSIONS_MAX: u32 = 6;
/// What a retransmission costs beside a round trip (Linux's TCP_RTO_MIN).
const RETRANSMISSION_MIN: Duration = Duration::from_millis(200);

/// What changes at a domain when its hosts send and receive.
#[derive(Debug)]
pub struct Edge {
    domain: usize,
    rng: Rng,
    nat: Option<Nat>,
    streams: Streams,
    tallies: Tallies,
}

/// A datagram that was sent and is not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its way.
    pub flight: Flight,
    /// The domain it enters.
    pub domain: usize,
    /// When it arrives; twice if it is duplicated.
    pub arrivals: [Option<Instant>; 2],
}

impl Edge {
    pub(super) fn new(domain: usize, rng: Rng, nat: Option<Nat>) -> Self {
        Edge {
            domain,
            rng,
            nat,
            streams: Streams::default(),
            tallies: Tallies::default(),
        }
    }

    /// Whose edge it is.
    pub fn domain(&self) -> usize {
        self.domain
    }

    /// What became of the datagrams that were sent or arrived here.
    pub fn tallies(&self) -> Tallies {
        self.tallies
    }

    pub(super) fn set_hairpin(&mut self, hairpins: bool) {
        if let Some(nat) = &mut self.nat {
            nat.set_hairpin(hairpins);
        }
    }

    pub(super) fn reset(&mut self) {
        if let Some(nat) = &mut self.nat {
            nat.reset();
        }
    }

    pub(super) fn close(&mut self, host: HostId) {
        self.streams.close(host);
    }

    /// Sends a datagram from the socket of a host in this domain; none if it is lost.
    pub fn send(&mut self, map: &Map, now: Instant, host: HostId, to: Remote) -> Option<Sent> {
        self.tallies.sent += 1;
        let (is_tcp, lane) = (to.is_tcp(), to.lane());
        let SocketAddr::V4(to) = to.address() else {
            self.tallies.unroutable += 1;
            return None;
        };
        if is_tcp {
            return self.send_stream(map, now, host, to);
        }
        let (flight, target) = self.route(map, now, host, lane, to)?;
        if map.is_cut(self.domain, target) {
            self.tallies.partitioned += 1;
            return None;
        }
        if self.chance(map.conditions.loss) {
            self.tallies.lost += 1;
            return None;
        }
        let base = map.base_delay(self.domain, target);
        let first = now + base + self.draw_jitter(map);
        let second = self.chance(map.conditions.duplication).then(|| {
            self.tallies.duplicated += 1;
            now + base + self.draw_jitter(map)
        });
        Some(Sent {
            flight,
            domain: target,
            arrivals: [Some(first), second],
        })
    }

    /// Sends a datagram in a connection, which is opened if need be.
    fn send_stream(
        &mut self,
        map: &Map,
        now: Instant,
        host: HostId,
        to: SocketAddrV4,
    ) -> Option<Sent> {
        if self.streams.find(map, now, host, to).is_none() {
            self.connect(map, now, host, to);
        }
        let Some(end) = self.streams.find(map, now, host, to) else {
            self.tallies.unroutable += 1;
            return None;
        };
        let (stream, from) = (end.stream, end.seen);
        let peer = stream.peer_of(host);
        let target = map.domain_of(peer);
        if map.is_cut(self.domain, target) {
            self.tallies.partitioned += 1;
            return None;
        }
        let base = map.base_delay(self.domain, target);
        let mut travel = base + self.draw_jitter(map);
        // What is lost is sent again, and all that follows waits for it.
        let mut tries = 0;
        while tries < RETRANSMISSIONS_MAX && self.chance(map.conditions.loss) {
            travel += RETRANSMISSION_MIN + base * 2;
            tries += 1;
        }
        let end = self.streams.find(map, now, host, to)?;
        let way = Way::Stream(stream, peer);
        Some(Sent {
            flight: Flight { from, to, way },
            domain: target,
            arrivals: [Some(end.send(now, travel)), None],
        })
    }

    /// Opens a connection from `host` to a socket that listens and can be reached.
    fn connect(&mut self, map: &Map, now: Instant, host: HostId, to: SocketAddrV4) {
        let server = match map.local_host(self.domain, to) {
            Some(neighbour) => neighbour,
            None => match map.owner(*to.ip()) {
                Some(Outside::Host(server)) => server,
                // No connection comes in through a translator.
                Some(Outside::Gateway(_) | Outside::Nobody) | None => return,
            },
        };
        let target = map.domain_of(server);
        if map.is_cut(self.domain, target) || to.port() != PORT || !map.listens(server) {
            return;
        }
        let inside = *map.places[host.index()].address.ip();
        let seen = match &self.nat {
            Some(nat) if self.domain != target => nat.outside(),
            _ => inside,
        };
        let ready = now + map.base_delay(self.domain, target) * 2;
        let stream = Stream {
            client: host,
            server,
            opened: now,
            epoch: map.epoch,
        };
        self.streams.open(stream, to, seen, ready);
    }

    /// Who of this domain gets a datagram that has arrived, if anybody, and by which of its sockets.
    pub fn receive(&mut self, map: &Map, now: Instant, flight: &Flight) -> Option<(HostId, u16)> {
        let mut lane = 0;
        let host = match flight.way {
            Way::Local(host) => {
                lane = flight.to.port().wrapping_sub(PORT);
                Some(host)
            }
            Way::Stream(stream, to) => self.streams.receive(map, now, stream, to, flight),
            Way::Outside => match map.owner(*flight.to.ip()) {
                Some(Outside::Host(host)) if flight.to.port() == PORT => Some(host),
                Some(Outside::Gateway(_)) => {
                    let nat = self.nat.as_ref().expect("a gateway has a translator");
                    let inside = nat.inbound(now, flight.to.port(), flight.from);
                    if inside.is_none() {
                        self.tallies.refused += 1;
                        return None;
                    }
                    inside.and_then(|inside| {
                        lane = inside.port().wrapping_sub(PORT);
                        map.local_host(self.domain, inside)
                    })
                }
                _ => None,
            },
        };
        // It may have moved away meanwhile.
        let host = host.filter(|host| map.domain_of(*host) == self.domain);
        match host {
            Some(_) => self.tallies.delivered += 1,
            None => self.tallies.unroutable += 1,
        }
        host.map(|host| (host, lane))
    }

    /// The flight of a datagram and the domain it enters.
    fn route(
        &mut self,
        map: &Map,
        now: Instant,
        host: HostId,
        lane: u16,
        to: SocketAddrV4,
    ) -> Option<(Flight, usize)> {
        let address = map.places[host.index()].address;
        let inside = SocketAddrV4::new(*address.ip(), PORT.wrapping_add(lane));
        if let Some(local) = map.local_host(self.domain, to) {
            let flight = Flight {
                from: inside,
                to,
                way: Way::Local(local),
            };
            return Some((flight, self.domain));
        }
        let target = match map.owner(*to.ip()) {
            Some(Outside::Host(host)) => map.domain_of(host),
            Some(Outside::Gateway(domain)) => domain,
            Some(Outside::Nobody) | None => {
                self.tallies.unroutable += 1;
                return None;
            }
        };
        let mut from = inside;
        if let Some(nat) = &mut self.nat {
            let hairpin = target == self.domain;
            if nat.behaviour().blocks_udp || (hairpin && !nat.behaviour().hairpins) {
                self.tallies.refused += 1;
                return None;
            }
            from = nat.outbound(now, &mut self.rng, inside, to);
        }
        let way = Way::Outside;
        Some((Flight { from, to, way }, target))
    }

    fn draw_jitter(&mut self, map: &Map) -> Duration {
        let micros = u64::try_from(map.conditions.jitter.as_micros()).unwrap_or(u64::MAX);
        match micros {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.rng.random_range(0..=micros)),
        }
    }

    fn chance(&mut self, share: Share) -> bool {
        share != Share::NONE && self.rng.random_bool(share.probability())
    }
}
