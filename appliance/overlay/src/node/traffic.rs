//! Records in and out: opening them, the frames inside, and sealing what is sent.

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{self, Body, Frame};
use crate::wire::message::{Control, Message};
use crate::wire::outer::{self, Outer, RECORD_OVERHEAD_BYTES};

use super::announcement::list_digest;
use super::api::{DownReason, Event, GuestPacket, PingId};
use super::handshake::Owner;
use super::peer::Via;
use super::runs::Run;
use super::{Node, peer};

/// Where an outer datagram came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// By a direct path.
    Direct(Remote),
    /// Over the overlay.
    Overlay {
        from: NodeId,
        agent: Option<NodeId>,
        /// Nodes that forwarded it.
        hops: u8,
    },
}

impl Source {
    pub(super) fn via(self) -> Via {
        match self {
            Source::Direct(remote) => Via::Direct(remote),
            Source::Overlay { .. } => Via::Overlay,
        }
    }

    pub(super) fn remote(self) -> Option<Remote> {
        match self {
            Source::Direct(remote) => Some(remote),
            Source::Overlay { .. } => None,
        }
    }
}

impl Node {
    /// Takes a datagram from the underlay, wherever and by whichever protocol it came. It is opened
    /// in place.
    pub fn handle_datagram(&mut self, now: Instant, from: Remote, datagram: &mut [u8]) {
        if let Some(packet) = self.open_next(&mut Run::default(), now, from, datagram) {
            self.queue_guest_packet(packet.bytes, packet.lacks_checksum);
        }
    }

