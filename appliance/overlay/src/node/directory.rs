//! The directory: who holds which name or address.
//!
//! An address that follows from a node's position needs no record: the node is the closest to the
//! position that the address stands for. A name or a fixed address is published, as soft state, to
//! the node closest to the key's hash, which passes copies to its neighbours. Records prove
//! themselves: they are certificates. Leases will take this module's place behind the same
//! questions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::addresses::{
    ring_position_of_name, ring_position_of_v4, ring_position_of_v6,
};
use crate::membership::{Addresses, Certificate};
use crate::time::Instant;
use crate::wire::message::{Control, Finding, Key, Publication, Question};

use super::Node;
use super::api::Event;

/// Records kept for others.
const RECORDS_MAX: usize = 8192;
/// How long a record lives without being published again.
const LIFETIME: Duration = Duration::from_secs(100);
/// How often a node publishes what it holds.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(30);

struct Record {
    certificate: Certificate,
    candidates: Vec<SocketAddr>,
    until: Instant,
}

/// Records kept for others, and when to publish our own.
#[derive(Default)]
pub(super) struct Directory {
    records: BTreeMap<Key, Record>,
    published: Option<Instant>,
}

impl Directory {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.published.map(|last| last + PUBLISH_INTERVAL)
    }
}

impl Node {
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
        }
    }

    /// Whether a verified certificate gives its node the key.
    pub(super) fn claims(&self, certificate: &Certificate, key: &Key) -> bool {
        let addresses = Addresses::new(&self.pool, certificate);
        match key {
            Key::Id(id) => certificate.node_id() == *id,
            Key::V4(v4) => addresses.v4 == *v4,
            Key::V6(v6) => addresses.v6 == *v6,
            Key::Name(name) => certificate.name().as_str() == name,
        }
    }

    /// The holder of a key among ourselves and our peers.
    pub(super) fn find_certificate(&self, key: &Key) -> Option<Certificate> {
        if self.claims(&self.certificate, key) {
            return Some(self.certificate.clone());
        }
        let established = self.peers.values().filter(|peer| peer.is_established());
        established
            .map(|peer| &peer.certificate)
            .find(|certificate| self.claims(certificate, key))
            .cloned()
    }

    /// Answers for a key from all that we know.
    pub(super) fn find_holder(&self, now: Instant, key: &Key) -> Finding {
        if self.claims(&self.certificate, key) {
            return Finding::Holder {
                certificate: self.certificate.bytes().to_vec(),
                candidates: self.own_candidates(),
            };
        }
        let established = self.peers.values().filter(|peer| peer.is_established());
        for peer in established {
            if self.claims(&peer.certificate, key) {
                return Finding::Holder {
                    certificate: peer.certificate.bytes().to_vec(),
                    candidates: peer.contact().candidates,
                };
            }
        }
        match self.directory.records.get(key) {
            Some(record) if record.until > now => Finding::Holder {
                certificate: record.certificate.bytes().to_vec(),
                candidates: record.candidates.clone(),
            },
            _ => Finding::Nobody,
        }
    }

    /// Publishes our name and, if it is fixed, our address, at most every so often.
    pub(super) fn publish(&mut self, now: Instant) {
        if !self.is_joined() {
            self.directory.published = None;
            return;
        }
        self.directory.published = Some(now);
        let mut keys = vec![Key::Name(self.certificate.name().to_string())];
        keys.extend(self.certificate.fixed_address().map(Key::V4));
        for key in keys {
            let publication = Publication {
                certificate: self.certificate.bytes().to_vec(),
                candidates: self.own_candidates(),
                key: key.clone(),
            };
            if let Some(position) = self.position_of(&key) {
                let question = Question::Publish(publication);
                self.tell_closest(now, position, question);
            }
        }
    }

    pub(super) fn maintain_directory(&mut self, now: Instant) {
        self.directory
            .records
            .retain(|_, record| record.until > now);
        if self.directory.deadline().is_some_and(|due| due <= now) {
            self.publish(now);
        }
    }

    /// Keeps a record; `replicate` passes copies to our neighbours.
    pub(super) fn keep_publication(
        &mut self,
        now: Instant,
        publication: Publication,
        replicate: bool,
    ) {
        let wall = self.wall.at(now);
        let held = self.directory.records.get(&publication.key);
        let verified = match held.map(|record| record.certificate.clone()) {
            // Published again: the signatures are known to be good.
            Some(known) if known.bytes() == publication.certificate => {
                known.check(wall).map(|()| known)
            }
            _ => Certificate::verify(&publication.certificate, &self.pool, wall),
        };
        let Ok(certificate) = verified else {
            self.counters.drop_message += 1;
            return;
        };
        let revoked = self.revocations.strike(&certificate);
        if revoked || !self.claims(&certificate, &publication.key) {
            self.counters.drop_message += 1;
            return;
        }
        let records = &mut self.directory.records;
        if let Some(held) = records.get(&publication.key) {
            // Of two holders of one key the one at the lower position keeps it.
            let rival = held.certificate.node_id();
            if held.until > now && rival < certificate.node_id() {
                return;
            }
        } else if records.len() >= RECORDS_MAX {
            self.counters.drop_full += 1;
            return;
        }
        records.insert(
            publication.key.clone(),
            Record {
                certificate,
                candidates: publication.candidates.clone(),
                until: now + LIFETIME,
            },
        );
        if replicate {
            let near: Vec<_> = self.near_neighbours().iter().collect();
            for id in near {
                self.send_control(now, id, &Control::Store(publication.clone()));
            }
        }
    }

    /// Forgets the records of nodes that are members no longer.
    pub(super) fn drop_revoked_records(&mut self) {
        let records = &mut self.directory.records;
        records.retain(|_, record| !self.revocations.strike(&record.certificate));
    }

    /// Says so when a peer has our own IPv4 address.
    pub(super) fn check_conflict(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.addresses.v4 == self.addresses.v4 {
            let address = self.addresses.v4;
            self.event(Event::AddressConflict { with: id, address });
        }
    }
}
