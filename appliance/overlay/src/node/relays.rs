//! Nodes that two peers both have a direct path to: the way between them where none leads directly, and
//! the second way of those that exchange traffic, for when their direct path falls silent.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Contact, RELAYS_MAX};

use super::Node;
use super::guest::ON_DEMAND_IDLE;
use super::handshake::Goal;
use super::neighbourhood::ANNOUNCE_DELAY;
use super::peer::Peer;
use super::ring;

/// Candidates of each relay that is offered, so that a full list of neighbours still fits.
const RELAY_CANDIDATES_MAX: usize = 2;

/// Links made for the sake of traffic alone. A node with many partners mostly has a relay in common
/// with each of them anyway.
const TRAFFIC_RELAYS_MAX: usize = 8;

impl Node {
    /// Whether guests exchange packets with a peer, or did lately.
    pub(super) fn is_in_use(&self, now: Instant, id: NodeId) -> bool {
        let peer = self.peers.get(&id);
        let last = peer.and_then(|peer| peer.last_guest);
        last.is_some_and(|last| now - last < ON_DEMAND_IDLE)
    }

    /// Traffic goes to a peer or comes from it. When that begins, relays are offered.
    pub(super) fn note_traffic(&mut self, now: Instant, id: NodeId) {
        if !self.is_in_use(now, id) {
            self.ring.announce_due.get_or_insert(now + ANNOUNCE_DELAY);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.last_guest = Some(now);
        }
    }

    /// Nodes that a peer and we both have a direct path to: first those whose paths do not end where the
    /// peer's does, for what cuts off its site cuts off all of it, then the quickest to reach.
    pub(super) fn common_relays(&self, id: NodeId) -> Vec<NodeId> {
        let Some(peer) = self.peers.get(&id) else {
            return Vec::new();
        };
        let ids = peer.relays.iter().map(|relay| relay.id);
        let mut common: Vec<_> = ids.filter(|relay| self.is_hop(relay)).collect();
        let ends_at = |relay: &NodeId| Some(self.peers.get(relay)?.active()?.remote.ip());
        common.sort_by_cached_key(|relay| {
            let beside = ends_at(relay).is_some_and(|ip| peer.is_known_at(ip));
            let doubtful = self.peers.get(relay).is_none_or(Peer::is_doubtful);
            (doubtful, beside, self.slowness(*relay))
        });
        common
    }

    /// The relay in use for a peer that no direct path leads to.
    pub(super) fn relay_of(&self, id: NodeId) -> Option<NodeId> {
        let agent = self.peers.get(&id)?.agent;
        let agent = agent.filter(|agent| self.is_hop(agent));
        agent.or_else(|| self.common_relays(id).first().copied())
    }

    /// The node by which to try a peer when no direct path will do: a common relay, else the node
    /// nearest to it. The first `turn` is the quickest relay's, each other one another's.
    pub(super) fn relay_to(&self, id: NodeId, turn: usize) -> Option<NodeId> {
        let relays = self.common_relays(id);
        if let Some(turn) = turn.checked_rem(relays.len()) {
            return Some(relays[turn]);
        }
        let reliable = |hop: NodeId, peer: &Peer| {
            (peer.is_hop() && hop != id && !peer.is_doubtful()).then_some(())
        };
        let any = |hop: NodeId, peer: &Peer| (peer.is_hop() && hop != id).then_some(());
        let way = ring::closest(id, &self.peers, reliable);
        let way = way.or_else(|| ring::closest(id, &self.peers, any));
        way.map(|(hop, ())| hop)
    }

    /// The relay to use beside a direct path in doubt: the one that the peer is heard by, else another
    /// one after each probe of the path.
    pub(super) fn relay_around(&self, id: NodeId) -> Option<NodeId> {
        let peer = self.peers.get(&id)?;
        let path = &peer.active()?.liveness;
        let heard = (peer.overlay.last_heard() > path.last_heard()).then(|| self.relay_of(id));
        let turn = path.tries().saturating_sub(1);
        heard.flatten().or_else(|| self.relay_to(id, turn))
    }

