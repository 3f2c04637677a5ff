//! The trait of Ethernet ports: network cards, TAP devices and user-space drivers alike.
//!
//! A port moves whole Ethernet frames, without their check sequence; what they mean is
//! [`EthernetGuest`](crate::EthernetGuest)'s business.

use std::task::{Context, Poll};

use crate::{GuestGone, Offload, PacketBatch, WriteError};

/// A way for Ethernet frames of guests to enter and leave.
pub trait Port {
    /// Waits for frames and moves those that are there into `batch`, which it empties first. An
    /// [`Offload`] counts from the frame's first byte (the Ethernet header's).
    ///
    /// # Errors
    /// The device is gone; nothing more will come.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>>;

    /// Hands over one frame, given as header and rest, which lie apart so that nobody copies. An
    /// [`Offload`] counts from the header's first byte. Never waits.
    ///
    /// # Errors
    /// The port does not take it; the frame is lost.
    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError>;

    /// Has what was written leave, where the port collects (one doorbell a batch).
    fn flush(&mut self) {}

    /// Whether superpackets and missing checksums may be written.
    fn takes_offloads(&self) -> bool;

    /// The port's own hardware address.
    fn mac(&self) -> [u8; 6];

    /// Frames whose description by the device made no sense.
    fn malformed(&self) -> u64;

    /// Frames that were taken to be written later, and could not be; and frames that came faster than they were read.
    fn lost(&self) -> u64 {
        0
    }

    /// What keeps frames from passing now, in a sentence for the operator.
    fn trouble(&self) -> Option<String> {
        None
    }
}
