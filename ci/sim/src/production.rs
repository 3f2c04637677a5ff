//! The production node in the simulator's world: identities, certificates, and a thin mapping of
//! the facade.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::membership::{
    Addresses, Certificate, CertificateRequest, Identity, NodeName, PoolAuthority, PoolFacts,
    PoolName, Roles,
};
use wow_overlay::node::{Config, Event, Node, PathInfo, PingId, QueryId, Target};
use wow_overlay::session::CipherPreference;
use wow_overlay::time::{Instant, UnixTime};
use wow_overlay::wire::Remote;

use crate::crypto::Crypto;
use crate::machine::{Machine, Notice, Occupancy, Outgoing, Population, Start, VirtualAddresses};
use crate::network::HostId;
use crate::report::Report;
use crate::run::run;
use crate::scenario::Scenario;

/// The wall clock when a run starts: any will do, this one is in 2027.
const WALL: UnixTime = UnixTime(1_800_000_000);
/// The validity of the ticket and all certificates: longer than any run.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs `scenario` with production nodes.
pub fn simulate(scenario: &Scenario) -> Report {
    run(scenario, |rng, _, _| {
        Members::new(rng, scenario.nodes, scenario.crypto)
    })
}

/// Members of one pool, each with keys, a certificate and addresses of its own.
pub struct Members {
    pool: PoolFacts,
    ciphers: CipherPreference,
    members: Vec<Member>,
}

struct Member {
    identity: Identity,
    certificate: Certificate,
    addresses: Addresses,
}

impl Members {
    /// `count` members of a new pool, each under a name of its own, all under one ticket.
    ///
    /// Two nodes may derive one IPv4 address from their positions. Whoever holds it then is for
    /// leases to say, so here the second draws another identity.
    pub fn new(mut rng: Rng, count: usize, crypto: Crypto) -> Self {
        let name = PoolName::new("simulated").expect("the name is valid");
        let range = "10.128.0.0/9".parse().expect("the range is valid");
        let authority = PoolAuthority::create(name, range, Vec::new(), &mut rng)
            .expect("the pool's parts are valid");
        let not_after = WALL + VALIDITY;
        let ticket = authority
            .issue_ticket(Roles::ROUTER, WALL, not_after, None, &mut rng)
            .expect("the ticket's parts are valid");
        let mut taken = BTreeSet::new();
        let mut members = Vec::with_capacity(count);
        while members.len() < count {
            let identity = Identity::generate(&mut rng);
            let request = CertificateRequest {
                name: NodeName::new(&format!("n{}", members.len())).expect("the name is valid"),
                roles: Roles::ROUTER,
                fixed_address: None,
                not_before: WALL,
                not_after,
            };
            let certificate = ticket
                .certify(&identity, &request)
                .expect("the ticket allows the request");
            let addresses = Addresses::new(authority.facts(), &certificate);
            if taken.insert(addresses.v4) {
                members.push(Member {
                    identity,
                    certificate,
                    addresses,
                });
            }
        }
        Members {
            pool: authority.facts().clone(),
            ciphers: match crypto {
                Crypto::Real => CipherPreference::aes_first(),
                Crypto::StandIn => CipherPreference::stand_in(),
            },
            members,
        }
    }
}

impl Population for Members {
    type Machine = Running;

    fn start(&mut self, start: Start) -> Running {
        let member = &self.members[start.host.index()];
        let identity = Identity::from_bytes(&*member.identity.to_bytes())
            .expect("an identity reads its own encoding");
        let config = Config {
            identity,
            certificate: member.certificate.clone(),
            pool: self.pool.clone(),
            seeds: start.seeds,
            rng_seed: start.rng_seed,
            wall: WALL + (start.now - Instant::ZERO),
            ciphers: self.ciphers,
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

    fn addresses(&self, host: HostId) -> VirtualAddresses {
        let Addresses { v4, v6 } = self.members[host.index()].addresses;
        VirtualAddresses { v4, v6 }
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

    fn next_deadline(&self) -> Option<(Instant, &'static str)> {
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
        self.node.poll_guest_packet()
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

    fn lookup(&mut self, now: Instant, address: IpAddr) -> u64 {
        let token = self.token();
        let target = match address {
            IpAddr::V4(v4) => Target::V4(v4),
            IpAddr::V6(v6) => Target::V6(v6),
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
        self.node.set_host_candidates(now, local);
        self.node.question_paths(now);
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
