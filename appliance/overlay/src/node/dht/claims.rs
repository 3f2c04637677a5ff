//! What this node claims for itself: its address, its name, further leases and services; and how
//! each claim is kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rand::RngExt;

use crate::id::NodeId;
use crate::membership::addresses::{check_v4, derive_v4, lease_position};
use crate::membership::{Addresses, Certificate, NodeName};
use crate::time::Instant;
use crate::wire::message::{Control, Finding, Message, Question};
use crate::wire::record::{Claim, Key, NAME_MAX, RECORD_CANDIDATES_MAX, Record, VALUE_MAX};

use super::super::Node;
use super::super::api::Event;
use super::super::neighbourhood::jitter;
use super::LIFETIME;

/// Addresses that one node leases, its own included.
pub const LEASES_MAX: usize = 32;
/// Services that one node offers.
const SERVICES_MAX: usize = 16;
/// Names that one node claims for guests behind it: one for each that it can lease an address for.
const GUEST_NAMES_MAX: usize = LEASES_MAX - 1;
/// How often a claim is renewed.
const RENEW: Duration = Duration::from_secs(60);
/// When a claim that was granted for the first time is renewed: by then a ring that has grown fast is at
/// rest, and whoever granted it knows what its neighbours know.
const CONFIRM: Duration = Duration::from_secs(3);
/// When a claim that most did not promise is made again.
const AGAIN: Duration = Duration::from_millis(300);
/// When a claim is made again that somebody else holds.
const TAKEN: Duration = Duration::from_secs(5);
/// After a change of neighbours claims are renewed within this time: two rings may have met.
const RENEW_SOON: Duration = Duration::from_secs(2);
/// But not more often than this.
const RENEW_PAUSE: Duration = Duration::from_secs(15);

/// Names a lease; the node's own address is [`LeaseId::OWN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u16);

impl LeaseId {
    /// The node's own address.
    pub const OWN: LeaseId = LeaseId(0);
}

/// What a claim is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Slot {
    Address(LeaseId),
    Name,
    /// A name of a guest behind this node.
    GuestName(String),
    Service(String),
}

/// A lease, for tables and programs.
#[derive(Clone, Debug)]
pub struct LeaseInfo {
    /// Which.
    pub id: LeaseId,
    /// The address held, or claimed.
    pub address: Ipv4Addr,
    /// How long it holds without being renewed; `None` while it is not held.
    pub remaining: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wanted,
    Held {
        until: Instant,
    },
    /// Somebody else holds it.
    Taken,
}

struct Own {
    key: Key,
    /// What a service stores; addresses and names have none of their own.
    value: Vec<u8>,
    state: State,
    due: Instant,
    /// Counts the addresses tried.
    attempt: u32,
    renewed: Instant,
}

/// This node's claims.
#[derive(Default)]
pub(in super::super) struct Claims {
    own: BTreeMap<Slot, Own>,
    sequence: u64,
}

impl Claims {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.own.values().map(|own| own.due).min()
    }

    /// Whether an address is leased to us.
    pub(in super::super) fn holds(&self, v4: Ipv4Addr) -> bool {
        let held = |own: &Own| matches!(own.state, State::Held { .. });
        self.own
            .values()
            .any(|own| own.key == Key::V4(v4) && held(own))
    }

    /// Whether an address is the one that we try to lease for our own guest.
    pub(in super::super) fn awaits(&self, address: IpAddr) -> bool {
        let own = self.own.get(&Slot::Address(LeaseId::OWN));
        own.is_some_and(|own| own.state == State::Wanted && own.key == Key::from(address))
    }

    /// Whether our name is known to be somebody else's.
    pub(super) fn lacks_name(&self) -> bool {
        let name = self.own.get(&Slot::Name);
        name.is_some_and(|own| own.state == State::Taken)
    }

    /// The addresses held.
    pub(in super::super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let held = self
            .own
            .values()
            .filter(|own| matches!(own.state, State::Held { .. }));
        held.filter_map(|own| match own.key {
            Key::V4(v4) => Some(v4),
            _ => None,
        })
    }

    fn own_address(&self) -> Option<Ipv4Addr> {
        match self.own.get(&Slot::Address(LeaseId::OWN))?.key {
            Key::V4(v4) => Some(v4),
            _ => None,
        }
    }

    fn insert(&mut self, slot: Slot, key: Key, value: Vec<u8>, now: Instant) {
        let own = Own {
            key,
            value,
            state: State::Wanted,
            due: now,
            attempt: 0,
            renewed: Instant::ZERO,
        };
        self.own.insert(slot, own);
    }
}

impl Node {
    /// The virtual addresses of the node's guest. The IPv4 address may be used while
    /// [`Node::is_joined`] holds; until then it is the one that is tried for.
    pub fn addresses(&self) -> Addresses {
        let claimed = self.dht.claims.own_address();
        Addresses {
            v4: claimed.unwrap_or(self.certified.v4),
            ..self.certified
        }
    }

