//! Bytes on the wire: Ethernet and IPv4 headers read once into checked form, and checksums. What
//! is not read here (IP options, payloads) passes through untouched.

use std::net::Ipv4Addr;

use crate::config::Mac;

pub mod icmp;
pub mod transport;

/// Destination, source and EtherType.
pub const ETHERNET_HEADER: usize = 14;
/// Largest frame taken from a port: what QEMU's stream back end can send.
pub const MAX_FRAME: usize = 65_536 + ETHERNET_HEADER + 4;
/// Shortest IPv4 header.
pub const IPV4_HEADER: usize = 20;
/// The broadcast MAC address.
pub const BROADCAST: Mac = Mac([0xff; 6]);
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// TTL of packets we make.
pub const TTL: u8 = 64;

/// An IPv4 header, checked against the bytes it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Bytes of the header with its options.
    pub header_bytes: usize,
    /// Bytes of the whole packet, at most those present.
    pub total_bytes: usize,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Whether this is a fragment, first or not.
    pub fragment: bool,
    /// Whether it begins with the payload's first byte.
    pub first_fragment: bool,
}

/// Bytes that are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

impl Ipv4Header {
    /// Reads a whole packet: version, lengths and checksum hold.
    pub fn parse(ip: &[u8]) -> Result<Ipv4Header, Malformed> {
        let header = Ipv4Header::parse_quoted(ip)?;
        if header.total_bytes > ip.len() {
            return Err(Malformed);
        }
        if checksum(&ip[..header.header_bytes], 0) != 0 {
            return Err(Malformed);
        }
        Ok(header)
    }

    /// Reads a packet quoted in an ICMP error: it may be cut short, and its checksum need not
    /// hold, since routers change TTL. `total_bytes` is what the header claims.
    pub fn parse_quoted(ip: &[u8]) -> Result<Ipv4Header, Malformed> {
        if ip.len() < IPV4_HEADER || ip[0] >> 4 != 4 {
            return Err(Malformed);
        }
        let header_bytes = usize::from(ip[0] & 15) * 4;
        let total_bytes = usize::from(be16(ip, 2));
        if header_bytes < IPV4_HEADER || header_bytes > ip.len() || total_bytes < header_bytes {
            return Err(Malformed);
        }
        let fragment = be16(ip, 6);
        Ok(Ipv4Header {
            header_bytes,
            total_bytes,
            protocol: ip[9],
            ttl: ip[8],
            source: address(ip, 12),
            destination: address(ip, 16),
            fragment: fragment & 0x3fff != 0,
            first_fragment: fragment & 0x1fff == 0,
        })
    }
}

/// Takes one hop off a checked packet's TTL, which must not be zero.
pub fn decrement_ttl(ip: &mut [u8]) {
    let old = [ip[8], ip[9]];
    ip[8] -= 1;
    let new = [ip[8], ip[9]];
    let sum = adjust(be16(ip, 10), &old, &new);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes a 20-byte header without options for a payload of `payload_bytes`.
pub fn write_ipv4_header(
    ip: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload_bytes: usize,
) {
    let total = u16::try_from(IPV4_HEADER + payload_bytes)
        .expect("packets we make ourselves are far below 64 KiB");
    ip[..IPV4_HEADER].fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = TTL;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&ip[..IPV4_HEADER], 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes an Ethernet header over the frame's first 14 bytes.
pub fn write_ethernet_header(frame: &mut [u8], destination: Mac, source: Mac, ethertype: u16) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// The MAC address at this offset, which must be in bounds.
pub fn mac(frame: &[u8], offset: usize) -> Mac {
    let mut bytes = [0; 6];
    bytes.copy_from_slice(&frame[offset..offset + 6]);
    Mac(bytes)
}

/// Two bytes, big-endian, at this offset, which must be in bounds.
pub fn be16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

/// The Internet checksum (RFC 1071) of `bytes` on top of a partial `sum`.
pub fn checksum(bytes: &[u8], mut sum: u32) -> u16 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
        // 64 KiB of words stay far below 2^32, so folding can wait for the end.
    }
    if let [last] = words.remainder() {
        sum += u32::from(*last) << 8;
    }
    !fold(sum)
}

/// The sum of the pseudo header over which UDP and TCP checksums also go.
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: usize) -> u32 {
    let half = |ip: Ipv4Addr| {
        let bits = u32::from(ip);
        (bits >> 16) + (bits & 0xffff)
    };
    half(source) + half(destination) + u32::from(protocol) + bytes as u32
}

/// A checksum after `old` bytes became `new` ones of equal, even length (RFC 1624, equation 3). A
/// sum that was wrong stays wrong, so damage remains visible to the receiver.
pub fn adjust(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut total = u32::from(!sum);
    for word in old.chunks_exact(2) {
        total += u32::from(!u16::from_be_bytes([word[0], word[1]]));
    }
    for word in new.chunks_exact(2) {
        total += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    !fold(total)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn address(ip: &[u8], offset: usize) -> Ipv4Addr {
    Ipv4Addr::new(ip[offset], ip[offset + 1], ip[offset + 2], ip[offset + 3])
}
