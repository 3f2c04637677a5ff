//! How datagrams leave the machine: UDP over the kernel's sockets and an in-memory twin of it, TCP
//! connections, mappings on the gateway, the local networks, and a watch over the machine's own
//! addresses.
//!
//! The trait speaks of datagrams, ports and failures, never of file descriptors, so that a
//! user-space network stack can stand behind it. Nothing here knows the overlay.

pub mod batch;
pub mod descriptor;
pub mod error;
pub mod interfaces;
pub mod lan;
pub mod lanes;
pub mod memory;
mod mmsg;
pub mod portmap;
pub mod tcp;
pub mod udp;

#[cfg(feature = "fuzzing")]
pub use portmap::fuzzing;

use std::net::SocketAddr;
use std::task::{Context, Poll};

pub use batch::{DATAGRAM_MAX_BYTES, ReceiveBatch};
pub use descriptor::Descriptor;
pub use error::{ReceiveError, SendError};
pub use interfaces::{InterfaceAddress, InterfaceWatch};
pub use lan::Lan;
pub use lanes::Lanes;
pub use portmap::PortMapper;
pub use tcp::TcpUnderlay;
pub use udp::{BindError, UdpUnderlay};

/// A datagram on its way out, or several of one length to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where they go.
    pub to: SocketAddr,
    /// What they carry, one after the other: at most 65,507 bytes, which one UDP header can describe over IPv4,
    /// in at most 64 datagrams, which every kernel with UDP_SEGMENT takes at once.
    pub payload: Vec<u8>,
    /// The length of each but the last, which may be shorter; one datagram's is the payload's.
    pub datagram_bytes: usize,
}

impl Outgoing {
    /// One datagram.
    pub fn one(to: SocketAddr, payload: Vec<u8>) -> Self {
        Outgoing {
            to,
            datagram_bytes: payload.len(),
            payload,
        }
    }

    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let empty = self.payload.is_empty().then_some(&[][..]);
        let full = self.payload.chunks(self.datagram_bytes.max(1));
        empty.into_iter().chain(full)
    }
}

/// What became of a batch given to [`Underlay::send`].
#[derive(Debug, Default)]
pub struct Sent {
    /// How many batches, counted from the first, are done with: sent, or failed for good.
    pub taken: usize,
    /// Those of them that failed, by their index in the batch.
    pub failures: Vec<(usize, SendError)>,
}

/// A way for datagrams to leave and enter the machine.
pub trait Underlay {
    /// Whether datagrams of one sender come together, so that a batch should have room for that.
    fn receives_joined(&self) -> bool {
        false
    }

    /// Waits for datagrams and moves those that are there into `batch`, which it empties first.
    ///
    /// # Errors
    /// A failed reception concerns that call alone: the next one may succeed.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>>;

    /// Sends from the front of `batch` until the way out takes no more for now.
    ///
    /// What was not taken is to be offered again after [`Self::poll_sendable`], from the same one on: some of
    /// its datagrams may have gone.
    fn send(&mut self, batch: &[Outgoing]) -> Sent;

    /// Waits until a `send` that took less than everything is worth repeating.
    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The addresses that datagrams come in at; the unspecified address stands for all of the
    /// machine's own.
    fn bound(&self) -> Vec<SocketAddr>;

    /// Datagrams that were lost on the way in because they exceeded [`DATAGRAM_MAX_BYTES`].
    fn oversized(&self) -> u64;
}
