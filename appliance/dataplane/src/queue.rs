//! Datagrams on their way out: neighbours to one destination and of one length leave together.

use std::collections::VecDeque;
use std::net::SocketAddr;

use wow_underlay::{BATCH_MAX_BYTES, BATCH_MAX_DATAGRAMS, Outgoing};

/// Batches that wait; further ones are lost, as in any router's queue.
const BATCHES_MAX: usize = 4096;

/// Bytes that wait, likewise.
const BYTES_MAX: usize = 4 << 20;

/// With so much waiting, the guest waits too: what others send still finds room.
const BATCHES_HIGH: usize = 512;
const BYTES_HIGH: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct SendQueue {
    batches: VecDeque<Outgoing>,
    bytes: usize,
    /// Datagrams of one length may be joined: the way out takes them so.
    joins: bool,
    /// The last one is to leave by itself.
    is_closed: bool,
}

impl SendQueue {
    /// An empty one; `joins` where the way out takes batches.
    pub fn new(joins: bool) -> Self {
        SendQueue {
            joins,
            ..Self::default()
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether the guest may send more.
    pub fn has_room(&self) -> bool {
        self.batches.len() < BATCHES_HIGH && self.bytes < BYTES_HIGH
    }

    /// Adds datagrams: `payload` is one, or several of `datagram_bytes` each but the last, which `may_join`
    /// others or not. Gives back a buffer that is free now; whether they are lost because the queue is full.
    pub fn push(
        &mut self,
        to: SocketAddr,
        payload: Vec<u8>,
        datagram_bytes: usize,
        may_join: bool,
    ) -> Result<Option<Vec<u8>>, Vec<u8>> {
        if self.bytes + payload.len() > BYTES_MAX {
            return Err(payload);
        }
        let is_one = payload.len() <= datagram_bytes;
        if self.joins
            && may_join
            && !self.is_closed
            && is_one
            && let Some(last) = self.batches.back_mut()
            && takes(last, to, payload.len())
        {
            self.bytes += payload.len();
            // At once as much as it may become: its buffer is used again for other batches.
            let held = last.payload.len();
            last.payload.reserve(BATCH_MAX_BYTES - held);
            last.payload.extend_from_slice(&payload);
            return Ok(Some(payload));
        }
        if self.batches.len() >= BATCHES_MAX {
            return Err(payload);
        }
        self.bytes += payload.len();
        self.is_closed = !may_join;
        self.batches.push_back(Outgoing {
            to,
            payload,
            datagram_bytes,
        });
        Ok(None)
    }

    /// Everything that waits, in order.
    pub fn waiting(&mut self) -> &[Outgoing] {
        self.batches.make_contiguous()
    }

    /// Removes so many batches from the front; their buffers.
    pub fn remove(&mut self, count: usize) -> impl Iterator<Item = Vec<u8>> {
        let bytes = &mut self.bytes;
        self.batches.drain(..count).map(|batch| {
            *bytes -= batch.payload.len();
            batch.payload
        })
    }
}

/// Whether a datagram may follow those of a batch.
fn takes(batch: &Outgoing, to: SocketAddr, length: usize) -> bool {
    let held = batch.payload.len();
    batch.to == to
        && length > 0
        && length <= batch.datagram_bytes
        && held.is_multiple_of(batch.datagram_bytes)
        && held + length <= BATCH_MAX_BYTES
        && held / batch.datagram_bytes < BATCH_MAX_DATAGRAMS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn check(pushed: &[(u16, usize)], joins: bool, expected: &[(u16, usize, usize)]) {
        let mut queue = SendQueue::new(joins);
        for &(port, length) in pushed {
            queue.push(to(port), vec![0; length], length, true).unwrap();
        }
        let waiting = queue.waiting().iter();
        let shape: Vec<_> = waiting
            .map(|batch| (batch.to.port(), batch.payload.len(), batch.datagram_bytes))
            .collect();
        assert_eq!(shape, expected);
    }

    #[test]
    fn only_neighbours_of_one_length_are_joined_and_a_shorter_one_ends_it() {
        let pushed = [(1, 9), (1, 9), (1, 4), (1, 4), (2, 4), (1, 4), (1, 5)];
        check(
            &pushed,
            true,
            &[(1, 22, 9), (1, 4, 4), (2, 4, 4), (1, 4, 4), (1, 5, 5)],
        );
        check(&[(1, 9), (1, 9)], false, &[(1, 9, 9), (1, 9, 9)]);
    }

    #[test]
    fn what_is_to_leave_by_itself_does() {
        let mut queue = SendQueue::new(true);
        for may_join in [true, true, false, true, true, false, false] {
            queue.push(to(1), vec![0; 9], 9, may_join).unwrap();
        }
        let lengths = queue.waiting().iter().map(|batch| batch.payload.len());
        assert_eq!(lengths.collect::<Vec<_>>(), [18, 9, 18, 9, 9]);
    }

    #[test]
    fn a_batch_ends_with_what_one_call_takes() {
        let (few, many) = ([(1, 1400); 60], [(1, 10); BATCH_MAX_DATAGRAMS + 1]);
        check(&few, true, &[(1, 46 * 1400, 1400), (1, 14 * 1400, 1400)]);
        check(
            &many,
            true,
            &[(1, BATCH_MAX_DATAGRAMS * 10, 10), (1, 10, 10)],
        );
    }

    #[test]
    fn a_full_queue_refuses_the_newest_and_takes_again_what_was_removed() {
        let mut queue = SendQueue::new(true);
        let mut taken = 0;
        while queue.push(to(1), vec![0; 60_000], 1500, true).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, BYTES_MAX / 60_000);
        assert!(!queue.has_room());
        assert_eq!(queue.remove(taken).count(), taken);
        assert!(queue.is_empty() && queue.has_room());
        queue.push(to(1), vec![0; 60_000], 1500, true).unwrap();
    }
}
