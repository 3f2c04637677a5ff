//! The packet socket itself, and what is asked of its interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::PacketError;

/// Frames moved by one call.
pub const FRAMES_MAX: usize = 64;

/// A few superpackets each way; the kernel counts more than their bytes.
const BUFFER_BYTES: libc::c_int = 4 << 20;

/// linux/if_ether.h: every protocol.
const ETH_P_ALL: u16 = 0x0003;
/// linux/if_arp.h: interfaces with Ethernet frames.
const ARPHRD_ETHER: u16 = 1;
/// linux/if_packet.h: a frame for another machine, seen because the card is promiscuous.
const PACKET_OTHERHOST: u32 = 3;
/// linux/filter.h: what is not in the frame.
const ANCILLARY: u32 = 0xffff_f000;
const ANCILLARY_PACKET_TYPE: u32 = ANCILLARY + 4;
const ANCILLARY_VLAN_PRESENT: u32 = ANCILLARY + 48;

/// Refuses frames of VLANs, whose tags the kernel has taken off, and those for other machines.
const FILTER: [libc::sock_filter; 6] = [
    load(ANCILLARY_VLAN_PRESENT),
    jump(libc::BPF_JEQ, 0, 0, 3),
    load(ANCILLARY_PACKET_TYPE),
    jump(libc::BPF_JEQ, PACKET_OTHERHOST, 1, 0),
    verdict(u32::MAX),
    verdict(0),
];

const fn load(from: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: from,
    }
}

const fn jump(test: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt,
        jf,
        k: value,
    }
}

const fn verdict(bytes: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: bytes,
    }
}

/// An Ethernet interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    pub index: i32,
    pub mac: [u8; 6],
    pub is_up: bool,
}

/// One frame that was read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Its bytes, the kernel's description before them included.
    pub length: usize,
    /// It was longer than its place.
    pub is_cut: bool,
}

/// Looks an interface up.
pub fn find(interface: &str) -> Result<Card, PacketError> {
    let other = |what| {
        move |source| PacketError::Other {
            interface: interface.to_owned(),
            what,
            source,
        }
    };
    let socket = control_socket().map_err(other("ask the kernel for"))?;
    let mut request = request(interface)?;
    let index = ask(&socket, libc::SIOCGIFINDEX as _, &mut request).map(|()| {
        // SAFETY: SIOCGIFINDEX has filled in this member; any bytes are an integer.
        unsafe { request.ifr_ifru.ifru_ifindex }
    });
    let index = match index {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            return Err(PacketError::Missing(interface.to_owned()));
        }
        index => index.map_err(other("look at"))?,
    };
    ask(&socket, libc::SIOCGIFHWADDR as _, &mut request).map_err(other("look at"))?;
    // SAFETY: SIOCGIFHWADDR has filled in this member; any bytes are a sockaddr.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != ARPHRD_ETHER {
        return Err(PacketError::NotEthernet(interface.to_owned()));
    }
    let mut mac = [0; 6];
    for (octet, from) in mac.iter_mut().zip(address.sa_data) {
        *octet = from as u8;
    }
    ask(&socket, libc::SIOCGIFFLAGS as _, &mut request).map_err(other("look at"))?;
    // SAFETY: SIOCGIFFLAGS has filled in this member; any bytes are an integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(Card {
        index,
        mac,
        is_up: i32::from(flags) & libc::IFF_UP != 0,
    })
}

