//! The buffers that datagrams are received into: allocated once, reused for every batch.

use std::net::SocketAddr;

/// Room for one datagram: what Ethernet's largest frames hold. Larger ones are dropped and counted: no
/// peer sends them.
pub const DATAGRAM_MAX_BYTES: usize = 9216;

/// Datagrams moved by one system call. Gains flatten out beyond this. Where no large ones come, the memory
/// touched stays at a page or two for each.
pub const BATCH_DATAGRAMS: usize = 32;

/// Slots and their size where the kernel joins the datagrams of one sender: half a megabyte, of which
/// little is touched while little arrives.
pub(crate) const JOINED_SLOTS: usize = 8;
const JOINED_MAX_BYTES: usize = 65_536;

/// Up to [`BATCH_DATAGRAMS`] slots with one received datagram each, or fewer with several of one sender.
pub struct ReceiveBatch {
    room: Box<[u8]>,
    slot_bytes: usize,
    filled: Vec<Filled>,
}

/// A slot with something in it, in slot order.
#[derive(Clone, Copy)]
pub(crate) struct Filled {
    pub from: SocketAddr,
    /// Bytes in all.
    pub length: usize,
    /// Each datagram's but the last, which may be shorter.
    pub datagram_bytes: usize,
}

impl ReceiveBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::with_slots(BATCH_DATAGRAMS, DATAGRAM_MAX_BYTES)
    }

    /// An empty batch whose slots hold as much as a kernel joins.
    pub fn for_joined() -> Self {
        Self::with_slots(JOINED_SLOTS, JOINED_MAX_BYTES)
    }

    fn with_slots(slots: usize, slot_bytes: usize) -> Self {
        ReceiveBatch {
            room: vec![0; slots * slot_bytes].into_boxed_slice(),
            slot_bytes,
            filled: Vec::with_capacity(slots),
        }
    }

    /// Forgets the datagrams in it.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// How many slots have something in them.
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether no datagram is in it.
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Whether every slot has something in it: more may be waiting.
    pub fn is_full(&self) -> bool {
        self.filled.len() == self.slot_count()
    }

    /// The datagrams with their senders, in order of arrival.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        self.iter_mut_by(|from| from)
    }

    /// The same, with what `name` makes of each sender: it is asked once for datagrams that came joined.
    pub fn iter_mut_by<N: Copy>(
        &mut self,
        name: impl Fn(SocketAddr) -> N,
    ) -> impl Iterator<Item = (N, &mut [u8])> {
        self.filled
            .iter()
            .zip(self.room.chunks_exact_mut(self.slot_bytes))
            .flat_map(move |(filled, slot)| {
                let from = name(filled.from);
                let (empty, full) = match filled.length {
                    0 => (Some(&mut [][..]), &mut [][..]),
                    length => (None, &mut slot[..length]),
                };
                let full = full.chunks_mut(filled.datagram_bytes.max(1));
                let all = empty.into_iter().chain(full);
                all.map(move |datagram| (from, datagram))
            })
    }

    /// Copies one datagram in; false when the batch is full or the datagram too large.
    pub fn push(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let slot = self.filled.len();
        if slot == self.slot_count() || datagram.len() > DATAGRAM_MAX_BYTES {
            return false;
        }
        let start = slot * self.slot_bytes;
        self.room[start..start + datagram.len()].copy_from_slice(datagram);
        self.filled.push(Filled {
            from,
            length: datagram.len(),
            datagram_bytes: datagram.len(),
        });
        true
    }

    pub(crate) fn slot_count(&self) -> usize {
        self.room.len() / self.slot_bytes
    }

    /// The slots for a kernel to write into.
    pub(crate) fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.room.chunks_exact_mut(self.slot_bytes)
    }

    /// Records what the kernel wrote: for each slot from the first, what is in it, or `None` where that
    /// is to be passed over. The rest close ranks.
    pub(crate) fn commit(&mut self, received: impl Iterator<Item = Option<Filled>>) {
        self.filled.clear();
        for (slot, filled) in received.take(self.slot_count()).enumerate() {
            let Some(filled) = filled else {
                continue;
            };
            let target = self.filled.len();
            if target != slot {
                let start = slot * self.slot_bytes;
                let range = start..start + filled.length;
                self.room.copy_within(range, target * self.slot_bytes);
            }
            self.filled.push(filled);
        }
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_full_batch_and_an_oversized_datagram_are_refused() {
        let mut batch = ReceiveBatch::new();
        assert!(!batch.push(from(1), &[0; DATAGRAM_MAX_BYTES + 1]));
        for _ in 0..BATCH_DATAGRAMS {
            assert!(batch.push(from(1), b"x"));
        }
        assert!(!batch.push(from(1), b"x"));
        assert_eq!(batch.len(), BATCH_DATAGRAMS);
    }

    #[test]
    fn passed_over_slots_leave_no_gap_and_joined_datagrams_come_apart() {
        let mut batch = ReceiveBatch::new();
        for (slot, text) in batch.slots().zip([b"one", b"two", b"six"]) {
            slot[..3].copy_from_slice(text);
        }
        let filled = |port, length, datagram_bytes| Filled {
            from: from(port),
            length,
            datagram_bytes,
        };
        let received = [
            Some(filled(1, 3, 3)),
            None,
            Some(filled(3, 3, 2)),
            Some(filled(4, 0, 0)),
        ];
        batch.commit(received.into_iter());
        let seen: Vec<_> = batch.iter_mut().map(|(f, d)| (f, d.to_vec())).collect();
        let expected = [(1, &b"one"[..]), (3, b"si"), (3, b"x"), (4, b"")];
        assert_eq!(
            seen,
            expected.map(|(port, text)| (from(port), text.to_vec()))
        );
    }
}
