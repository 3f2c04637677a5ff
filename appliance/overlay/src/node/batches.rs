//! Sealing many guest packets for one peer: records of one length side by side in one buffer, which the
//! underlay sends in one go.

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::outer::RECORD_OVERHEAD_BYTES;

use super::api::{Event, GuestPackets, Transmit};
use super::peer::Via;
use super::sizes::write_probe;
use super::together::{Batch, Verdict};
use super::{Node, OUTBOX_MAX};

/// Most bytes in one buffer: what one UDP header can describe over IPv4.
const BYTES_MAX: usize = 65_507;
/// Most records in it: as many as any kernel sends at once.
const RECORDS_MAX: usize = 64;
/// Remotes remembered to which datagrams go one by one. One that is forgotten is found out again.
const ONE_BY_ONE_MAX: usize = 64;
/// What buffers are made for.
pub(super) const BUFFER_BYTES: usize = BYTES_MAX;
/// Buffers kept for reuse: a megabyte.
pub(super) const SPARE_MAX: usize = 16;

impl Node {
    /// Seals packets of the guest and sends them by the peer's direct path. False, and nothing
    /// done, where they had better go one by one.
    pub(super) fn send_together(
        &mut self,
        now: Instant,
        id: NodeId,
        kind: u8,
        packets: &impl GuestPackets,
    ) -> bool {
        let longest = packets.length(0) + 1 + RECORD_OVERHEAD_BYTES;
        let Some(remote) = self.undoubted(now, id, longest) else {
            return false;
        };
        self.note_traffic(now, id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        if let Some(mtu) = peer.mtu_mut(remote) {
            mtu.on_sent(longest);
        }
        let count = packets.count();
        let is_watched = count > 1
            && remote.is_udp()
            && peer
                .path_mut(remote)
                .is_some_and(|path| path.together.wants_probe(now));
        peer.on_traffic_sent(Via::Direct(remote), now, |frame| {
            frame.push(kind);
            packets.write(count - 1, frame);
        });
        // Now and then, after the first record of those that go together: does it arrive?
        let mut watch = is_watched.then(|| self.token());
        let mut watched = None;
        let mut next = 0;
        while next < count {
            let record = |index| packets.length(index) + 1 + RECORD_OVERHEAD_BYTES;
            let last = self.transmits.back();
            if !last.is_some_and(|last| takes(last, remote, record(next))) {
                if self.transmits.len() >= OUTBOX_MAX {
                    self.counters.drop_full += (count - next) as u64;
                    return true;
                }
                let spare = self.spare_batches.pop();
                let datagram = spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
                self.transmits.push_back(Transmit {
                    to: remote,
                    datagram,
                    datagram_bytes: record(next),
                    may_join: true,
                });
            }
            let Some(transmit) = self.transmits.back_mut() else {
                return true;
            };
            let before = transmit.datagram.len();
            let Some(peer) = self.peers.get_mut(&id) else {
                return true;
            };
            let Some(live) = peer.sending() else {
                return true;
            };
            while next < count
                && (transmit.datagram.is_empty() || takes(transmit, remote, record(next)))
            {
                let start = transmit.datagram.len();
                let length = transmit.datagram_bytes;
                if start > 0
                    && takes(transmit, remote, length)
                    && let Some(token) = watch.take()
                {
                    let write = |out: &mut Vec<u8>| write_probe(token, length, out);
                    let sealer = &live.session.sealer;
                    if sealer.seal_with(&mut transmit.datagram, write).is_ok() {
                        self.counters.datagrams_out += 1;
                        self.counters.bytes_probes += length as u64;
                        watched = Some((token, length));
                    }
                    continue;
                }
                let sealed = live
                    .session
                    .sealer
                    .seal_with(&mut transmit.datagram, |out| {
                        out.push(kind);
                        packets.write(next, out);
                    });
                next += 1;
                if sealed.is_err() {
                    // The session has come to its end; its successor is being made.
                    continue;
                }
                debug_assert_eq!(transmit.datagram.len() - start, record(next - 1));
                self.counters.guest_out += 1;
                self.counters.datagrams_out += 1;
            }
            let sealed = transmit.datagram.len() - before;
            let records = sealed.div_ceil(transmit.datagram_bytes);
            peer.sent.packets += records as u64;
            peer.sent.bytes += sealed as u64;
            self.counters.bytes_out += sealed as u64;
            if transmit.datagram.is_empty() {
                self.transmits.pop_back();
            }
        }
        let peer = self.peers.get_mut(&id);
        let path = peer.and_then(|peer| peer.path_mut(remote));
        if let (Some(path), Some((token, datagram_bytes))) = (path, watched) {
            let most = RECORDS_MAX.min(BYTES_MAX / datagram_bytes);
            let batch = Batch {
                datagram_bytes,
                count: (count + 1).min(most),
            };
            let timeout = path.liveness.patience();
            path.together.on_watched(token, batch, now, timeout);
        }
        true
    }

    /// Compares batches with datagrams by themselves, where that is due.
    pub(super) fn maintain_batches(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let paths = peer.paths.iter_mut();
        let verdicts = paths.map(|path| (path.remote, path.together.step(now)));
        for (remote, verdict) in verdicts.collect::<Vec<_>>() {
            match verdict {
                Verdict::Wait => {}
                Verdict::Compare(batch) => self.compare(now, id, remote, batch),
                Verdict::GiveUp => self.give_up_batches(remote),
            }
        }
    }

    /// Sends a batch of probes, and one by itself.
    fn compare(&mut self, now: Instant, id: NodeId, remote: Remote, batch: Batch) {
        let tokens = [self.token(), self.token()];
        let length = batch.datagram_bytes;
        let mut datagram = self.spare_batches.pop().unwrap_or_default();
        datagram.reserve(BUFFER_BYTES);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(live) = peer.sending() {
            for _ in 0..batch.count {
                let write = |out: &mut Vec<u8>| write_probe(tokens[0], length, out);
                // Where the session has come to its end, the next round has its successor.
                let _ = live.session.sealer.seal_with(&mut datagram, write);
            }
        }
        if let Some(path) = peer.path_mut(remote) {
            let timeout = path.liveness.patience();
            path.together.on_compared(tokens, now, timeout);
        }
        let bytes = datagram.len() as u64;
        if bytes == 0 || self.transmits.len() >= OUTBOX_MAX {
            return self.recycle(datagram);
        }
        self.counters.datagrams_out += bytes / length as u64;
        self.counters.bytes_out += bytes;
        self.counters.bytes_probes += bytes;
        self.transmits.push_back(Transmit {
            to: remote,
            datagram,
            datagram_bytes: length,
            may_join: false,
        });
        self.send_probe(id, remote, tokens[1], length);
    }

    fn give_up_batches(&mut self, remote: Remote) {
        self.counters.batches_given_up += 1;
        if self.one_by_one.len() >= ONE_BY_ONE_MAX {
            self.one_by_one.pop_first();
        }
        self.one_by_one.insert(remote);
        self.event(Event::BatchesHarm { remote });
    }

    /// Where a peer's packets go directly, over TCP or from UDP's main socket, with no doubt that they arrive:
    /// the path carries datagrams of the longest's length.
    fn undoubted(&self, now: Instant, id: NodeId, longest: usize) -> Option<Remote> {
        let peer = self.peers.get(&id)?;
        peer.sending()?;
        let path = peer.active()?;
        let plain = path.remote.lane() == 0 && !self.one_by_one.contains(&path.remote);
        let fits = longest <= peer.carries(path.remote);
        (plain && fits && !path.liveness.is_in_doubt(now)).then_some(path.remote)
    }
}

/// Whether one more record of such a length may follow what there is.
fn takes(transmit: &Transmit, to: Remote, record: usize) -> bool {
    let held = transmit.datagram.len();
    transmit.to == to
        && transmit.may_join
        && transmit.datagram.capacity() >= BUFFER_BYTES
        && record <= transmit.datagram_bytes
        && held.is_multiple_of(transmit.datagram_bytes)
        && held + record <= BYTES_MAX
        && held / transmit.datagram_bytes < RECORDS_MAX
}
