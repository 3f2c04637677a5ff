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

/// A datagram on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub to: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What became of a batch given to [`Underlay::send`].
#[derive(Debug, Default)]
pub struct Sent {
    /// How many datagrams, counted from the first, are done with: sent, or failed for good.
    pub taken: usize,
    /// Those of them that failed, by their index in the batch.
    pub failures: Vec<(usize, SendError)>,
}

/// A way for datagrams to leave and enter the machine.
pub trait Underlay {
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
    /// What was not taken is to be offered again after [`Self::poll_sendable`].
    fn send(&mut self, batch: &[Outgoing]) -> Sent;

    /// Waits until a `send` that took less than everything is worth repeating.
    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The addresses that datagrams come in at; the unspecified address stands for all of the
    /// machine's own.
    fn bound(&self) -> Vec<SocketAddr>;

    /// Datagrams that were lost on the way in because they exceeded [`DATAGRAM_MAX_BYTES`].
    fn oversized(&self) -> u64;
}
