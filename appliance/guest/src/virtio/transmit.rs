//! The queue of frames that go out: each is copied, with its header, into one piece of a ring of
//! bytes, and its piece is free again when the card has sent it.

use std::collections::VecDeque;
use std::ptr::NonNull;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Hal};

use super::copy::copy;
use super::header::{HEADER_BYTES, Header};
use super::pages::DATA_BYTES;
use super::receive::{Corrupt, QUEUE};
use crate::offload::Offload;

/// The number of this queue.
pub const NUMBER: u16 = 1;

/// Longest frame: what an IP header can describe behind an Ethernet header with a VLAN's tag.
pub const FRAME_MAX_BYTES: usize = 65_535 + 18;

/// No frame has this token.
const NOBODY: u64 = u64::MAX;

/// The sending queue.
pub struct Transmit<H: Hal> {
    queue: VirtQueue<H, QUEUE>,
    data: NonNull<u8>,
    /// Frames that the card has, oldest first.
    sent: VecDeque<Sent>,
    /// How many frames were taken off `sent`'s front so far: the number of its first.
    first: u64,
    /// The number of the frame that the card has under a token.
    lent: [u64; QUEUE],
    /// Where the next frame goes, if it fits before the end.
    next: usize,
}

/// A frame's piece of the ring.
#[derive(Debug, Clone, Copy)]
struct Sent {
    start: usize,
    bytes: usize,
    done: bool,
}

// SAFETY: the memory at `data` is used by this value and the card alone, whichever thread holds it.
unsafe impl<H: Hal> Send for Transmit<H> {}

impl<H: Hal> Transmit<H> {
    /// Makes the queue, which never interrupts.
    ///
    /// # Safety
    /// As for [`Receive::new`](super::receive::Receive::new).
    ///
    /// # Errors
    /// The card's queue is too small, or there is no memory for rings.
    pub unsafe fn new(card: &mut impl Transport, data: NonNull<u8>) -> Result<Self, Error> {
        let mut queue = VirtQueue::new(card, NUMBER, false, false)?;
        queue.set_dev_notify(false);
        Ok(Transmit {
            queue,
            data,
            sent: VecDeque::with_capacity(QUEUE),
            first: 0,
            lent: [NOBODY; QUEUE],
            next: 0,
        })
    }

    /// Whether the card wants to be told of what was put in. The caller has put a full barrier
    /// before.
    pub fn wants_doorbell(&self) -> bool {
        self.queue.should_notify()
    }

    /// Puts a frame in, out of two parts; false when there is no room until the card has sent some.
    ///
    /// # Panics
    /// The frame is longer than [`FRAME_MAX_BYTES`].
    pub fn put(&mut self, offload: Offload, parts: [&[u8]; 2]) -> bool {
        let frame: usize = parts.iter().map(|part| part.len()).sum();
        assert!(frame <= FRAME_MAX_BYTES, "callers look first");
        let bytes = HEADER_BYTES + frame;
        let Some(start) = self.room(bytes) else {
            return false;
        };
        let header = Header::encode(offload);
        let mut at = start;
        for part in [&header[..]].into_iter().chain(parts) {
            // SAFETY: the piece is free, so the card does not read it and nothing refers to it; it
            // lies within the data, and the parts elsewhere.
            unsafe {
                let target = self.data.add(at).as_ptr();
                copy(part.as_ptr(), target, part.len());
            }
            at += part.len();
        }
        // SAFETY: the piece is written to again only when it is popped.
        let token = unsafe {
            let piece = self.piece(start, bytes);
            self.queue.add(&[piece], &mut [])
        };
        let token = token.expect("there is a descriptor, as `room` has seen");
        self.lent[usize::from(token)] = self.first + self.sent.len() as u64;
        self.sent.push_back(Sent {
            start,
            bytes,
            done: false,
        });
        self.next = start + bytes;
        true
    }

    /// Frees the pieces of frames that the card has sent.
    ///
    /// # Errors
    /// The queue cannot be used any more.
    pub fn reclaim(&mut self) -> Result<(), Corrupt> {
        while let Some(token) = self.queue.peek_used() {
            let number = self.lent.get(usize::from(token)).copied();
            let index = number.and_then(|number| number.checked_sub(self.first));
            let index = index.and_then(|index| usize::try_from(index).ok());
            let Some(&Sent { start, bytes, .. }) = index.and_then(|index| self.sent.get(index))
            else {
                return Err(Corrupt("it hands back what it does not have"));
            };
            // SAFETY: this is the piece that was lent under this token.
            let popped = unsafe {
                let piece = self.piece(start, bytes);
                self.queue.pop_used(token, &[piece], &mut [])
            };
            popped.map_err(|_| Corrupt("what it hands back changes"))?;
            self.lent[usize::from(token)] = NOBODY;
            let index = index.expect("it was found above");
            self.sent[index].done = true;
            // A card may send out of order; pieces are freed in order.
            while self.sent.front().is_some_and(|sent| sent.done) {
                self.sent.pop_front();
                self.first += 1;
            }
        }
        Ok(())
    }

    /// Where a piece of this length fits; pieces lie in one part each, in the order of the ring.
    fn room(&self, bytes: usize) -> Option<usize> {
        if self.sent.len() == QUEUE || self.queue.available_desc() == 0 {
            return None;
        }
        let Some(oldest) = self.sent.front() else {
            return Some(0);
        };
        if self.next > oldest.start {
            // The frames lie in one stretch: behind it, else before it.
            let behind = self.next + bytes <= DATA_BYTES;
            return match behind {
                true => Some(self.next),
                false => (bytes <= oldest.start).then_some(0),
            };
        }
        (self.next + bytes <= oldest.start).then_some(self.next)
    }

    /// # Safety
    /// Nothing writes to the piece while the slice lives.
    unsafe fn piece<'a>(&self, start: usize, bytes: usize) -> &'a [u8] {
        // SAFETY: pieces lie within the data, as `new` was promised it; the caller answers for the
        // rest.
        unsafe { std::slice::from_raw_parts(self.data.add(start).as_ptr(), bytes) }
    }
}

#[cfg(test)]
#[path = "transmit/tests.rs"]
mod tests;
