//! Guest traffic: IP packets between nodes, each different, each compared byte by byte on arrival.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wow_overlay::time::Instant;

use crate::machine::VirtualAddresses;
use crate::network::HostId;

/// Packets in flight that are remembered; the oldest goes first when full, and is then unknown
/// when it arrives, so the limit is far above what a run sends.
pub const OUTSTANDING_MAX: usize = 1 << 20;
/// The UDP port inside, discard, since nobody answers.
const PORT: u16 = 9;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A packet under way, or arrived.
#[derive(Debug)]
struct Sent {
    to: HostId,
    at: Instant,
    /// What arrives must be this.
    packet: Vec<u8>,
    arrivals: u32,
}

/// What a packet from a machine to its guest turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first copy of what was sent, and how long ago.
    Delivered(std::time::Duration),
    /// A further copy.
    Again,
    /// A packet for another node.
    Misdelivered {
        /// The node that should have got it.
        meant_for: HostId,
    },
    /// The right packet with other bytes.
    Altered,
    /// Nothing that was ever sent.
    Unknown,
}

/// Every guest packet sent.
#[derive(Debug, Default)]
pub struct Book {
    sent: BTreeMap<u64, Sent>,
    next: u64,
}

impl Book {
    /// Makes the next packet from `source` to `to`, of `length` bytes payload at least 8, over
    /// IPv4 or IPv6. Returns its number.
    pub fn write(
        &mut self,
        now: Instant,
        source: VirtualAddresses,
        target: (HostId, VirtualAddresses),
        v6: bool,
        length: usize,
    ) -> (u64, Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend((payload.len()..length).map(|n| (n as u64 ^ number).to_le_bytes()[0]));
        let (to, addresses) = target;
        let (from, dest) = match v6 {
            false => (IpAddr::V4(source.v4), IpAddr::V4(addresses.v4)),
            true => (IpAddr::V6(source.v6), IpAddr::V6(addresses.v6)),
        };
        let packet = udp_packet(from, dest, &payload);
        if self.sent.len() >= OUTSTANDING_MAX {
            self.sent.pop_first();
        }
        self.sent.insert(
            number,
            Sent {
                to,
                at: now,
                packet: packet.clone(),
                arrivals: 0,
            },
        );
        (number, packet)
    }

    /// Judges a packet that `host`'s guest got.
    pub fn read(&mut self, now: Instant, host: HostId, packet: &[u8]) -> Arrival {
        let header = match packet.first().map(|byte| byte >> 4) {
            Some(4) => 20,
            Some(6) => 40,
            _ => return Arrival::Unknown,
        };
        let start = header + UDP_HEADER;
        let Some(number) = packet
            .get(start..start + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
        else {
            return Arrival::Unknown;
        };
        let Some(sent) = self.sent.get_mut(&number) else {
            return Arrival::Unknown;
        };
        if sent.to != host {
            return Arrival::Misdelivered { meant_for: sent.to };
        }
        if sent.packet != packet {
            return Arrival::Altered;
        }
        sent.arrivals += 1;
        match sent.arrivals {
            1 => Arrival::Delivered(now - sent.at),
            _ => Arrival::Again,
        }
    }

    /// Whether packet `number` has arrived.
    pub fn has_arrived(&self, number: u64) -> bool {
        self.sent.get(&number).is_some_and(|sent| sent.arrivals > 0)
    }

    /// How many packets were sent.
    pub fn written(&self) -> u64 {
        self.next
    }
}

fn udp_packet(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = UDP_HEADER + payload.len();
    // Every payload here is far shorter than 64 KiB.
    let length_bytes = (length as u16).to_be_bytes();
    let mut udp = Vec::with_capacity(length);
    udp.extend(PORT.to_be_bytes());
    udp.extend(PORT.to_be_bytes());
    udp.extend(length_bytes);
    udp.extend([0, 0]);
    udp.extend(payload);

    let mut packet = Vec::with_capacity(40 + length);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + length as u16).to_be_bytes();
            packet.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum(0, &packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0, length_bytes[0], length_bytes[1], UDP, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => unreachable!("both ends of a packet are of one family"),
    }
    let addresses = match from {
        IpAddr::V4(_) => &packet[12..20],
        IpAddr::V6(_) => &packet[8..40],
    };
    let pseudo = u32::from(UDP) + length as u32 + sum_words(addresses);
    let sum = match checksum(pseudo, &udp) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    packet
}

fn sum_words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum()
}

/// The internet checksum (RFC 1071), starting from `initial`.
fn checksum(initial: u32, bytes: &[u8]) -> u16 {
    let mut sum = initial + sum_words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    fn addresses(n: u8) -> VirtualAddresses {
        VirtualAddresses {
            v4: [10, 128, 0, n].into(),
            v6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into(),
        }
    }

    #[test]
    fn each_arrival_is_judged() {
        for v6 in [false, true] {
            let mut book = Book::default();
            let now = Instant::ZERO;
            let write = |book: &mut Book| book.write(now, addresses(1), (B, addresses(2)), v6, 64);
            let (number, packet) = write(&mut book);
            assert!(!book.has_arrived(number));
            let later = Instant::from_micros(9);
            let delivered = Arrival::Delivered(std::time::Duration::from_micros(9));
            assert_eq!(book.read(later, B, &packet), delivered);
            assert_eq!(book.read(later, B, &packet), Arrival::Again);
            assert!(book.has_arrived(number));

            let (number, mut packet) = write(&mut book);
            let misdelivered = Arrival::Misdelivered { meant_for: B };
            assert_eq!(book.read(now, A, &packet), misdelivered);
            *packet.last_mut().unwrap() ^= 1;
            assert_eq!(book.read(now, B, &packet), Arrival::Altered);
            assert!(!book.has_arrived(number));
            assert_eq!(book.read(now, B, &packet[..30]), Arrival::Unknown);
            assert_eq!(book.read(now, B, &[]), Arrival::Unknown);
        }
    }

    #[test]
    fn headers_carry_valid_checksums() {
        let mut book = Book::default();
        let (_, packet) = book.write(Instant::ZERO, addresses(1), (B, addresses(2)), false, 65);
        assert_eq!(packet.len(), 20 + 8 + 65);
        assert_eq!(checksum(0, &packet[..20]), 0);
        let pseudo = u32::from(UDP) + 73 + sum_words(&packet[12..20]);
        assert_eq!(checksum(pseudo, &packet[20..]), 0);
    }
}
