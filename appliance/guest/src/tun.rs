//! A TUN device: the kernel of this very machine is the guest.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll};

use tun::AbstractDevice;

use crate::device::{Device, Writer, as_io, configure};
use crate::{Guest, GuestGone, GuestWriter, Offload, PacketBatch, TunError, WriteError};

/// What the device is to be.
#[derive(Debug, Clone)]
pub struct TunConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The node's virtual IPv4 address and the length of the pool's prefix.
    pub v4: (Ipv4Addr, u8),
    /// The node's virtual IPv6 address and the length of the pool's prefix.
    pub v6: (Ipv6Addr, u8),
    /// Largest packet, in bytes.
    pub mtu_bytes: u16,
    /// Whether superpackets and missing checksums may pass, as far as the kernel can.
    pub offload: bool,
}

/// A TUN device. Must be created and used inside a tokio runtime with I/O.
pub struct TunGuest {
    device: Device,
    netmask: Ipv4Addr,
}

impl TunGuest {
    /// Creates the device, gives it its addresses and brings it up.
    ///
    /// A kernel without IPv6 leaves the device with IPv4 alone.
    ///
    /// # Errors
    /// See [`TunError`]. Nothing is left behind.
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        let (v4, length) = config.v4;
        let netmask = netmask(length);
        let name = &config.name;
        // The addresses follow one by one, so that an error can say which.
        let prepare = |device: &mut tun::Device| {
            configure(name, "address", device.set_address(v4.into()))?;
            configure(name, "netmask", device.set_netmask(netmask.into()))?;
            // The overlay has no use for the link-local address that the kernel would make up.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
            if let Err(error) = add_v6(device, config.v6) {
                tracing::info!(%error, interface = name, "going on without IPv6 on the guest side");
            }
            Ok(())
        };
        let layer = tun::Layer::L3;
        let device = Device::open(name, layer, config.mtu_bytes, config.offload, prepare)?;
        Ok(TunGuest { device, netmask })
    }
}

fn netmask(length: u8) -> Ipv4Addr {
    let host_bits = u32::from(32 - length.min(32));
    Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

/// `struct in6_ifreq` of linux/ipv6.h.
#[repr(C)]
struct In6IfReq {
    address: libc::in6_addr,
    prefix_length: u32,
    interface: libc::c_int,
}

fn add_v6(device: &tun::Device, (address, prefix_length): (Ipv6Addr, u8)) -> io::Result<()> {
    let interface = device.tun_index().map_err(as_io)?;
    // SAFETY: no pointers are involved; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let request = In6IfReq {
        address: libc::in6_addr {
            s6_addr: address.octets(),
        },
        prefix_length: prefix_length.into(),
        interface,
    };
    // SAFETY: SIOCSIFADDR on an IPv6 socket reads one in6_ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Guest for TunGuest {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        self.device.poll_read(cx, batch)
    }

    fn set_address(&mut self, v4: Ipv4Addr) -> io::Result<()> {
        let device = self.device.get_mut();
        device.set_address(v4.into()).map_err(as_io)?;
        // The kernel falls back to the mask of the address's old class.
        device.set_netmask(self.netmask.into()).map_err(as_io)
    }

    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError> {
        self.device.writer().write(offload, packet, &[])
    }

    fn writer(&self) -> Option<Box<dyn GuestWriter>> {
        Some(Box::new(self.device.writer().try_clone().ok()?))
    }

    fn takes_offloads(&self) -> bool {
        self.device.takes_offloads()
    }

    fn malformed(&self) -> u64 {
        self.device.malformed()
    }
}

impl GuestWriter for Writer {
    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError> {
        Writer::write(self, offload, packet, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_cover_every_length() {
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(9), Ipv4Addr::new(255, 128, 0, 0));
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }
}
