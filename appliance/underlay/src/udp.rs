//! UDP over the kernel's sockets: one for IPv4, one for IPv6, so that no address is ever mapped.
//!
//! Where the kernel can, batches are cut and joined by it; a destination to which that fails gets its
//! datagrams one by one. None goes in fragments. Left out: what to send where a path carries none so long.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::classify;
use crate::mmsg::Message;
use crate::{Outgoing, ReceiveBatch, ReceiveError, SendError, Sent, Underlay, mmsg};

/// Asked of the kernel, which may grant less, and takes memory for what waits alone: room for the windows of a
/// few streams while the event loop is behind. Of joined datagrams the kernel counts twice what they hold.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// Destinations remembered to which no batches go; past so many, none go anywhere.
const ONE_BY_ONE_MAX: usize = 64;

/// Tries to find a port that is free in both families when any port will do.
const PORT_ATTEMPTS: usize = 16;

/// Empty wake-ups tolerated in one poll before giving others their turn.
const SPURIOUS_WAKES_MAX: usize = 4;

/// The kernel's UDP sockets. Must be created and used inside a tokio runtime with I/O.
pub struct UdpUnderlay {
    sockets: Vec<Bound>,
    /// The socket to ask first, so that a busy one cannot starve the other.
    turn: usize,
    /// The socket that last took less than it was offered: a descriptor of its own, since a kernel that is
    /// asked for room tells of every datagram that has left.
    blocked: Option<AsyncFd<UdpSocket>>,
    oversized: u64,
    /// The kernel cuts what is sent, and joins what is received.
    cuts: bool,
    joins: bool,
    /// Destinations to which it could not.
    one_by_one: BTreeSet<IpAddr>,
    /// Bytes of the first batch to be offered next that have gone already.
    gone: usize,
}

/// A socket and where it is.
struct Bound {
    /// Waits for datagrams alone.
    socket: AsyncFd<UdpSocket>,
    address: SocketAddr,
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
    /// With `offload` the kernel cuts and joins datagrams, if it can. The unspecified IPv6 address stands
    /// for both families on one port (IPv4 alone where the kernel has no IPv6); any other address opens one
    /// socket of its family. Port 0 takes a free port.
    ///
    /// # Errors
    /// The port is taken, privileged, or the address is not this machine's.
    pub fn bind(listen: SocketAddr, offload: bool) -> Result<Self, BindError> {
        let sockets = if listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            bind_both(listen.port())?
        } else {
            vec![bind_one(listen)?]
        };
        let fds = || sockets.iter().map(|bound| bound.socket.as_fd());
        let cuts = offload && fds().all(mmsg::can_cut);
        // Each socket is asked, even when another refuses: what is joined comes apart anyway.
        let joining = fds().filter(|fd| offload && mmsg::join_received(*fd));
        let joins = joining.count() > 0;
        if offload && !(cuts && joins) {
            tracing::info!(
                cuts,
                joins,
                "this kernel does not take UDP's datagrams together"
            );
        }
        Ok(UdpUnderlay {
            sockets,
            turn: 0,
            blocked: None,
            oversized: 0,
            cuts,
            joins,
            one_by_one: BTreeSet::new(),
            gone: 0,
        })
    }

    /// Sends what it can of one batch, one datagram after the other, from where it stopped last.
    fn send_one_by_one(&mut self, index: usize, batch: &Outgoing) -> io::Result<()> {
        while self.gone < batch.payload.len() {
            let rest = batch.payload[self.gone..].chunks(batch.datagram_bytes);
            let messages = rest.clone().map(|payload| Message {
                to: batch.to,
                payload,
                cut_at: None,
            });
            let sent = mmsg::send(self.sockets[index].socket.as_fd(), messages)?;
            self.gone += rest.take(sent).map(<[u8]>::len).sum::<usize>();
        }
        Ok(())
    }

    /// Sends the first datagram of a batch.
    fn send_first(&mut self, index: usize, batch: &Outgoing) -> io::Result<()> {
        let payload = &batch.payload[..batch.datagram_bytes];
        let alone = Message {
            to: batch.to,
            payload,
            cut_at: None,
        };
        mmsg::send(self.sockets[index].socket.as_fd(), std::iter::once(alone))?;
        self.gone = payload.len();
        Ok(())
    }

    /// Remembers that a destination takes no batches.
    fn give_up_batches(&mut self, to: SocketAddr, error: &io::Error) {
        if self.one_by_one.len() < ONE_BY_ONE_MAX {
            tracing::warn!(%to, %error, "datagrams go one by one to this destination: together they fail");
            self.one_by_one.insert(to.ip());
        } else if self.cuts {
            tracing::warn!(%error, "datagrams go one by one: together they fail to many destinations");
            self.cuts = false;
        }
    }

    fn cuts_for(&self, batch: &Outgoing) -> bool {
        !is_batch(batch) || self.cuts && !self.one_by_one.contains(&batch.to.ip())
    }

    /// Has the reactor look for room in a socket's buffer.
    fn wait_for_room(&mut self, index: usize) -> io::Result<()> {
        let socket = self.sockets[index].socket.get_ref().try_clone()?;
        self.blocked = Some(watched(socket, Interest::WRITABLE)?);
        Ok(())
    }

    fn socket_for(&self, to: SocketAddr) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|bound| bound.address.is_ipv4() == to.is_ipv4())
    }
}