    /// Claims what the certificate says: the node's own address and its name.
    pub(in super::super) fn claim_own(&mut self, now: Instant) {
        let v4 = self.certified.v4;
        let name = Key::Name(self.certificate.name().to_string());
        let claims = &mut self.dht.claims;
        claims.insert(Slot::Address(LeaseId::OWN), Key::V4(v4), Vec::new(), now);
        claims.insert(Slot::Name, name, Vec::new(), now);
    }

    /// Leases a further address, for a guest behind this node; answered by [`Event::Leased`].
    ///
    /// `None` if the node has [`LEASES_MAX`] already.
    pub fn lease(&mut self, now: Instant) -> Option<LeaseId> {
        self.lease_preferring(now, None)
    }

    /// As [`Node::lease`], but tries for `preferred` first, if a node of the pool may have it. If
    /// somebody else does, [`Event::Leased`] tells of another address.
    pub fn lease_preferring(
        &mut self,
        now: Instant,
        preferred: Option<Ipv4Addr>,
    ) -> Option<LeaseId> {
        let is_free = |id: &LeaseId| !self.dht.claims.own.contains_key(&Slot::Address(*id));
        let mut ids = (1..).map(LeaseId).take(LEASES_MAX - 1);
        let id = ids.find(is_free)?;
        let preferred = preferred.filter(|v4| {
            let mut own = self.dht.claims.own.values();
            check_v4(self.pool.range, *v4).is_ok() && !own.any(|own| own.key == Key::V4(*v4))
        });
        let v4 = preferred.unwrap_or_else(|| self.lease_candidate(id, 0));
        let slot = Slot::Address(id);
        self.dht
            .claims
            .insert(slot.clone(), Key::V4(v4), Vec::new(), now);
        self.claim(now, slot);
        Some(id)
    }

    /// Gives a lease back. The node's own address stays.
    pub fn release(&mut self, now: Instant, lease: LeaseId) {
        if lease != LeaseId::OWN {
            self.withdraw(now, Slot::Address(lease));
            self.tell_addresses(now);
        }
    }

    /// Claims a name for a guest behind this node that holds `address`. A node whose certificate has
    /// the name takes precedence; otherwise it is whose it was first ([`Event::NameTaken`]).
    ///
    /// Returns whether there is room.
    pub fn claim_guest_name(&mut self, now: Instant, name: &NodeName, address: Ipv4Addr) -> bool {
        let slot = Slot::GuestName(name.to_string());
        let own = self.dht.claims.own.keys();
        let names = own.filter(|slot| matches!(slot, Slot::GuestName(_)));
        let is_new = !self.dht.claims.own.contains_key(&slot);
        if is_new && names.count() >= GUEST_NAMES_MAX {
            return false;
        }
        let (key, value) = (Key::Name(name.to_string()), address.octets().to_vec());
        self.dht.claims.insert(slot.clone(), key, value, now);
        self.claim(now, slot);
        true
    }

    /// Gives a guest's name up.
    pub fn withdraw_guest_name(&mut self, now: Instant, name: &NodeName) {
        self.withdraw(now, Slot::GuestName(name.to_string()));
    }

    /// Offers a service to the pool under a name, with a value of at most [`VALUE_MAX`] bytes.
    ///
    /// Returns whether name and value are within their bounds and there is room.
    pub fn offer_service(&mut self, now: Instant, name: &str, value: Vec<u8>) -> bool {
        let slot = Slot::Service(name.to_owned());
        let services = self.dht.claims.own.keys();
        let services = services
            .filter(|slot| matches!(slot, Slot::Service(_)))
            .count();
        let is_new = !self.dht.claims.own.contains_key(&slot);
        if name.len() > NAME_MAX || value.len() > VALUE_MAX || (is_new && services >= SERVICES_MAX)
        {
            return false;
        }
        let key = Key::Service(name.to_owned());
        self.dht.claims.insert(slot.clone(), key, value, now);
        self.claim(now, slot);
        true
    }

    /// Ceases to offer a service.
    pub fn withdraw_service(&mut self, now: Instant, name: &str) {
        self.withdraw(now, Slot::Service(name.to_owned()));
    }

    /// The node's leases, its own address first.
    pub fn leases(&self, now: Instant) -> Vec<LeaseInfo> {
        let own = self.dht.claims.own.iter();
        let leases = own.filter_map(|(slot, own)| match (slot, &own.key) {
            (Slot::Address(id), Key::V4(address)) => Some(LeaseInfo {
                id: *id,
                address: *address,
                remaining: match own.state {
                    State::Held { until } => Some(until - now),
                    State::Wanted | State::Taken => None,
                },
            }),
            _ => None,
        });
        leases.collect()
    }

