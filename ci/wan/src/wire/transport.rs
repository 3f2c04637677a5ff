//! Endpoints inside packets: where UDP, TCP and ICMP echo keep ports or identifiers, and how to
//! rewrite one end with all checksums kept right. Nothing is allocated or resized.

use std::net::SocketAddrV4;

use super::{
    Ipv4Header, Malformed, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, adjust, be16,
    icmp::{ECHO_REPLY, ECHO_REQUEST},
};

/// Protocols with endpoints that a NAT can map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP, by ports.
    Udp,
    /// TCP, by ports.
    Tcp,
    /// ICMP echo, by identifier.
    Echo,
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// What a NAT needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// Sender; for echo requests the port is the identifier, for replies zero.
    pub source: SocketAddrV4,
    /// Receiver; for echo replies the port is the identifier, for requests zero.
    pub destination: SocketAddrV4,
    /// TCP's flag byte, else zero.
    pub tcp_flags: u8,
}

/// TCP flag: no more data from this side.
pub const TCP_FIN: u8 = 1;
/// TCP flag: open.
pub const TCP_SYN: u8 = 2;
/// TCP flag: abort.
pub const TCP_RST: u8 = 4;

impl Flow {
    /// Reads the endpoints of a whole packet. `Ok(None)`: a protocol without endpoints.
    pub fn parse(header: &Ipv4Header, ip: &[u8]) -> Result<Option<Flow>, Malformed> {
        let payload = ip
            .get(header.header_bytes..header.total_bytes)
            .ok_or(Malformed)?;
        let least = match header.protocol {
            PROTOCOL_UDP | PROTOCOL_ICMP => 8,
            PROTOCOL_TCP => 20,
            _ => return Ok(None),
        };
        if payload.len() < least {
            return Err(Malformed);
        }
        match header.protocol {
            PROTOCOL_UDP => {
                let length = usize::from(be16(payload, 4));
                if length < 8 || length > payload.len() {
                    return Err(Malformed);
                }
            }
            PROTOCOL_TCP => {
                let header_bytes = usize::from(payload[12] >> 4) * 4;
                if header_bytes < 20 || header_bytes > payload.len() {
                    return Err(Malformed);
                }
            }
            _ => {}
        }
        Flow::parse_quoted(header, payload)
    }

    /// Reads the endpoints from the first bytes of a payload, eight of which must be there.
    pub fn parse_quoted(header: &Ipv4Header, payload: &[u8]) -> Result<Option<Flow>, Malformed> {
        if payload.len() < 8 {
            return Err(Malformed);
        }
        let (protocol, source_port, destination_port) = match (header.protocol, payload[0]) {
            (PROTOCOL_UDP, _) => (Protocol::Udp, be16(payload, 0), be16(payload, 2)),
            (PROTOCOL_TCP, _) => (Protocol::Tcp, be16(payload, 0), be16(payload, 2)),
            (PROTOCOL_ICMP, ECHO_REQUEST) => (Protocol::Echo, be16(payload, 4), 0),
            (PROTOCOL_ICMP, ECHO_REPLY) => (Protocol::Echo, 0, be16(payload, 4)),
            _ => return Ok(None),
        };
        let tcp_flags = match protocol {
            Protocol::Tcp => payload.get(13).copied().unwrap_or(0),
            _ => 0,
        };
        Ok(Some(Flow {
            protocol,
            source: SocketAddrV4::new(header.source, source_port),
            destination: SocketAddrV4::new(header.destination, destination_port),
            tcp_flags,
        }))
    }
}

/// Makes `endpoint` the packet's sender or receiver: address, port or identifier, the header's
/// checksum and the transport's, as far as these bytes are present (a quoted packet ends early).
pub fn rewrite(
    ip: &mut [u8],
    header_bytes: usize,
    protocol: Protocol,
    side: Side,
    endpoint: SocketAddrV4,
) {
    let at = match side {
        Side::Source => 12,
        Side::Destination => 16,
    };
    let mut old_address = [0; 4];
    old_address.copy_from_slice(&ip[at..at + 4]);
    let new_address = endpoint.ip().octets();
    ip[at..at + 4].copy_from_slice(&new_address);
    let sum = adjust(be16(ip, 10), &old_address, &new_address);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let payload = &mut ip[header_bytes..];
    let port_at = match (protocol, side) {
        (Protocol::Echo, _) => 4,
        (_, Side::Source) => 0,
        (_, Side::Destination) => 2,
    };
    let Some(port) = payload.get_mut(port_at..port_at + 2) else {
        return;
    };
    let old_port = [port[0], port[1]];
    let new_port = endpoint.port().to_be_bytes();
    port.copy_from_slice(&new_port);

    let sum_at = match protocol {
        Protocol::Udp => 6,
        Protocol::Tcp => 16,
        Protocol::Echo => 2,
    };
    let Some(sum) = payload.get_mut(sum_at..sum_at + 2) else {
        return;
    };
    let old_sum = u16::from_be_bytes([sum[0], sum[1]]);
    if protocol == Protocol::Udp && old_sum == 0 {
        return; // The sender computed none.
    }
    let mut new_sum = adjust(old_sum, &old_port, &new_port);
    if protocol != Protocol::Echo {
        new_sum = adjust(new_sum, &old_address, &new_address);
    }
    if protocol == Protocol::Udp && new_sum == 0 {
        new_sum = 0xffff; // Zero would mean that there is none.
    }
    sum.copy_from_slice(&new_sum.to_be_bytes());
}