    pub(super) fn open_outer<'d>(
        &mut self,
        now: Instant,
        source: Source,
        datagram: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        if let Some(receiver) = outer::record_receiver(datagram) {
            return self.open_record(now, source, receiver, datagram, nesting);
        }
        match Outer::parse(datagram) {
            Ok(_) => self.handle_handshake(now, source, datagram),
            Err(_) => self.counters.drop_malformed += 1,
        }
        None
    }

    fn open_record<'d>(
        &mut self,
        now: Instant,
        source: Source,
        receiver: u32,
        datagram: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        let (id, plaintext) = self.unseal(now, source, receiver, datagram)?;
        self.handle_plaintext(now, id, source, plaintext, nesting)
    }

    /// Opens a record; whom it is from and what it holds.
    pub(super) fn unseal<'d>(
        &mut self,
        now: Instant,
        source: Source,
        receiver: u32,
        datagram: &'d mut [u8],
    ) -> Option<(NodeId, &'d mut [u8])> {
        let Some(Owner::Peer(id)) = self.handshakes.owner(receiver) else {
            self.counters.drop_unknown_session += 1;
            return None;
        };
        let size = datagram.len();
        let Some(peer) = self.peers.get_mut(&id) else {
            self.counters.drop_unknown_session += 1;
            return None;
        };
        let was_established = peer.is_established();
        let Some(live) = peer.session_mut(receiver) else {
            self.counters.drop_unknown_session += 1;
            return None;
        };
        let Ok(plaintext) = live.session.opener.open(datagram) else {
            self.counters.drop_record += 1;
            return None;
        };
        live.confirmed = true;
        peer.received.count(size);
        if let Source::Overlay { agent, .. } = source
            && agent.is_some()
        {
            peer.agent = agent;
        }
        let newcomer = peer.on_heard(source.via(), now);
        if let Some(remote) = newcomer {
            if remote.is_udp() {
                peer.offer(&[remote.on_lane(0)]);
            }
            self.probe_candidate(now, id, remote);
        }
        if !was_established {
            self.on_established(now, id);
        }
        Some((id, plaintext))
    }

    /// Takes what a record held. A packet that may come in is given back.
    pub(super) fn handle_plaintext<'d>(
        &mut self,
        now: Instant,
        id: NodeId,
        source: Source,
        plaintext: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        if let Some((&kind @ (frame::GUEST | frame::UNSUMMED), _)) = plaintext.split_first() {
            let bytes = &plaintext[1..];
            let lacks_checksum = kind == frame::UNSUMMED;
            let packet = GuestPacket {
                bytes,
                lacks_checksum,
            };
            return self
                .lets_in(now, id, bytes, lacks_checksum)
                .then_some(packet);
        }
        if let Some((&frame::PART, part)) = plaintext.split_first() {
            if let Some(mut whole) = self.take_part(id, part) {
                self.handle_whole(now, id, source, &mut whole, nesting);
            }
            return None;
        }
        self.handle_frame(now, id, source, plaintext, nesting)
    }

    /// Takes a frame that came in parts.
    fn handle_whole(
        &mut self,
        now: Instant,
        from: NodeId,
        source: Source,
        frame: &mut [u8],
        nesting: u8,
    ) {
        match frame.split_first() {
            Some((&kind @ (frame::GUEST | frame::UNSUMMED), packet)) => {
                self.handle_peer_packet(now, from, packet, kind == frame::UNSUMMED);
            }
            _ => {
                if let Some(packet) = self.handle_frame(now, from, source, frame, nesting) {
                    self.queue_guest_packet(packet.bytes, packet.lacks_checksum);
                }
            }
        }
    }

    /// Takes any frame but a guest's packet and a part. A packet within it that may come in is given back.
    fn handle_frame<'d>(
        &mut self,
        now: Instant,
        from: NodeId,
        source: Source,
        plaintext: &'d mut [u8],
        nesting: u8,
    ) -> Option<GuestPacket<&'d [u8]>> {
        match Frame::parse(plaintext) {
            Ok(Frame::Routed(header, body)) => {
                let start = plaintext.len() - body.len();
                return self.handle_routed(now, from, header, &mut plaintext[start..], nesting);
            }
            Ok(Frame::Control(bytes)) => match Control::decode(bytes) {
                Ok(message) => self.handle_control(now, from, source, message),
                Err(_) => self.counters.drop_message += 1,
            },
            Ok(Frame::SizeProbe(probe)) => self.handle_size_probe(now, from, source, probe),
            Ok(Frame::Guest(_) | Frame::Unsummed(_) | Frame::Part(_)) | Err(_) => {
                self.counters.drop_message += 1;
            }
        }
        None
    }

    fn handle_control(&mut self, now: Instant, from: NodeId, source: Source, message: Control) {
        if !self.may_ask(now, from, &message) {
            self.counters.drop_budget += 1;
            return;
        }
        match message {
            Control::Probe { token } => {
                let observed = source.remote();
                let ack = Control::ProbeAck { token, observed };
                self.send_control_by(now, from, source.via(), &ack);
            }
            Control::ProbeAck { token, observed } => {
                let (mut ours, mut new_hop) = (false, false);
                if let Some(peer) = self.peers.get_mut(&from) {
                    let was_hop = peer.is_hop();
                    ours = peer.on_ack(token, now);
                    new_hop = peer.is_hop() && !was_hop;
                }
                if new_hop {
                    self.on_hop_changed(now);
                }
                if let Some(observed) = observed
                    && ours
                {
                    // What leaves by an extra socket has a port of its own.
                    let lane = source.remote().map_or(0, Remote::lane);
                    if lane == 0 {
                        self.candidates.learn(observed);
                        self.sightings.note(now, from, observed);
                        self.tell_new_place(now);
                    }
                }
            }
            Control::Neighbours {
                left,
                right,
                relays,
                revocations,
                wanted,
                reply,
            } => {
                self.compare_revocations(now, from, revocations);
                // Of a node in suspicion nothing is taken in: the list is to be told again.
                let mut told = left.iter().chain(&right).chain(&relays);
                let heard = match told.any(|contact| self.ring.is_suspect(contact.id)) {
                    true => 0,
                    false => list_digest(&left, &right, &relays),
                };
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.remote_wants = wanted;
                    peer.heard_list = heard;
                    peer.relays = relays;
                }
                self.learn_contacts(now, left.into_iter().chain(right), from);
                if reply {
                    self.announce_to(now, from, false);
                }
            }
            Control::Link {
                list,
                wanted,
                revocations,
            } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.remote_wants = wanted;
                }
                self.compare_revocations(now, from, revocations);
                if list != 0 {
                    self.compare_list(now, from, list);
                    self.stabilise(now);
                }
            }
            Control::Candidates { candidates, reply } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    if peer.is_elsewhere(&candidates, source.via()) {
                        peer.moved(source.via(), now);
                    }
                    peer.offer(&candidates);
                    peer.start_race(now);
                }
                if reply {
                    self.send_candidates(now, from, false);
                }
            }
            Control::Echo { token } => {
                let hops = match source {
                    Source::Direct(_) => 0,
                    Source::Overlay { hops, .. } => hops,
                };
                let reply = Control::EchoReply { token, hops };
                self.send_control_by(now, from, source.via(), &reply);
            }
            Control::Punch { ip, first, count } => self.handle_punch(now, from, ip, first, count),
            Control::Punching => self.handle_punching(now, from),
            Control::EchoReply { token, hops } => self.handle_echo_reply(now, from, token, hops),
            Control::Certificate(bytes) => self.handle_certificate(now, from, &bytes),
            Control::Revocations { revocations, reply } => {
                self.handle_revocations(now, from, &revocations, reply);
            }
            Control::Addresses(addresses) => self.handle_addresses(now, from, &addresses),
            Control::Store {
                token,
                record,
                remaining_s,
            } => self.handle_store(now, from, token, record, remaining_s),
            Control::Stored { token } => self.handle_stored(from, token),
            Control::Vote { token, record } => self.handle_vote(now, from, token, record),
            Control::Voted { token, vote } => self.handle_voted(now, from, token, vote),
            Control::Bye { leaving } => {
                if leaving {
                    self.drop_peer(now, from, DownReason::Left);
                } else if self.is_missed(now, from) {
                    self.relink(now, from);
                } else {
                    self.drop_peer(now, from, DownReason::Unneeded);
                }
            }
        }
    }

    /// Whether a message is within its sender's budgets. Answers to what we asked cost nothing.
    fn may_ask(&mut self, now: Instant, from: NodeId, message: &Control) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else {
            return false;
        };
        match message {
            Control::ProbeAck { .. }
            | Control::EchoReply { .. }
            | Control::Stored { .. }
            | Control::Bye { .. } => true,
            Control::Neighbours { .. } => {
                peer.budgets.take_contacts(now) && peer.budgets.take_request(now)
            }
            _ => peer.budgets.take_request(now),
        }
    }

    fn handle_echo_reply(&mut self, now: Instant, from: NodeId, token: u64, hops: u8) {
        let Some(asked) = self.echoes.take(token, from) else {
            return;
        };
        let path = self.path_info(from);
        self.event(Event::Pong {
            ping: PingId(token),
            rtt: now - asked,
            hops,
            path,
        });
    }

    /// After a move: once others see us somewhere, those that do not hear us yet are told where, over
    /// the overlay. Behind filters, only what they send themselves opens the way.
    fn tell_new_place(&mut self, now: Instant) {
        if !self.candidates.is_seen() || !std::mem::take(&mut self.tell_reflexive) {
            return;
        }
        let candidates = self.own_candidates();
        let message = Control::Candidates {
            candidates,
            reply: false,
        };
        let unheard = self.peers.iter().filter(|(_, peer)| {
            peer.is_established() && (peer.active().is_none() || peer.is_doubtful())
        });
        for id in unheard.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send_control_by(now, id, Via::Overlay, &message);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.start_race(now);
            }
        }
    }

    /// Sends a message to a peer by its best path.
    pub(super) fn send_control(&mut self, now: Instant, to: NodeId, message: &Control) {
        if let Some(via) = self.peers.get(&to).map(peer::Peer::via) {
            self.send_control_by(now, to, via, message);
        }
    }

    /// Sends a message to a peer by a given path.
    pub(super) fn send_control_by(
        &mut self,
        now: Instant,
        to: NodeId,
        via: Via,
        message: &Control,
    ) {
        let mut frame = self.buffer();
        frame.push(frame::CONTROL);
        message.encode(&mut frame);
        let before = self.counters.bytes_out;
        self.send_frame(now, to, via, &[&frame]);
        if let Via::Direct(_) = via {
            let spent = self.counters.bytes_out - before;
            match message {
                Control::Probe { .. } | Control::ProbeAck { .. } | Control::Candidates { .. } => {
                    self.counters.bytes_probes += spent;
                }
                Control::Neighbours { .. } | Control::Link { .. } => {
                    self.counters.bytes_neighbours += spent;
                }
                Control::Store { .. }
                | Control::Stored { .. }
                | Control::Vote { .. }
                | Control::Voted { .. } => {
                    self.counters.bytes_stores += spent;
                }
                // Too rare to be told apart.
                _ => {}
            }
        }
        self.recycle(frame);
    }

    /// Seals a frame, given in parts, and sends it to a peer by a given path: in several records where one
    /// would be longer than the path carries.
    pub(super) fn send_frame(&mut self, now: Instant, to: NodeId, via: Via, parts: &[&[u8]]) {
        let remote = match via {
            Via::Direct(remote) => remote,
            Via::Overlay => return self.send_over(now, to, parts),
        };
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let frame: usize = parts.iter().map(|part| part.len()).sum();
        let length = frame + RECORD_OVERHEAD_BYTES;
        let carries = peer.carries(remote);
        if let Some(mtu) = peer.mtu_mut(remote) {
            mtu.want(length, now);
            mtu.on_sent(length.min(carries));
        }
        if length > carries {
            self.send_cut(to, remote, parts, carries);
        } else {
            self.send_whole(to, remote, parts);
        }
    }

    /// Seals a frame and sends it by a direct path, however long it is.
    pub(super) fn send_whole(&mut self, to: NodeId, remote: Remote, parts: &[&[u8]]) {
        if let Some(datagram) = self.seal(to, parts) {
            self.transmit(remote, datagram);
        }
    }

    fn send_over(&mut self, now: Instant, to: NodeId, parts: &[&[u8]]) {
        if let Some(datagram) = self.seal(to, parts) {
            let agent = self.peers.get(&to).and_then(|peer| peer.agent);
            let header = self.header_to(to, agent, Body::Datagram);
            self.originate(now, header, &datagram);
            self.recycle(datagram);
        }
    }

    /// A frame, given in parts, as a record for a peer.
    pub(super) fn seal(&mut self, to: NodeId, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut datagram = self.buffer();
        if let Some(peer) = self.peers.get_mut(&to)
            && let Some(live) = peer.sending()
            && live.session.sealer.seal(parts, &mut datagram).is_ok()
        {
            peer.sent.count(datagram.len());
            return Some(datagram);
        }
        self.recycle(datagram);
        None
    }

    /// Sends a frame to a peer by another one, whatever direct path there is.
    fn send_around(&mut self, now: Instant, to: NodeId, parts: &[&[u8]]) {
        let Some(relay) = self.relay_around(to) else {
            return;
        };
        if let Some(datagram) = self.seal(to, parts) {
            let header = self.header_to(to, None, Body::Datagram);
            self.pass_on(now, relay, &header, &datagram);
            self.recycle(datagram);
        }
    }

    /// Sends a frame that carries somebody's traffic: silence afterwards questions the path.
    pub(super) fn send_traffic(&mut self, now: Instant, to: NodeId, parts: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let via = peer.via();
        // While nobody knows whether the path still works, both ways are used: a packet that comes
        // twice does less harm than one that does not come.
        let doubtful = peer
            .active()
            .is_some_and(|path| path.liveness.is_in_doubt(now));
        peer.on_traffic_sent(via, now, |frame| {
            for part in parts {
                frame.extend_from_slice(part);
            }
        });
        self.send_frame(now, to, via, parts);
        if doubtful {
            self.send_around(now, to, parts);
        }
    }

    /// Traffic's answers are late on the way in use: what went out last goes by another way too.
    pub(super) fn repeat_tail(&mut self, now: Instant, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let via = peer.via();
        if let Some(liveness) = peer.liveness_mut(via) {
            liveness.on_repeated();
        }
        let Some(tail) = peer.tail().map(<[u8]>::to_vec) else {
            return;
        };
        match via {
            Via::Direct(_) => self.send_around(now, to, &[&tail]),
            // The probe has chosen another relay.
            Via::Overlay => self.send_frame(now, to, via, &[&tail]),
        }
    }

    /// Probes one address of a peer, in case the peer answers there.
    pub(super) fn probe_candidate(&mut self, now: Instant, id: NodeId, remote: Remote) {
        let token = self.token();
        if let Some(peer) = self.peers.get_mut(&id) {
            if !peer.budgets.take_probe(now) {
                self.counters.drop_budget += 1;
                return;
            }
            peer.on_race_probe_sent(token, remote, now);
        }
        let probe = Control::Probe { token };
        self.send_control_by(now, id, Via::Direct(remote), &probe);
    }

    /// Tells a peer our addresses, so that both sides probe at once.
    pub(super) fn send_candidates(&mut self, now: Instant, to: NodeId, reply: bool) {
        let candidates = self.own_candidates();
        self.send_control(now, to, &Control::Candidates { candidates, reply });
    }
}
