//! Which peer holds which virtual address.
//!
//! A peer's IPv6 address proves itself. Its IPv4 address is first taken to be the one that follows
//! from its certificate, and looked up in the table with the first packet from or to it; any other
//! address counts only once the table has confirmed the lease, and packets from it wait for that.
//! What a peer tells of its addresses may be lost: a packet from an address that it has not told has
//! the table asked too, and whoever gets a packet for an address that it does not hold says which ones
//! it does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::Addresses;
use crate::membership::addresses::check_v4;
use crate::time::Instant;
use crate::wire::message::ADDRESSES_MAX;

use super::Node;
use super::api::GuestPacket;

/// Packets of one peer that wait for the table's word.
const HELD_BACK_MAX: usize = 16;
/// Addresses that one peer did not tell but sent from, which the table is asked about or has not
/// confirmed.
const UNTOLD_MAX: usize = 4;
/// How long the table is not asked again about such an address.
const DENIED: Duration = Duration::from_secs(2);
/// How often a peer is told that a packet went to the wrong node.
const CORRECTION: Duration = Duration::from_secs(1);

/// What is known of an address that a peer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It follows from the certificate.
    Assumed,
    /// The table was asked, or has confirmed it.
    Checked,
}

/// Whether a packet may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Welcome,
    /// Once the table has confirmed its source address.
    Later,
    Refused,
}

/// The virtual addresses that a peer may use.
pub(super) struct Holdings {
    certified: Addresses,
    v4: BTreeMap<Ipv4Addr, Trust>,
    /// Addresses that the peer claims to hold and the table is asked about.
    asked: BTreeSet<Ipv4Addr>,
    /// Addresses that the table did not confirm, and until when they are refused without asking.
    denied: BTreeMap<Ipv4Addr, Instant>,
    held_back: VecDeque<GuestPacket<Vec<u8>>>,
    /// When the peer was last told our addresses, since it had sent to another.
    corrected: Option<Instant>,
}

impl Holdings {
    pub(super) fn new(certified: Addresses) -> Self {
        Holdings {
            certified,
            v4: BTreeMap::from([(certified.v4, Trust::Assumed)]),
            asked: BTreeSet::new(),
            denied: BTreeMap::new(),
            corrected: None,
            held_back: VecDeque::new(),
        }
    }

    /// The peer's own addresses.
    pub(super) fn own(&self) -> Addresses {
        let certified = self.certified.v4;
        let other = || self.v4.keys().next().copied();
        let v4 = match self.v4.contains_key(&certified) {
            true => certified,
            false => other().unwrap_or(certified),
        };
        Addresses {
            v4,
            ..self.certified
        }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains_key(&v4),
            IpAddr::V6(v6) => self.certified.v6 == v6,
        }
    }

    /// Every address.
    pub(super) fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.keys().copied().map(IpAddr::from);
        v4.chain([self.certified.v6.into()])
    }
}

impl Node {
    /// The peer that holds an address.
    pub(super) fn peer_holding(&self, address: IpAddr) -> Option<NodeId> {
        let id = *self.holders.get(&address)?;
        self.peers.get(&id)?.is_established().then_some(id)
    }

    /// Notes which addresses a new peer holds.
    pub(super) fn note_holdings(&mut self, id: NodeId) {
        let held = self.peers.get(&id).map(|peer| peer.holdings.iter());
        for address in held.into_iter().flatten() {
            let holder = self.holders.entry(address).or_insert(id);
            *holder = id.min(*holder);
        }
    }

    /// Forgets an address of a peer, or gives it to the next peer that has it too.
    pub(super) fn forget_holder(&mut self, id: NodeId, address: IpAddr) {
        if self.holders.get(&address) != Some(&id) {
            return;
        }
        let mut others = self.peers.iter();
        let other = others.find(|(other, peer)| **other != id && peer.holdings.contains(address));
        match other {
            Some((other, _)) => self.holders.insert(address, *other),
            None => self.holders.remove(&address),
        };
    }

