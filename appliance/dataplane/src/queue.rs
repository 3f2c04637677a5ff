//! Datagrams on their way out, one or several to one destination at a time. They leave as they came: whether
//! those that leave together arrive is watched by whom they come from.

use std::collections::VecDeque;

use wow_underlay::Outgoing;

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
}

impl SendQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether the guest may send more.
    pub fn has_room(&self) -> bool {
        self.batches.len() < BATCHES_HIGH && self.bytes < BYTES_HIGH
    }

    /// Adds datagrams; gives them back where the queue is full.
    pub fn push(&mut self, batch: Outgoing) -> Result<(), Outgoing> {
        if self.bytes + batch.payload.len() > BYTES_MAX || self.batches.len() >= BATCHES_MAX {
            return Err(batch);
        }
        self.bytes += batch.payload.len();
        self.batches.push_back(batch);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize) -> Outgoing {
        Outgoing {
            to: ([192, 0, 2, 1], 4001).into(),
            payload: vec![0; bytes],
            datagram_bytes: 1500,
        }
    }

    #[test]
    fn a_queue_full_of_bytes_refuses_the_newest_and_takes_again_what_was_removed() {
        let mut queue = SendQueue::default();
        let mut taken = 0;
        while queue.push(batch(60_000)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, BYTES_MAX / 60_000);
        assert!(!queue.has_room());
        assert_eq!(queue.remove(taken).count(), taken);
        assert!(queue.is_empty() && queue.has_room());
        queue.push(batch(60_000)).unwrap();
    }

    #[test]
    fn it_holds_so_many_short_ones_and_leaves_room_when_the_guest_waits() {
        let mut queue = SendQueue::default();
        let mut taken = 0;
        while queue.has_room() {
            queue.push(batch(1)).unwrap();
            taken += 1;
        }
        assert_eq!(taken, BATCHES_HIGH);
        while queue.push(batch(1)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, BATCHES_MAX);
    }
}
