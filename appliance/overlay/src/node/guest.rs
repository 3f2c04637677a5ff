//! The guest's IP packets: whom they go to, and which ones may come in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::addresses::{twin_v4, v6_prefix};
use crate::time::Instant;
use crate::wire::frame;
use crate::wire::message::Contact;
use crate::wire::record::Key;

use super::api::{GuestPacket, GuestPackets};
use super::attempts::Goal;
use super::holders::Admission;
use super::report::Table;
use super::{Node, OUTBOX_MAX};

/// How long a link is kept for traffic that has ceased.
pub(super) const ON_DEMAND_IDLE: Duration = Duration::from_secs(60);
/// Packets that wait for one address, and addresses that are waited for.
const WAITING_PACKETS_MAX: usize = 32;
const WAITING_ADDRESSES_MAX: usize = 128;
/// How old a packet may be when its holder is reached: its sender has given up on older ones.
const WAITING_LONGEST: Duration = Duration::from_secs(10);

struct Waits {
    /// The kind of frame that it travels in.
    kind: u8,
    packet: Vec<u8>,
    since: Instant,
}

#[derive(Default)]
struct Queue {
    holder: Option<NodeId>,
    packets: VecDeque<Waits>,
}

/// Packets to addresses whose holder is being looked for or reached.
#[derive(Default)]
pub(super) struct Waiting {
    queues: BTreeMap<IpAddr, Queue>,
}

impl Waiting {
    pub(super) fn tables(&self) -> [Table; 2] {
        let packets = self.queues.values().map(|queue| queue.packets.len());
        [
            Table {
                name: "addresses waited for",
                entries: self.queues.len(),
                limit: WAITING_ADDRESSES_MAX,
            },
            Table {
                name: "packets for one address",
                entries: packets.max().unwrap_or(0),
                limit: WAITING_PACKETS_MAX,
            },
        ]
    }

    /// The holder of an address was found.
    pub(super) fn resolved(&mut self, key: &Key, holder: NodeId) {
        let address = match key {
            Key::V4(v4) => IpAddr::V4(*v4),
            Key::V6(v6) => IpAddr::V6(*v6),
            Key::Id(_) | Key::Name(_) | Key::Service(_) => return,
        };
        if let Some(queue) = self.queues.get_mut(&address) {
            queue.holder = Some(holder);
        }
    }

    /// The IPv4 addresses that were found to be this holder's.
    pub(super) fn found_at(&self, holder: NodeId) -> Vec<Ipv4Addr> {
        let found = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.holder == Some(holder));
        let v4 = found.filter_map(|(address, _)| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        v4.collect()
    }

    /// A holder could not be reached.
    pub(super) fn remove(&mut self, holder: NodeId) {
        self.queues.retain(|_, queue| queue.holder != Some(holder));
    }
}

impl Node {
    /// Takes one IP packet from the guest, no longer than its MTU.
    ///
    /// Packets from the address that the node has asked for and not got yet wait for it; meanwhile their
    /// holder is looked for and reached.
    pub fn handle_guest_packet(&mut self, now: Instant, packet: &[u8]) {
        let addresses = addresses_of(packet);
        let Some((destination, leased)) = self.guest_destination(addresses, packet.len()) else {
            return;
        };
        let holder = self.peer_holding(destination);
        if let Some(id) = holder.filter(|_| leased) {
            self.check_target(now, id, destination);
            let write = |out: &mut Vec<u8>| out.extend_from_slice(packet);
            if !self.is_too_big(now, id, packet.len(), write) {
                self.send_guest(now, id, frame::GUEST, packet);
            }
        } else if let Some(queue) = self.queue_for(destination) {
            queue.push_back(Waits {
                kind: frame::GUEST,
                packet: packet.to_vec(),
                since: now,
            });
            self.seek_unknown(now, destination, holder);
        }
    }

