//! A TUN device: the kernel of this very machine is the guest.
//!
//! The device is not persistent: it goes when the router does, however it ends.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tun::AbstractDevice;

use crate::offload::OFFLOAD_BYTES;
use crate::{Guest, GuestGone, GuestWriter, Offload, PacketBatch, WriteError};

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

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel offers none.
    #[error(
        "this machine has no TUN driver (/dev/net/tun: {0}); load it with `modprobe tun`, or run without a guest"
    )]
    Missing(io::Error),
    /// Not root.
    #[error(
        "creating the TUN device {name} needs root or CAP_NET_ADMIN ({source}); run as root, or without a guest"
    )]
    Permission {
        /// The device asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the interface {0} is in use by another process; stop that process or choose another name"
    )]
    InUse(String),
    /// No interface can be called that.
    #[error("{0:?} cannot name an interface: 1 to 15 letters, digits, '-', '_' or '.'")]
    BadName(String),
    /// It came up, but not as asked.
    #[error("cannot set the {what} of {name}: {source}")]
    Configure {
        /// The device.
        name: String,
        /// What could not be set.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TUN device. Must be created and used inside a tokio runtime with I/O.
pub struct TunGuest {
    device: AsyncFd<tun::Device>,
    writer: TunWriter,
    netmask: Ipv4Addr,
    /// Packets have a header of the device's before them.
    has_headers: bool,
    malformed: u64,
}

impl TunGuest {
    /// Creates the device, gives it its addresses and brings it up.
    ///
    /// A kernel without IPv6 leaves the device with IPv4 alone.
    ///
    /// # Errors
    /// See [`TunError`]. Nothing is left behind.
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        check_name(&config.name)?;
        if let Err(error) = std::fs::metadata("/dev/net/tun") {
            return Err(TunError::Missing(error));
        }
        let mut wanted = tun::Configuration::default();
        wanted
            .tun_name(&config.name)
            .layer(tun::Layer::L3)
            .mtu(config.mtu_bytes);
        // The addresses follow one by one, so that an error can say which.
        wanted.platform_config(|platform| {
            platform.ensure_root_privileges(false);
            platform.vnet_hdr(config.offload);
        });
        let mut device = tun::Device::new(&wanted).map_err(|error| opening(&config.name, error))?;
        let mut has_headers = config.offload;
        if has_headers && let Err(error) = set_offloads(&device) {
            tracing::info!(%error, interface = config.name, "this kernel's TUN devices know no offloads");
            drop(device);
            wanted.platform_config(|platform| {
                platform.vnet_hdr(false);
            });
            device = tun::Device::new(&wanted).map_err(|error| opening(&config.name, error))?;
            has_headers = false;
        }

        let configure = |what, result: tun::Result<()>| {
            result.map_err(|error| TunError::Configure {
                name: config.name.clone(),
                what,
                source: as_io(error),
            })
        };
        let (v4, length) = config.v4;
        configure("MTU", device.set_mtu(config.mtu_bytes))?;
        let netmask = netmask(length);
        configure("address", device.set_address(v4.into()))?;
        configure("netmask", device.set_netmask(netmask.into()))?;
        // The overlay has no use for the link-local address that the kernel would make up.
        let _ = std::fs::write(
            format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", config.name),
            "1",
        );
        if let Err(error) = add_v6(&device, config.v6) {
            tracing::info!(%error, interface = config.name, "going on without IPv6 on the guest side");
        }
        configure("state", device.enabled(true))?;
        configure("mode", device.set_nonblock().map_err(Into::into))?;

        // SAFETY: the device owns its descriptor and keeps it open and unchanged until dropped.
        let registered = unsafe { AsyncFd::register(device) };
        let device = registered.map_err(|error| TunError::Configure {
            name: config.name.clone(),
            what: "events",
            source: error.into(),
        })?;
        // SAFETY: the device keeps its descriptor open for the whole call.
        let fd = unsafe { BorrowedFd::borrow_raw(device.get_ref().as_raw_fd()) };
        let fd = fd
            .try_clone_to_owned()
            .map_err(|source| TunError::Configure {
                name: config.name.clone(),
                what: "descriptor",
                source,
            })?;
        Ok(TunGuest {
            device,
            writer: TunWriter { fd, has_headers },
            netmask,
            has_headers,
            malformed: 0,
        })
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), TunError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let reserved = name == "." || name == "..";
    if name.is_empty() || name.len() > 15 || reserved || !name.chars().all(plain) {
        return Err(TunError::BadName(name.to_owned()));
    }
    Ok(())
}

