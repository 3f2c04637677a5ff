//! Greedy routing: where a routed frame goes next, and what becomes of it here.

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::frame::{Body, Delivery, HOPS_MAX, ROUTED_HEADER_MAX, RoutedHeader};

use super::Node;
use super::api::GuestPacket;
use super::peer::{Peer, Via};
use super::ring;
use super::traffic::Source;

/// Sessions inside sessions that one datagram may hold: a link's record, in it the record of a
/// relayed link, in it the record of the two ends.
const NESTING_MAX: u8 = 3;

/// Agents that are named by turns.
const AGENTS_MAX: usize = 4;

enum Hop {
    /// To this peer.
    Peer(NodeId),
    /// To a peer by a relay that both have a direct path to.
    Relay {
        relay: NodeId,
        peer: NodeId,
    },
    Here,
    Nowhere,
}

impl Node {
    /// Sends a routed frame of our own.
    pub(super) fn originate(&mut self, now: Instant, header: RoutedHeader, body: &[u8]) {
        let mut header = self.clear_reached_agent(header);
        match self.next_hop(&mut header, None) {
            Hop::Peer(next) => self.pass_on(now, next, &header, body),
            Hop::Relay { relay, peer } => self.pass_by(now, relay, peer, header, body),
            Hop::Here => {
                let mut body = body.to_vec();
                if let Some(packet) = self.deliver(now, header, &mut body, 0) {
                    self.queue_guest_packet(packet.bytes, packet.lacks_checksum);
                }
            }
            Hop::Nowhere => self.counters.drop_no_route += 1,
        }
    }