    /// Takes packets from the guest, none longer than its MTU. Those for a peer with a path of its own are
    /// sealed together, each straight from where `packets` writes it.
    pub fn handle_guest_packets(&mut self, now: Instant, packets: &impl GuestPackets) {
        let addresses = packets.addresses();
        let Some((destination, leased)) = self.guest_destination(addresses, packets.length(0))
        else {
            return;
        };
        let kind = match packets.lacks_checksum() {
            true => frame::UNSUMMED,
            false => frame::GUEST,
        };
        let holder = self.peer_holding(destination);
        if let Some(id) = holder.filter(|_| leased) {
            self.check_target(now, id, destination);
            let write = |out: &mut Vec<u8>| packets.write(0, out);
            if self.is_too_big(now, id, packets.length(0), write)
                || self.send_together(now, id, kind, packets)
            {
                return;
            }
            let mut packet = self.buffer();
            for index in 0..packets.count() {
                packet.clear();
                packets.write(index, &mut packet);
                self.send_guest(now, id, kind, &packet);
            }
            self.recycle(packet);
            return;
        }
        for index in 0..packets.count() {
            let Some(queue) = self.queue_for(destination) else {
                return;
            };
            let mut packet = Vec::with_capacity(packets.length(index));
            packets.write(index, &mut packet);
            queue.push_back(Waits {
                kind,
                packet,
                since: now,
            });
        }
        self.seek_unknown(now, destination, holder);
    }

    /// Where packets of the guest go, if they may go there, and whether the address that they come from is
    /// leased already.
    fn guest_destination(
        &mut self,
        addresses: Option<(IpAddr, IpAddr)>,
        longest: usize,
    ) -> Option<(IpAddr, bool)> {
        let allowed = self.held_as(addresses).and_then(|(source, destination)| {
            let leased = self.holds(source);
            let own = leased || self.dht.claims.awaits(source);
            (own && longest <= self.guest_mtu && self.is_in_pool(destination))
                .then_some((destination, leased))
        });
        if allowed.is_none() {
            self.counters.drop_guest_invalid += 1;
        }
        allowed
    }

    /// The packets that wait for an address, with room for one more; none where too many addresses are
    /// waited for.
    fn queue_for(&mut self, destination: IpAddr) -> Option<&mut VecDeque<Waits>> {
        let queues = &mut self.waiting.queues;
        if queues.len() >= WAITING_ADDRESSES_MAX && !queues.contains_key(&destination) {
            self.counters.drop_full += 1;
            return None;
        }
        let queue = queues.entry(destination).or_default();
        if queue.packets.len() >= WAITING_PACKETS_MAX {
            // The oldest is the one its sender has given up first.
            queue.packets.pop_front();
            self.counters.drop_full += 1;
        }
        Some(&mut queue.packets)
    }

    /// Packets wait for an address; its holder is looked for, unless a peer is known to be it.
    fn seek_unknown(&mut self, now: Instant, destination: IpAddr, holder: Option<NodeId>) {
        let Some(queue) = self.waiting.queues.get_mut(&destination) else {
            return;
        };
        queue.holder = queue.holder.or(holder);
        if queue.holder.is_none() {
            self.seek_holder(now, Key::from(destination));
        }
    }

