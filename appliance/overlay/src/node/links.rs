//! Which links are kept: what they are needed for, who gives way when there is no room, and how they end.

use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Control;

use super::Node;
use super::api::{DownReason, Event};
use super::attempts::Goal;
use super::peer::Peer;

/// A closed link is made anew only if it has lasted this long.
const RELINK_AFTER: Duration = Duration::from_secs(5);
/// A link is not dropped as unneeded before this age.
const LINK_GRACE: Duration = Duration::from_secs(15);

impl Node {
    /// Removes a peer and closes the gap it leaves.
    pub(super) fn drop_peer(&mut self, now: Instant, id: NodeId, reason: DownReason) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        for address in peer.holdings.iter() {
            self.forget_holder(id, address);
        }
        for live in &peer.sessions {
            self.handshakes.release(live.session.local_index());
        }
        self.ring.far.remove(id);
        // An unneeded peer is alive, but nothing that we know of calls for it.
        self.ring.known.remove(&id);
        if reason != DownReason::Unneeded {
            self.suspect(now, id);
        }
        if reason == DownReason::Unreachable {
            self.counters.peers_lost += 1;
            if peer.is_established() {
                self.remember_lost(now, peer.contact());
            }
        }
        if peer.is_established() {
            let reason = match reason {
                DownReason::Unreachable if !peer.was_heard() => DownReason::Unheard,
                reason => reason,
            };
            self.event(Event::PeerDown { id, reason });
        }
        self.stabilise(now);
    }

    /// Whether a link that the peer has closed is to be made anew: it was one of the ring's, and
    /// lasted. A young one was closed for want of room, as at a seed that hundreds join by.
    pub(super) fn is_missed(&self, now: Instant, id: NodeId) -> bool {
        let lasted = |peer: &Peer| now - peer.since > RELINK_AFTER;
        self.ring.near.contains(id) && self.peers.get(&id).is_some_and(lasted)
    }

    /// Begins again with a peer that closed a link we still need.
    pub(super) fn relink(&mut self, now: Instant, id: NodeId) {
        let Some(contact) = self.peers.get(&id).map(|peer| peer.contact()) else {
            return;
        };
        let agent = self.peers.get(&id).and_then(|peer| peer.agent);
        self.drop_peer(now, id, DownReason::Unneeded);
        self.begin_handshake(now, Goal::Contact { contact, agent });
    }

    /// Whether we need the link to a peer, for our own ends or to relay by it.
    pub(super) fn needs_link(&self, now: Instant, id: NodeId) -> bool {
        self.needs_end(now, id) || self.relays_in_use(now).contains(&id)
    }

    /// Whether we need the link to a peer for its own sake.
    pub(super) fn needs_end(&self, now: Instant, id: NodeId) -> bool {
        !self.ring.joined
            || self.ring.near.contains(id)
            || self.ring.far.contains(id)
            || self.peers.get(&id).is_some_and(|peer| peer.is_in_use(now))
    }

    /// Whether the link may be dropped: neither side needs it, and it is not just being made.
    pub(super) fn is_unneeded(&self, now: Instant, id: NodeId) -> bool {
        let idle = |peer: &Peer| !peer.remote_wants && now - peer.since > LINK_GRACE;
        self.peers.get(&id).is_some_and(idle) && !self.needs_link(now, id)
    }

    /// Drops the least useful link to make room. Returns whether there was one.
    pub(super) fn evict_idle_peer(&mut self, now: Instant) -> bool {
        let idle = self
            .peers
            .iter()
            .filter(|(id, _)| !self.ring.near.contains(**id) && !self.ring.far.contains(**id));
        // Whoever needs us, as a newcomer that looks for its place, goes last.
        let oldest = idle
            .min_by_key(|(_, peer)| (peer.is_established(), peer.remote_wants, peer.last_heard()));
        let Some(id) = oldest.map(|(id, _)| *id) else {
            return false;
        };
        self.send_control(now, id, &Control::Bye { leaving: false });
        self.drop_peer(now, id, DownReason::Unneeded);
        true
    }
}
