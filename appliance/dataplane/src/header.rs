//! The headers of a TCP or UDP packet, as far as cutting and joining need them.

use std::net::IpAddr;

use crate::checksum;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Bits of TCP's flags.
pub const FIN: u8 = 0x01;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const CWR: u8 = 0x80;

const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// The IPv4 flag for more fragments, and where a fragment begins.
const FRAGMENT: u16 = 0x3fff;

/// Where things are in a whole TCP or UDP packet: no fragment, no IPv6 extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub is_v4: bool,
    pub protocol: u8,
    /// Where the transport's header begins.
    pub transport: usize,
    /// Where its payload begins.
    pub payload: usize,
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl Layout {
    /// Of `packet`, whose headers lie inside it; the lengths that they state are not looked at.
    pub fn of(packet: &[u8]) -> Option<Layout> {
        let (is_v4, protocol, transport) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; V4_BYTES] = packet.first_chunk()?;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT;
                let length = usize::from(header[0] & 0xf) * 4;
                if fragment != 0 || length < V4_BYTES {
                    return None;
                }
                (true, header[9], length)
            }
            6 => {
                let header: &[u8; V6_BYTES] = packet.first_chunk()?;
                (false, header[6], V6_BYTES)
            }
            _ => return None,
        };
        let payload = match protocol {
            TCP => {
                let header = packet.get(transport..transport + TCP_BYTES)?;
                let length = usize::from(header[12] >> 4) * 4;
                if length < TCP_BYTES {
                    return None;
                }
                transport + length
            }
            UDP => transport + UDP_BYTES,
            _ => return None,
        };
        if payload > packet.len() {
            return None;
        }
        let address = |at: usize| -> IpAddr {
            if is_v4 {
                let octets: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
                octets.into()
            } else {
                let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
                octets.into()
            }
        };
        let (source, destination) = match is_v4 {
            true => (address(12), address(16)),
            false => (address(8), address(24)),
        };
        Some(Layout {
            is_v4,
            protocol,
            transport,
            payload,
            source,
            destination,
        })
    }

    /// Where the transport's checksum stands in its header.
    pub fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// Where it stands in the packet.
    pub fn checksum_at(&self) -> usize {
        self.transport + self.checksum_offset()
    }

    /// Whether the lengths that the headers state are the packet's own.
    pub fn states_length(&self, packet: &[u8]) -> bool {
        let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        let ip = match self.is_v4 {
            true => word(2) == packet.len(),
            false => V6_BYTES + word(4) == packet.len(),
        };
        let transport = packet.len() - self.transport;
        ip && (self.protocol == TCP || word(self.transport + 4) == transport)
    }

    /// The sum of the pseudo-header of a transport of so many bytes.
    pub fn pseudo(&self, transport_bytes: usize) -> u64 {
        checksum::pseudo(
            self.source,
            self.destination,
            self.protocol,
            transport_bytes,
        )
    }

    /// Writes the lengths of a packet of `length` bytes into its headers, and IPv4's checksum.
    pub fn set_lengths(&self, packet: &mut [u8], length: usize) {
        let short = |length: usize| (length as u16).to_be_bytes();
        if self.is_v4 {
            packet[2..4].copy_from_slice(&short(length));
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::add(0, &packet[..self.transport]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&short(length - V6_BYTES));
        }
        if self.protocol == UDP {
            let at = self.transport + 4;
            packet[at..at + 2].copy_from_slice(&short(length - self.transport));
        }
    }

    /// Writes the sum of the pseudo-header where the checksum is to stand, as devices want it.
    pub fn set_partial_checksum(&self, packet: &mut [u8]) {
        let sum = checksum::partial(self.pseudo(packet.len() - self.transport));
        let at = self.checksum_at();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Computes and writes the transport's checksum.
    pub fn set_checksum(&self, packet: &mut [u8]) {
        let at = self.checksum_at();
        packet[at..at + 2].fill(0);
        let sum = checksum::add(
            self.pseudo(packet.len() - self.transport),
            &packet[self.transport..],
        );
        let sum = match checksum::finish(sum) {
            // In UDP zero says that there is none.
            0 if self.protocol == UDP => 0xffff,
            sum => sum,
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether the transport's checksum is there and right.
    pub fn has_checksum(&self, packet: &[u8]) -> bool {
        let at = self.checksum_at();
        if self.protocol == UDP && packet[at..at + 2] == [0, 0] {
            return false;
        }
        let sum = checksum::add(
            self.pseudo(packet.len() - self.transport),
            &packet[self.transport..],
        );
        checksum::finish(sum) == 0
    }
}
