//! The pool's distributed table: who holds which address, name or service.
//!
//! A key's record is kept by the node closest to the key's position in the ring and by that node's
//! near neighbours. The closest node decides: who claims a free key gets it when most of these nodes
//! have promised it ([`grant`]); it keeps it as long as it renews the claim ([`claims`]). Records are
//! signed by their claimants, live for a span of time rather than until a date, and are handed on when
//! the ring changes ([`store`], [`handover`] and here).

mod claims;
mod copies;
mod grant;
mod handover;
mod store;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::addresses::{
    check_v4, derive_v6, ring_position_of_name, ring_position_of_service, ring_position_of_v4,
    ring_position_of_v6,
};
use crate::membership::{Certificate, NodeName, Roles};
use crate::time::Instant;
use crate::wire::message::{Control, Finding};
use crate::wire::record::{Claim, Key, Record};

use super::Node;
pub(super) use claims::{Claims, Slot};
pub use claims::{LEASES_MAX, LeaseId, LeaseInfo};
use copies::Copies;
pub(super) use grant::Grants;
use handover::HandOver;
pub use store::RECORDS_MAX;
pub(super) use store::Store;
use store::{Kept, Refused, Standing};

/// How long a record lives without being renewed.
const LIFETIME: Duration = Duration::from_secs(180);

/// A record whose certificate and signature hold, and whose claimant may claim its key.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub record: Record,
    pub certificate: Certificate,
    pub claim: Claim,
}

impl Verified {
    pub(super) fn owner(&self) -> NodeId {
        self.certificate.node_id()
    }

    /// Whether the key is an address that the claimant's certificate fixes.
    fn is_fixed(&self) -> bool {
        self.certificate.fixed_address().map(Key::V4).as_ref() == Some(&self.claim.key)
    }

    /// Whether the key is the name in the claimant's certificate.
    fn is_own_name(&self) -> bool {
        matches!(&self.claim.key, Key::Name(name) if self.certificate.name().as_str() == name)
    }

    /// Whether it takes the key from a live record of somebody else: whose certificate has it goes before
    /// those who claim it for a guest, or lease it.
    fn precedes(&self, held: &Verified) -> bool {
        let is_certified = |verified: &Verified| verified.is_fixed() || verified.is_own_name();
        is_certified(self) && !is_certified(held)
    }
}

/// A record for whoever looks at the table.
#[derive(Clone, Debug)]
pub struct RecordInfo {
    /// Who claims.
    pub owner: Certificate,
    /// What.
    pub claim: Claim,
}

/// The table's part that this node keeps, and whom it has copies with.
pub(super) struct Dht {
    pub store: Store,
    pub grants: Grants,
    pub claims: Claims,
    hand_over: HandOver,
    pub copies: Copies,
}