fn bind_both(port: u16) -> Result<Vec<Bound>, BindError> {
    let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let v4 = bind_one(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        match bind_one(SocketAddr::from((Ipv6Addr::UNSPECIFIED, v4.address.port()))) {
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

fn bind_one(address: SocketAddr) -> Result<Bound, BindError> {
    let open = || -> io::Result<Bound> {
        let socket = unbound(address)?;
        // Refusals leave the kernel's default, which works.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        mmsg::force_receive_buffer(socket.as_fd(), SOCKET_BUFFER_BYTES);
        if !mmsg::forbid_fragments(socket.as_fd(), address.is_ipv4()) {
            tracing::info!(%address, "this kernel sends what is too long in fragments");
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        Ok(Bound {
            address: socket.local_addr()?,
            socket: watched(socket, Interest::READABLE)?,
        })
    };
    open().map_err(|source| BindError::of("UDP", address, source))
}

/// A socket whose readiness the reactor tells.
fn watched(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket owns its descriptor and keeps it open and unchanged until dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    registered.map_err(Into::into)
}

fn is_batch(batch: &Outgoing) -> bool {
    batch.payload.len() > batch.datagram_bytes
}

fn message(batch: &Outgoing) -> Message<'_> {
    // A length that no datagram has is refused by the kernel, as such a datagram would be.
    let cut_at = u16::try_from(batch.datagram_bytes).unwrap_or(u16::MAX);
    Message {
        to: batch.to,
        payload: &batch.payload,
        cut_at: is_batch(batch).then_some(cut_at),
    }
}

/// Whether a batch may have failed for being one: no checksums by the device. Or its datagrams are too long,
/// each of them.
fn is_about_batches(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(
        errno,
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
    )
}

impl Underlay for UdpUnderlay {
    fn receives_joined(&self) -> bool {
        self.joins
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>> {
        batch.clear();
        let count = self.sockets.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let socket = &self.sockets[index].socket;
            let mut wakes = 0;
            while let Poll::Ready(ready) = socket.poll_read_ready(cx) {
                let mut ready = ready?;
                match mmsg::receive(socket.as_fd(), batch) {
                    Ok(received) => {
                        self.oversized += received.oversized;
                        if received.was_all {
                            ready.clear_ready();
                        }
                        if !batch.is_empty() {
                            self.turn = (index + 1) % count;
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
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
            let outcome = if self.gone > 0 || !self.cuts_for(first) {
                self.send_one_by_one(index, first).map(|()| 1)
            } else {
                let together = |batch: &&Outgoing| {
                    batch.to.is_ipv4() == first.to.is_ipv4() && self.cuts_for(batch)
                };
                let run = rest.iter().take_while(together).map(message);
                mmsg::send(self.sockets[index].socket.as_fd(), run)
            };
            // Asking the kernel, not the reactor: a new socket is writable before its first event.
            match outcome {
                Ok(count) => {
                    self.gone = 0;
                    sent.taken += count;
                }
                Err(error)
                    if is_about_batches(&error)
                        && self.gone == 0
                        && is_batch(first)
                        && self.cuts_for(first) =>
                {
                    // One of its datagrams by itself shows what was wrong.
                    if let Err(alone) = self.send_first(index, first)
                        && alone.raw_os_error() == Some(libc::EMSGSIZE)
                    {
                        sent.failures.push((sent.taken, SendError::TooBig));
                        sent.taken += 1;
                    } else {
                        self.give_up_batches(first.to, &error);
                    }
                }
                Err(error) => match classify(error) {
                    None => match self.wait_for_room(index) {
                        Ok(()) => break,
                        Err(error) => {
                            sent.failures.push((sent.taken, SendError::Other(error)));
                            self.gone = 0;
                            sent.taken += 1;
                        }
                    },
                    Some(error) => {
                        sent.failures.push((sent.taken, error));
                        // Of a batch that goes one by one, this one alone is lost.
                        self.gone += match self.cuts_for(first) && self.gone == 0 {
                            true => first.payload.len(),
                            false => first.datagram_bytes,
                        };
                        if self.gone >= first.payload.len() {
                            self.gone = 0;
                            sent.taken += 1;
                        }
                    }
                },
            }
        }
        sent
    }

    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(socket) = &self.blocked {
            // An error here would show up, classified, in the next send.
            let _ = ready!(socket.poll_write_ready(cx));
            self.blocked = None;
        }
        Poll::Ready(())
    }

    fn bound(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|bound| bound.address).collect()
    }

    fn oversized(&self) -> u64 {
        self.oversized
    }
}

#[cfg(test)]
mod tests;
