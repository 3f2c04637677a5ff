//! The buffers that datagrams are received into: allocated once, reused for every batch.

use std::net::SocketAddr;

/// Room for one datagram. Larger ones are dropped and counted: no peer sends them.
pub const DATAGRAM_MAX_BYTES: usize = 2048;

/// Datagrams moved by one system call. Gains flatten out beyond this, and the memory stays at 64 KiB.
pub const BATCH_DATAGRAMS: usize = 32;

/// Up to [`BATCH_DATAGRAMS`] received datagrams with their senders.
pub struct ReceiveBatch {
    room: Box<[u8]>,
    /// Sender and length of each filled slot, in slot order.
    filled: Vec<(SocketAddr, usize)>,
}

impl ReceiveBatch {
    /// An empty batch.
    pub fn new() -> Self {
        ReceiveBatch {
            room: vec![0; DATAGRAM_MAX_BYTES * BATCH_DATAGRAMS].into_boxed_slice(),
            filled: Vec::with_capacity(BATCH_DATAGRAMS),
        }
    }

    /// Forgets the datagrams in it.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// How many datagrams are in it.
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether no datagram is in it.
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// The datagrams with their senders, in order of arrival.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        self.filled
            .iter()
            .zip(self.room.chunks_exact_mut(DATAGRAM_MAX_BYTES))
            .map(|(&(from, length), slot)| (from, &mut slot[..length]))
    }

    /// Copies one datagram in; false when the batch is full or the datagram too large.
    pub fn push(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let slot = self.filled.len();
        if slot == BATCH_DATAGRAMS || datagram.len() > DATAGRAM_MAX_BYTES {
            return false;
        }
        let start = slot * DATAGRAM_MAX_BYTES;
        self.room[start..start + datagram.len()].copy_from_slice(datagram);
        self.filled.push((from, datagram.len()));
        true
    }

    /// The slots for a kernel to write into.
    pub(crate) fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.room.chunks_exact_mut(DATAGRAM_MAX_BYTES)
    }

    /// Records what the kernel wrote: for each slot from the first, its sender and length, or
    /// `None` where the datagram is to be passed over. The rest close ranks.
    pub(crate) fn commit(&mut self, received: impl Iterator<Item = Option<(SocketAddr, usize)>>) {
        self.filled.clear();
        for (slot, datagram) in received.take(BATCH_DATAGRAMS).enumerate() {
            let Some((from, length)) = datagram else {
                continue;
            };
            let target = self.filled.len();
            if target != slot {
                let start = slot * DATAGRAM_MAX_BYTES;
                self.room
                    .copy_within(start..start + length, target * DATAGRAM_MAX_BYTES);
            }
            self.filled.push((from, length));
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
    fn passed_over_slots_leave_no_gap() {
        let mut batch = ReceiveBatch::new();
        for (slot, text) in batch.slots().zip([b"one", b"two", b"six"]) {
            slot[..3].copy_from_slice(text);
        }
        batch.commit([Some((from(1), 3)), None, Some((from(3), 3))].into_iter());
        let seen: Vec<_> = batch.iter_mut().map(|(f, d)| (f, d.to_vec())).collect();
        assert_eq!(
            seen,
            [(from(1), b"one".to_vec()), (from(3), b"six".to_vec())]
        );
    }
}