    /// There is somebody to ask now: looks for whom packets wait that came before.
    pub(super) fn seek_holders(&mut self, now: Instant) {
        let queues = self.waiting.queues.iter();
        let unknown = queues.filter(|(_, queue)| queue.holder.is_none());
        for address in unknown.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.seek_holder(now, Key::from(address));
        }
    }

    /// The address is leased that packets came from before it was: those whose holders have been reached
    /// meanwhile can go.
    pub(super) fn flush_early(&mut self, now: Instant) {
        let queues = self.waiting.queues.values();
        let mut holders: BTreeSet<_> = queues.filter_map(|queue| queue.holder).collect();
        holders.retain(|id| self.peers.get(id).is_some_and(|peer| peer.is_established()));
        for id in holders {
            self.flush_waiting(now, id);
        }
    }

    fn send_guest(&mut self, now: Instant, id: NodeId, kind: u8, packet: &[u8]) {
        self.note_traffic(now, id);
        self.counters.guest_out += 1;
        self.send_traffic(now, id, &[&[kind], packet]);
    }

    /// Whether a packet that a peer's guest sent to ours may come in now.
    pub(super) fn lets_in(
        &mut self,
        now: Instant,
        from: NodeId,
        packet: &[u8],
        lacks_checksum: bool,
    ) -> bool {
        self.note_traffic(now, from);
        let addressed = self.held_as(addresses_of(packet));
        let admission = match addressed {
            Some((source, destination)) if self.holds(destination) => {
                self.admission(now, from, source)
            }
            Some((_, IpAddr::V4(_))) => {
                self.correct(now, from);
                Admission::Refused
            }
            _ => Admission::Refused,
        };
        match admission {
            Admission::Later => {
                self.hold_back(from, packet, lacks_checksum);
                false
            }
            Admission::Refused => {
                self.counters.drop_guest_invalid += 1;
                false
            }
            Admission::Welcome => {
                self.counters.guest_in += 1;
                true
            }
        }
    }

    /// Takes a packet that a peer's guest sent to ours, and keeps it until it is polled.
    pub(super) fn handle_peer_packet(
        &mut self,
        now: Instant,
        from: NodeId,
        packet: &[u8],
        lacks_checksum: bool,
    ) {
        if self.lets_in(now, from, packet, lacks_checksum) {
            self.queue_guest_packet(packet, lacks_checksum);
        }
    }

    /// Keeps an admitted packet until it is polled.
    pub(super) fn queue_guest_packet(&mut self, packet: &[u8], lacks_checksum: bool) {
        if self.guest_packets.len() >= OUTBOX_MAX {
            self.counters.drop_full += 1;
            return;
        }
        let mut bytes = self.buffer();
        bytes.extend_from_slice(packet);
        self.guest_packets.push_back(GuestPacket {
            bytes,
            lacks_checksum,
        });
    }

    /// Reaches for a node that something waits for.
    pub(super) fn reach(&mut self, now: Instant, contact: Contact, agent: Option<NodeId>) {
        let id = contact.id;
        if self.peers.get(&id).is_some_and(|p| p.is_established()) {
            self.flush_waiting(now, id);
        } else {
            self.begin_handshake(now, Goal::Contact { contact, agent });
        }
    }

    /// Sends what waited for a session with a peer.
    pub(super) fn flush_waiting(&mut self, now: Instant, id: NodeId) {
        for v4 in self.waiting.found_at(id) {
            self.confirm_holding(id, v4);
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let held: Vec<_> = peer.holdings.iter().collect();
        for address in held {
            let Some(queue) = self.waiting.queues.remove(&address) else {
                continue;
            };
            let mut early = VecDeque::new();
            for waiting in queue.packets {
                let addresses = self.held_as(addresses_of(&waiting.packet));
                let source = addresses.map(|(source, _)| source);
                match source {
                    Some(source) if self.holds(source) => {
                        if now - waiting.since < WAITING_LONGEST {
                            self.send_guest(now, id, waiting.kind, &waiting.packet);
                        } else {
                            self.counters.drop_guest_unresolved += 1;
                        }
                    }
                    Some(source) if self.dht.claims.awaits(source) => early.push_back(waiting),
                    // It was sent from an address that turned out to be somebody else's.
                    _ => self.counters.drop_guest_invalid += 1,
                }
            }
            if !early.is_empty() {
                let queue = Queue {
                    holder: Some(id),
                    packets: early,
                };
                self.waiting.queues.insert(address, queue);
            }
        }
        self.send_echoes(now, id);
    }

    /// Drops what waited for an address that nobody has.
    pub(super) fn drop_unresolved(&mut self, key: &Key) {
        let address = match key {
            Key::V4(v4) => IpAddr::V4(*v4),
            Key::V6(v6) => IpAddr::V6(*v6),
            Key::Id(_) | Key::Name(_) | Key::Service(_) => return,
        };
        if let Some(queue) = self.waiting.queues.remove(&address) {
            self.counters.drop_guest_unresolved += queue.packets.len() as u64;
        }
    }

    /// Source and destination as the table knows them: by the IPv4 address that an IPv6 address goes with.
    fn held_as(&self, addresses: Option<(IpAddr, IpAddr)>) -> Option<(IpAddr, IpAddr)> {
        let held = |address| match address {
            IpAddr::V6(v6) => {
                let v4 = twin_v4(self.pool.pool_id(), self.pool.range, v6);
                v4.map_or(address, IpAddr::V4)
            }
            IpAddr::V4(_) => address,
        };
        let (source, destination) = addresses?;
        Some((held(source), held(destination)))
    }

    fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.dht.claims.holds(v4),
            IpAddr::V6(v6) => self.addresses().v6 == v6,
        }
    }

    fn is_in_pool(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let range = self.pool.range;
                range.contains(&v4) && v4 != range.network() && v4 != range.broadcast()
            }
            IpAddr::V6(v6) => v6_prefix(self.pool.pool_id()).contains(&v6),
        }
    }
}

/// Source and destination of an IP packet.
pub fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let at =
                |i: usize| Ipv4Addr::new(header[i], header[i + 1], header[i + 2], header[i + 3]);
            Some((at(12).into(), at(16).into()))
        }
        6 => {
            let header: &[u8; 40] = packet.first_chunk()?;
            let source: [u8; 16] = header[8..24].try_into().ok()?;
            let destination: [u8; 16] = header[24..40].try_into().ok()?;
            Some((
                Ipv6Addr::from(source).into(),
                Ipv6Addr::from(destination).into(),
            ))
        }
        _ => None,
    }
}
