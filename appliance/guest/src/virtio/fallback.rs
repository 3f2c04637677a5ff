//! A card driven from here where that works, and by a packet socket where it does not.

use std::path::Path;
use std::task::{Context, Poll};

use super::{Choice, VirtioPort, sysfs};
use crate::{GuestGone, Offload, PacketBatch, PacketError, PacketPort, Port, WriteError};

/// Either of them, with the reason.
pub enum VirtioOrPacket {
    /// The card is driven from here.
    Virtio(Box<VirtioPort>),
    /// The kernel drives it.
    Packet {
        /// The packet socket.
        port: Box<PacketPort>,
        /// Why, in a sentence for the operator.
        why: String,
    },
}

impl VirtioOrPacket {
    /// Opens the card; `second` is the interface to fall back to where the choice tells none.
    ///
    /// # Errors
    /// There is no packet socket either.
    pub fn open(choice: &Choice, second: &str, offload: bool) -> Result<Self, PacketError> {
        // The interface is away as soon as the card is taken.
        let interface = match choice {
            Choice::Interface(name) => name.clone(),
            Choice::Address(address) => {
                let cards = sysfs::cards(Path::new(sysfs::ROOT));
                let found = cards.into_iter().find(|card| card.address == *address);
                let interface = found.and_then(|card| card.interface);
                interface.unwrap_or_else(|| second.to_owned())
            }
        };
        let why = match VirtioPort::open(choice) {
            Ok(port) => return Ok(VirtioOrPacket::Virtio(Box::new(port.with_offload(offload)))),
            Err(error) => error,
        };
        tracing::warn!(
            %interface,
            error = %why,
            "the guests' card cannot be driven from user space; going on with a packet socket"
        );
        Ok(VirtioOrPacket::Packet {
            port: Box::new(PacketPort::open(&interface, offload)?),
            why: format!(
                "guests are served by a packet socket, which is slower, and not by virtio: {why}"
            ),
        })
    }

    fn port(&self) -> &dyn Port {
        match self {
            VirtioOrPacket::Virtio(port) => &**port,
            VirtioOrPacket::Packet { port, .. } => &**port,
        }
    }
}

impl Port for VirtioOrPacket {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        match self {
            VirtioOrPacket::Virtio(port) => port.poll_read(cx, batch),
            VirtioOrPacket::Packet { port, .. } => port.poll_read(cx, batch),
        }
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        match self {
            VirtioOrPacket::Virtio(port) => port.write(offload, header, rest),
            VirtioOrPacket::Packet { port, .. } => port.write(offload, header, rest),
        }
    }

    fn flush(&mut self) {
        match self {
            VirtioOrPacket::Virtio(port) => port.flush(),
            VirtioOrPacket::Packet { port, .. } => port.flush(),
        }
    }

    fn takes_offloads(&self) -> bool {
        self.port().takes_offloads()
    }

    fn mac(&self) -> [u8; 6] {
        self.port().mac()
    }

    fn malformed(&self) -> u64 {
        self.port().malformed()
    }

    fn lost(&self) -> u64 {
        self.port().lost()
    }

    fn trouble(&self) -> Option<String> {
        match self {
            VirtioOrPacket::Virtio(port) => port.trouble(),
            VirtioOrPacket::Packet { port, why } => port.trouble().or_else(|| Some(why.clone())),
        }
    }
}
