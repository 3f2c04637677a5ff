//! Sealing many guest packets for one peer: records of one length side by side in one buffer, which the
//! underlay sends in one go.

use crate::id::NodeId;
use crate::session::Sealer;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{Body, HOPS_MAX, ROUTED_HEADER_MAX, RoutedHeader};
use crate::wire::outer::{RECORD_OVERHEAD_BYTES, is_record};

use super::api::{Event, GuestPackets, Transmit};
use super::peer::{Peer, Via};
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

/// How packets for one peer travel together: by its own direct path, or routed, by another peer's.
#[derive(Debug)]
pub(super) struct Way {
    /// The peer whose path it is.
    carrier: NodeId,
    remote: Remote,
    /// The longest datagram that the path carries.
    carries: usize,
    /// The header of the routed frames that hold the records of the two ends; empty on a path of the peer's own.
    head: Vec<u8>,
}

impl Way {
    /// What a record of the two ends gets before it is a datagram.
    fn overhead(&self) -> usize {
        match self.head.len() {
            0 => 0,
            head => head + RECORD_OVERHEAD_BYTES,
        }
    }
}

impl Node {
    /// Seals packets of the guest and sends them by the peer's direct path, or together by the path of the next
    /// peer on the way to it. False, and nothing done, where they had better go one by one.
    pub(super) fn send_together(
        &mut self,
        now: Instant,
        id: NodeId,
        kind: u8,
        packets: &impl GuestPackets,
    ) -> bool {
        let longest = packets.length(0) + 1 + RECORD_OVERHEAD_BYTES;
        let Some(way) = self.way_together(now, id, longest) else {
            return false;
        };
        self.note_traffic(now, id);
        let via = self.peers.get(&id).map_or(Via::Overlay, |peer| peer.via());
        let count = packets.count();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.on_traffic_sent(via, now, |frame| {
                frame.push(kind);
                packets.write(count - 1, frame);
            });
        }
        self.note_sent(now, &way, longest);
        let mut watch = self.watch(now, &way, longest + way.overhead(), count);
        let record = |index| packets.length(index) + 1 + RECORD_OVERHEAD_BYTES;
        let mut next = 0;
        while next < count {
            if !self.make_room(&way, record(next) + way.overhead()) {
                self.counters.drop_full += (count - next) as u64;
                break;
            }
            let (Some(peer), Some(carrier)) = (self.peers.get(&id), self.peers.get(&way.carrier))
            else {
                break;
            };
            let (Some(own), Some(link), Some(transmit)) =
                (peer.sending(), carrier.sending(), self.transmits.back_mut())
            else {
                break;
            };
            let before = transmit.datagram.len();
            let (mut records, mut bytes, mut has_probe) = (0, 0, false);
            while next < count && takes(transmit, way.remote, record(next) + way.overhead()) {
                if let Some(watch) = &mut watch
                    && watch.write(transmit, &link.session.sealer)
                {
                    self.counters.datagrams_out += 1;
                    self.counters.bytes_probes += transmit.datagram_bytes as u64;
                    has_probe = true;
                    continue;
                }
                let write = |out: &mut Vec<u8>| {
                    out.push(kind);
                    packets.write(next, out);
                };
                let out = &mut transmit.datagram;
                let is_sealed = match way.head.is_empty() {
                    true => own.session.sealer.seal_with(out, write).is_ok(),
                    false => carry(&link.session.sealer, &way.head, out, |out| {
                        own.session.sealer.seal_with(out, write).is_ok()
                    }),
                };
                // Where it is not, the session has come to its end; its successor is being made.
                if is_sealed {
                    records += 1;
                    bytes += record(next) as u64;
                    self.counters.guest_out += 1;
                    self.counters.datagrams_out += 1;
                }
                next += 1;
            }
            if has_probe && let Some(watch) = &mut watch {
                watch.batch = Some(batch_of(transmit));
            }
            let sealed = (transmit.datagram.len() - before) as u64;
            self.counters.bytes_out += sealed;
            if !way.head.is_empty() {
                self.counters.bytes_relayed += sealed;
            }
            self.count_sent(&way, id, records, bytes);
        }
        self.drop_empty();
        if let Some(watch) = watch {
            self.watched(now, &way, watch);
        }
        true
    }

    /// Passes a record on behind the last one that went the same way. False, and nothing done, where it does not
    /// fit, or is none.
    pub(super) fn pass_together(&mut self, now: Instant, way: &Way, body: &[u8]) -> bool {
        let length = body.len() + way.overhead();
        if length > way.carries || !is_record(body) {
            return false;
        }
        self.note_sent(now, way, length);
        if !self.make_room(way, length) {
            self.counters.drop_full += 1;
            return true;
        }
        let mut watch = self.watch(now, way, length, 1);
        let link = self.peers.get(&way.carrier).and_then(Peer::sending);
        let (Some(link), Some(transmit)) = (link, self.transmits.back_mut()) else {
            self.drop_empty();
            return true;
        };
        let is_joined = !transmit.datagram.is_empty();
        let out = &mut transmit.datagram;
        let is_sealed = carry(&link.session.sealer, &way.head, out, |out| {
            out.extend_from_slice(body);
            true
        });
        if !is_sealed {
            self.drop_empty();
            return true;
        }
        if let Some(watch) = watch.as_mut().filter(|_| is_joined)
            && watch.write(transmit, &link.session.sealer)
        {
            self.counters.datagrams_out += 1;
            self.counters.bytes_out += transmit.datagram_bytes as u64;
            self.counters.bytes_probes += transmit.datagram_bytes as u64;
        }
        self.counters.forwarded += 1;
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += length as u64;
        self.counters.bytes_relayed += length as u64;
        if let Some(carrier) = self.peers.get_mut(&way.carrier) {
            carrier.sent.count(length);
        }
        if let Some(watch) = watch {
            self.watched(now, way, watch);
        }
        true
    }

    /// The way on for frames like one with this header that came from a peer, where they may go together.
    pub(super) fn way_on(
        &self,
        now: Instant,
        from: NodeId,
        mut header: RoutedHeader,
        length: usize,
    ) -> Option<Way> {
        header.hops = header.hops.saturating_add(1);
        if header.body != Body::Datagram || header.hops > HOPS_MAX || header.source == self.id {
            return None;
        }
        let is_agent = header.agent == Some(self.id);
        self.way_by(now, header, Some(from).filter(|_| !is_agent), length)
    }

    /// The way of packets to a peer, whose records have at most this length.
    fn way_together(&self, now: Instant, id: NodeId, longest: usize) -> Option<Way> {
        let peer = self.peers.get(&id)?;
        peer.sending()?;
        if peer.active().is_some() {
            return self.undoubted(now, id, longest);
        }
        let header = self.header_to(id, peer.agent, Body::Datagram);
        self.way_by(now, header, None, longest)
    }

    /// The way that frames with such a header go, around bodies of at most this length.
    fn way_by(
        &self,
        now: Instant,
        header: RoutedHeader,
        back: Option<NodeId>,
        body: usize,
    ) -> Option<Way> {
        let (carrier, header) = self.next_carrier(header, back)?;
        let mut head = Vec::with_capacity(1 + ROUTED_HEADER_MAX);
        header.encode(&mut head);
        let longest = body + head.len() + RECORD_OVERHEAD_BYTES;
        let way = self.undoubted(now, carrier, longest)?;
        Some(Way { head, ..way })
    }

    /// Datagrams of traffic go out by a way: silence afterwards questions it.
    fn note_sent(&mut self, now: Instant, way: &Way, longest: usize) {
        let Some(carrier) = self.peers.get_mut(&way.carrier) else {
            return;
        };
        if let Some(mtu) = carrier.mtu_mut(way.remote) {
            mtu.on_sent(longest);
        }
        if let Some(liveness) = carrier.liveness_mut(Via::Direct(way.remote)) {
            liveness.on_sent(now);
        }
    }

    fn count_sent(&mut self, way: &Way, id: NodeId, records: u64, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.sent.packets += records;
            peer.sent.bytes += bytes;
        }
        if !way.head.is_empty()
            && let Some(carrier) = self.peers.get_mut(&way.carrier)
        {
            carrier.sent.packets += records;
            carrier.sent.bytes += bytes + records * way.overhead() as u64;
        }
    }

    /// Has a datagram of this length fit behind the last one that waits, or begins another batch. False where
    /// too many wait.
    fn make_room(&mut self, way: &Way, length: usize) -> bool {
        let last = self.transmits.back();
        if last.is_some_and(|last| takes(last, way.remote, length)) {
            return true;
        }
        if self.transmits.len() >= OUTBOX_MAX {
            return false;
        }
        let spare = self.spare_batches.pop();
        let datagram = spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        self.transmits.push_back(Transmit {
            to: way.remote,
            datagram,
            datagram_bytes: length,
            may_join: true,
        });
        true
    }

    /// Removes a batch that was begun, where nothing came to be in it.
    fn drop_empty(&mut self) {
        let last = self.transmits.back();
        if last.is_some_and(|last| last.datagram.is_empty())
            && let Some(empty) = self.transmits.pop_back()
        {
            self.recycle(empty.datagram);
        }
    }

    /// Now and then a probe goes within a batch, which gets so many records now: does it arrive?
    fn watch(&mut self, now: Instant, way: &Way, record: usize, count: usize) -> Option<Watch> {
        let last = self.transmits.back();
        let held = last.filter(|last| last.may_join && last.to == way.remote);
        let held = held.map_or(0, |last| last.datagram.len());
        let most = record * RECORDS_MAX.min(BYTES_MAX / record);
        let length = (held + record * count).min(most);
        let carrier = self.peers.get_mut(&way.carrier)?;
        let path = carrier.path_mut(way.remote)?;
        let is_due = way.remote.is_udp() && path.together.wants_probe(now, length);
        is_due.then(|| Watch {
            token: self.token(),
            batch: None,
        })
    }

    fn watched(&mut self, now: Instant, way: &Way, watch: Watch) {
        let carrier = self.peers.get_mut(&way.carrier);
        let path = carrier.and_then(|carrier| carrier.path_mut(way.remote));
        if let (Some(path), Some(batch)) = (path, watch.batch) {
            let timeout = path.liveness.patience();
            path.together.on_watched(watch.token, batch, now, timeout);
        }
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

    /// Where datagrams for a peer go directly, over TCP or from UDP's main socket, with no doubt that they arrive:
    /// the path carries such of the longest's length.
    fn undoubted(&self, now: Instant, id: NodeId, longest: usize) -> Option<Way> {
        let peer = self.peers.get(&id)?;
        peer.sending()?;
        let path = peer.active()?;
        let plain = path.remote.lane() == 0 && !self.one_by_one.contains(&path.remote);
        let carries = peer.carries(path.remote);
        let is_sure = plain && longest <= carries && !path.liveness.is_in_doubt(now);
        is_sure.then(|| Way {
            carrier: id,
            remote: path.remote,
            carries,
            head: Vec::new(),
        })
    }
}

