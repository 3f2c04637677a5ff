//! A device of the kernel's TUN driver: packets (TUN) or frames (TAP) that this process reads and writes.
//!
//! It is not persistent: it goes when the router does, however it ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun::AbstractDevice;

use crate::offload::OFFLOAD_BYTES;
use crate::pace::Pace;
use crate::{GuestGone, Offload, PacketBatch, WriteError};

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

/// A device that is up. Must be created and used inside a tokio runtime with I/O.
pub(crate) struct Device {
    registered: AsyncFd<tun::Device>,
    writer: Writer,
    malformed: u64,
    pace: Pace,
}

impl Device {
    /// Creates the device with superpackets and missing checksums, where `offload` asks for them and the kernel can;
    /// `prepare` does to it what else there is to do before it comes up.
    ///
    /// # Errors
    /// See [`TunError`]. Nothing is left behind.
    pub(crate) fn open(
        name: &str,
        layer: tun::Layer,
        mtu_bytes: u16,
        offload: bool,
        prepare: impl FnOnce(&mut tun::Device) -> Result<(), TunError>,
    ) -> Result<Self, TunError> {
        check_name(name)?;
        if let Err(error) = std::fs::metadata("/dev/net/tun") {
            return Err(TunError::Missing(error));
        }
        let create = |headers: bool| {
            let mut wanted = tun::Configuration::default();
            wanted.tun_name(name).layer(layer).mtu(mtu_bytes);
            wanted.platform_config(|platform| {
                platform.ensure_root_privileges(false);
                platform.vnet_hdr(headers);
            });
            tun::Device::new(&wanted).map_err(|error| opening(name, error))
        };
        let mut has_headers = offload;
        let mut device = create(has_headers)?;
        if has_headers && let Err(error) = set_offloads(&device) {
            tracing::info!(%error, interface = name, "this kernel's devices know no offloads");
            drop(device);
            has_headers = false;
            device = create(has_headers)?;
        }
        configure(name, "MTU", device.set_mtu(mtu_bytes))?;
        prepare(&mut device)?;
        configure(name, "state", device.enabled(true))?;
        configure(name, "mode", device.set_nonblock().map_err(Into::into))?;
        // SAFETY: the device owns its descriptor and keeps it open and unchanged until dropped.
        let registered = unsafe { AsyncFd::register_with_interest(device, Interest::READABLE) };
        let registered = registered.map_err(|error| TunError::Configure {
            name: name.to_owned(),
            what: "events",
            source: error.into(),
        })?;
        // SAFETY: the device keeps its descriptor open for the whole call.
        let fd = unsafe { BorrowedFd::borrow_raw(registered.get_ref().as_raw_fd()) };
        let fd = fd.try_clone_to_owned().map_err(Into::into);
        Ok(Device {
            registered,
            writer: Writer {
                fd: configure(name, "descriptor", fd)?,
                has_headers,
            },
            malformed: 0,
            pace: Pace::default(),
        })
    }

    pub(crate) fn get_mut(&mut self) -> &mut tun::Device {
        self.registered.get_mut()
    }

    pub(crate) fn takes_offloads(&self) -> bool {
        self.writer.has_headers
    }

    /// Packets whose header made no sense.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// What writes to the device, whoever reads from it.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Waits for what there is to read and moves it into `batch`, which it empties first.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        loop {
            let mut ready = ready!(self.registered.poll_read_ready(cx)).map_err(GuestGone)?;
            while !batch.is_full() {
                if self.pace.is_enough(batch.len()) {
                    return Poll::Ready(Ok(()));
                }
                match ready.try_io(|device| {
                    batch.push_with(|slot| {
                        let length = device.get_ref().recv(slot)?;
                        // Zero bytes are an end of file, which a device has only when it is gone.
                        if length == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        if !self.writer.has_headers {
                            return Ok((Some(Offload::default()), 0..length));
                        }
                        let header = slot[..length].first_chunk().map(Offload::parse);
                        let Some(Ok(offload)) = header else {
                            self.malformed += 1;
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
            self.pace.note_all(batch.len());
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Writes to a device.
pub(crate) struct Writer {
    fd: OwnedFd,
    /// Packets have a header of the device's before them.
    has_headers: bool,
}

impl Writer {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Writer {
            fd: self.fd.try_clone()?,
            has_headers: self.has_headers,
        })
    }

    /// Writes a packet that lies in two parts, in one call.
    pub(crate) fn write(
        &self,
        offload: Offload,
        header: &[u8],
        rest: &[u8],
    ) -> Result<(), WriteError> {
        let written = match self.has_headers {
            true => write_parts(&self.fd, [&offload.encode(), header, rest]),
            false if offload == Offload::default() => write_parts(&self.fd, [header, rest]),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        written.map_err(refusal)
    }
}

fn check_name(name: &str) -> Result<(), TunError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let reserved = name == "." || name == "..";
    if name.is_empty() || name.len() > 15 || reserved || !name.chars().all(plain) {
        return Err(TunError::BadName(name.to_owned()));
    }
    Ok(())
}

fn opening(name: &str, error: tun::Error) -> TunError {
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

/// What came of a setting.
pub(crate) fn configure<T>(
    name: &str,
    what: &'static str,
    result: tun::Result<T>,
) -> Result<T, TunError> {
    result.map_err(|error| TunError::Configure {
        name: name.to_owned(),
        what,
        source: as_io(error),
    })
}

/// Flags of TUNSETOFFLOAD, linux/if_tun.h.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Lets the kernel hand over TCP superpackets without checksums, and UDP's where it can (Linux 6.2).
fn set_offloads(device: &tun::Device) -> io::Result<()> {
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

/// Why a device did not take a packet.
fn refusal(error: io::Error) -> WriteError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => WriteError::Full,
        _ => WriteError::Refused(error),
    }
}

/// Writes parts that lie apart in one call, as the device takes them.
fn write_parts<const N: usize>(device: &impl AsRawFd, parts: [&[u8]; N]) -> io::Result<()> {
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
    fn names_that_the_kernel_would_misread_are_refused() {
        for name in ["", "a/b", "sixteen-letters-", "wow%d", "..", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("wow0").unwrap();
    }
}
