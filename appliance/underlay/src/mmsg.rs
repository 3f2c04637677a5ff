//! `recvmmsg` and `sendmmsg`: many datagrams for the price of one system call; with UDP_SEGMENT and UDP_GRO
//! also for the price of one way through the kernel.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::batch::{BATCH_DATAGRAMS, DATAGRAM_MAX_BYTES, Filled, JOINED_SLOTS, ReceiveBatch};

/// Large enough for both families; nothing else arrives on these sockets.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for one control message with a number in it, aligned as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy)]
union ControlRoom {
    header: libc::cmsghdr,
    bytes: [u8; 32],
}

/// What one message of [`send`] carries.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Where it goes.
    pub to: SocketAddr,
    /// One datagram, or several for the kernel to cut.
    pub payload: &'a [u8],
    /// The length to cut at; none for one datagram.
    pub cut_at: Option<u16>,
}

/// Asks the kernel to join what it receives; whether it will.
pub fn join_received(fd: BorrowedFd<'_>) -> bool {
    set_udp(fd, libc::UDP_GRO, 1).is_ok()
}

/// Whether the kernel can cut what is sent.
pub fn can_cut(fd: BorrowedFd<'_>) -> bool {
    // Zero is what every socket begins with.
    set_udp(fd, libc::UDP_SEGMENT, 0).is_ok()
}

/// Asks for a receive buffer beyond the system's limit, which those who make TUN devices may exceed.
pub fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // Without the privilege what was granted before remains.
    let _ = set_number(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes);
}

