//! The production node in the simulator's world: identities, certificates, and a thin mapping of
//! the facade.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::membership::{
    Addresses, Certificate, CertificateRequest, Identity, NodeName, PoolAuthority, PoolName,
    Revoked, Roles,
};
use wow_overlay::node::{
    Config, Event, GUEST_MTU_DEFAULT, Node, PathInfo, PingId, QueryId, Target,
};
use wow_overlay::session::CipherPreference;
use wow_overlay::time::{Instant, UnixTime};
use wow_overlay::wire::Remote;

use crate::crypto::Crypto;
use crate::machine::{
    Machine, Notice, Occupancy, Outgoing, Population, Sought, Start, VirtualAddresses,
};
use crate::network::HostId;
use crate::report::Report;
use crate::run::run;
use crate::scenario::Scenario;

/// The wall clock when a run starts: any will do, this one is in 2027.
const WALL: UnixTime = UnixTime(1_800_000_000);
/// The validity of the ticket and all certificates: longer than any run.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs `scenario` with production nodes, on `threads` threads.
pub fn simulate(scenario: &Scenario, threads: usize) -> Report {
    run(scenario, threads, |rng| {
        let Scenario {
            nodes,
            crypto,
            prefix,
            ..
        } = *scenario;
        Members::new(rng, nodes, crypto, prefix)
    })
}

/// Members of one pool, each with keys and a certificate of its own.
pub struct Members {
    authority: PoolAuthority,
    ciphers: CipherPreference,
    members: Vec<Member>,
}

struct Member {
    identity: Identity,
    certificate: Certificate,
}

impl Members {
    /// `count` members of a new pool, each under a name of its own, all under one ticket. The pool
    /// has the IPv4 addresses that begin like 10.128.0.0 in `prefix` bits.
    pub fn new(mut rng: Rng, count: usize, crypto: Crypto, prefix: u8) -> Self {
        let name = PoolName::new("simulated").expect("the name is valid");
        let range = format!("10.128.0.0/{prefix}");
        let range = range.parse().expect("the range is valid");
        let authority = PoolAuthority::create(name, range, Vec::new(), &mut rng)
            .expect("the pool's parts are valid");
        let not_after = WALL + VALIDITY;
        let ticket = authority
            .issue_ticket(Roles::ROUTER, WALL, not_after, None, &mut rng)
            .expect("the ticket's parts are valid");
        let mut members = Vec::with_capacity(count);
        for n in 0..count {
            let identity = Identity::generate(&mut rng);
            let request = CertificateRequest {
                name: NodeName::new(&node_name(n)).expect("the name is valid"),
                roles: Roles::ROUTER,
                fixed_address: None,
                not_before: WALL,
                not_after,
            };
            let certificate = ticket
                .certify(&identity, &request)
                .expect("the ticket allows the request");
            members.push(Member {
                identity,
                certificate,
            });
        }
        Members {
            authority,
            ciphers: match crypto {
                Crypto::Real => CipherPreference::aes_first(),
                Crypto::StandIn => CipherPreference::stand_in(),
            },
            members,
        }
    }
}

fn node_name(n: usize) -> String {
    format!("n{n}")
}

impl Population for Members {
    type Machine = Running;

    fn start(&self, start: Start) -> Running {
        let member = &self.members[start.host.index()];
        let identity = Identity::from_bytes(&*member.identity.to_bytes())
            .expect("an identity reads its own encoding");
        let config = Config {
            identity,
            certificate: member.certificate.clone(),
            pool: self.authority.facts().clone(),
            seeds: start.seeds,
            rng_seed: start.rng_seed,
            wall: WALL + (start.now - Instant::ZERO),
            ciphers: self.ciphers,
            guest_mtu: GUEST_MTU_DEFAULT,
        };
        let mut node = Node::new(config, start.now);
        node.set_host_candidates(start.now, start.local);
        Running {
            node,
            next_token: 0,
            queries: BTreeMap::new(),
            pings: BTreeMap::new(),
        }
    }

    fn id(&self, host: HostId) -> NodeId {
        self.members[host.index()].certificate.node_id()
    }

    fn name(&self, host: HostId) -> String {
        node_name(host.index())
    }

    fn revocation(&self, host: HostId) -> Vec<u8> {
        let revocation = self.authority.revoke(Revoked::Node(self.id(host)));
        revocation.bytes().to_vec()
    }
}

/// A production node, and the questions it was asked.
pub struct Running {
    node: Node,
    next_token: u64,
    queries: BTreeMap<QueryId, u64>,
    pings: BTreeMap<PingId, u64>,
}

impl Running {
    /// The path in use to a peer, if there is a session with it.
    pub fn path(&self, peer: NodeId) -> Option<PathInfo> {
        let peers = self.node.peers();
        peers
            .iter()
            .find(|info| info.id == peer)
            .map(|info| info.path)
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn notice(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Resolved { query, result } => Some(Notice::Resolved {
                token: self.queries.remove(&query)?,
                result: result
                    .map(|found| found.certificate.node_id())
                    .map_err(|error| error.to_string()),
            }),
            Event::Pong {
                ping, rtt, hops, ..
            } => Some(Notice::Pong {
                token: self.pings.remove(&ping)?,
                rtt,
                hops,
            }),
            Event::PingTimeout { ping } => Some(Notice::PingTimeout {
                token: self.pings.remove(&ping)?,
            }),
            Event::Joined
            | Event::OutOfTime { .. }
            | Event::Isolated
            | Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::BatchesHarm { .. }
            | Event::Revocation(_)
            | Event::Record { .. }
            | Event::Leased { .. }
            | Event::LeaseLost { .. }
            | Event::NameTaken { .. }
            | Event::Revoked
            | Event::Traced { .. }
            | Event::Links { .. }
            | Event::AddressConflict { .. } => None,
        }
    }
}