    /// Gives up everything at once, so that it is free for others.
    pub(in super::super) fn withdraw_all(&mut self, now: Instant) {
        let slots: Vec<_> = self.dht.claims.own.keys().cloned().collect();
        for slot in slots {
            self.withdraw(now, slot);
        }
    }

    fn withdraw(&mut self, now: Instant, slot: Slot) {
        let Some(own) = self.dht.claims.own.remove(&slot) else {
            return;
        };
        if let (State::Held { .. }, Some(position)) = (own.state, self.position_of(&own.key)) {
            let record = self.record(now, own.key, Duration::ZERO, Vec::new());
            self.tell_closest(now, position, Question::Claim(record));
        }
    }

    /// Renews what is held, to find out whether another ring held it too.
    pub(in super::super) fn renew_soon(&mut self, now: Instant) {
        for own in self.dht.claims.own.values_mut() {
            if let State::Held { .. } = own.state {
                let earliest = now.max(own.renewed + RENEW_PAUSE);
                let due = earliest + RENEW_SOON.mul_f64(self.rng.random());
                own.due = own.due.min(due);
            }
        }
    }

    /// Somebody else has a key that we may hold: it is asked for anew.
    pub(super) fn claim_again(&mut self, now: Instant, key: &Key) {
        for own in self.dht.claims.own.values_mut() {
            if own.key == *key {
                own.due = now;
            }
        }
    }

    /// The node has its place in the ring (again): nothing that it holds is certain any more.
    pub(in super::super) fn claim_all(&mut self, now: Instant) {
        for own in self.dht.claims.own.values_mut() {
            own.due = now;
        }
        self.maintain_claims(now);
    }

    pub(super) fn maintain_claims(&mut self, now: Instant) {
        let due = self.dht.claims.own.iter().filter(|(_, own)| own.due <= now);
        for slot in due.map(|(slot, _)| slot.clone()).collect::<Vec<_>>() {
            self.check_expiry(now, &slot);
            self.claim(now, slot);
        }
    }

    /// A lease that nobody has renewed for its whole life is lost.
    fn check_expiry(&mut self, now: Instant, slot: &Slot) {
        let Some(own) = self.dht.claims.own.get_mut(slot) else {
            return;
        };
        if let State::Held { until } = own.state
            && until <= now
        {
            own.state = State::Wanted;
            self.on_lost(now, slot, None);
        }
    }

    /// Makes a claim anew, if the node has its place in the ring.
    fn claim(&mut self, now: Instant, slot: Slot) {
        let is_placed = self.ring.is_joined();
        let pause = jitter(if is_placed { AGAIN } else { TAKEN }, &mut self.rng);
        let Some(own) = self.dht.claims.own.get_mut(&slot) else {
            return;
        };
        // Until it is answered.
        own.due = now + pause;
        if !is_placed || self.is_claiming(&slot) {
            return;
        }
        let Some(own) = self.dht.claims.own.get(&slot) else {
            return;
        };
        let (key, value) = (own.key.clone(), own.value.clone());
        let value = match slot {
            Slot::Name => self.addresses().v4.octets().to_vec(),
            Slot::Address(_) | Slot::GuestName(_) | Slot::Service(_) => value,
        };
        let Some(position) = self.position_of(&key) else {
            return;
        };
        let record = self.record(now, key, LIFETIME, value);
        self.ask_claim(now, position, record, slot);
    }

