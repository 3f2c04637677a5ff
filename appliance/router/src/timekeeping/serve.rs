//! Time for members where this machine itself is the guest: a socket of the kernel's on the pool's device.
//!
//! A host whose own NTP daemon listens there goes on answering by that.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use wow_control::{TIME_PACKET_BYTES, TIME_PORT, TimeServer};

use super::Timekeeping;

/// After an error, in case that it lasts.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers whoever asks by this device, for as long as it is there.
pub async fn run(clock: Timekeeping, device: String) {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, TIME_PORT));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, TIME_PORT));
    let socket = match open(v6, &device).or_else(|_| open(v4, &device)) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::info!(%error, "members do not get this machine's time from here");
            return;
        }
    };
    let mut server = TimeServer::default();
    let begun = Instant::now();
    let mut question = [0; TIME_PACKET_BYTES];
    loop {
        let (length, from) = match socket.recv_from(&mut question).await {
            Ok(received) => received,
            // Of an earlier answer that did not arrive.
            Err(error) => {
                tracing::debug!(%error, "giving time");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let asked = &question[..length];
        let answer = server.answer(begun.elapsed(), from.ip(), asked, || clock.reading());
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%error, "giving time");
        }
    }
}

/// A socket that hears what comes by one device alone; by both families where the address is IPv6's.
pub fn open(address: SocketAddr, device: &str) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
