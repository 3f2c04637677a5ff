//! The queue of frames that come in: buffers that the card fills, and the frames copied out of them.
//!
//! A buffer is the card's again as soon as its frame is copied, so the card never starves because
//! somebody holds on to frames.

use std::ptr::NonNull;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Hal};

use super::copy::copy;
use super::header::{self, HEADER_BYTES, Header};
use super::pages::DATA_BYTES;
use crate::PacketBatch;
use crate::batch::ETHERNET_BYTES;
use crate::packet::transport_checksum;

/// Descriptors of each queue: what QEMU's cards have unless they are told otherwise.
pub const QUEUE: usize = 256;

/// The number of this queue.
pub const NUMBER: u16 = 0;

/// One buffer: all of them make up a page's data. A superpacket lies in nine at most.
const BUFFER_BYTES: usize = DATA_BYTES / QUEUE;

/// No frame lies in more buffers: the longest, with its header, and one for good measure.
const BUFFERS_MAX: u16 = (65_600_usize.div_ceil(BUFFER_BYTES) + 1) as u16;

/// No buffer belongs to this token.
const NOBODY: u16 = u16::MAX;

/// The card does what no card may: nothing more can be believed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the card's queue is corrupt: {0}")]
pub struct Corrupt(pub &'static str);

/// The receiving queue.
pub struct Receive<H: Hal> {
    queue: VirtQueue<H, QUEUE>,
    data: NonNull<u8>,
    /// Which buffer the card has under which token.
    lent: [u16; QUEUE],
    /// A frame whose other buffers are awaited: buffers and the bytes in them, in order.
    parts: Vec<(u16, usize)>,
    malformed: u64,
}

// SAFETY: the memory at `data` is used by this value and the card alone, whichever thread holds it.
unsafe impl<H: Hal> Send for Receive<H> {}

impl<H: Hal> Receive<H> {
    /// Makes the queue, with all buffers lent to the card.
    ///
    /// # Safety
    /// [`DATA_BYTES`] at `data` can be shared by `H`, are used by nobody else, and stay until the
    /// value is dropped and the card reset.
    ///
    /// # Errors
    /// The card's queue is too small, or there is no memory for rings.
    pub unsafe fn new(card: &mut impl Transport, data: NonNull<u8>) -> Result<Self, Error> {
        let mut queue = VirtQueue::new(card, NUMBER, false, false)?;
        queue.set_dev_notify(false);
        let mut receive = Receive {
            queue,
            data,
            lent: [NOBODY; QUEUE],
            parts: Vec::with_capacity(BUFFERS_MAX.into()),
            malformed: 0,
        };
        for buffer in 0..QUEUE as u16 {
            receive.lend(buffer);
        }
        Ok(receive)
    }

    /// Has the card interrupt when it uses a buffer, or not.
    pub fn set_interrupts(&mut self, wanted: bool) {
        self.queue.set_dev_notify(wanted);
    }

    /// Whether the card wants to be told of buffers that were lent to it. The caller has put a full
    /// barrier before: the card clears its wish before it looks for buffers a last time.
    pub fn wants_doorbell(&self) -> bool {
        self.queue.should_notify()
    }

    /// Frames whose description made no sense.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Copies frames into a batch until it is full or there are none left, and lends their buffers
    /// again; true when any was lent.
    ///
    /// # Errors
    /// The queue cannot be used any more.
    pub fn take(&mut self, batch: &mut PacketBatch) -> Result<bool, Corrupt> {
        let mut lent = false;
        while !batch.is_full() {
            let Some(token) = self.queue.peek_used() else {
                break;
            };
            let part = self.pop(token)?;
            self.parts.push(part);
            match self.wanted() {
                wanted @ 1..=BUFFERS_MAX if self.parts.len() < usize::from(wanted) => continue,
                1..=BUFFERS_MAX => self.copy(batch),
                _ => self.malformed += 1,
            }
            for at in 0..self.parts.len() {
                self.lend(self.parts[at].0);
            }
            self.parts.clear();
            lent = true;
        }
        Ok(lent)
    }

    /// How many buffers the frame lies in that `parts` begin.
    fn wanted(&self) -> u16 {
        let (buffer, bytes) = self.parts[0];
        match bytes {
            HEADER_BYTES.. => header::buffers(&self.header(buffer)),
            _ => 0,
        }
    }

    /// Copies the frame that `parts` hold.
    fn copy(&mut self, batch: &mut PacketBatch) {
        let parsed = Header::parse(&self.header(self.parts[0].0));
        let parts = &self.parts;
        let total: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        let length = total - HEADER_BYTES;
        let data = self.data;
        let mut fits = true;
        let pushed = batch.push_with(|slot| {
            let sensible = (ETHERNET_BYTES..=slot.len()).contains(&length);
            let (Ok(header), true) = (parsed, sensible) else {
                fits = false;
                return Ok((None, 0..0));
            };
            let mut at = 0;
            let mut skip = HEADER_BYTES;
            for (buffer, bytes) in parts {
                let count = bytes - skip;
                let target = &mut slot[at..at + count];
                // SAFETY: the buffer holds `bytes`, which is no more than its size; the card has
                // handed it back; the target is `count` long and in memory that no card sees.
                unsafe {
                    let source = data.add(usize::from(*buffer) * BUFFER_BYTES + skip);
                    copy(source.as_ptr(), target.as_mut_ptr(), count);
                }
                at += count;
                skip = 0;
            }
            let mut offload = header.offload;
            if offload.segments.is_some() && offload.checksum.is_none() {
                // Somebody has joined it and looked at the checksums.
                offload.checksum = transport_checksum(&slot[..length]);
                fits = offload.checksum.is_some();
            }
            Ok((fits.then_some(offload), 0..length))
        });
        debug_assert!(pushed.is_ok(), "filling it fails nowhere");
        self.malformed += u64::from(!fits);
    }

    fn header(&self, buffer: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        // SAFETY: a buffer is longer than the header, and the card has handed it back.
        unsafe {
            let source = self.data.add(usize::from(buffer) * BUFFER_BYTES);
            std::ptr::copy_nonoverlapping(source.as_ptr(), header.as_mut_ptr(), HEADER_BYTES);
        }
        header
    }

    /// Takes a used buffer back; its number, and how much the card put into it.
    fn pop(&mut self, token: u16) -> Result<(u16, usize), Corrupt> {
        let buffer = match self.lent.get(usize::from(token)) {
            Some(buffer) if *buffer != NOBODY => *buffer,
            _ => return Err(Corrupt("it hands back what it does not have")),
        };
        // SAFETY: this is the buffer that was lent under this token; it is the only one there, and
        // nothing else refers to it.
        let popped = unsafe {
            let slice = self.buffer(buffer);
            self.queue.pop_used(token, &[], &mut [slice])
        };
        let bytes = popped.map_err(|_| Corrupt("what it hands back changes"))? as usize;
        self.lent[usize::from(token)] = NOBODY;
        if bytes > BUFFER_BYTES {
            return Err(Corrupt("it claims to have written past a buffer's end"));
        }
        Ok((buffer, bytes))
    }

    fn lend(&mut self, buffer: u16) {
        // SAFETY: the buffer is ours, and is not touched again before the card hands it back.
        let token = unsafe {
            let slice = self.buffer(buffer);
            self.queue.add(&[], &mut [slice])
        };
        let token = token.expect("there are as many descriptors as buffers");
        self.lent[usize::from(token)] = buffer;
    }

    /// # Safety
    /// Nothing else refers to the buffer while the slice lives.
    unsafe fn buffer<'a>(&self, buffer: u16) -> &'a mut [u8] {
        // SAFETY: the buffers lie side by side in the data, as `new` was promised it; the caller
        // answers for the rest.
        unsafe {
            let start = self.data.add(usize::from(buffer) * BUFFER_BYTES);
            std::slice::from_raw_parts_mut(start.as_ptr(), BUFFER_BYTES)
        }
    }
}

#[cfg(test)]
#[path = "receive/tests.rs"]
mod tests;
