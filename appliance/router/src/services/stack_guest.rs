//! The control stack in the place of a guest: the node's own address lives there.

use std::io;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

use wow_control::PacketPort;
use wow_guest::{Guest, GuestGone, Offload, PacketBatch, WriteError};

/// See the module.
pub struct StackGuest(PacketPort);

impl StackGuest {
    /// The stack behind this port.
    pub fn new(port: PacketPort) -> Self {
        StackGuest(port)
    }
}

impl Guest for StackGuest {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        while !batch.is_full() {
            match self.0.poll_packet(cx) {
                // There is room, and the stack's packets are as long as its MTU at most.
                Poll::Ready(packet) => drop(batch.push(Offload::default(), &packet)),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, _: Offload, packet: &[u8]) -> Result<(), WriteError> {
        self.0.push(packet);
        Ok(())
    }

    fn set_address(&mut self, v4: Ipv4Addr) -> io::Result<()> {
        self.0.set_v4(v4);
        Ok(())
    }
}