/// Has datagrams go whole or not at all, whatever ICMP says of the way; what the link itself does not take
/// is refused at once. Whether they will.
pub fn forbid_fragments(fd: BorrowedFd<'_>, is_ipv4: bool) -> bool {
    let outcome = match is_ipv4 {
        true => set_number(
            fd,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        false => set_number(
            fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    outcome.is_ok()
}

fn set_udp(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_number(fd, libc::SOL_UDP, option, value)
}

fn set_number(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option's value is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What [`receive`] did besides filling the batch.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Datagrams dropped for being oversized.
    pub oversized: u64,
    /// Nothing more was waiting.
    pub was_all: bool,
}

/// Receives what is there, at most a batch.
pub fn receive(fd: BorrowedFd<'_>, batch: &mut ReceiveBatch) -> io::Result<Received> {
    match batch.slot_count() {
        ..=JOINED_SLOTS => receive_up_to::<JOINED_SLOTS>(fd, batch),
        _ => receive_up_to::<BATCH_DATAGRAMS>(fd, batch),
    }
}

/// Receives at most so many: what is not used of the arrays is written to all the same.
fn receive_up_to<const MAX: usize>(
    fd: BorrowedFd<'_>,
    batch: &mut ReceiveBatch,
) -> io::Result<Received> {
    batch.clear();
    let slots = batch.slot_count().min(MAX);
    // SAFETY: these are plain C structures for which all-zero bytes are a valid value.
    let mut names: [Name; MAX] = unsafe { mem::zeroed() };
    // SAFETY: as above; null pointers with zero lengths are valid there.
    let mut headers: [libc::mmsghdr; MAX] = unsafe { mem::zeroed() };
    let mut controls = [ControlRoom { bytes: [0; 32] }; MAX];
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; MAX];

    for ((((header, vector), name), control), slot) in headers
        .iter_mut()
        .zip(&mut vectors)
        .zip(&mut names)
        .zip(&mut controls)
        .zip(batch.slots())
    {
        vector.iov_base = slot.as_mut_ptr().cast();
        vector.iov_len = slot.len();
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = ptr::from_mut(control).cast();
        header.msg_hdr.msg_controllen = mem::size_of::<ControlRoom>() as _;
    }

    // SAFETY: the first `slots` of `headers` each point at one iovec over a distinct, exclusively
    // borrowed slot of `batch`, at a name and at a control buffer of the stated sizes, and all of them
    // outlive the call. The timeout may be null.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            slots as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;

    let mut oversized = 0;
    batch.commit(headers[..count].iter().zip(&names).map(|(header, name)| {
        let length = header.msg_len as usize;
        let datagram_bytes = joined_at(&header.msg_hdr).unwrap_or(length);
        let cut_off = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        if cut_off || datagram_bytes > DATAGRAM_MAX_BYTES {
            oversized += 1;
            return None;
        }
        Some(Filled {
            from: name.address(header.msg_hdr.msg_namelen)?,
            length,
            datagram_bytes,
        })
    }));
    Ok(Received {
        oversized,
        was_all: count < slots,
    })
}

/// The length of the datagrams that the kernel has joined into a message, if it has.
fn joined_at(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the header is one that recvmmsg has filled in; its control buffer is still there.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: the macros give null or a control message that lies inside the buffer.
        let message = unsafe { &*control };
        if message.cmsg_level == libc::SOL_UDP && message.cmsg_type == libc::UDP_GRO {
            // SAFETY: the data of this kind is an int; it need not be aligned for one.
            let length: libc::c_int =
                unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
            return usize::try_from(length).ok().filter(|length| *length > 0);
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

/// Sends from the front of `messages` (at most a batch); returns how many went out.
///
/// An error concerns the first one; the others were not tried.
pub fn send<'a>(
    fd: BorrowedFd<'_>,
    messages: impl Iterator<Item = Message<'a>>,
) -> io::Result<usize> {
    match messages.size_hint() {
        (_, Some(1)) => send_up_to::<1>(fd, messages),
        _ => send_up_to::<BATCH_DATAGRAMS>(fd, messages),
    }
}

/// Sends at most so many: what is not used of the arrays is written to all the same.
fn send_up_to<'a, const MAX: usize>(
    fd: BorrowedFd<'_>,
    messages: impl Iterator<Item = Message<'a>>,
) -> io::Result<usize> {
    // SAFETY: these are plain C structures for which all-zero bytes are a valid value.
    let mut names: [Name; MAX] = unsafe { mem::zeroed() };
    // SAFETY: as above; null pointers with zero lengths are valid there.
    let mut headers: [libc::mmsghdr; MAX] = unsafe { mem::zeroed() };
    let mut controls = [ControlRoom { bytes: [0; 32] }; MAX];
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; MAX];

    let mut count = 0;
    for ((((header, vector), name), control), message) in headers
        .iter_mut()
        .zip(&mut vectors)
        .zip(&mut names)
        .zip(&mut controls)
        .zip(messages)
    {
        vector.iov_base = message.payload.as_ptr().cast_mut().cast();
        vector.iov_len = message.payload.len();
        header.msg_hdr.msg_namelen = name.set(message.to);
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(length) = message.cut_at {
            set_cut(&mut header.msg_hdr, control, length);
        }
        count += 1;
    }

    // SAFETY: the first `count` headers each point at one iovec over a payload that is borrowed for the
    // whole call and only read by the kernel, at a filled-in name, and at a filled-in control message or
    // none.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Puts a UDP_SEGMENT message into `room` and points the header at it.
fn set_cut(header: &mut libc::msghdr, room: &mut ControlRoom, length: u16) {
    let size = mem::size_of_val(&length) as libc::c_uint;
    header.msg_control = ptr::from_mut(room).cast();
    // SAFETY: these only compute.
    let (space, whole) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
    header.msg_controllen = space as _;
    // SAFETY: the control buffer is there, is aligned for a header, and holds `space` bytes: 24 of its
    // 32 on 64-bit machines, less on others.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = libc::SOL_UDP;
        (*control).cmsg_type = libc::UDP_SEGMENT;
        (*control).cmsg_len = whole as _;
        ptr::write_unaligned(libc::CMSG_DATA(control).cast(), length);
    }
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