/// A probe that is to go within a batch.
#[derive(Debug)]
struct Watch {
    token: u64,
    /// The batch that it is in.
    batch: Option<Batch>,
}

impl Watch {
    /// Puts the probe behind the first datagrams of a batch, if it is not in one yet; whether it did.
    fn write(&mut self, transmit: &mut Transmit, sealer: &Sealer) -> bool {
        let length = transmit.datagram_bytes;
        if self.batch.is_some()
            || transmit.datagram.is_empty()
            || !takes(transmit, transmit.to, length)
        {
            return false;
        }
        let write = |out: &mut Vec<u8>| write_probe(self.token, length, out);
        if sealer.seal_with(&mut transmit.datagram, write).is_err() {
            return false;
        }
        self.batch = Some(batch_of(transmit));
        true
    }
}

fn batch_of(transmit: &Transmit) -> Batch {
    Batch {
        datagram_bytes: transmit.datagram_bytes,
        count: transmit.datagram.len().div_ceil(transmit.datagram_bytes),
    }
}

/// Appends a carrier of a link, in which `write` appends a record; whether that was done.
fn carry(
    link: &Sealer,
    head: &[u8],
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let start = out.len();
    let mut is_written = false;
    let sealed = link.seal_carrier(head, out, |out| is_written = write(out));
    if !is_written {
        out.truncate(start);
    }
    is_written && sealed.is_ok()
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