pub(crate) fn opening(name: &str, error: tun::Error) -> TunError {
    let source = as_io(error);
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::Missing(source),
        Some(libc::EPERM | libc::EACCES) => TunError::Permission {
            name: name.to_owned(),
            source,
        },
        Some(libc::EBUSY) => TunError::InUse(name.to_owned()),
        _ => TunError::Configure {
            name: name.to_owned(),
            what: "device",
            source,
        },
    }
}

pub(crate) fn as_io(error: tun::Error) -> io::Error {
    match error {
        tun::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn netmask(length: u8) -> Ipv4Addr {
    let host_bits = u32::from(32 - length.min(32));
    Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

/// Flags of TUNSETOFFLOAD, linux/if_tun.h.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Lets the kernel hand over TCP superpackets without checksums, and UDP's where it can (Linux 6.2).
pub(crate) fn set_offloads(device: &tun::Device) -> io::Result<()> {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    set_offload_flags(device, tcp | TUN_F_USO4 | TUN_F_USO6)
        .or_else(|_| set_offload_flags(device, tcp))
}

fn set_offload_flags(device: &tun::Device, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its flags by value; the descriptor is open.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
        poll_read(
            &self.device,
            cx,
            batch,
            self.has_headers,
            &mut self.malformed,
        )
    }

    fn set_address(&mut self, v4: Ipv4Addr) -> io::Result<()> {
        let device = self.device.get_mut();
        device.set_address(v4.into()).map_err(as_io)?;
        // The kernel falls back to the mask of the address's old class.
        device.set_netmask(self.netmask.into()).map_err(as_io)
    }

    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError> {
        self.writer.write(offload, packet)
    }

    fn writer(&self) -> Option<Box<dyn GuestWriter>> {
        let fd = self.writer.fd.try_clone().ok()?;
        let has_headers = self.has_headers;
        Some(Box::new(TunWriter { fd, has_headers }))
    }

    fn takes_offloads(&self) -> bool {
        self.has_headers
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Writes to the device, whoever reads from it.
struct TunWriter {
    fd: OwnedFd,
    has_headers: bool,
}

impl GuestWriter for TunWriter {
    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError> {
        let written = match self.has_headers {
            true => write_parts(&self.fd, [&offload.encode(), packet]),
            false if offload == Offload::default() => write_parts(&self.fd, [packet]),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        written.map_err(refusal)
    }
}

/// Waits for what a device has to read and moves it into `batch`, which it empties first.
pub(crate) fn poll_read(
    device: &AsyncFd<tun::Device>,
    cx: &mut Context<'_>,
    batch: &mut PacketBatch,
    has_headers: bool,
    malformed: &mut u64,
) -> Poll<Result<(), GuestGone>> {
    batch.clear();
    loop {
        let mut ready = ready!(device.poll_read_ready(cx)).map_err(GuestGone)?;
        while !batch.is_full() {
            match ready.try_io(|device| {
                batch.push_with(|slot| {
                    let length = device.get_ref().recv(slot)?;
                    // Zero bytes are an end of file, which a device has only when it is gone.
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    if !has_headers {
                        return Ok((Some(Offload::default()), 0..length));
                    }
                    let header = slot[..length].first_chunk().map(Offload::parse);
                    let Some(Ok(offload)) = header else {
                        *malformed += 1;
                        return Ok((None, 0..0));
                    };
                    Ok((Some(offload), OFFLOAD_BYTES..length))
                })
            }) {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) if !batch.is_empty() => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(GuestGone(error))),
                Err(_would_block) => break,
            }
        }
        if !batch.is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}

/// Why a device did not take a packet.
pub(crate) fn refusal(error: io::Error) -> WriteError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => WriteError::Full,
        _ => WriteError::Refused(error),
    }
}

/// Writes parts that lie apart in one call, as the device takes them.
pub(crate) fn write_parts<const N: usize>(
    device: &impl AsRawFd,
    parts: [&[u8]; N],
) -> io::Result<()> {
    let parts = parts.map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: the parts are borrowed for the whole call, and the kernel only reads them.
    let written = unsafe { libc::writev(device.as_raw_fd(), parts.as_ptr(), N as libc::c_int) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

    #[test]
    fn names_that_the_kernel_would_misread_are_refused() {
        for name in ["", "a/b", "sixteen-letters-", "wow%d", "..", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("wow0").unwrap();
    }
}
