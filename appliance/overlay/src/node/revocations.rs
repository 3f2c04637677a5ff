//! Revocations known to this node: they cut sessions at once, and pass from member to member.
//!
//! News go to every peer. What was missed meanwhile is found by comparing digests, which the
//! neighbour lists carry.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::membership::{Certificate, Revocation, RevocationError, Revoked};
use crate::time::Instant;
use crate::wire::message::{Control, REVOCATIONS_PER_MESSAGE_MAX};

use super::Node;
use super::api::{DownReason, Event};

/// Revocations that a node remembers.
pub const REVOCATIONS_MAX: usize = 4096;

/// The revocations known, and a digest that is equal where they are.
#[derive(Default)]
pub(super) struct Revocations {
    known: BTreeMap<Revoked, Revocation>,
    digest: u64,
}

impl Revocations {
    /// Equal for equal sets; 0 for none.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether the holder of a certificate is a member no longer.
    pub(super) fn strike(&self, certificate: &Certificate) -> bool {
        let revoked = [
            Revoked::Node(certificate.node_id()),
            Revoked::Ticket(certificate.ticket_id()),
        ];
        revoked
            .iter()
            .any(|revoked| self.known.contains_key(revoked))
    }

    /// Adds one; `false` if it was known or there is no room.
    fn insert(&mut self, revocation: Revocation) -> bool {
        let is_news = !self.known.contains_key(&revocation.revoked());
        if !is_news || self.known.len() >= REVOCATIONS_MAX {
            return false;
        }
        // A sum, so that the order in which they came is no matter. The signature's last bytes are as
        // good as a hash.
        let tail = revocation.bytes().last_chunk();
        let tail = tail.expect("a revocation ends with a signature");
        self.digest = self.digest.wrapping_add(u64::from_be_bytes(*tail));
        self.known.insert(revocation.revoked(), revocation);
        true
    }
}

impl Node {
    /// Takes a revocation from the node's owner: cuts off whom it strikes and tells everybody.
    ///
    /// Returns whether it was news.
    pub fn revoke(&mut self, now: Instant, bytes: &[u8]) -> Result<bool, RevocationError> {
        let revocation = Revocation::verify(bytes, &self.pool)?;
        Ok(self.take_revocations(now, None, vec![revocation]))
    }

    /// Every revocation known, for keeping.
    pub fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.revocations.known.values()
    }

    /// Revocations came from a peer.
    pub(super) fn handle_revocations(
        &mut self,
        now: Instant,
        from: NodeId,
        revocations: &[Vec<u8>],
        reply: bool,
    ) {
        let mut good = Vec::new();
        for bytes in revocations {
            match Revocation::verify(bytes, &self.pool) {
                Ok(revocation) => good.push(revocation),
                Err(_) => self.counters.drop_message += 1,
            }
        }
        self.take_revocations(now, Some(from), good);
        if reply {
            self.send_revocations(now, from, false);
        }
    }

    /// A peer told the digest of what it knows.
    pub(super) fn compare_revocations(&mut self, now: Instant, from: NodeId, digest: u64) {
        if digest != self.revocations.digest() {
            self.send_revocations(now, from, true);
        }
    }

    fn take_revocations(
        &mut self,
        now: Instant,
        from: Option<NodeId>,
        revocations: Vec<Revocation>,
    ) -> bool {
        let mut news = Vec::new();
        for revocation in revocations {
            if self.revocations.insert(revocation.clone()) {
                news.push(revocation);
            }
        }
        if news.is_empty() {
            return false;
        }
        // Whoever is struck hears it too, before it is cut off.
        let peers = self.established();
        for id in peers.into_iter().filter(|id| Some(*id) != from) {
            for some in news.chunks(REVOCATIONS_PER_MESSAGE_MAX) {
                self.send_some_revocations(now, id, some, false);
            }
        }
        for revocation in news {
            if revocation.revoked().strikes(&self.certificate) {
                self.event(Event::Revoked);
            }
            self.event(Event::Revocation(revocation));
        }
        self.cut_off_the_revoked(now);
        true
    }

    fn cut_off_the_revoked(&mut self, now: Instant) {
        self.drop_revoked_records();
        let peers = self.peers.iter();
        let struck = peers.filter(|(_, peer)| self.revocations.strike(&peer.certificate));
        for id in struck.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.drop_peer(now, id, DownReason::Revoked);
        }
    }

    /// Sends all that we know; with `reply` the peer is asked for the same.
    fn send_revocations(&mut self, now: Instant, to: NodeId, reply: bool) {
        let known: Vec<_> = self.revocations.known.values().cloned().collect();
        let mut chunks = known.chunks(REVOCATIONS_PER_MESSAGE_MAX).peekable();
        if chunks.peek().is_none() && reply {
            self.send_some_revocations(now, to, &[], true);
        }
        while let Some(some) = chunks.next() {
            self.send_some_revocations(now, to, some, reply && chunks.peek().is_none());
        }
    }

    fn send_some_revocations(
        &mut self,
        now: Instant,
        to: NodeId,
        revocations: &[Revocation],
        reply: bool,
    ) {
        let revocations = revocations.iter().map(|one| one.bytes().to_vec());
        let message = Control::Revocations {
            revocations: revocations.collect(),
            reply,
        };
        self.send_control(now, to, &message);
    }
}
