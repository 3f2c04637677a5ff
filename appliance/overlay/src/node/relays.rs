//! Nodes that two peers both have a direct path to: the way between them where none leads directly, and
//! the second way of those that exchange traffic, for when their direct path falls silent.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Contact, RELAYS_MAX};

use super::Node;
use super::attempts::Goal;
use super::neighbourhood::ANNOUNCE_DELAY;
use super::peer::Peer;
use super::ring;

/// Candidates of each relay that is offered, so that a full list of neighbours still fits.
const RELAY_CANDIDATES_MAX: usize = 2;

/// Links made for the sake of traffic alone. A node with many partners mostly has a relay in common
/// with each of them anyway.
const TRAFFIC_RELAYS_MAX: usize = 8;

impl Node {
    /// Traffic goes to a peer or comes from it. When that begins, relays are offered.
    pub(super) fn note_traffic(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.is_in_use(now) {
            self.ring.announce_due.get_or_insert(now + ANNOUNCE_DELAY);
        }
        peer.last_guest = Some(now);
    }

    /// Nodes that a peer and we both have a direct path to: first those whose paths do not end where the
    /// peer's does, for what cuts off its site cuts off all of it, then the quickest to reach.
    pub(super) fn common_relays(&self, id: NodeId) -> Vec<NodeId> {
        let Some(peer) = self.peers.get(&id) else {
            return Vec::new();
        };
        let relays = peer.relays.iter();
        let relays = relays.filter_map(|relay| Some((relay.id, self.peers.get(&relay.id)?)));
        let mut common: Vec<_> = relays.filter(|(_, relay)| relay.is_hop()).collect();
        common.sort_by_cached_key(|(_, relay)| {
            let ends_at = relay.active().map(|path| path.remote.ip());
            let beside = ends_at.is_some_and(|ip| peer.is_known_at(ip));
            (relay.is_doubtful(), beside, slowness(relay))
        });
        common.into_iter().map(|(id, _)| id).collect()
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
        if peer.active().is_some() && !peer.is_in_use(now) {
            return Vec::new();
        }
        let common = self.common_relays(id);
        let hops = self.peers.iter();
        let mut hops: Vec<_> = hops
            .filter(|(hop, peer)| **hop != id && peer.is_hop())
            .collect();
        hops.sort_by_cached_key(|(hop, peer)| {
            let known = common.contains(hop);
            let rank = (peer.is_beside(), Reverse(known), slowness(peer));
            (rank, hop.distance(self.id))
        });
        // Nodes behind translators may be none to meet for the peer either, so without a common one
        // there is one of those that everybody reaches.
        let public = hops.iter().position(|(_, peer)| peer.is_public());
        if let Some(public) = public.filter(|_| common.is_empty()) {
            let last = public.min(RELAYS_MAX - 1);
            hops.swap(public, last);
        }
        let mut relays: Vec<_> = hops
            .iter()
            .map(|(_, peer)| peer.contact())
            .take(RELAYS_MAX)
            .collect();
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
                && (peer.is_in_use(now) || peer.active().is_none() && in_ring(**id))
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
            if !near && !peer.is_in_use(now) || !self.common_relays(*id).is_empty() {
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
        let links = relays
            .iter()
            .filter_map(|id| Some((*id, self.peers.get(id)?)));
        let alone = links.filter(|(id, peer)| {
            !self.ring.near.contains(*id) && !self.ring.far.contains(*id) && !peer.is_in_use(now)
        });
        alone.count()
    }
}

/// The round trip to a direct peer, in steps of a half of it, so that lists do not change with every
/// measurement.
fn slowness(peer: &Peer) -> u32 {
    let rtt = peer.active().and_then(|path| path.liveness.rtt());
    let ms = rtt.unwrap_or(Duration::from_secs(1)).as_secs_f64() * 1e3;
    // Not negative, and far below 2^32.
    ms.max(1.0).log(1.5) as u32
}