    fn record(&mut self, now: Instant, key: Key, lifetime: Duration, value: Vec<u8>) -> Record {
        // Greater than before, also after a restart.
        let wall = self.wall.at(now).0 << 16;
        let sequence = (self.dht.claims.sequence + 1).max(wall);
        self.dht.claims.sequence = sequence;
        let candidates = self.candidates.offer(RECORD_CANDIDATES_MAX);
        let claim = Claim {
            key,
            sequence,
            lifetime_s: u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX),
            candidates,
            value,
        };
        let mut bytes = Vec::new();
        claim.encode(&mut bytes);
        Record {
            certificate: self.certificate.bytes().to_vec(),
            signature: self.sign_claim(&bytes).to_vec(),
            claim: bytes,
        }
    }

    /// A claim was answered.
    pub(in super::super) fn on_claimed(&mut self, now: Instant, slot: &Slot, finding: Finding) {
        match finding {
            Finding::Granted => self.on_granted(now, slot),
            Finding::Record(record) => {
                if let Some(verified) = self.verify_record(now, record) {
                    self.on_taken(now, slot, &verified);
                }
            }
            // Nobody decided: it is due again soon.
            _ => {}
        }
    }

    fn on_granted(&mut self, now: Instant, slot: &Slot) {
        let (renew, confirm) = (jitter(RENEW, &mut self.rng), jitter(CONFIRM, &mut self.rng));
        let Some(own) = self.dht.claims.own.get_mut(slot) else {
            return;
        };
        let news = !matches!(own.state, State::Held { .. });
        let renew = if news { confirm } else { renew };
        own.state = State::Held {
            until: now + LIFETIME,
        };
        own.due = now + renew;
        own.renewed = now;
        let key = own.key.clone();
        if let (true, Slot::Address(lease), Key::V4(address)) = (news, slot, key) {
            self.event(Event::Leased {
                lease: *lease,
                address,
            });
            self.tell_addresses(now);
            if *lease == LeaseId::OWN {
                // The name's record says it.
                if let Some(name) = self.dht.claims.own.get_mut(&Slot::Name) {
                    name.due = now;
                }
                self.check_joined(now);
                self.flush_early(now);
            }
        }
    }

    fn on_taken(&mut self, now: Instant, slot: &Slot, held: &super::Verified) {
        let pause = jitter(TAKEN, &mut self.rng);
        let Some(own) = self.dht.claims.own.get_mut(slot) else {
            return;
        };
        if held.claim.key != own.key {
            return;
        }
        if held.owner() == self.id {
            // Our own, from before a restart with a clock that was ahead.
            self.dht.claims.sequence = self.dht.claims.sequence.max(held.claim.sequence);
            own.due = now;
            return;
        }
        let was = std::mem::replace(&mut own.state, State::Taken);
        own.due = now + pause;
        if matches!(was, State::Held { .. }) {
            self.on_lost(now, slot, Some(held.owner()));
        }
        self.try_another(now, slot, was, &held.certificate);
    }

    /// Goes on after a key turned out to be somebody else's.
    fn try_another(&mut self, now: Instant, slot: &Slot, was: State, holder: &Certificate) {
        let (fixed, id) = (
            self.certificate.fixed_address(),
            *slot == Slot::Address(LeaseId::OWN),
        );
        let with = holder.node_id();
        match (slot, fixed.filter(|_| id)) {
            (Slot::Address(_), Some(address)) => {
                if was != State::Taken {
                    self.event(Event::AddressConflict { with, address });
                }
            }
            (Slot::Address(lease), None) => {
                let lease = *lease;
                let attempt = self
                    .dht
                    .claims
                    .own
                    .get(slot)
                    .map_or(0, |own| own.attempt + 1);
                let next = self.lease_candidate(lease, attempt);
                if let Some(own) = self.dht.claims.own.get_mut(slot) {
                    own.attempt = attempt;
                    own.key = Key::V4(next);
                    own.state = State::Wanted;
                    own.due = now;
                }
            }
            (Slot::Name | Slot::GuestName(_) | Slot::Service(_), _) => {
                if was != State::Taken {
                    let name = match slot {
                        Slot::GuestName(name) | Slot::Service(name) => name.clone(),
                        _ => self.certificate.name().to_string(),
                    };
                    self.event(Event::NameTaken { name, with });
                }
            }
        }
    }

    fn on_lost(&mut self, now: Instant, slot: &Slot, to: Option<NodeId>) {
        let key = self.dht.claims.own.get(slot).map(|own| own.key.clone());
        if let (Slot::Address(lease), Some(Key::V4(address))) = (slot, key) {
            self.event(Event::LeaseLost {
                lease: *lease,
                address,
                to,
            });
            self.tell_addresses(now);
        }
    }

    /// The address to try next: the node's derived one first, then ones drawn from its id.
    fn lease_candidate(&self, lease: LeaseId, attempt: u32) -> Ipv4Addr {
        let position = match (lease, attempt) {
            (LeaseId::OWN, 0) => self.id,
            _ => lease_position(self.id, lease.0, attempt),
        };
        derive_v4(self.pool.range, position)
    }

    /// Tells every peer which addresses we hold, where that does not follow from our certificate.
    fn tell_addresses(&mut self, now: Instant) {
        for id in self.established() {
            self.tell_addresses_to(now, id);
        }
    }

    /// Tells one peer.
    pub(in super::super) fn tell_addresses_to(&mut self, now: Instant, id: NodeId) {
        let expected = self.certified.v4;
        let held: Vec<_> = self.dht.claims.addresses().collect();
        let told = self.peers.get(&id).is_some_and(|peer| peer.told_addresses);
        // Before the first lease is granted there is nothing to correct.
        if held.is_empty() || (held == [expected] && !told) {
            return;
        }
        self.send_addresses(now, id);
    }

    /// Tells one peer, whatever it may know.
    pub(in super::super) fn send_addresses(&mut self, now: Instant, id: NodeId) {
        let held = self.dht.claims.addresses().collect();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.told_addresses = true;
        }
        self.send_control(now, id, &Control::Addresses(held));
    }
}