impl Dht {
    pub(super) fn new(id: NodeId) -> Self {
        Dht {
            store: Store::new(id),
            grants: Grants::default(),
            claims: Claims::default(),
            hand_over: HandOver::default(),
            copies: Copies::default(),
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let grants = self.grants.deadline().map(|due| (due, "count votes"));
        let claims = self.claims.deadline().map(|due| (due, "renew a claim"));
        let hand_over = self
            .hand_over
            .deadline()
            .map(|due| (due, "hand records over"));
        let copies = self.copies.deadline().map(|due| (due, "repeat a copy"));
        [grants, claims, hand_over, copies]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Node {
    /// How many records of the table the node keeps for others and itself.
    pub fn records_kept(&self) -> usize {
        self.dht.store.len()
    }

    /// The position whose closest node answers for a key.
    ///
    /// `None` for an address that no node of the pool can have.
    pub(super) fn position_of(&self, key: &Key) -> Option<NodeId> {
        let pool = self.pool.pool_id();
        match key {
            Key::Id(id) => Some(*id),
            Key::V4(v4) => ring_position_of_v4(self.pool.range, *v4),
            Key::V6(v6) => ring_position_of_v6(pool, *v6),
            Key::Name(name) => Some(ring_position_of_name(pool, name)),
            Key::Service(name) => Some(ring_position_of_service(pool, name)),
        }
    }

    /// Checks a record's proofs, and that its claimant may claim such a key at all.
    pub(super) fn verify_record(&mut self, now: Instant, record: Record) -> Option<Verified> {
        let verified = self.try_verify_record(now, record);
        if verified.is_none() {
            self.counters.drop_message += 1;
        }
        verified
    }

    fn try_verify_record(&self, now: Instant, record: Record) -> Option<Verified> {
        let claim = Claim::decode(&record.claim).ok()?;
        let wall = self.wall.at(now);
        // Renewed again and again, and handed on by several: mostly the signatures are known to be
        // good, the certificate's or all.
        let known = self.dht.store.get(&claim.key).map(|kept| &kept.verified);
        let known = known.filter(|known| known.record.certificate == record.certificate);
        let certificate = match known {
            Some(known) => {
                let certificate = &known.certificate;
                certificate.check(wall).ok().map(|()| certificate.clone())?
            }
            None => self.verify_certificate(&record.certificate, wall).ok()?,
        };
        let good = !self.revocations.strike(&certificate)
            && self.may_claim(&certificate, &claim)
            && (known.is_some_and(|known| known.record == record)
                || self.has_signed_claim(&certificate, &record));
        good.then_some(Verified {
            record,
            certificate,
            claim,
        })
    }

    fn may_claim(&self, certificate: &Certificate, claim: &Claim) -> bool {
        match &claim.key {
            Key::V4(v4) => check_v4(self.pool.range, *v4).is_ok(),
            Key::Name(name) => {
                certificate.name().as_str() == name || self.may_be_guests_name(name, claim)
            }
            // A service that is called like a role is that role's.
            Key::Service(name) => name
                .parse::<Roles>()
                .map_or(true, |role| certificate.roles().contains(role)),
            Key::Id(_) | Key::V6(_) => false,
        }
    }

    /// Whether a name may be that of a guest: none that a role goes by, with an address of the pool.
    fn may_be_guests_name(&self, name: &str, claim: &Claim) -> bool {
        // Who gives it up says no address.
        let has_address = match <[u8; 4]>::try_from(&claim.value[..]) {
            Ok(octets) => check_v4(self.pool.range, octets.into()).is_ok(),
            Err(_) => claim.lifetime_s == 0,
        };
        has_address && NodeName::new(name).is_ok() && name.parse::<Roles>().is_err()
    }

    /// Whether a verified certificate by itself gives its node the key.
    pub(super) fn is_certified(&self, certificate: &Certificate, key: &Key) -> bool {
        match key {
            Key::Id(id) => certificate.node_id() == *id,
            Key::V6(v6) => derive_v6(self.pool.pool_id(), certificate.node_id()) == *v6,
            Key::Name(name) => certificate.name().as_str() == name,
            Key::V4(_) | Key::Service(_) => false,
        }
    }

    /// The peer that holds a key, as far as our links tell.
    pub(super) fn peer_with(&self, key: &Key) -> Option<NodeId> {
        if let Key::V4(v4) = key {
            return self.peer_holding((*v4).into());
        }
        let mut established = self.peers.iter().filter(|(_, peer)| peer.is_established());
        let found = established.find(|(_, peer)| self.is_certified(&peer.certificate, key));
        found.map(|(id, _)| *id)
    }

    /// Whether the key is our own.
    pub(super) fn is_ours(&self, key: &Key) -> bool {
        match key {
            Key::V4(v4) => self.dht.claims.holds(*v4),
            Key::Name(_) => {
                self.is_certified(&self.certificate, key) && !self.dht.claims.lacks_name()
            }
            key => self.is_certified(&self.certificate, key),
        }
    }

    /// Answers for a key from all that we know.
    pub(super) fn find_holder(&self, now: Instant, key: &Key) -> Finding {
        if let Some(kept) = self.dht.store.granted(now, key) {
            return Finding::Record(kept.verified.record.clone());
        }
        if self.is_ours(key) {
            return Finding::Holder {
                certificate: self.certificate.bytes().to_vec(),
                candidates: self.own_candidates(),
                v4: self.addresses().v4,
            };
        }
        match self.peer_with(key).and_then(|id| self.peers.get(&id)) {
            Some(peer) => Finding::Holder {
                certificate: peer.certificate.bytes().to_vec(),
                candidates: peer.contact().candidates,
                v4: peer.addresses().v4,
            },
            None => Finding::Nobody,
        }
    }

    /// Keeps a record in our part of the table.
    fn keep(
        &mut self,
        now: Instant,
        verified: Verified,
        until: Instant,
        standing: Standing,
    ) -> Result<(), Refused> {
        let Some(position) = self.position_of(&verified.claim.key) else {
            return Err(Refused::Full);
        };
        let kept = Kept {
            verified,
            position,
            until,
            standing,
            decided: None,
        };
        let result = self.dht.store.keep(now, kept);
        if let Err(Refused::Full) = result {
            self.counters.drop_full += 1;
        }
        result
    }

    /// Keeps a copy that a neighbour passes on, for `remaining_s` seconds at most.
    pub(super) fn handle_store(
        &mut self,
        now: Instant,
        from: NodeId,
        token: u64,
        record: Record,
        remaining_s: u16,
    ) {
        let Some(verified) = self.verify_record(now, record) else {
            return;
        };
        self.confirm_copy(now, from, token);
        if verified.claim.lifetime_s == 0 {
            self.dht.store.withdraw(now, &verified);
            return;
        }
        let lifetime = verified.claim.lifetime();
        let until = now + lifetime.min(Duration::from_secs(remaining_s.into()));
        let (key, owner) = (verified.claim.key.clone(), verified.owner());
        let known = self.dht.store.granted(now, &key);
        let is_news = known.is_none_or(|kept| kept.verified.owner() != owner);
        match self.keep(now, verified, until, Standing::Granted) {
            Ok(()) if is_news => self.pass_on_record(now, from, &key),
            Ok(()) | Err(Refused::Stale | Refused::Full) => {}
            Err(Refused::Held(other)) => self.settle(now, from, *other),
        }
    }

    /// A peer knows of another holder of a key than we do: two rings have met, or somebody has decided
    /// before it knew its neighbours.
    fn settle(&mut self, now: Instant, from: NodeId, other: Kept) {
        let key = other.verified.claim.key.clone();
        // Nobody gives way to a holder that was found to be gone.
        let is_hasty =
            self.dht.store.is_hasty(now, &other.verified) && !self.dht.grants.is_vacant(now, &key);
        // Whoever is closer to the key decides.
        let is_closer = from.distance(other.position) < self.id.distance(other.position);
        if !is_closer && !is_hasty {
            return;
        }
        if is_closer && !is_hasty {
            // Unless it was hasty.
            self.send_copy(now, from, &key);
        }
        self.dht.store.replace(now, other);
        if !is_closer {
            self.replicate(now, &key);
        }
        self.claim_again(now, &key);
    }

    /// Nobody knows the holder of a key that somebody else claims: the key is free.
    pub(super) fn on_absent(&mut self, now: Instant, key: &Key, holder: NodeId) {
        let kept = self.dht.store.get(key).map(|kept| kept.verified.owner());
        if kept == Some(holder) {
            self.dht.store.remove(key);
            self.dht.grants.vacate(now, key.clone());
        }
    }

    /// Forgets the records of nodes that are members no longer.
    pub(super) fn drop_revoked_records(&mut self) {
        let revocations = &self.revocations;
        let struck = |kept: &Kept| revocations.strike(&kept.verified.certificate);
        self.dht.store.retain(|kept| !struck(kept));
    }

    pub(super) fn maintain_dht(&mut self, now: Instant) {
        self.maintain_grants(now);
        self.hand_over(now);
        self.maintain_copies(now);
        self.maintain_claims(now);
    }

    /// Sends copies of a record to the near neighbours.
    fn replicate(&mut self, now: Instant, key: &Key) {
        let near: BTreeSet<_> = self.ring.near.iter().collect();
        for id in near {
            self.send_copy(now, id, key);
        }
    }

    /// Tells the near neighbours that a claimant gives its key up.
    fn tell_withdrawal(&mut self, now: Instant, record: &Record) {
        let near: BTreeSet<_> = self.ring.near.iter().collect();
        for id in near {
            let message = Control::Store {
                token: 0,
                record: record.clone(),
                remaining_s: 0,
            };
            self.send_control(now, id, &message);
        }
    }
}
