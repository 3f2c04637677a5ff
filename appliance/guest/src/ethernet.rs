//! Guests behind an Ethernet port: their IP packets without the Ethernet headers, and nothing else.
//!
//! Who may send from an address is told from outside ([`Lan::set_neighbour`]). Frames that serve the
//! local network itself (ARP, neighbour discovery, DHCP) wait for whoever answers them ([`Lan::poll_local`]); the rest
//! of a LAN's chatter is dropped. Left out: VLANs.

mod classify;
mod neighbours;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::{Context, Poll, ready};

use crate::batch::ETHERNET_BYTES;
use crate::offload::{ChecksumAt, Segments};
use crate::{Guest, GuestGone, Offload, PacketBatch, Port, WriteError};

use classify::{Kind, Reader};
pub use neighbours::{NEIGHBOURS_MAX, Neighbours};

/// A hardware address.
pub type Mac = [u8; 6];

/// Frames for the network's services that wait: more at once is a flood.
const LOCAL_FRAMES_MAX: usize = 64;
/// The longest of them: an untagged frame on a plain network.
const LOCAL_BYTES_MAX: usize = 1514;

/// A frame for the network's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFrame {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// Its transport's checksum was left out on the way here.
    pub lacks_checksum: bool,
}

/// The addresses that guests know us by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6. With an IPv4 address instead of its last 32 bits it is the IPv6 address that goes with that one.
    pub v6: Ipv6Addr,
}

impl Gateway {
    /// The address itself, or the IPv4 address that an IPv6 address goes with.
    fn v4_of(self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => {
                let (bits, own) = (v6.to_bits(), self.v6.to_bits());
                (bits >> 32 == own >> 32).then_some(Ipv4Addr::from_bits(bits as u32))
            }
        }
    }
}

/// A guest that sent from an address that it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoofed {
    /// Its hardware address.
    pub mac: Mac,
    /// What it sent from.
    pub source: IpAddr,
}

/// What became of frames that did not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanCounters {
    /// Headers that lie, or are cut short.
    pub malformed: u64,
    /// Packets from addresses that their senders do not hold.
    pub spoofed: u64,
    /// Broadcasts, multicasts and protocols that do not leave a LAN, and frames for other machines.
    pub chatter: u64,
    /// Frames for the services that found no room.
    pub local_full: u64,
    /// Packets that one guest of this LAN sent to another by way of us.
    pub hairpin: u64,
}

/// The local side of an Ethernet guest, for the network's services.
pub trait Lan {
    /// The port's own hardware address; another one where another card has come in its place.
    fn mac(&self) -> Mac;

    /// The next frame for the services.
    fn poll_local(&mut self) -> Option<LocalFrame>;

    /// Sends a whole frame.
    ///
    /// # Errors
    /// The port does not take it.
    fn send_local(&mut self, frame: &[u8]) -> Result<(), WriteError>;

    /// A guest holds an address from now on, and the IPv6 address that goes with it, or none any more. False where there is no room for another
    /// guest.
    fn set_neighbour(&mut self, mac: Mac, address: Option<Ipv4Addr>) -> bool;

    /// The last packet from a false address since this was last asked.
    fn take_spoofed(&mut self) -> Option<Spoofed>;

    /// What did not pass.
    fn counters(&self) -> LanCounters;

    /// Frames that were taken and could not leave, and those that came faster than they were read.
    fn lost(&self) -> u64;

    /// What keeps frames from passing, in a sentence for the operator.
    fn trouble(&self) -> Option<String>;
}

/// A LAN of guests at an Ethernet port.
pub struct EthernetGuest<P> {
    port: P,
    gateway: Gateway,
    neighbours: Neighbours,
    local: VecDeque<LocalFrame>,
    counters: LanCounters,
    spoofed: Option<Spoofed>,
}

impl<P: Port> EthernetGuest<P> {
    /// Guests behind a port, to whom `gateway` is the way to everybody else.
    pub fn new(port: P, gateway: Gateway) -> Self {
        EthernetGuest {
            port,
            gateway,
            neighbours: Neighbours::default(),
            local: VecDeque::new(),
            counters: LanCounters::default(),
            spoofed: None,
        }
    }

