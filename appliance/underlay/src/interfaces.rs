//! The machine's own addresses, and news of their changes through a netlink socket.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::Descriptor;

/// Link, IPv4 address and IPv6 address changes (RTMGRP_* in linux/rtnetlink.h).
const GROUPS: u32 =
    (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;

/// Addresses listed at most; a machine with more is none of ours to enumerate.
const ADDRESSES_MAX: usize = 256;

/// Pending notifications drained in one go.
const DRAIN_MAX: usize = 1024;

/// One address of one interface that is up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The kernel's number for it; 0 if it is gone meanwhile.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Whether the interface is the loopback.
    pub loopback: bool,
}

/// The addresses of all interfaces that are up, sorted.
///
/// # Errors
/// The kernel did not answer.
pub fn list() -> io::Result<Vec<InterfaceAddress>> {
    let mut head: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `head` is a valid place for the pointer that the call writes on success.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut entry = head;
    while !entry.is_null() && found.len() < ADDRESSES_MAX {
        // SAFETY: getifaddrs returned a linked list that stays valid until freeifaddrs below; the
        // pointer was checked for null.
        let interface = unsafe { &*entry };
        entry = interface.ifa_next;
        let up = interface.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        if !up || interface.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: a non-null ifa_addr points at a socket address whose family tells its length.
        let Some(ip) = (unsafe { address_at(interface.ifa_addr) }) else {
            continue;
        };
        // SAFETY: ifa_name is a NUL-terminated string owned by the list.
        let name = unsafe { CStr::from_ptr(interface.ifa_name) };
        found.push(InterfaceAddress {
            interface: name.to_string_lossy().into_owned(),
            // SAFETY: the name is NUL-terminated and lives until freeifaddrs.
            index: unsafe { libc::if_nametoindex(name.as_ptr()) },
            ip,
            loopback: interface.ifa_flags & libc::IFF_LOOPBACK as libc::c_uint != 0,
        });
    }
    // SAFETY: `head` came from getifaddrs and is freed once; nothing borrowed from it survives.
    unsafe { libc::freeifaddrs(head) };
    found.sort();
    found.dedup();
    Ok(found)
}

/// The IP address in a socket address of any family.
///
/// # Safety
/// `address` points at a socket address as long as its family says.
unsafe fn address_at(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: every socket address begins with its family.
    let family = libc::c_int::from(unsafe { (*address).sa_family });
    match family {
        libc::AF_INET => {
            // SAFETY: the family promises a sockaddr_in; unaligned reads are allowed for.
            let name = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(
                name.sin_addr.s_addr.to_ne_bytes(),
            )))
        }
        libc::AF_INET6 => {
            // SAFETY: the family promises a sockaddr_in6; unaligned reads are allowed for.
            let name = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(name.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Tells when the machine's links or addresses change.
pub struct InterfaceWatch {
    socket: Descriptor,
}

impl InterfaceWatch {
    /// Starts watching. Must be called inside a tokio runtime with I/O.
    ///
    /// # Errors
    /// The kernel has no netlink, or forbids it.
    pub fn new() -> io::Result<Self> {
        // Without a protocol a netlink socket is one of NETLINK_ROUTE.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(InterfaceWatch {
            socket: Descriptor::new(socket)?,
        })
    }

    /// Waits until something changed since the last call; [`list`] then tells what is there now.
    /// Returns the numbers of links that changed or announced themselves, as far as is known.
    ///
    /// Cancelling it loses no change.
    ///
    /// # Errors
    /// The netlink socket failed.
    pub async fn changed(&mut self) -> io::Result<Vec<u32>> {
        self.socket.read_with(drain).await
    }
}

/// Reads pending notifications away, at least one.
fn drain(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut buffer = [0u8; 4096];
    let (mut any, mut links) = (false, Vec::new());
    for _ in 0..DRAIN_MAX {
        match recv(socket, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((read, _)) => {
                any = true;
                links.extend(link_of(&buffer[..read]).filter(|link| !links.contains(link)));
            }
            // The kernel dropped notifications because we were slow: something did change.
            Err(rustix::io::Errno::NOBUFS) => any = true,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if any => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(links)
}

/// The link that a notification (one to a datagram) is about, if it is about one: `struct nlmsghdr`,
/// then `struct ifinfomsg`, whose third member is the link's number.
fn link_of(message: &[u8]) -> Option<u32> {
    let kind: [u8; 2] = message.get(4..6)?.try_into().ok()?;
    let index: [u8; 4] = message.get(20..24)?.try_into().ok()?;
    (u16::from_ne_bytes(kind) == libc::RTM_NEWLINK).then(|| u32::from_ne_bytes(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_listed() {
        let all = list().unwrap();
        assert!(
            all.iter()
                .any(|a| a.loopback && a.ip == IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "{all:?}"
        );
    }

    #[test]
    fn a_notification_names_its_link() {
        let mut message = [0u8; 32];
        message[20..24].copy_from_slice(&7u32.to_ne_bytes());
        assert_eq!(link_of(&message), None);
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        assert_eq!(link_of(&message), Some(7));
        for length in 0..24 {
            assert_eq!(link_of(&message[..length]), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_machine_reports_nothing_twice() {
        let mut watch = InterfaceWatch::new().unwrap();
        // Whatever other tests do to interfaces settles; the call must not report forever.
        let silence = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            for _ in 0..DRAIN_MAX {
                watch.changed().await.unwrap();
            }
        });
        assert!(silence.await.is_err(), "endless notifications");
    }
}