/// Brings an interface up, if it is not.
pub fn bring_up(interface: &str) -> Result<(), PacketError> {
    if find(interface)?.is_up {
        return Ok(());
    }
    let result = (|| {
        let socket = control_socket()?;
        let mut request = request(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        ask(&socket, libc::SIOCGIFFLAGS as _, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has filled in this member; any bytes are an integer.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        ask(&socket, libc::SIOCSIFFLAGS as _, &mut request)
    })();
    result.map_err(|source| failure(interface, "bring up", source))
}

fn failure(interface: &str, what: &'static str, source: io::Error) -> PacketError {
    let interface = interface.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PacketError::Permission { interface, source },
        _ => PacketError::Other {
            interface,
            what,
            source,
        },
    }
}

fn request(interface: &str) -> Result<libc::ifreq, PacketError> {
    // SAFETY: all zeros are a valid ifreq: integers, and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    // One byte stays zero, the end of the name.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(&0) {
        return Err(PacketError::Missing(interface.to_owned()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

fn ask(socket: &OwnedFd, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each of these requests reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, request as *mut libc::ifreq) })
        .map(drop)
}

fn control_socket() -> io::Result<OwnedFd> {
    new_socket(libc::AF_INET, libc::SOCK_DGRAM)
}

fn new_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are involved; the result is checked. Of packet sockets protocol 0 receives
    // nothing until it is bound.
    let socket = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor was just created and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// A packet socket on one interface, for frames with descriptions before them.
pub struct Socket(OwnedFd);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Socket {
    /// Opens it. Nothing is received before all is set.
    pub fn open(interface: &str, card: Card) -> Result<Self, PacketError> {
        let failed = |what| move |source| failure(interface, what, source);
        let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW)
            .map_err(failed("open a packet socket on"))?;
        let socket = Socket(socket);
        socket.filter().map_err(failed("filter the frames of"))?;
        socket
            .set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)
            .map_err(failed("have frames described on"))?;
        socket
            .set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)
            .map_err(failed("see only what comes in on"))?;
        for (forced, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            // Without the privilege the kernel's limit must do.
            let _ = socket
                .set(libc::SOL_SOCKET, forced, BUFFER_BYTES)
                .or_else(|_| socket.set(libc::SOL_SOCKET, plain, BUFFER_BYTES));
        }
        socket.bind(card.index).map_err(failed("listen on"))?;
        socket
            .hear_groups(card.index)
            .map_err(failed("hear what goes to groups on"))?;
        Ok(socket)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the option's value is a live c_int of the given size, which the call copies.
        check(unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// What has happened to the socket since this was last asked.
    pub fn take_error(&self) -> Option<io::Error> {
        let mut error: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option's value is a live c_int of the given size, which the call writes.
        let asked = check(unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        });
        match (asked, error) {
            (Err(failed), _) => Some(failed),
            (Ok(_), 0) => None,
            (Ok(_), error) => Some(io::Error::from_raw_os_error(error)),
        }
    }

    /// Frames that found no room in the socket's buffer since this was last asked.
    pub fn take_missed(&self) -> u64 {
        // SAFETY: all zeros are valid tpacket_stats: integers.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the option's value is a live tpacket_stats of the given size, which the call writes.
        let asked = check(unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        });
        asked.map_or(0, |_| stats.tp_drops.into())
    }

    fn filter(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: FILTER.len() as u16,
            // The kernel only reads the program; the field is `*mut` for historical reasons.
            filter: FILTER.as_ptr().cast_mut(),
        };
        // SAFETY: the option's value is a live sock_fprog of the given size; it points at `len` live
        // instructions, which the kernel copies and checks before the call returns.
        check(unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// Has the card pass what goes to any group: whoever looks for an address by IPv6 asks the group that belongs to it.
    fn hear_groups(&self, index: i32) -> io::Result<()> {
        let membership = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_ALLMULTI as _,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option's value is a live packet_mreq of the given size, which the call copies.
        check(unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    fn bind(&self, index: i32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ETH_P_ALL.to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is to a live sockaddr_ll and the length is its size; bind copies it.
        check(unsafe {
            libc::bind(
                self.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// Reads one frame into each slot, its description before it, as far as frames are there; how many
    /// there were.
    pub fn receive<'s>(
        &self,
        slots: impl Iterator<Item = &'s mut [u8]>,
        received: &mut [Received; FRAMES_MAX],
    ) -> io::Result<usize> {
        let mut parts = [const {
            libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }
        }; FRAMES_MAX];
        let mut count = 0;
        for (part, slot) in parts.iter_mut().zip(slots) {
            part.iov_base = slot.as_mut_ptr().cast();
            part.iov_len = slot.len();
            count += 1;
        }
        // SAFETY: all zeros are valid mmsghdr: null pointers and integers.
        let mut messages: [libc::mmsghdr; FRAMES_MAX] = unsafe { std::mem::zeroed() };
        for (message, part) in messages[..count].iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` messages have one part each, whose memory the slots borrow mutably for
        // the whole call; names and control data are absent; the time-out is null, which waits for
        // nothing on a socket that does not block.
        let result = unsafe {
            libc::recvmmsg(
                self.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let got = usize::try_from(check(result)?).unwrap_or(0);
        for (frame, message) in received.iter_mut().zip(&messages[..got]) {
            frame.length = message.msg_len as usize;
            frame.is_cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        Ok(got)
    }

    /// Sends one frame.
    pub fn send(&self, description: &[u8], header: &[u8], rest: &[u8]) -> io::Result<()> {
        let mut parts = [description, header, rest].map(readable);
        // SAFETY: all zeros are a valid msghdr: null pointers and integers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        // SAFETY: the parts are borrowed for the whole call, and the kernel only reads them; name and
        // control data are absent.
        let sent =
            unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        match sent {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Sends the frames that lie side by side in `room`, from one of them on; how many went.
    pub fn send_all(&self, room: &[u8], first: usize, ends: &[usize]) -> io::Result<usize> {
        let mut parts = [const {
            libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }
        }; FRAMES_MAX];
        let mut start = first.checked_sub(1).map_or(0, |before| ends[before]);
        let mut count = 0;
        for (part, end) in parts.iter_mut().zip(&ends[first..]) {
            *part = readable(&room[start..*end]);
            start = *end;
            count += 1;
        }
        // SAFETY: all zeros are valid mmsghdr: null pointers and integers.
        let mut messages: [libc::mmsghdr; FRAMES_MAX] = unsafe { std::mem::zeroed() };
        for (message, part) in messages[..count].iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` messages have one part each, whose memory `room` borrows for the whole
        // call, and the kernel only reads it; names and control data are absent.
        let sent = unsafe {
            libc::sendmmsg(
                self.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        Ok(usize::try_from(check(sent)?).unwrap_or(0))
    }
}

fn readable(part: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    }
}
