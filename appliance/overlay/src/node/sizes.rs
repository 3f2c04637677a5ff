//! Lengths on the way to a peer: what direct paths carry is probed, what is longer goes in parts, and guests are
//! told what had better be shorter.

use crate::id::NodeId;
use crate::membership::addresses::{control_v4, control_v6};
use crate::session::Rate;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{self, ROUTED_HEADER_MAX};
use crate::wire::message::Control;
use crate::wire::outer::RECORD_OVERHEAD_BYTES;

use super::Node;
use super::parts;
use super::path_mtu::{PathMtu, Step, base_bytes};
use super::peer::{Peer, Via};
use super::too_big;
use super::traffic::Source;

/// The guest's MTU unless it is said otherwise: what an Ethernet frame carries over UDP and IPv6.
pub const GUEST_MTU_DEFAULT: usize = 1500 - 40 - 8 - GUEST_OVERHEAD_BYTES;
/// The least that it may be: what IPv6 requires of any link.
pub const GUEST_MTU_MIN: usize = too_big::V6_MTU_MIN;
/// The most: what a frame of 9000 bytes carries over UDP and IPv4.
pub const GUEST_MTU_MAX: usize = 9000 - 20 - 8 - GUEST_OVERHEAD_BYTES;

/// What a guest's packet gets before it is a datagram.
const GUEST_OVERHEAD_BYTES: usize = RECORD_OVERHEAD_BYTES + 1;
/// What guests are told of ways over other nodes. Sealed and routed, sealed again for each link, such a
/// packet still fits an Ethernet frame.
const OVERLAY_MTU: usize = 1280;
/// Answers to packets that were too long.
const ANSWERS: Rate = Rate {
    per_second: 200,
    burst: 200,
};
/// The token of a [`frame::SIZE_PROBE`].
const TOKEN_BYTES: usize = 8;

/// The longest datagram that a node with such a guest has a use for: a packet of its own, or one that it
/// passes on.
pub(super) fn longest_datagram(guest_mtu: usize) -> usize {
    let relayed = OVERLAY_MTU + GUEST_OVERHEAD_BYTES + ROUTED_HEADER_MAX + RECORD_OVERHEAD_BYTES;
    (guest_mtu + GUEST_OVERHEAD_BYTES).max(relayed)
}

/// Appends a probe that makes a datagram of this length.
pub(super) fn write_probe(token: u64, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(frame::SIZE_PROBE);
    out.extend_from_slice(&token.to_be_bytes());
    out.resize(start + length - RECORD_OVERHEAD_BYTES, 0);
}

impl Peer {
    /// The longest datagram that a direct path carries.
    pub(super) fn carries(&self, remote: Remote) -> usize {
        match self.mtu(remote) {
            Some(mtu) => mtu.passes(),
            None if remote.is_tcp() => usize::MAX,
            None => base_bytes(remote),
        }
    }

    fn mtu(&self, remote: Remote) -> Option<&PathMtu> {
        let path = self.paths.iter().find(|path| path.remote == remote);
        path?.mtu.as_ref()
    }

    pub(super) fn mtu_mut(&mut self, remote: Remote) -> Option<&mut PathMtu> {
        self.path_mut(remote)?.mtu.as_mut()
    }

    /// The longest packet of a guest that goes whole the way in use.
    pub(super) fn guest_mtu(&self) -> usize {
        match self.via() {
            Via::Direct(remote) => self.carries(remote).saturating_sub(GUEST_OVERHEAD_BYTES),
            Via::Overlay => OVERLAY_MTU,
        }
    }

    /// The same once that is certain, where a packet of `length` bytes is longer.
    fn too_short_for(&mut self, now: Instant, length: usize) -> Option<usize> {
        let mtu = self.guest_mtu();
        if length <= mtu {
            return None;
        }
        let is_certain = match self.via() {
            Via::Direct(remote) => {
                let mtu = self.mtu_mut(remote)?;
                mtu.want(length + GUEST_OVERHEAD_BYTES, now);
                mtu.is_settled()
            }
            // A direct path may be found any moment, and guests remember for minutes what they are told.
            Via::Overlay => self.race_deadline().is_none(),
        };
        is_certain.then_some(mtu)
    }
}