    /// Whether a peer may send from an address; with the first packet the table is asked as well.
    pub(super) fn admission(&mut self, now: Instant, id: NodeId, source: IpAddr) -> Admission {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Admission::Refused;
        };
        let holdings = &mut peer.holdings;
        let v4 = match source {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) if holdings.contains(source) => return Admission::Welcome,
            IpAddr::V6(_) => return Admission::Refused,
        };
        match holdings.v4.get_mut(&v4) {
            None if holdings.asked.contains(&v4) => return Admission::Later,
            None => return self.admission_untold(now, id, v4),
            Some(Trust::Checked) => return Admission::Welcome,
            Some(trust @ Trust::Assumed) => *trust = Trust::Checked,
        }
        self.check_lease(now, id, v4);
        Admission::Welcome
    }

    /// Whether a peer may send from an address that it has not told us.
    fn admission_untold(&mut self, now: Instant, id: NodeId, v4: Ipv4Addr) -> Admission {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Admission::Refused;
        };
        let holdings = &mut peer.holdings;
        holdings.denied.retain(|_, until| *until > now);
        let room = holdings.denied.len() + holdings.asked.len() < UNTOLD_MAX;
        if !room || holdings.denied.contains_key(&v4) || check_v4(self.pool.range, v4).is_err() {
            return Admission::Refused;
        }
        holdings.asked.insert(v4);
        self.check_lease(now, id, v4);
        // Where we answer for the address ourselves that was done at once.
        let holdings = self.peers.get(&id).map(|peer| &peer.holdings);
        match holdings {
            Some(holdings) if holdings.asked.contains(&v4) => Admission::Later,
            Some(holdings) if holdings.v4.contains_key(&v4) => Admission::Welcome,
            _ => Admission::Refused,
        }
    }

    /// A packet is sent to an address of a peer: with the first one the table is asked about it.
    pub(super) fn check_target(&mut self, now: Instant, id: NodeId, target: IpAddr) {
        let IpAddr::V4(v4) = target else {
            return;
        };
        let held = self
            .peers
            .get(&id)
            .and_then(|peer| peer.holdings.v4.get(&v4));
        if held == Some(&Trust::Assumed)
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.holdings.v4.insert(v4, Trust::Checked);
            self.check_lease(now, id, v4);
        }
    }

    /// A peer sent a packet to an address that is not ours: it is told which ones are.
    pub(super) fn correct(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let lately = |last: Instant| now - last < CORRECTION;
        if !peer.holdings.corrected.is_some_and(lately) {
            peer.holdings.corrected = Some(now);
            self.send_addresses(now, id);
        }
    }

    /// Keeps a packet until the table has confirmed its source address.
    pub(super) fn hold_back(&mut self, id: NodeId, packet: &[u8], lacks_checksum: bool) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let held_back = &mut peer.holdings.held_back;
        if held_back.len() < HELD_BACK_MAX {
            held_back.push_back(GuestPacket {
                bytes: packet.to_vec(),
                lacks_checksum,
            });
        } else {
            self.counters.drop_full += 1;
        }
    }

    /// A peer says which addresses it holds.
    pub(super) fn handle_addresses(&mut self, now: Instant, from: NodeId, told: &[Ipv4Addr]) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let known: Vec<_> = peer.holdings.v4.keys().copied().collect();
        for gone in known.into_iter().filter(|v4| !told.contains(v4)) {
            self.drop_holding(from, gone);
        }
        for v4 in told {
            let holdings = self.peers.get_mut(&from).map(|peer| &mut peer.holdings);
            let news = holdings.is_some_and(|holdings| {
                let room = holdings.asked.len() < ADDRESSES_MAX;
                room && !holdings.v4.contains_key(v4) && holdings.asked.insert(*v4)
            });
            if news {
                self.check_lease(now, from, *v4);
            }
        }
    }

    /// The table told who holds an address that a peer claims to hold.
    pub(super) fn on_lease_checked(
        &mut self,
        now: Instant,
        id: NodeId,
        v4: Ipv4Addr,
        holder: Option<NodeId>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.holdings.asked.remove(&v4);
        let waiting = std::mem::take(&mut peer.holdings.held_back);
        if holder != Some(id) && peer.holdings.denied.len() < UNTOLD_MAX {
            peer.holdings.denied.insert(v4, now + DENIED);
        }
        if holder == Some(id) {
            self.confirm_holding(id, v4);
        } else if holder.is_some() {
            self.counters.leases_refuted += 1;
            self.drop_holding(id, v4);
        }
        for packet in waiting {
            self.handle_peer_packet(now, id, &packet.bytes, packet.lacks_checksum);
        }
    }

    /// A peer is known to hold an address.
    pub(super) fn confirm_holding(&mut self, id: NodeId, v4: Ipv4Addr) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let held = &mut peer.holdings.v4;
        if held.len() >= ADDRESSES_MAX && !held.contains_key(&v4) {
            self.counters.drop_full += 1;
            return;
        }
        held.insert(v4, Trust::Checked);
        peer.holdings.denied.remove(&v4);
        // Whoever held it before does no longer.
        let before = self.holders.insert(v4.into(), id);
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            peer.holdings.v4.remove(&v4);
        }
    }

    fn drop_holding(&mut self, id: NodeId, v4: Ipv4Addr) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.holdings.v4.remove(&v4);
        }
        self.forget_holder(id, v4.into());
    }
}
