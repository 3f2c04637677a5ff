//! Greedy routing: where a routed frame goes next, and what becomes of it here.

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::frame::{Body, Delivery, HOPS_MAX, ROUTED_HEADER_MAX, RoutedHeader};

use super::Node;
use super::peer::{Peer, Via};
use super::traffic::Source;

/// Sessions inside sessions that one datagram may hold: a link's record, in it the record of a
/// relayed link, in it the record of the two ends.
const NESTING_MAX: u8 = 3;

enum Hop {
    Peer(NodeId),
    Here,
    Nowhere,
}

impl Node {
    /// Sends a routed frame of our own.
    pub(super) fn originate(&mut self, now: Instant, header: RoutedHeader, body: &[u8]) {
        let header = self.clear_reached_agent(header);
        match self.next_hop(&header) {
            Hop::Peer(next) => self.pass_on(now, next, &header, body),
            Hop::Here => self.deliver(now, header, &mut body.to_vec(), 0),
            Hop::Nowhere => self.counters.drop_no_route += 1,
        }
    }

    /// A routed frame came from a peer.
    pub(super) fn handle_routed(
        &mut self,
        now: Instant,
        mut header: RoutedHeader,
        body: &mut [u8],
        nesting: u8,
    ) {
        header.hops = header.hops.saturating_add(1);
        if header.hops > HOPS_MAX || header.source == self.id {
            self.counters.drop_hops += 1;
            return;
        }
        let is_agent = header.agent == Some(self.id);
        let header = self.clear_reached_agent(header);
        match self.next_hop(&header) {
            Hop::Peer(next) => {
                if is_agent && header.body == Body::Query {
                    self.answer_as_agent(now, &header, body);
                }
                self.counters.forwarded += 1;
                self.pass_on(now, next, &header, body);
            }
            Hop::Here => self.deliver(now, header, body, nesting),
            Hop::Nowhere => self.counters.drop_no_route += 1,
        }
    }

    fn clear_reached_agent(&self, mut header: RoutedHeader) -> RoutedHeader {
        if header.agent == Some(self.id) {
            header.agent = None;
        }
        header
    }

    /// Only direct links carry routed frames: one over a relayed link would be wrapped once more, and
    /// two nodes that relay for each other would wrap it without end.
    fn next_hop(&self, header: &RoutedHeader) -> Hop {
        if header.destination == self.id && header.delivery == Delivery::Exact {
            return Hop::Here;
        }
        let usable =
            |id: NodeId| id != header.source && self.peers.get(&id).is_some_and(Peer::is_hop);
        for goal in [Some(header.destination), header.agent]
            .into_iter()
            .flatten()
        {
            let reachable = header.delivery == Delivery::Exact || header.agent == Some(goal);
            if reachable && usable(goal) {
                return Hop::Peer(goal);
            }
        }
        // An agent that cannot be come any closer to is given up for the destination.
        for goal in [header.agent, Some(header.destination)]
            .into_iter()
            .flatten()
        {
            let peers = self.peers.keys().copied().filter(|id| usable(*id));
            let nearest = peers.min_by_key(|id| id.distance(goal));
            if let Some(nearest) = nearest
                && nearest.distance(goal) < self.id.distance(goal)
            {
                return Hop::Peer(nearest);
            }
        }
        match header.delivery {
            Delivery::Closest => Hop::Here,
            Delivery::Exact => Hop::Nowhere,
        }
    }

    fn pass_on(&mut self, now: Instant, next: NodeId, header: &RoutedHeader, body: &[u8]) {
        let mut head = Vec::with_capacity(1 + ROUTED_HEADER_MAX);
        header.encode(&mut head);
        let Some(peer) = self.peers.get(&next) else {
            return;
        };
        match peer.via() {
            Via::Overlay => self.counters.drop_no_route += 1,
            direct => self.send_frame(now, next, direct, &[&head, body]),
        }
    }

    fn deliver(&mut self, now: Instant, header: RoutedHeader, body: &mut [u8], nesting: u8) {
        match header.body {
            Body::Datagram if nesting < NESTING_MAX => {
                let source = Source::Overlay {
                    from: header.source,
                    agent: header.source_agent,
                    hops: header.hops.saturating_sub(1),
                };
                self.handle_outer(now, source, body, nesting + 1);
            }
            Body::Datagram => self.counters.drop_hops += 1,
            Body::Query => self.handle_query(now, &header, body),
            Body::Answer => self.handle_answer(now, &header, body),
        }
    }

    /// The node that frames to us should visit first: the nearest that has a direct path to us.
    /// Frames find it where the ring does not lead to us (yet), or leads by a link that is relayed.
    pub(super) fn own_agent(&self, except: NodeId) -> Option<NodeId> {
        let direct = self.direct_hops().filter(|id| *id != except);
        direct.min_by_key(|id| id.distance(self.id))
    }

    fn direct_hops(&self) -> impl Iterator<Item = NodeId> + '_ {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_hop());
        peers.map(|(id, _)| *id)
    }

    /// The node by which to reach a peer that no direct path leads to: one that said it has a link
    /// to it, else the one nearest to it. `turn` picks another one each time.
    pub(super) fn relay_to(&self, id: NodeId, turn: u64) -> Option<NodeId> {
        let hops = || self.direct_hops().filter(|hop| *hop != id);
        let linked = |hop: &NodeId| self.peers.get(hop).is_some_and(|p| p.links.contains(&id));
        let mut relays: Vec<_> = hops().filter(linked).collect();
        if relays.is_empty() {
            return hops().min_by_key(|hop| hop.distance(id));
        }
        let turn = turn % relays.len() as u64;
        Some(relays.swap_remove(usize::try_from(turn).unwrap_or(0)))
    }

    /// A header from us to exactly `destination`.
    pub(super) fn header_to(
        &self,
        destination: NodeId,
        agent: Option<NodeId>,
        body: Body,
    ) -> RoutedHeader {
        RoutedHeader {
            delivery: Delivery::Exact,
            body,
            hops: 0,
            destination,
            source: self.id,
            agent: agent.filter(|agent| *agent != destination),
            source_agent: self.own_agent(destination),
        }
    }
}
