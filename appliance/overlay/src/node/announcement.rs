//! What linked nodes tell each other unasked: lists of neighbours, and whether a link is needed.
//!
//! A list goes out when it has changed; otherwise its digest does, and whoever had another list asks.

use aws_lc_rs::digest::{SHA256, digest};

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Contact, Control};

use super::Node;
use super::neighbourhood::ANNOUNCE_INTERVAL;
use super::neighbourhood::jitter;

/// Names a list of neighbours: equal for equal ones, never 0.
pub(super) fn list_digest(left: &[Contact], right: &[Contact], relays: &[Contact]) -> u64 {
    let bytes = postcard::to_allocvec(&(left, right, relays));
    let bytes = bytes.expect("lists are plain data, and a Vec takes all of it");
    let hash = digest(&SHA256, &bytes);
    let head = hash.as_ref().first_chunk();
    u64::from_be_bytes(*head.expect("a hash has 32 bytes")).max(1)
}

impl Node {
    /// Tells the neighbours what has changed, and at times what has not.
    pub(super) fn announce(&mut self, now: Instant) {
        let periodic = self.ring.announce_next <= now;
        if periodic {
            self.ring.announce_next = now + jitter(ANNOUNCE_INTERVAL, &mut self.rng);
        }
        self.ring.announce_due = None;
        let relays = self.relays_in_use(now);
        for id in self.established() {
            let wanted = self.needs_end(now, id) || relays.contains(&id);
            let peer = self.peers.get(&id);
            if self.ring.near.contains(id) || peer.is_some_and(|peer| peer.is_in_use(now)) {
                self.announce_news(now, id, wanted, periodic);
            } else {
                self.tell_need(now, id, wanted);
            }
        }
    }

    /// Tells one peer who our neighbours are and whether we need it.
    pub(super) fn announce_to(&mut self, now: Instant, id: NodeId, reply: bool) {
        let wanted = self.needs_link(now, id);
        let (left, right) = self.contacts_around(self.id, id);
        let relays = self.relays_for(now, id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.told_wanted = Some(wanted);
            peer.told_list = list_digest(&left, &right, &relays);
        }
        let message = Control::Neighbours {
            left,
            right,
            relays,
            wanted,
            reply,
            revocations: self.revocations.digest(),
        };
        self.send_control(now, id, &message);
    }

    /// Tells a neighbour our list if it has another one; else, if `periodic`, the list's digest.
    fn announce_news(&mut self, now: Instant, id: NodeId, wanted: bool, periodic: bool) {
        let (left, right) = self.contacts_around(self.id, id);
        let list = list_digest(&left, &right, &self.relays_for(now, id));
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.told_list != list || peer.told_wanted != Some(wanted) {
            self.announce_to(now, id, false);
        } else if periodic {
            self.tell_link(now, id, list, wanted);
        }
    }

    /// Tells a peer whether we need it, if that has changed.
    fn tell_need(&mut self, now: Instant, id: NodeId, wanted: bool) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.told_wanted == Some(wanted) {
            return;
        }
        // Who can only be met by a relay is told of relays too.
        if peer.active().is_none() {
            self.announce_to(now, id, false);
        } else {
            self.tell_link(now, id, 0, wanted);
        }
    }

    /// Greets a peer whose first session is up.
    pub(super) fn announce_link(&mut self, now: Instant, id: NodeId) {
        let direct = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.active().is_some());
        if direct && self.is_joined() && !self.ring.near.contains(id) {
            let wanted = self.needs_link(now, id);
            self.tell_link(now, id, 0, wanted);
        } else {
            self.announce_to(now, id, true);
        }
    }

    fn tell_link(&mut self, now: Instant, id: NodeId, list: u64, wanted: bool) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.told_wanted = Some(wanted);
        }
        let message = Control::Link {
            list,
            wanted,
            revocations: self.revocations.digest(),
        };
        self.send_control(now, id, &message);
    }

    /// A peer told the digest of its list. Asks for the list if it is not the one we had.
    pub(super) fn compare_list(&mut self, now: Instant, from: NodeId, list: u64) {
        let heard = self.peers.get(&from).map(|peer| peer.heard_list);
        if heard.is_some_and(|heard| heard != list) {
            self.announce_to(now, from, true);
        }
    }

    /// Tells peers whose need of a link has changed without the ring changing.
    pub(super) fn tell_needs(&mut self, now: Instant) {
        if !self.is_joined() {
            return;
        }
        let relays = self.relays_in_use(now);
        for id in self.established() {
            let wanted = self.needs_end(now, id) || relays.contains(&id);
            self.tell_need(now, id, wanted);
        }
    }
}
