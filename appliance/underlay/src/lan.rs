//! The local networks: datagrams to everybody on the machine's own links, by IP multicast.
//!
//! One socket for each family, joined to one group on every interface that was named. Datagrams do
//! not leave the link. What comes in is counted against nothing here: judging it is the caller's.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use rustix::net::netdevice::name_to_index;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::InterfaceAddress;
use crate::udp::unbound;

/// The group and port of IPv4: of the block for an organisation's own use (RFC 2365).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 87, 79);
/// The group of IPv6, on the link alone.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x574f, 0x57);
/// The port of both.
pub const PORT: u16 = 8779;
/// The longest datagram that is taken in; a longer one is cut.
pub const DATAGRAM_MAX_BYTES: usize = 1024;
/// Interfaces joined on, at most.
const INTERFACES_MAX: usize = 32;
/// Datagrams that one poll passes over as unreadable before others have their turn.
const UNREADABLE_MAX: usize = 16;

/// The machine's local networks. Must be created and used inside a tokio runtime with I/O.
pub struct Lan {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// One address of each IPv4 interface that was joined on.
    joined_v4: BTreeSet<Ipv4Addr>,
    /// The indices of IPv6 interfaces that were.
    joined_v6: BTreeSet<u32>,
}

impl Lan {
    /// Opens the sockets; no network is joined yet. A family that the kernel lacks is left out.
    ///
    /// # Errors
    /// No socket of either family can be opened.
    pub fn open() -> io::Result<Self> {
        let v4 = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)));
        let v6 = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)));
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        Ok(Lan {
            v4,
            v6,
            joined_v4: BTreeSet::new(),
            joined_v6: BTreeSet::new(),
        })
    }

    /// Joins the networks of these addresses and of no others.
    pub fn set_networks(&mut self, addresses: &[InterfaceAddress]) {
        let (mut names, mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for address in addresses.iter().filter(|address| !address.loopback) {
            match address.ip {
                // One address stands for its interface.
                IpAddr::V4(ip) if names.insert(&address.interface) => {
                    v4.insert(ip);
                }
                IpAddr::V4(_) => {}
                IpAddr::V6(_) => {
                    let socket = self.v6.as_ref();
                    v6.extend(socket.and_then(|s| name_to_index(s, &address.interface).ok()));
                }
            }
        }
        let v4: BTreeSet<_> = v4.into_iter().take(INTERFACES_MAX).collect();
        let v6: BTreeSet<_> = v6.into_iter().take(INTERFACES_MAX).collect();
        // An interface that went took its membership along; one that is joined stays so.
        if let Some(socket) = &self.v4 {
            for gone in self.joined_v4.difference(&v4) {
                let _ = socket.leave_multicast_v4(GROUP_V4, *gone);
            }
            for new in v4.difference(&self.joined_v4) {
                if let Err(error) = socket.join_multicast_v4(GROUP_V4, *new) {
                    tracing::debug!(%new, %error, "local network not joined");
                }
            }
        }
        if let Some(socket) = &self.v6 {
            for gone in self.joined_v6.difference(&v6) {
                let _ = socket.leave_multicast_v6(&GROUP_V6, *gone);
            }
            for new in v6.difference(&self.joined_v6) {
                if let Err(error) = socket.join_multicast_v6(&GROUP_V6, *new) {
                    tracing::debug!(%new, %error, "local network not joined");
                }
            }
        }
        self.joined_v4 = v4;
        self.joined_v6 = v6;
    }

    /// Sends a datagram to everybody on every network. What does not go out is lost.
    pub fn announce(&self, datagram: &[u8]) {
        for ip in &self.joined_v4 {
            let sent = self.v4.as_ref().map(|socket| {
                socket2::SockRef::from(socket).set_multicast_if_v4(ip)?;
                socket.try_send_to(datagram, SocketAddr::from((GROUP_V4, PORT)))
            });
            if let Some(Err(error)) = sent {
                tracing::debug!(%ip, %error, "nothing announced");
            }
        }
        for index in &self.joined_v6 {
            let sent = self.v6.as_ref().map(|socket| {
                socket2::SockRef::from(socket).set_multicast_if_v6(*index)?;
                socket.try_send_to(datagram, SocketAddr::from((GROUP_V6, PORT)))
            });
            if let Some(Err(error)) = sent {
                tracing::debug!(index, %error, "nothing announced");
            }
        }
    }

    /// Waits for the next datagram, and for who sent it.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<(SocketAddr, Vec<u8>)> {
        let mut room = [0; DATAGRAM_MAX_BYTES];
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            for _ in 0..UNREADABLE_MAX {
                let mut buffer = ReadBuf::new(&mut room);
                match socket.poll_recv_from(cx, &mut buffer) {
                    Poll::Ready(Ok(from)) => return Poll::Ready((from, buffer.filled().to_vec())),
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = unbound(address)?;
    // Every node of the machine hears the group.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_multicast_hops_v6(1)?;
    } else {
        socket.set_multicast_ttl_v4(1)?;
        // Else it hears what other sockets of the machine have joined.
        socket.set_multicast_all_v4(false)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
