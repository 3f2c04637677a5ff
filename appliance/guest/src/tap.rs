//! A TAP device: the guests are whatever this machine puts on its other end, such as a bridge with
//! virtual machines.

use std::task::{Context, Poll};

use crate::device::Device;
use crate::ethernet::Mac;
use crate::{GuestGone, Offload, PacketBatch, Port, TunError, WriteError};

/// What the device is to be.
#[derive(Debug, Clone)]
pub struct TapConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// Our own hardware address, which is not that of the interface.
    pub mac: Mac,
    /// The longest packet, in bytes.
    pub mtu_bytes: u16,
    /// Whether superpackets and missing checksums may pass, as far as the kernel can.
    pub offload: bool,
}

/// A TAP device. Must be created and used inside a tokio runtime with I/O.
pub struct TapPort {
    device: Device,
    mac: Mac,
}

impl TapPort {
    /// Creates the device and brings it up, without an address.
    ///
    /// # Errors
    /// See [`TunError`]. Nothing is left behind.
    pub fn open(config: &TapConfig) -> Result<Self, TunError> {
        let (layer, mtu_bytes) = (tun::Layer::L2, config.mtu_bytes);
        let device = Device::open(&config.name, layer, mtu_bytes, config.offload, |_| Ok(()))?;
        Ok(TapPort {
            device,
            mac: config.mac,
        })
    }
}

impl Port for TapPort {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        self.device.poll_read(cx, batch)
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        self.device.writer().write(offload, header, rest)
    }

    fn takes_offloads(&self) -> bool {
        self.device.takes_offloads()
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn malformed(&self) -> u64 {
        self.device.malformed()
    }
}
