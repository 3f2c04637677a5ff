//! The machine's twin: a node that knows the ring from a shared directory, with flaws to order,
//! by which the simulator's own rules are tested.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use crate::checks::NEAR_PER_SIDE;
use crate::machine::{
    Machine, Notice, Occupancy, Outgoing, Population, Sought, Start, VirtualAddresses,
};
use crate::network::HostId;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const PACKET: u8 = 3;
const ECHO: u8 = 4;
const REPLY: u8 = 5;
const RETRY: Duration = Duration::from_millis(500);

/// What is wrong with a toy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Node 7 knows one neighbour only.
    ForgetsANeighbour,
    /// Packets go to whoever is next on the ring.
    Misdelivers,
    /// One bit flips.
    Alters,
    /// Addresses resolve to whoever is next on the ring.
    ResolvesWrongly,
    /// A deadline that never moves on.
    IsStuck,
    /// More entries in a table than allowed.
    Hoards,
    /// The dead stay in the list of peers.
    Remembers,
    /// Nodes 3 and 4 hold one address.
    SharesAnAddress,
    /// The revoked stay in the list of peers.
    KeepsTheRevoked,
    /// The revoked are found by whoever looks for them.
    FindsTheRevoked,
    /// What the revoked send is let in.
    HearsTheRevoked,
    /// Packets are padded beyond what a network carries.
    Swells,
    /// A datagram that should be counted brings the node down.
    Panics,
}

#[derive(Default)]
struct Directory {
    live: BTreeMap<NodeId, Remote>,
    ever: BTreeSet<NodeId>,
    revoked: Vec<NodeId>,
}

pub struct ToyPopulation {
    flaw: Flaw,
    ids: Vec<NodeId>,
    directory: Arc<Mutex<Directory>>,
}

pub struct Toy {
    flaw: Flaw,
    id: NodeId,
    host: HostId,
    ids: Vec<NodeId>,
    directory: Arc<Mutex<Directory>>,
    seeds: Vec<Remote>,
    transmits: VecDeque<Outgoing>,
    packets: VecDeque<Vec<u8>>,
    notices: VecDeque<Notice>,
    joined: Option<Instant>,
    retry: Instant,
    token: u64,
    rng_seed: [u8; 32],
}

fn addresses(n: usize) -> VirtualAddresses {
    VirtualAddresses {
        v4: Ipv4Addr::from(0x0a80_0002 + n as u32),
        v6: std::net::Ipv6Addr::from((0xfd00u128 << 112) + n as u128),
    }
}

fn name(n: usize) -> String {
    format!("toy-{n}")
}

impl ToyPopulation {
    pub fn new(mut rng: Rng, nodes: usize, flaw: Flaw) -> Self {
        ToyPopulation {
            flaw,
            ids: (0..nodes).map(|_| NodeId(rng.random())).collect(),
            directory: Arc::default(),
        }
    }
}

impl Population for ToyPopulation {
    type Machine = Toy;

    fn start(&self, start: Start) -> Toy {
        let id = self.id(start.host);
        let mut directory = self.directory.lock().unwrap();
        directory.live.insert(id, start.local[0]);
        directory.ever.insert(id);
        drop(directory);
        Toy {
            flaw: self.flaw,
            id,
            host: start.host,
            ids: self.ids.clone(),
            directory: Arc::clone(&self.directory),
            seeds: start.seeds,
            transmits: VecDeque::new(),
            packets: VecDeque::new(),
            notices: VecDeque::new(),
            joined: None,
            retry: start.now,
            token: 0,
            rng_seed: start.rng_seed,
        }
    }

    fn id(&self, host: HostId) -> NodeId {
        self.ids[host.index()]
    }

    fn name(&self, host: HostId) -> String {
        name(host.index())
    }

    fn revocation(&self, host: HostId) -> Vec<u8> {
        self.id(host).0.to_vec()
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.directory.lock().unwrap().live.remove(&self.id);
    }
}

impl Toy {
    fn send(&mut self, to: Remote, kind: u8, body: &[u8]) {
        let mut datagram = vec![kind];
        datagram.extend(body);
        self.transmits.push_back(Outgoing { to, datagram });
    }

    fn next_on_ring(&self, id: NodeId) -> NodeId {
        let directory = self.directory.lock().unwrap();
        let mut after = directory.live.range(id..).skip(1);
        let first = directory.live.first_key_value();
        *after.next().or(first).expect("the toy itself is live").0
    }

    fn holder(&self, sought: Sought) -> Option<NodeId> {
        let n = self.ids.iter().enumerate().position(|(n, _)| {
            let own = addresses(n);
            match &sought {
                Sought::Address(address) => {
                    *address == IpAddr::V4(own.v4) || *address == IpAddr::V6(own.v6)
                }
                Sought::Name(sought) => *sought == name(n),
            }
        });
        Some(self.ids[n?])
    }

    fn is_revoked(&self, id: NodeId) -> bool {
        self.directory.lock().unwrap().revoked.contains(&id)
    }
}

