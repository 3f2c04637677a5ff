//! How the guest's IP packets enter and leave: a TUN device, a LAN of guests behind an Ethernet port, an
//! in-memory twin, or no guest at all.
//!
//! Packets are bare IPv4 or IPv6, in batches; where the device can, many packets of one flow are one
//! superpacket.

pub mod batch;
mod device;
pub mod ethernet;
pub mod memory;
pub mod none;
pub mod offload;
mod pace;
pub mod packet;
pub mod port;
pub mod tap;
pub mod tun;
pub mod virtio;

use std::io;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

pub use batch::{PACKET_MAX_BYTES, PacketBatch};
pub use device::TunError;
pub use ethernet::{EthernetGuest, Lan};
pub use none::NoGuest;
pub use offload::Offload;
pub use packet::{PacketError, PacketPort};
pub use port::Port;
pub use tap::{TapConfig, TapPort};
pub use tun::{TunConfig, TunGuest};
pub use virtio::{VirtioOrPacket, VirtioPort};

/// The guest's side of the router.
pub trait Guest {
    /// Waits for packets from the guest and moves those that are there into `batch`, which it
    /// empties first.
    ///
    /// # Errors
    /// The device is gone; nothing more will come.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>>;

    /// Hands one IP packet to the guest, a superpacket or one without its checksum only where
    /// [`takes_offloads`](Self::takes_offloads). Never waits.
    ///
    /// # Errors
    /// The guest does not take it; the packet is lost.
    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError>;

    /// A second hand to the same device, for another thread; none where there is no use for it.
    fn writer(&self) -> Option<Box<dyn GuestWriter>> {
        None
    }

    /// Has what was written leave, where the device collects.
    fn flush(&mut self) {}

    /// Whether the guest takes anything but complete packets.
    fn takes_offloads(&self) -> bool {
        false
    }

    /// Packets whose description by the device made no sense, and were passed over.
    fn malformed(&self) -> u64 {
        0
    }

    /// Gives the guest another IPv4 address instead of the one it has. A guest that is not
    /// configured from here takes no notice.
    ///
    /// # Errors
    /// The device refuses it.
    fn set_address(&mut self, _v4: Ipv4Addr) -> io::Result<()> {
        Ok(())
    }

    /// The local side of guests on a LAN.
    fn lan(&mut self) -> Option<&mut dyn Lan> {
        None
    }
}

/// Hands packets to the guest as [`Guest::write`] does, from whatever thread.
pub trait GuestWriter: Send {
    /// See [`Guest::write`].
    ///
    /// # Errors
    /// The guest does not take it; the packet is lost.
    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError>;
}

/// The guest's device went away under the router.
#[derive(Debug, thiserror::Error)]
#[error("the guest device is gone: {0}")]
pub struct GuestGone(pub io::Error);

/// Why the guest did not take a packet.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Its queue is full.
    #[error("the guest's queue is full")]
    Full,
    /// It is no packet, or the device is down.
    #[error("the guest refuses the packet: {0}")]
    Refused(io::Error),
    /// There is no guest.
    #[error("there is no guest")]
    NoGuest,
    /// None of the guests holds the packet's destination.
    #[error("no guest holds the destination")]
    NoNeighbour,
}

impl WriteError {
    /// A short name for counters and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            WriteError::Full => "full",
            WriteError::Refused(_) => "refused",
            WriteError::NoGuest => "no_guest",
            WriteError::NoNeighbour => "no_neighbour",
        }
    }
}