impl Node {
    /// Whether a guest's packet of this length, which `write` appends, is too long for the way to a peer;
    /// then its sender is told. What may be fragmented goes in parts, and so does everything while it is
    /// not certain yet what passes.
    pub(super) fn is_too_big(
        &mut self,
        now: Instant,
        to: NodeId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else {
            return false;
        };
        let Some(mtu) = peer.too_short_for(now, length) else {
            return false;
        };
        let mut packet = self.buffer();
        write(&mut packet);
        let from = (control_v4(self.pool.range), control_v6(self.pool.pool_id()));
        let answer = too_big::answer(&packet, mtu, from);
        self.recycle(packet);
        let Some(answer) = answer else {
            return false;
        };
        self.counters.drop_guest_too_big += 1;
        if self.too_big.take(ANSWERS, now) {
            self.queue_guest_packet(&answer, false);
        }
        true
    }

    /// The machine could not send a datagram of this length: its link is too narrow.
    pub fn handle_too_long(&mut self, now: Instant, to: Remote, length: usize) {
        let with_path = |peer: &Peer| peer.paths.iter().any(|path| path.remote == to);
        let of = self.peers.iter().filter(|(_, peer)| with_path(peer));
        for id in of.map(|(id, _)| *id).collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&id);
            if let Some(mtu) = peer.and_then(|peer| peer.mtu_mut(to)) {
                mtu.on_refused(length, now);
            }
        }
    }

    /// Probes the lengths of a peer's paths, where that is due.
    pub(super) fn maintain_sizes(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut due = Vec::new();
        for path in &mut peer.paths {
            let heard = path.liveness.last_heard();
            let Some(mtu) = &mut path.mtu else {
                continue;
            };
            match mtu.step(now, heard) {
                Step::Wait => {}
                Step::Probe(length) => due.push((path.remote, length)),
                Step::BlackHole(length) => {
                    self.counters.black_holes += 1;
                    due.push((path.remote, length));
                }
            }
        }
        for (remote, length) in due {
            self.probe_size(now, id, remote, length);
        }
    }

    fn probe_size(&mut self, now: Instant, id: NodeId, remote: Remote, length: usize) {
        let fresh = self.token();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(path) = peer.path_mut(remote) else {
            return;
        };
        let (heard, patience) = (path.liveness.last_heard(), path.liveness.patience());
        let Some(mtu) = &mut path.mtu else {
            return;
        };
        let token = mtu.on_probe_sent(fresh, now, heard, patience);
        self.send_probe(id, remote, token, length);
    }

    /// Sends a probe that makes a datagram of this length, by itself.
    pub(super) fn send_probe(&mut self, id: NodeId, remote: Remote, token: u64, length: usize) {
        let mut frame = self.buffer();
        write_probe(token, length, &mut frame);
        if let Some(datagram) = self.seal(id, &[&frame]) {
            self.counters.bytes_probes += datagram.len() as u64;
            self.transmit(remote, datagram);
        }
        self.recycle(frame);
    }

    /// Answers a probe of what a path carries.
    pub(super) fn handle_size_probe(
        &mut self,
        now: Instant,
        from: NodeId,
        source: Source,
        probe: &[u8],
    ) {
        let (Some(token), Some(observed)) = (probe.first_chunk::<TOKEN_BYTES>(), source.remote())
        else {
            self.counters.drop_message += 1;
            return;
        };
        let peer = self.peers.get_mut(&from);
        if !peer.is_some_and(|peer| peer.budgets.take_request(now)) {
            self.counters.drop_budget += 1;
            return;
        }
        let token = u64::from_be_bytes(*token);
        let ack = Control::ProbeAck {
            token,
            observed: Some(observed),
        };
        self.send_control_by(now, from, source.via(), &ack);
    }

    /// Seals a frame, given in parts, as several records of at most `carries` bytes, and sends them.
    pub(super) fn send_cut(&mut self, id: NodeId, remote: Remote, parts: &[&[u8]], carries: usize) {
        let number = self.next_cut;
        self.next_cut = number.wrapping_add(1);
        let mut frame = self.buffer();
        for part in parts {
            frame.extend_from_slice(part);
        }
        let room = carries - RECORD_OVERHEAD_BYTES - 1;
        self.counters.cut += 1;
        parts::cut(&frame, number, room, |header, part| {
            self.send_whole(id, remote, &[&[frame::PART], &header, part]);
        });
        self.recycle(frame);
    }

    /// Takes a part of a frame; the frame that it completes.
    pub(super) fn take_part(&mut self, from: NodeId, part: &[u8]) -> Option<Vec<u8>> {
        match self.peers.get_mut(&from)?.parts.take(part) {
            Ok(frame) => frame,
            Err(parts::Malformed) => {
                self.counters.drop_message += 1;
                None
            }
        }
    }
}