impl Machine for Toy {
    fn handle_datagram(&mut self, now: Instant, from: Remote, datagram: &mut [u8]) {
        let (kind, body) = datagram.split_first().expect("toys send no empty datagram");
        match *kind {
            HELLO => self.send(from, WELCOME, &[]),
            WELCOME => {
                self.joined.get_or_insert(now);
            }
            PACKET if self.flaw == Flaw::Panics => panic!("a toy invariant broke"),
            PACKET => self.packets.push_back(body.to_vec()),
            ECHO => self.send(from, REPLY, body),
            REPLY => self.notices.push_back(Notice::Pong {
                token: u64::from_be_bytes(body.try_into().expect("as sent")),
                rtt: RETRY,
                hops: 0,
            }),
            kind => panic!("unknown kind {kind}"),
        }
    }

    fn handle_guest_packet(&mut self, _: Instant, packet: &[u8]) {
        let to = match packet[0] >> 4 {
            4 => IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap()),
        };
        let mut holder = self.holder(Sought::Address(to)).unwrap();
        if self.flaw == Flaw::Misdelivers {
            holder = self.next_on_ring(holder);
        }
        let mut packet = packet.to_vec();
        if self.flaw == Flaw::Alters {
            packet[1] ^= 1;
        }
        if self.flaw == Flaw::Swells {
            packet.resize(1500, 0);
        }
        let to = self.directory.lock().unwrap().live.get(&holder).copied();
        let deaf = self.is_revoked(self.id) && self.flaw != Flaw::HearsTheRevoked;
        if let Some(to) = to.filter(|_| !deaf) {
            self.send(to, PACKET, &packet);
        }
    }

    fn handle_deadline(&mut self, now: Instant) {
        if self.flaw == Flaw::IsStuck && self.host == HostId(7) {
            return;
        }
        // A first node finds no seed but itself.
        match self.seeds.first().copied() {
            None => self.joined = Some(now),
            Some(_) => {
                let n = self.rng_seed[0] as usize % self.seeds.len();
                self.rng_seed.rotate_left(1);
                self.send(self.seeds[n], HELLO, &[]);
            }
        }
        self.retry = now + RETRY;
    }

    fn next_deadline(&mut self) -> Option<(Instant, &'static str)> {
        let joined = self.joined.is_some() && self.flaw != Flaw::IsStuck;
        (!joined).then_some((self.retry, "join"))
    }

    fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.transmits.pop_front()
    }

    fn poll_guest_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn recycle(&mut self, _: Vec<u8>) {}

    fn lookup(&mut self, _: Instant, sought: Sought) -> u64 {
        self.token += 1;
        let holder = self.holder(sought);
        let finds = |id: &NodeId| self.flaw == Flaw::FindsTheRevoked || !self.is_revoked(*id);
        let mut found = holder.filter(finds).ok_or_else(|| "nobody".to_owned());
        if self.flaw == Flaw::ResolvesWrongly {
            found = found.map(|found| self.next_on_ring(found));
        }
        self.notices.push_back(Notice::Resolved {
            token: self.token,
            result: found,
        });
        self.token
    }

    fn ping(&mut self, _: Instant, target: NodeId) -> u64 {
        self.token += 1;
        let to = self.directory.lock().unwrap().live.get(&target).copied();
        if let Some(to) = to {
            self.send(to, ECHO, &self.token.to_be_bytes());
        }
        self.token
    }

    fn handle_move(&mut self, _: Instant, local: Vec<Remote>) {
        self.directory
            .lock()
            .unwrap()
            .live
            .insert(self.id, local[0]);
    }

    fn revoke(&mut self, _: Instant, word: &[u8]) {
        let id = NodeId(word.try_into().expect("a toy's word is an id"));
        let mut directory = self.directory.lock().unwrap();
        directory.live.remove(&id);
        directory.revoked.push(id);
    }

    fn leave(&mut self, _: Instant) {}

    fn joined_at(&self) -> Option<Instant> {
        self.joined
    }

    fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    fn neighbours(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let directory = self.directory.lock().unwrap();
        let mut others: Vec<NodeId> = directory.live.keys().copied().collect();
        others.retain(|id| *id != self.id);
        others.sort_by_key(|id| self.id.clockwise_to(*id));
        let mut right: Vec<_> = others.iter().take(NEAR_PER_SIDE).copied().collect();
        let left = others.iter().rev().take(NEAR_PER_SIDE).copied().collect();
        if self.flaw == Flaw::ForgetsANeighbour && self.host == HostId(7) {
            right.pop();
        }
        (left, right)
    }

    fn addresses(&self) -> VirtualAddresses {
        addresses(self.host.index())
    }

    fn leases(&self) -> Vec<Ipv4Addr> {
        let n = match self.flaw {
            Flaw::SharesAnAddress if self.host == HostId(4) => 3,
            _ => self.host.index(),
        };
        vec![addresses(n).v4]
    }

    fn peers(&self) -> Vec<NodeId> {
        let (left, right) = self.neighbours();
        let near = left.into_iter().chain(right);
        match self.flaw {
            Flaw::Remembers => {
                let directory = self.directory.lock().unwrap();
                directory.ever.iter().copied().collect()
            }
            Flaw::KeepsTheRevoked => {
                let revoked = self.directory.lock().unwrap().revoked.clone();
                near.chain(revoked).collect()
            }
            _ => near.collect(),
        }
    }

    fn occupancies(&self) -> Vec<Occupancy> {
        vec![Occupancy {
            table: "toys",
            entries: if self.flaw == Flaw::Hoards { 9 } else { 8 },
            limit: 8,
        }]
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("tokens", self.token)]
    }
}