    /// What to offer a peer that no direct path leads to, or that exchanges traffic with us: nodes that
    /// have a direct path to us, first those that it offered too, then the quickest. Whoever shares our
    /// translator comes last: what cuts us off cuts it off too.
    pub(super) fn relays_for(&self, now: Instant, id: NodeId) -> Vec<Contact> {
        let Some(peer) = self.peers.get(&id) else {
            return Vec::new();
        };
        if peer.active().is_some() && !self.is_in_use(now, id) {
            return Vec::new();
        }
        let common: BTreeSet<_> = self.common_relays(id).into_iter().collect();
        let mut hops: Vec<_> = self.direct_hops().filter(|hop| *hop != id).collect();
        hops.sort_by_cached_key(|hop| {
            let known = common.contains(hop);
            let rank = (self.is_beside(*hop), Reverse(known), self.slowness(*hop));
            (rank, hop.distance(self.id))
        });
        // Nodes behind translators may be none to meet for the peer either, so without a common one
        // there is one of those that everybody reaches.
        let public = hops.iter().position(|hop| self.is_public(*hop));
        if let Some(public) = public.filter(|_| common.is_empty()) {
            let last = public.min(RELAYS_MAX - 1);
            hops.swap(public, last);
        }
        hops.truncate(RELAYS_MAX);
        let peers = hops.iter().filter_map(|hop| self.peers.get(hop));
        let mut relays: Vec<_> = peers.map(Peer::contact).collect();
        for relay in &mut relays {
            relay.candidates.truncate(RELAY_CANDIDATES_MAX);
        }
        relays
    }

    /// The nodes that relay, or might, for our ring's links or for traffic.
    pub(super) fn relays_in_use(&self, now: Instant) -> BTreeSet<NodeId> {
        let in_ring = |peer| self.ring.near.contains(peer) || self.ring.far.contains(peer);
        let served = self.peers.iter().filter(|(id, peer)| {
            !peer.relays.is_empty()
                && (self.is_in_use(now, **id) || peer.active().is_none() && in_ring(**id))
        });
        let relays = served.flat_map(|(_, peer)| &peer.relays);
        relays.map(|relay| relay.id).collect()
    }

    /// Reaches for a node that can relay for each near neighbour without a direct path, and for each
    /// peer with traffic, unless there is a common one.
    pub(super) fn seek_relays(&mut self, now: Instant) {
        let mut room = None;
        let mut wanted = Vec::new();
        for (id, peer) in self.peers.iter() {
            let near = self.ring.near.contains(*id) && peer.active().is_none();
            if !near && !self.is_in_use(now, *id) || !self.common_relays(*id).is_empty() {
                continue;
            }
            let untried = peer.relays.iter().find(|relay| {
                relay.id != self.id
                    && !self.peers.contains_key(&relay.id)
                    && !self.ring.is_suspect(relay.id)
            });
            let Some(relay) = untried else {
                continue;
            };
            if !near {
                let alone = || TRAFFIC_RELAYS_MAX.saturating_sub(self.relays_alone(now));
                let room = room.get_or_insert_with(alone);
                if *room == 0 {
                    continue;
                }
                *room -= 1;
            }
            wanted.push((relay.clone(), *id));
        }
        for (contact, agent) in wanted {
            let agent = Some(agent);
            self.begin_handshake(now, Goal::Contact { contact, agent });
        }
    }

    /// How many links there are that only relay.
    fn relays_alone(&self, now: Instant) -> usize {
        let relays = self.relays_in_use(now);
        let ids = relays.iter().filter(|id| self.peers.contains_key(id));
        ids.filter(|id| !self.ring.near.contains(**id) && !self.ring.far.contains(**id))
            .filter(|id| !self.is_in_use(now, **id))
            .count()
    }

    /// The round trip to a direct peer, in steps of a half of it, so that lists do not change with
    /// every measurement.
    fn slowness(&self, id: NodeId) -> u32 {
        let rtt = self
            .peers
            .get(&id)
            .and_then(|peer| peer.active()?.liveness.rtt());
        let ms = rtt.unwrap_or(Duration::from_secs(1)).as_secs_f64() * 1e3;
        // Not negative, and far below 2^32.
        ms.max(1.0).log(1.5) as u32
    }
}
