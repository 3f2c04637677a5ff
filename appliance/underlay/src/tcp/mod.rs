//! TCP for those whom UDP does not reach: the same datagrams, each behind its length, in
//! connections that both sides use.
//!
//! A connection is opened by the first datagram to its far end and closed when nothing comes in for
//! a while. Whoever connects and sends nothing that earns an answer is closed soon: the overlay is
//! silent to strangers. What does not fit a connection's queue is lost, as it would be over UDP.

mod connection;
mod outbox;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::udp::BindError;
use table::Shared;

pub use stream::Received;
pub use table::Tallies;

/// Ports listened on, at most.
pub const PORTS_MAX: usize = 4;
/// Bytes of a datagram's length before it.
const LENGTH_BYTES: usize = 2;
/// What was read at once of one connection and waits for the event loop; then connections are not read, and
/// the far ends feel it.
const INBOX_MAX: usize = 32;
/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 64;
/// The pause after a failed `accept`, which mostly means that no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The kernel's TCP sockets. Must be created and used inside a tokio runtime with I/O and time.
pub struct TcpUnderlay {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Received>,
    listening: Vec<SocketAddr>,
    listeners: Vec<AbortHandle>,
}

/// Why a datagram was not queued for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The connection's queue is full: it is slower than its traffic.
    #[error("the connection is too slow for {lost} datagrams")]
    Full {
        /// How many of those that came together found no room.
        lost: usize,
    },
    /// There are too many connections to open another.
    #[error("there are too many connections")]
    TooMany,
    /// The far end did not take a connection lately.
    #[error("the far end took no connection lately")]
    Failed,
    /// The datagram is larger than the far end takes.
    #[error("the datagram is too large")]
    TooBig,
}

impl Refusal {
    /// A short name for counters and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Full { .. } => "full",
            Refusal::TooMany => "too_many",
            Refusal::Failed => "failed",
            Refusal::TooBig => "too_big",
        }
    }
}

impl TcpUnderlay {
    /// Listens on `ports` of `ip`; the unspecified IPv6 address stands for both families (IPv4 alone
    /// where the kernel has no IPv6). Without ports connections are only opened. Of more than
    /// [`PORTS_MAX`] ports the rest is left out.
    ///
    /// # Errors
    /// A port is taken, privileged, or the address is not this machine's.
    pub fn bind(ip: IpAddr, ports: &[u16]) -> Result<Self, BindError> {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let shared = Arc::new(Shared::new(sender));
        let mut underlay = TcpUnderlay {
            shared,
            inbox,
            listening: Vec::new(),
            listeners: Vec::new(),
        };
        for port in ports.iter().take(PORTS_MAX) {
            if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                let v4 = underlay.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)))?;
                match underlay.listen(SocketAddr::from((ip, v4.port()))) {
                    Ok(_) => {}
                    Err(error @ BindError::InUse { .. }) => return Err(error),
                    Err(error) => tracing::info!(%error, "going on without IPv6"),
                }
            } else {
                underlay.listen(SocketAddr::new(ip, *port))?;
            }
        }
        Ok(underlay)
    }

    fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, BindError> {
        let listener = open(address).map_err(|source| BindError::of("TCP", address, source))?;
        let bound = listener
            .local_addr()
            .map_err(|source| BindError::of("TCP", address, source))?;
        let task = tokio::spawn(accept(Arc::clone(&self.shared), listener));
        self.listening.push(bound);
        self.listeners.push(task.abort_handle());
        Ok(bound)
    }

    /// Where it listens; the unspecified address stands for all of the machine's own.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Queues datagrams, of `datagram_bytes` each but the last, which may be shorter, for the connection with
    /// `to`, which is opened if there is none.
    ///
    /// # Errors
    /// All are lost, or as many as are said, and why.
    pub fn send(
        &self,
        to: SocketAddr,
        datagrams: &[u8],
        datagram_bytes: usize,
    ) -> Result<(), Refusal> {
        Shared::send(&self.shared, to, datagrams, datagram_bytes)
    }

    /// Waits for what comes next on some connection.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        match self.inbox.poll_recv(cx) {
            Poll::Ready(Some(received)) => Poll::Ready(received),
            // `shared` holds a sender, so the channel does not end.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// What happened so far.
    pub fn tallies(&self) -> Tallies {
        self.shared.tallies()
    }
}

impl Drop for TcpUnderlay {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
        self.shared.close();
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier process may linger on the port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => Shared::accepted(&shared, stream, from),
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
