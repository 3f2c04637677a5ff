//! `recvmmsg` and `sendmmsg`: many datagrams for the price of one system call.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::Outgoing;
use crate::batch::{BATCH_DATAGRAMS, ReceiveBatch};

/// Large enough for both families; nothing else arrives on these sockets.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Receives what is there, at most a batch. Returns how many were dropped for being oversized.
pub fn receive(fd: BorrowedFd<'_>, batch: &mut ReceiveBatch) -> io::Result<u64> {
    batch.clear();
    // SAFETY: both are plain C structures for which all-zero bytes are a valid value.
    let mut names: [Name; BATCH_DATAGRAMS] = unsafe { mem::zeroed() };
    // SAFETY: as above; null pointers with zero lengths are valid there.
    let mut headers: [libc::mmsghdr; BATCH_DATAGRAMS] = unsafe { mem::zeroed() };
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; BATCH_DATAGRAMS];

    for (((header, vector), name), slot) in headers
        .iter_mut()
        .zip(&mut vectors)
        .zip(&mut names)
        .zip(batch.slots())
    {
        vector.iov_base = slot.as_mut_ptr().cast();
        vector.iov_len = slot.len();
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }

    // SAFETY: `headers` holds BATCH_DATAGRAMS entries; each points at one iovec over a distinct,
    // exclusively borrowed slot of `batch` and at a name of the stated size, and all of them
    // outlive the call. The timeout may be null.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH_DATAGRAMS as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;

    let mut oversized = 0;
    batch.commit(headers[..count].iter().zip(&names).map(|(header, name)| {
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            oversized += 1;
            return None;
        }
        let from = name.address(header.msg_hdr.msg_namelen)?;
        Some((from, header.msg_len as usize))
    }));
    Ok(oversized)
}

/// Sends from the front of `datagrams` (at most a batch); returns how many went out.
///
/// An error concerns the first one; the others were not tried.
pub fn send(fd: BorrowedFd<'_>, datagrams: &[Outgoing]) -> io::Result<usize> {
    let datagrams = &datagrams[..datagrams.len().min(BATCH_DATAGRAMS)];
    // SAFETY: both are plain C structures for which all-zero bytes are a valid value.
    let mut names: [Name; BATCH_DATAGRAMS] = unsafe { mem::zeroed() };
    // SAFETY: as above; null pointers with zero lengths are valid there.
    let mut headers: [libc::mmsghdr; BATCH_DATAGRAMS] = unsafe { mem::zeroed() };
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; BATCH_DATAGRAMS];

    for (((header, vector), name), datagram) in headers
        .iter_mut()
        .zip(&mut vectors)
        .zip(&mut names)
        .zip(datagrams)
    {
        vector.iov_base = datagram.payload.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.payload.len();
        header.msg_hdr.msg_namelen = name.set(datagram.to);
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }

    // SAFETY: the first `datagrams.len()` headers each point at one iovec over a payload that is
    // borrowed for the whole call and only read by the kernel, and at a filled-in name.
    let count = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            datagrams.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

impl Name {
    /// Writes an address; returns its length.
    fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(address) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(address) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
                mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// The address the kernel wrote in `length` bytes.
    fn address(&self, length: libc::socklen_t) -> Option<SocketAddr> {
        let length = length as usize;
        if length < mem::size_of::<libc::sockaddr_in>() {
            return None;
        }
        // SAFETY: both variants begin with the family, and every bit pattern of them is valid:
        // the union was zeroed before the kernel wrote into it.
        let family = libc::c_int::from(unsafe { self.v4.sin_family });
        match family {
            libc::AF_INET => {
                // SAFETY: as above, and the family says that this variant was written.
                let name = unsafe { self.v4 };
                Some(SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()),
                    u16::from_be(name.sin_port),
                )))
            }
            libc::AF_INET6 if length >= mem::size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above, and the family says that this variant was written.
                let name = unsafe { self.v6 };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(name.sin6_addr.s6_addr),
                    u16::from_be(name.sin6_port),
                    0,
                    name.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}
