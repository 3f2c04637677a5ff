//! ICMP messages a gateway makes and those it must understand to translate (RFC 792, 1812).

use std::net::Ipv4Addr;

use super::{IPV4_HEADER, Ipv4Header, PROTOCOL_ICMP, checksum, write_ipv4_header};

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of "destination unreachable".
pub const UNREACHABLE: u8 = 3;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type of "time exceeded".
pub const TIME_EXCEEDED: u8 = 11;
/// Type of "parameter problem".
const PARAMETER_PROBLEM: u8 = 12;
/// Type of the obsolete "source quench".
const SOURCE_QUENCH: u8 = 4;
/// Type of "redirect".
const REDIRECT: u8 = 5;
/// An ICMP header.
pub const ICMP_HEADER: usize = 8;
/// Longest error we make: RFC 1812 §4.3.2.3 asks for as much as fits 576 bytes.
const MAX_ERROR: usize = 576;

/// Errors a gateway reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// TTL ran out on the way.
    TimeExceeded,
    /// No route to the network.
    NetUnreachable,
    /// The host does not answer ARP.
    HostUnreachable,
    /// The gateway itself offers no such service.
    PortUnreachable,
}

impl Error {
    fn code(self) -> (u8, u8) {
        match self {
            Error::TimeExceeded => (TIME_EXCEEDED, 0),
            Error::NetUnreachable => (UNREACHABLE, 0),
            Error::HostUnreachable => (UNREACHABLE, 1),
            Error::PortUnreachable => (UNREACHABLE, 3),
        }
    }
}

/// Whether a message of this type quotes the packet that caused it and deserves translation.
/// Redirects speak of a local network and mean nothing beyond it.
pub fn is_error(kind: u8) -> bool {
    matches!(
        kind,
        UNREACHABLE | SOURCE_QUENCH | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

/// Whether an error may be sent about this packet (RFC 1812 §4.3.2.7): not about errors, later
/// fragments, broadcasts, or senders that cannot receive.
pub fn deserves_error(header: &Ipv4Header, ip: &[u8]) -> bool {
    let source = header.source;
    if !header.first_fragment
        || source.is_unspecified()
        || source.is_multicast()
        || source.is_loopback()
        || source.octets()[0] >= 240
        || header.destination.is_multicast()
        || header.destination.is_broadcast()
    {
        return false;
    }
    match ip.get(header.header_bytes) {
        Some(kind) if header.protocol == PROTOCOL_ICMP => !is_error(*kind) && *kind != REDIRECT,
        _ => true,
    }
}

/// Appends an error about packet `about` to `out`, as a whole IPv4 packet.
pub fn write_error(out: &mut Vec<u8>, error: Error, from: Ipv4Addr, to: Ipv4Addr, about: &[u8]) {
    let quoted = about.len().min(MAX_ERROR - IPV4_HEADER - ICMP_HEADER);
    let start = out.len();
    out.resize(start + IPV4_HEADER + ICMP_HEADER, 0);
    out.extend_from_slice(&about[..quoted]);
    let packet = &mut out[start..];
    write_ipv4_header(packet, from, to, PROTOCOL_ICMP, ICMP_HEADER + quoted);
    let (kind, code) = error.code();
    packet[IPV4_HEADER] = kind;
    packet[IPV4_HEADER + 1] = code;
    refresh_checksum(&mut packet[IPV4_HEADER..]);
}

/// Turns a whole echo request into its reply in place; false if it is none or is damaged.
pub fn reply_to_echo(ip: &mut [u8], header: &Ipv4Header) -> bool {
    let Some(message) = ip.get_mut(header.header_bytes..header.total_bytes) else {
        return false;
    };
    if header.protocol != PROTOCOL_ICMP
        || header.fragment
        || message.len() < ICMP_HEADER
        || message[0] != ECHO_REQUEST
        || checksum(message, 0) != 0
    {
        return false;
    }
    message[0] = ECHO_REPLY;
    refresh_checksum(message);
    ip[12..16].copy_from_slice(&header.destination.octets());
    ip[16..20].copy_from_slice(&header.source.octets());
    ip[8] = super::TTL;
    ip[10..12].fill(0);
    let sum = checksum(&ip[..header.header_bytes], 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Recomputes the checksum of a whole message.
pub fn refresh_checksum(message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = checksum(message, 0);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
