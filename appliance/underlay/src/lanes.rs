//! Lanes: extra UDP sockets, each of which a translator gives a port of its own.
//!
//! One is opened by the first datagram sent on it. It is closed when nothing came in for a while,
//! soon if nothing ever did, so that of many that are opened to find a way through a translator
//! only the one that did stays. IPv4 only: there are no such translators elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::error::classify;
use crate::{DATAGRAM_MAX_BYTES, SendError, mmsg};

/// Sockets at once: those of one attempt and some that are in use.
pub const LANES_MAX: usize = 288;
/// How long a lane stays on which nothing has come in: translators keep a mapping about as long.
const UNHEARD_MAX: Duration = Duration::from_secs(20);
/// How long one stays on which something has: a path in use is probed several times in this.
const IDLE_MAX: Duration = Duration::from_secs(60);

struct Lane {
    socket: UdpSocket,
    until: Instant,
}

/// The lanes that are open. Must be used inside a tokio runtime with I/O and time.
pub struct Lanes {
    ip: Ipv4Addr,
    open: BTreeMap<u16, Lane>,
    room: Vec<u8>,
}

impl Lanes {
    /// None yet; they will be bound to `ip`.
    pub fn new(ip: Ipv4Addr) -> Self {
        Lanes {
            ip,
            open: BTreeMap::new(),
            room: Vec::new(),
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Closes those that are of no use any more.
    pub fn expire(&mut self) {
        let now = Instant::now();
        self.open.retain(|_, lane| lane.until > now);
    }

    /// Sends a datagram on a lane, which is opened if need be.
    ///
    /// # Errors
    /// The datagram is lost, and why: there are too many lanes, or what a UDP socket says.
    pub fn send(&mut self, lane: u16, to: SocketAddr, datagram: &[u8]) -> Result<(), SendError> {
        if !to.is_ipv4() {
            return Err(SendError::NoSocket);
        }
        if !self.open.contains_key(&lane) {
            self.expire();
            if self.open.len() >= LANES_MAX {
                return Err(SendError::NoSocket);
            }
            let until = Instant::now() + UNHEARD_MAX;
            let socket = open(self.ip).map_err(SendError::Other)?;
            self.open.insert(lane, Lane { socket, until });
        }
        let socket = &self.open[&lane].socket;
        match rustix::net::sendto(socket, datagram, rustix::net::SendFlags::DONTWAIT, &to) {
            Ok(_) => Ok(()),
            Err(error) => {
                let full = || SendError::Other(io::ErrorKind::WouldBlock.into());
                Err(classify(error.into()).unwrap_or_else(full))
            }
        }
    }

    /// Waits for the next datagram: its lane, its sender, its content.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<(u16, SocketAddr, Vec<u8>)> {
        if self.open.is_empty() {
            return Poll::Pending;
        }
        // One byte more shows what is too long.
        self.room.resize(DATAGRAM_MAX_BYTES + 1, 0);
        for (number, lane) in &mut self.open {
            let mut buffer = ReadBuf::new(&mut self.room);
            // A failed reception is that of an earlier sending, which nothing here waits for.
            while let Poll::Ready(received) = lane.socket.poll_recv_from(cx, &mut buffer) {
                if let Ok(from) = received
                    && buffer.filled().len() <= DATAGRAM_MAX_BYTES
                {
                    lane.until = Instant::now() + IDLE_MAX;
                    return Poll::Ready((*number, from, buffer.filled().to_vec()));
                }
                buffer.clear();
            }
        }
        Poll::Pending
    }
}

fn open(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((ip, 0))?;
    socket.set_nonblocking(true)?;
    mmsg::forbid_fragments(socket.as_fd(), true);
    UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn each_lane_has_a_port_of_its_own_and_hears_on_it() {
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = far.local_addr().unwrap();
        let mut lanes = Lanes::new(Ipv4Addr::UNSPECIFIED);
        let mut ports = Vec::new();
        for lane in [7, 8] {
            lanes.send(lane, to, b"out").unwrap();
            let mut room = [0; 8];
            let received = tokio::time::timeout(PATIENCE, far.recv_from(&mut room)).await;
            let (_, from) = received.expect("in time").unwrap();
            ports.push(from);
        }
        assert_ne!(ports[0], ports[1]);
        far.send_to(b"in", ports[1]).await.unwrap();
        let next = poll_fn(|cx| lanes.poll_receive(cx));
        let received = tokio::time::timeout(PATIENCE, next).await.expect("in time");
        assert_eq!(received, (8, to, b"in".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_are_bounded_and_close_when_nothing_comes_in() {
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = far.local_addr().unwrap();
        let mut lanes = Lanes::new(Ipv4Addr::UNSPECIFIED);
        for lane in 0..LANES_MAX as u16 {
            lanes.send(lane, to, b"x").unwrap();
        }
        assert!(lanes.send(u16::MAX, to, b"x").is_err());
        tokio::time::advance(UNHEARD_MAX).await;
        lanes.send(u16::MAX, to, b"x").unwrap();
        assert_eq!(lanes.len(), 1);
    }
}
