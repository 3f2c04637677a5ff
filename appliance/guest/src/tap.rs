//! A TAP device: the guests are whatever this machine puts on its other end, such as a bridge with
//! virtual machines.
//!
//! The device is not persistent: it goes when the router does, however it ends.

use std::io;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;
use tun::AbstractDevice;

use crate::ethernet::Mac;
use crate::tun::{as_io, check_name, opening, poll_read, refusal, set_offloads, write_parts};
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
    device: AsyncFd<tun::Device>,
    mac: Mac,
    /// Frames have a header of the device's before them.
    has_headers: bool,
    malformed: u64,
}

impl TapPort {
    /// Creates the device and brings it up, without an address.
    ///
    /// # Errors
    /// See [`TunError`]. Nothing is left behind.
    pub fn open(config: &TapConfig) -> Result<Self, TunError> {
        check_name(&config.name)?;
        if let Err(error) = std::fs::metadata("/dev/net/tun") {
            return Err(TunError::Missing(error));
        }
        let create = |headers: bool| {
            let mut wanted = tun::Configuration::default();
            wanted
                .tun_name(&config.name)
                .layer(tun::Layer::L2)
                .mtu(config.mtu_bytes);
            wanted.platform_config(|platform| {
                platform.ensure_root_privileges(false);
                platform.vnet_hdr(headers);
            });
            tun::Device::new(&wanted).map_err(|error| opening(&config.name, error))
        };
        let mut has_headers = config.offload;
        let mut device = create(has_headers)?;
        if has_headers && let Err(error) = set_offloads(&device) {
            tracing::info!(%error, interface = config.name, "this kernel's TAP devices know no offloads");
            drop(device);
            has_headers = false;
            device = create(has_headers)?;
        }
        let configure = |what, result: tun::Result<()>| {
            result.map_err(|error| TunError::Configure {
                name: config.name.clone(),
                what,
                source: as_io(error),
            })
        };
        configure("MTU", device.set_mtu(config.mtu_bytes))?;
        configure("state", device.enabled(true))?;
        configure("mode", device.set_nonblock().map_err(Into::into))?;
        // SAFETY: the device owns its descriptor and keeps it open and unchanged until dropped.
        let registered = unsafe { AsyncFd::register(device) };
        let device = registered.map_err(|error| TunError::Configure {
            name: config.name.clone(),
            what: "events",
            source: error.into(),
        })?;
        Ok(TapPort {
            device,
            mac: config.mac,
            has_headers,
            malformed: 0,
        })
    }
}

impl Port for TapPort {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        poll_read(
            &self.device,
            cx,
            batch,
            self.has_headers,
            &mut self.malformed,
        )
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        let device = self.device.get_ref();
        let written = if self.has_headers {
            write_parts(device, [&offload.encode(), header, rest])
        } else if offload == Offload::default() {
            write_parts(device, [header, rest])
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        written.map_err(refusal)
    }

    fn takes_offloads(&self) -> bool {
        self.has_headers
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }
}