    /// The port, for whoever stands on its other side.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// Leaves the IP packets of a batch of frames, and keeps those for the services.
    fn sort(&mut self, batch: &mut PacketBatch) {
        let Self {
            port,
            gateway,
            neighbours,
            local,
            counters,
            spoofed,
        } = self;
        // Another card may have come in the place of the one before.
        let mac = port.mac();
        let reader = Reader {
            mac,
            gateway: *gateway,
        };
        batch.sift(|offload, frame| {
            let length = frame.len();
            match reader.read(frame, offload) {
                Kind::Packet {
                    sender,
                    source,
                    destination,
                    end,
                } => {
                    let held = gateway.v4_of(source);
                    if !held.is_some_and(|held| neighbours.may_send(sender, held)) {
                        counters.spoofed += 1;
                        *spoofed = Some(Spoofed {
                            mac: sender,
                            source,
                        });
                        return None;
                    }
                    let other = gateway.v4_of(destination);
                    if let Some(other) = other.and_then(|other| neighbours.mac_of(other)) {
                        counters.hairpin += 1;
                        let header = header_to(other, mac, frame[ETHERNET_BYTES]);
                        // What the port does not take is lost, as on a wire.
                        let _ = port.write(offload, &header, &frame[ETHERNET_BYTES..end]);
                        return None;
                    }
                    let inner = match without_header(offload) {
                        Some(inner) => inner,
                        None => {
                            counters.malformed += 1;
                            return None;
                        }
                    };
                    Some((inner, ETHERNET_BYTES..end))
                }
                Kind::Local => {
                    if local.len() < LOCAL_FRAMES_MAX && length <= LOCAL_BYTES_MAX {
                        local.push_back(LocalFrame {
                            bytes: frame.to_vec(),
                            lacks_checksum: offload.checksum.is_some(),
                        });
                    } else {
                        counters.local_full += 1;
                    }
                    None
                }
                Kind::Chatter => {
                    counters.chatter += 1;
                    None
                }
                Kind::Malformed => {
                    counters.malformed += 1;
                    None
                }
            }
        });
        port.flush();
    }
}

impl<P: Port> Guest for EthernetGuest<P> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        loop {
            ready!(self.port.poll_read(cx, batch))?;
            self.sort(batch);
            if !batch.is_empty() || !self.local.is_empty() || self.spoofed.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn write(&mut self, offload: Offload, packet: &[u8]) -> Result<(), WriteError> {
        let destination = destination(packet).and_then(|to| self.gateway.v4_of(to));
        let mac = destination.and_then(|to| self.neighbours.mac_of(to));
        let mac = mac.ok_or(WriteError::NoNeighbour)?;
        let offload = with_header(offload)
            .ok_or_else(|| WriteError::Refused(std::io::ErrorKind::InvalidInput.into()))?;
        self.port
            .write(offload, &header_to(mac, self.port.mac(), packet[0]), packet)
    }

    fn flush(&mut self) {
        self.port.flush();
    }

    fn takes_offloads(&self) -> bool {
        self.port.takes_offloads()
    }

    fn malformed(&self) -> u64 {
        self.port.malformed() + self.counters.malformed
    }

    fn lan(&mut self) -> Option<&mut dyn Lan> {
        Some(self)
    }
}

impl<P: Port> Lan for EthernetGuest<P> {
    fn mac(&self) -> Mac {
        self.port.mac()
    }

    fn poll_local(&mut self) -> Option<LocalFrame> {
        self.local.pop_front()
    }

    fn send_local(&mut self, frame: &[u8]) -> Result<(), WriteError> {
        let Some((header, rest)) = frame.split_at_checked(ETHERNET_BYTES) else {
            return Err(WriteError::Refused(std::io::ErrorKind::InvalidInput.into()));
        };
        self.port.write(Offload::default(), header, rest)
    }

    fn set_neighbour(&mut self, mac: Mac, address: Option<Ipv4Addr>) -> bool {
        self.neighbours.set(mac, address)
    }

    fn take_spoofed(&mut self) -> Option<Spoofed> {
        self.spoofed.take()
    }

    fn counters(&self) -> LanCounters {
        self.counters
    }

    fn lost(&self) -> u64 {
        self.port.lost()
    }

    fn trouble(&self) -> Option<String> {
        self.port.trouble()
    }
}

/// Where an IP packet goes.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(octets.into())
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(octets.into())
        }
        _ => None,
    }
}

/// The header before an IP packet that begins with this byte.
fn header_to(to: Mac, from: Mac, first: u8) -> [u8; ETHERNET_BYTES] {
    let kind = match first >> 4 {
        6 => classify::IPV6,
        _ => classify::IPV4,
    };
    let mut header = [0; ETHERNET_BYTES];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}

/// The description of a packet as part of a frame.
fn with_header(offload: Offload) -> Option<Offload> {
    shifted(offload, |at| at.checked_add(ETHERNET_BYTES as u16))
}

/// The description of a frame's packet.
fn without_header(offload: Offload) -> Option<Offload> {
    shifted(offload, |at| at.checked_sub(ETHERNET_BYTES as u16))
}

fn shifted(offload: Offload, shift: impl Fn(u16) -> Option<u16>) -> Option<Offload> {
    let checksum = match offload.checksum {
        Some(at) => Some(ChecksumAt {
            start: shift(at.start)?,
            ..at
        }),
        None => None,
    };
    let segments = offload.segments.map(|segments| Segments {
        // It may be wrong anyway, and nobody relies on it.
        header_bytes: shift(segments.header_bytes).unwrap_or(0),
        ..segments
    });
    Some(Offload { checksum, segments })
}

#[cfg(test)]
mod tests;
