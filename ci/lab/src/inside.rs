//! Threads of this process that live inside a network namespace, and what they measure there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its namespaces.
const SPACES: &str = "/run/netns";

/// Bytes of an echo message: header and a little data.
const ECHO_BYTES: usize = 16;

/// Runs `work` on a thread inside the namespace of this full name.
pub fn spawn<T: Send + 'static>(
    space: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let path = Path::new(SPACES).join(space);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let thread = thread::Builder::new().name(space.chars().take(15).collect());
    Ok(thread.spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace")?;
        work()
    })?)
}

/// A raw ICMP socket in the namespace where it was made.
#[derive(Debug)]
pub struct Pinger {
    socket: OwnedFd,
    identifier: u16,
}

impl Pinger {
    /// `identifier` tells this one's answers from others'.
    pub fn new(identifier: u16) -> io::Result<Self> {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
        Ok(Self { socket, identifier })
    }

    /// Sends an echo request. Where there is no way (yet), nothing is sent.
    pub fn send(&self, to: Ipv4Addr, sequence: u16) {
        let request = echo_request(self.identifier, sequence);
        let to = SocketAddrV4::new(to, 0);
        // Without a route or a device this fails, which is no answer either.
        let _ = rustix::net::sendto(&self.socket, &request, SendFlags::empty(), &to);
    }

    /// Waits at most `limit` for an answer: from whom, and to which request.
    pub fn receive(&self, limit: Duration) -> io::Result<Option<(Ipv4Addr, u16)>> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        // Zero would mean for ever.
        let limit = limit.max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit))?;
        let mut packet = [0; 2048];
        match rustix::net::recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
            Ok((bytes, _)) => Ok(answer(&packet[..bytes], self.identifier)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            // An earlier request met an unreachable network.
            Err(
                rustix::io::Errno::HOSTUNREACH
                | rustix::io::Errno::NETUNREACH
                | rustix::io::Errno::CONNREFUSED,
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// RFC 792, echo: type 8, code 0, checksum, identifier, sequence number, data.
fn echo_request(identifier: u16, sequence: u16) -> [u8; ECHO_BYTES] {
    let mut request = [0; ECHO_BYTES];
    request[0] = 8;
    request[4..6].copy_from_slice(&identifier.to_be_bytes());
    request[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum: u32 = request
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let folded = (sum & 0xffff) + (sum >> 16);
    request[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    request
}

/// The sender and sequence number of an echo reply with this identifier, in an IPv4 packet.
fn answer(packet: &[u8], identifier: u16) -> Option<(Ipv4Addr, u16)> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header..header + 8)?;
    let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    (message[..2] == [0, 0] && number(4) == identifier).then(|| (source.into(), number(6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_ones_own_requests_count() {
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&[10, 128, 0, 9]);
        packet.extend(echo_request(7, 3));
        assert_eq!(answer(&packet, 7), None, "a request is no answer");
        packet[20] = 0;
        assert_eq!(answer(&packet, 7), Some((Ipv4Addr::new(10, 128, 0, 9), 3)));
        assert_eq!(answer(&packet, 8), None);
        assert_eq!(answer(&packet[..24], 7), None);
        assert_eq!(answer(&[], 7), None);
    }

    #[test]
    fn a_request_has_a_sound_checksum() {
        let request = echo_request(0xffff, 0xfff0);
        let sum: u32 = request
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
