//! UDP over the kernel's sockets: one for IPv4, one for IPv6, so that no address is ever mapped.
//!
//! Left out: segmentation offload, path MTU discovery.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::error::classify;
use crate::{Outgoing, ReceiveBatch, ReceiveError, SendError, Sent, Underlay, mmsg};

/// Asked of the kernel, which may grant less: room for bursts while the event loop is busy.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// Tries to find a port that is free in both families when any port will do.
const PORT_ATTEMPTS: usize = 16;

/// Empty wake-ups tolerated in one poll before giving others their turn.
const SPURIOUS_WAKES_MAX: usize = 4;

/// The kernel's UDP sockets. Must be created and used inside a tokio runtime with I/O.
pub struct UdpUnderlay {
    sockets: Vec<UdpSocket>,
    /// The socket to ask first, so that a busy one cannot starve the other.
    turn: usize,
    /// The socket that last took less than it was offered.
    blocked: Option<usize>,
    oversized: u64,
}

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "{protocol} port {port} on {ip} is in use by another process; choose another port or stop that \
         process"
    )]
    InUse {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address asked for.
        ip: IpAddr,
        /// The port asked for.
        port: u16,
    },
    /// The address is not this machine's.
    #[error("{0} is not an address of this machine")]
    NotLocal(IpAddr),
    /// Ports below 1024 take a privilege.
    #[error("{protocol} port {port} needs root or CAP_NET_BIND_SERVICE; choose one from 1024 on")]
    Privileged {
        /// UDP or TCP.
        protocol: &'static str,
        /// The port asked for.
        port: u16,
    },
    /// Anything else.
    #[error("cannot open a {protocol} socket on {address}: {source}")]
    Other {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    /// Why `protocol` could not be opened on `address`.
    pub(crate) fn of(protocol: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let (ip, port) = (address.ip(), address.port());
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { protocol, ip, port },
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal(ip),
            io::ErrorKind::PermissionDenied => BindError::Privileged { protocol, port },
            _ => BindError::Other {
                protocol,
                address,
                source,
            },
        }
    }
}

impl UdpUnderlay {
    /// Opens the sockets for `listen`.
    ///
    /// The unspecified IPv6 address stands for both families on one port (IPv4 alone where the
    /// kernel has no IPv6); any other address opens one socket of its family. Port 0 takes a free
    /// port.
    ///
    /// # Errors
    /// The port is taken, privileged, or the address is not this machine's.
    pub fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        let sockets = if listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            bind_both(listen.port())?
        } else {
            vec![bind_one(listen)?]
        };
        Ok(UdpUnderlay {
            sockets,
            turn: 0,
            blocked: None,
            oversized: 0,
        })
    }

    fn socket_for(&self, to: SocketAddr) -> Option<usize> {
        self.sockets.iter().position(|socket| {
            socket
                .local_addr()
                .is_ok_and(|a| a.is_ipv4() == to.is_ipv4())
        })
    }
}

fn bind_both(port: u16) -> Result<Vec<UdpSocket>, BindError> {
    let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let v4 = bind_one(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let chosen = v4.local_addr().map_or(port, |a| a.port());
        match bind_one(SocketAddr::from((Ipv6Addr::UNSPECIFIED, chosen))) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(BindError::InUse { .. }) if attempts > 0 => {}
            Err(error @ BindError::InUse { .. }) => return Err(error),
            Err(error) => {
                tracing::info!(%error, "going on without IPv6");
                return Ok(vec![v4]);
            }
        }
    }
}

/// A socket of the address's family that does not block; of IPv6 one for IPv6 alone.
pub(crate) fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_one(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = unbound(address)?;
        // Refusals leave the kernel's default, which works.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|source| BindError::of("UDP", address, source))
}

impl Underlay for UdpUnderlay {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>> {
        batch.clear();
        let count = self.sockets.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let socket = &self.sockets[index];
            let mut wakes = 0;
            while let Poll::Ready(ready) = socket.poll_recv_ready(cx) {
                ready?;
                match socket.try_io(Interest::READABLE, || mmsg::receive(socket.as_fd(), batch)) {
                    Ok(oversized) => {
                        self.oversized += oversized;
                        if !batch.is_empty() {
                            self.turn = (index + 1) % count;
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
                wakes += 1;
                if wakes == SPURIOUS_WAKES_MAX {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
        Poll::Pending
    }

    fn send(&mut self, batch: &[Outgoing]) -> Sent {
        let mut sent = Sent::default();
        self.blocked = None;
        while let Some(first) = batch.get(sent.taken) {
            let Some(index) = self.socket_for(first.to) else {
                sent.failures.push((sent.taken, SendError::NoSocket));
                sent.taken += 1;
                continue;
            };
            let rest = &batch[sent.taken..];
            let run = rest
                .iter()
                .position(|d| d.to.is_ipv4() != first.to.is_ipv4())
                .unwrap_or(rest.len());
            let socket = &self.sockets[index];
            // Asking the kernel, not the reactor: a new socket is writable before its first event.
            match mmsg::send(socket.as_fd(), &rest[..run]) {
                Ok(count) => sent.taken += count,
                Err(error) => match classify(error) {
                    None => {
                        // Tells the reactor to forget the readiness it knows of.
                        let _ = socket.try_io(Interest::WRITABLE, || {
                            Err::<(), _>(io::ErrorKind::WouldBlock.into())
                        });
                        self.blocked = Some(index);
                        break;
                    }
                    Some(error) => {
                        sent.failures.push((sent.taken, error));
                        sent.taken += 1;
                    }
                },
            }
        }
        sent
    }

    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(index) = self.blocked {
            // An error here would show up, classified, in the next send.
            let _ = ready!(self.sockets[index].poll_send_ready(cx));
        }
        Poll::Ready(())
    }

    fn bound(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    fn oversized(&self) -> u64 {
        self.oversized
    }
}

#[cfg(test)]
mod tests;