    /// A routed frame came from a peer. A guest's packet within it that may come in is given back.
    pub(super) fn handle_routed<'d>(
        &mut self,
        now: Instant,
        from: NodeId,
        mut header: RoutedHeader,
        body: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        header.hops = header.hops.saturating_add(1);
        let asks = header.body == Body::Query;
        let peer = self.peers.get_mut(&from);
        if asks && !peer.is_some_and(|peer| peer.budgets.take_request(now)) {
            self.counters.drop_budget += 1;
            return None;
        }
        let circles = header.source == self.id;
        if header.hops > HOPS_MAX || circles {
            if circles || !asks || !self.answer_where_hops_end(now, &header, body) {
                self.counters.drop_hops += 1;
            }
            return None;
        }
        let is_agent = header.agent == Some(self.id);
        let mut header = self.clear_reached_agent(header);
        // Whoever sent it to us as its agent may be the relay to go on by.
        let back = Some(from).filter(|_| !is_agent);
        let hop = self.next_hop(&mut header, back);
        if let Hop::Peer(_) | Hop::Relay { .. } = hop {
            if is_agent && asks {
                self.answer_as_agent(now, &header, body);
            }
            self.counters.forwarded += 1;
        }
        match hop {
            Hop::Peer(next) => self.pass_on(now, next, &header, body),
            Hop::Relay { relay, peer } => self.pass_by(now, relay, peer, header, body),
            Hop::Here => return self.deliver(now, header, body, nesting),
            Hop::Nowhere => self.counters.drop_no_route += 1,
        }
        None
    }

    /// The peer with a direct path that a frame goes to next, and the header that it has then; none where it
    /// ends here, or nowhere.
    pub(super) fn next_carrier(
        &self,
        header: RoutedHeader,
        back: Option<NodeId>,
    ) -> Option<(NodeId, RoutedHeader)> {
        let mut header = self.clear_reached_agent(header);
        match self.next_hop(&mut header, back) {
            Hop::Peer(next) => Some((next, header)),
            Hop::Relay { relay, peer } => Some((relay, by_relay(header, peer))),
            Hop::Here | Hop::Nowhere => None,
        }
    }

    fn clear_reached_agent(&self, mut header: RoutedHeader) -> RoutedHeader {
        if header.agent == Some(self.id) {
            header.agent = None;
        }
        header
    }

    /// Where a frame goes: never `back`, and never to its source. Hops whose path is in doubt are for
    /// frames that have no other. An agent that cannot be come any closer to is given up, and
    /// forgotten: of two goals each may be closer by the other's way, and the frame would go round.
    fn next_hop(&self, header: &mut RoutedHeader, back: Option<NodeId>) -> Hop {
        let reliable = |peer: &Peer| !peer.is_doubtful();
        let mut tried = *header;
        match self.next_hop_among(&mut tried, back, &reliable) {
            Hop::Here | Hop::Nowhere => self.next_hop_among(header, back, &|_| true),
            hop => {
                *header = tried;
                hop
            }
        }
    }

    fn next_hop_among(
        &self,
        header: &mut RoutedHeader,
        back: Option<NodeId>,
        allowed: &dyn Fn(&Peer) -> bool,
    ) -> Hop {
        if header.destination == self.id && header.delivery == Delivery::Exact {
            return Hop::Here;
        }
        let source = header.source;
        let usable = |id: NodeId| {
            let peer = self.peers.get(&id);
            let there = peer.is_some_and(|peer| peer.is_established() && allowed(peer));
            there && id != source && Some(id) != back
        };
        let way = |peer: NodeId| match self.is_hop(&peer) {
            true => Some(Hop::Peer(peer)),
            false => self
                .relay_of(peer)
                .filter(|relay| usable(*relay))
                .map(|relay| Hop::Relay { relay, peer }),
        };
        for goal in [Some(header.destination), header.agent]
            .into_iter()
            .flatten()
        {
            let reachable = header.delivery == Delivery::Exact || header.agent == Some(goal);
            if reachable
                && usable(goal)
                && let Some(hop) = way(goal)
            {
                return hop;
            }
        }
        let agent = header.agent;
        for goal in [agent, Some(header.destination)].into_iter().flatten() {
            if Some(goal) != agent {
                header.agent = None;
            }
            let own = self.id.distance(goal);
            let way = |id: NodeId, _: &Peer| usable(id).then(|| way(id)).flatten();
            if let Some((_, hop)) = ring::closer_than(Some(own), goal, &self.peers, way) {
                return hop;
            }
        }
        match header.delivery {
            Delivery::Closest => Hop::Here,
            Delivery::Exact => Hop::Nowhere,
        }
    }

    /// Passes a frame on to a peer that no direct path leads to: by a relay, with the peer as the
    /// frame's agent. A record of the link itself is not wrapped around it, or two nodes that relay
    /// for each other would wrap it without end.
    fn pass_by(
        &mut self,
        now: Instant,
        relay: NodeId,
        peer: NodeId,
        header: RoutedHeader,
        body: &[u8],
    ) {
        self.pass_on(now, relay, &by_relay(header, peer), body);
    }

    pub(super) fn pass_on(
        &mut self,
        now: Instant,
        next: NodeId,
        header: &RoutedHeader,
        body: &[u8],
    ) {
        let mut head = Vec::with_capacity(1 + ROUTED_HEADER_MAX);
        header.encode(&mut head);
        let Some(peer) = self.peers.get_mut(&next) else {
            return;
        };
        let via = peer.via();
        if via == Via::Overlay {
            self.counters.drop_no_route += 1;
            return;
        }
        // Others' traffic questions a path as our own does: they cannot see that it is dead.
        if header.body == Body::Datagram
            && let Some(liveness) = peer.liveness_mut(via)
        {
            liveness.on_sent(now);
        }
        let before = self.counters.bytes_out;
        self.send_frame(now, next, via, &[&head, body]);
        let spent = self.counters.bytes_out - before;
        match header.body {
            Body::Datagram => self.counters.bytes_relayed += spent,
            Body::Query => self.counters.bytes_queries += spent,
            Body::Answer => self.counters.bytes_answers += spent,
        }
    }

    fn deliver<'d>(
        &mut self,
        now: Instant,
        header: RoutedHeader,
        body: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        match header.body {
            Body::Datagram if nesting < NESTING_MAX => {
                let source = Source::Overlay {
                    from: header.source,
                    agent: header.source_agent,
                    hops: header.hops.saturating_sub(1),
                };
                return self.open_outer(now, source, body, nesting + 1);
            }
            Body::Datagram => self.counters.drop_hops += 1,
            Body::Query => self.handle_query(now, &header, body),
            Body::Answer => self.handle_answer(now, &header, body),
        }
        None
    }

    /// The node that frames to us should visit first: the nearest that has a direct path to us.
    /// Frames find it where the ring does not lead to us (yet), or leads by a link that is relayed.
    pub(super) fn own_agent(&self, except: NodeId) -> Option<NodeId> {
        self.own_agent_at(except, 0)
    }

    /// As [`Node::own_agent`]; each `turn` names another one, the next nearest. Whoever shares our
    /// translator comes last: where the ring does not lead to us it hardly leads there.
    pub(super) fn own_agent_at(&self, except: NodeId, turn: usize) -> Option<NodeId> {
        let mut agents = self.nearest_direct_hops(except, false);
        if agents.len() < AGENTS_MAX {
            agents.extend(self.nearest_direct_hops(except, true));
            agents.truncate(AGENTS_MAX);
        }
        let turn = turn.checked_rem(agents.len())?;
        agents.get(turn).copied()
    }

    /// The [`AGENTS_MAX`] nearest direct hops, nearest first, that share our translator or do not.
    fn nearest_direct_hops(&self, except: NodeId, beside: bool) -> Vec<NodeId> {
        let counts = |id, peer: &Peer| id != except && peer.is_hop() && peer.is_beside() == beside;
        let nearest = ring::nearest(self.id, &self.peers, AGENTS_MAX, counts);
        let mut hops: Vec<_> = nearest.iter().collect();
        hops.sort_by_key(|hop| hop.distance(self.id));
        hops.dedup();
        hops.truncate(AGENTS_MAX);
        hops
    }

    pub(super) fn is_hop(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(Peer::is_hop)
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
            source_agent: self
                .relay_of(destination)
                .or_else(|| self.own_agent(destination)),
        }
    }
}

/// A header for the way by a relay to `peer`, which is the frame's agent unless it is where the frame ends.
fn by_relay(mut header: RoutedHeader, peer: NodeId) -> RoutedHeader {
    header.agent = Some(peer).filter(|peer| *peer != header.destination);
    header
}