impl Machine for Running {
    fn handle_datagram(&mut self, now: Instant, from: Remote, datagram: &mut [u8]) {
        self.node.handle_datagram(now, from, datagram);
    }

    fn handle_guest_packet(&mut self, now: Instant, packet: &[u8]) {
        self.node.handle_guest_packet(now, packet);
    }

    fn handle_deadline(&mut self, now: Instant) {
        self.node.handle_deadline(now);
    }

    fn next_deadline(&mut self) -> Option<(Instant, &'static str)> {
        self.node.next_deadline()
    }

    fn poll_transmit(&mut self) -> Option<Outgoing> {
        let transmit = self.node.poll_transmit()?;
        Some(Outgoing {
            to: transmit.to,
            datagram: transmit.datagram,
        })
    }

    fn poll_guest_packet(&mut self) -> Option<Vec<u8>> {
        self.node.poll_guest_packet().map(|packet| packet.bytes)
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        while let Some(event) = self.node.poll_event() {
            if let Some(notice) = self.notice(event) {
                return Some(notice);
            }
        }
        None
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.node.recycle(buffer);
    }

    fn lookup(&mut self, now: Instant, sought: Sought) -> u64 {
        let token = self.token();
        let target = match sought {
            Sought::Address(IpAddr::V4(v4)) => Target::V4(v4),
            Sought::Address(IpAddr::V6(v6)) => Target::V6(v6),
            Sought::Name(name) => Target::Name(name),
        };
        let query = self.node.resolve(now, target);
        self.queries.insert(query, token);
        token
    }

    fn ping(&mut self, now: Instant, target: NodeId) -> u64 {
        let token = self.token();
        let ping = self.node.ping(now, target);
        self.pings.insert(ping, token);
        token
    }

    fn handle_move(&mut self, now: Instant, local: Vec<Remote>) {
        // A machine that was moved may have the same addresses elsewhere.
        if !self.node.set_host_candidates(now, local) {
            self.node.question_paths(now);
        }
    }

    fn revoke(&mut self, now: Instant, word: &[u8]) {
        let news = self.node.revoke(now, word);
        news.expect("the pool's own authority has signed it");
    }

    fn leave(&mut self, now: Instant) {
        self.node.leave(now);
    }

    fn joined_at(&self) -> Option<Instant> {
        self.node.joined_at()
    }

    fn is_joined(&self) -> bool {
        self.node.is_joined()
    }

    fn neighbours(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let near = self.node.near_neighbours();
        (near.left, near.right)
    }

    fn addresses(&self) -> VirtualAddresses {
        let Addresses { v4, v6 } = self.node.addresses();
        VirtualAddresses { v4, v6 }
    }

    fn leases(&self) -> Vec<Ipv4Addr> {
        // The time matters only to how long each still holds.
        let leases = self.node.leases(Instant::ZERO).into_iter();
        let held = leases.filter(|lease| lease.remaining.is_some());
        held.map(|lease| lease.address).collect()
    }

    fn peers(&self) -> Vec<NodeId> {
        self.node.peers().iter().map(|peer| peer.id).collect()
    }

    fn occupancies(&self) -> Vec<Occupancy> {
        let tables = self.node.tables().into_iter();
        tables
            .map(|table| Occupancy {
                table: table.name,
                entries: table.entries,
                limit: table.limit,
            })
            .collect()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.node.counters().iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::network::{Conditions, Network};
    use crate::scenario::{DELAY, PREFIX};
    use crate::text::Share;
    use crate::world::World;

    #[test]
    fn a_move_is_told_to_each_peer_once() {
        let mut rng = Rng::seed_from_u64(1);
        let clean = Conditions {
            loss: Share::NONE,
            duplication: Share::NONE,
            jitter: Duration::ZERO,
        };
        let public = "none".parse().expect("the mix is valid");
        let network = Network::new(rng.fork(), 5, 1, &public, DELAY, clean);
        let members = Members::new(rng.fork(), 5, Crypto::StandIn, PREFIX);
        let mut world = World::new(rng.fork(), network, members, 5, 1, 1);
        for host in world.hosts() {
            world.start_at(Instant::ZERO, host);
        }
        world.run_until(Instant::ZERO + Duration::from_secs(20));
        let moved = HostId(3);
        let sent = |world: &World<Members>| world.meters().nth(moved.index()).unwrap().datagrams;
        let peers = |world: &World<Members>| world.machine(moved).unwrap().peers().len() as u64;
        let before = sent(&world);
        world.move_host(moved);
        assert!(peers(&world) >= 4);
        assert_eq!(sent(&world) - before, peers(&world));
    }
}
