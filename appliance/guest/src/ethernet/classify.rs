//! What a frame from the LAN is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Gateway, Mac};
use crate::Offload;
use crate::batch::ETHERNET_BYTES;

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

const BROADCAST: Mac = [0xff; 6];
const IP_BYTES: usize = 20;
const UDP: u8 = 17;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// An IPv6 group's hardware addresses begin so (RFC 2464).
const GROUP_V6: [u8; 2] = [0x33; 2];
const IPV6_BYTES: usize = 40;
const ICMP_V6: u8 = 58;
/// Of neighbour discovery (RFC 4861) what hosts send: solicitations of routers and of neighbours, and advertisements of
/// neighbours.
const DISCOVERY: [u8; 3] = [133, 135, 136];
const DHCP_V6_CLIENT: u16 = 546;
const DHCP_V6_SERVER: u16 = 547;
/// IPv4's flag for more fragments, and where a fragment begins.
const FRAGMENT: u16 = 0x3fff;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IP packet that is sent on by way of us.
    Packet {
        sender: Mac,
        source: IpAddr,
        destination: IpAddr,
        /// Where it ends in the frame, which may be padded.
        end: usize,
    },
    /// For the network's services.
    Local,
    /// Nothing to us.
    Chatter,
    /// Its headers lie.
    Malformed,
}

/// Reads frames from one side of a port.
pub struct Reader {
    /// The port's own address.
    pub mac: Mac,
    /// The addresses that guests know us by.
    pub gateway: Gateway,
}

impl Reader {
    pub fn read(&self, frame: &[u8], offload: Offload) -> Kind {
        let Some((header, payload)) = frame.split_first_chunk::<ETHERNET_BYTES>() else {
            return Kind::Malformed;
        };
        let destination: Mac = header[..6].try_into().expect("six bytes");
        let sender: Mac = header[6..12].try_into().expect("six bytes");
        let kind = u16::from_be_bytes([header[12], header[13]]);
        if sender[0] & 1 != 0 || sender == self.mac {
            return Kind::Malformed;
        }
        let to_us = destination == self.mac;
        let to_all = destination == BROADCAST;
        match kind {
            ARP if to_us || to_all => Kind::Local,
            IPV4 if to_us || to_all => self.read_ipv4(sender, to_us, payload, offload),
            IPV6 if to_us || destination.starts_with(&GROUP_V6) => {
                read_ipv6(sender, to_us, payload, offload)
            }
            _ => Kind::Chatter,
        }
    }

    fn read_ipv4(&self, sender: Mac, to_us: bool, packet: &[u8], offload: Offload) -> Kind {
        let Some((header, _)) = packet.split_first_chunk::<IP_BYTES>() else {
            return Kind::Malformed;
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let header_bytes = usize::from(header[0] & 0xf) * 4;
        // A superpacket's is filled in when it is cut.
        let length = match offload.segments {
            Some(_) => packet.len(),
            None => usize::from(word(2)),
        };
        if header[0] >> 4 != 4 || header_bytes < IP_BYTES || length < header_bytes {
            return Kind::Malformed;
        }
        if length > packet.len() {
            return Kind::Malformed;
        }
        let (source, destination) = (address(12), address(16));
        let ports = packet.get(header_bytes..header_bytes + 4);
        let is_dhcp = header[9] == UDP
            && word(6) & FRAGMENT == 0
            && ports.is_some_and(|ports| {
                ports[..2] == DHCP_CLIENT.to_be_bytes() && ports[2..] == DHCP_SERVER.to_be_bytes()
            });
        if is_dhcp && (destination == self.gateway.v4 || destination == Ipv4Addr::BROADCAST) {
            return match offload.segments {
                Some(_) => Kind::Malformed,
                None => Kind::Local,
            };
        }
        if !to_us || destination.is_multicast() || destination.is_broadcast() {
            return Kind::Chatter;
        }
        Kind::Packet {
            sender,
            source: source.into(),
            destination: destination.into(),
            end: ETHERNET_BYTES + length,
        }
    }
}

fn read_ipv6(sender: Mac, to_us: bool, packet: &[u8], offload: Offload) -> Kind {
    let Some((header, _)) = packet.split_first_chunk::<IPV6_BYTES>() else {
        return Kind::Malformed;
    };
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
        Ipv6Addr::from(octets)
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // A superpacket's is filled in when it is cut.
    let length = match offload.segments {
        Some(_) => packet.len(),
        None => IPV6_BYTES + usize::from(word(4)),
    };
    if header[0] >> 4 != 6 || length > packet.len() {
        return Kind::Malformed;
    }
    let (source, destination) = (address(8), address(24));
    let inner = &packet[IPV6_BYTES..length];
    let is_local = match header[6] {
        ICMP_V6 => inner.first().is_some_and(|kind| DISCOVERY.contains(kind)),
        UDP => {
            let ports = [DHCP_V6_CLIENT, DHCP_V6_SERVER].map(u16::to_be_bytes);
            destination.is_multicast() && inner.starts_with(ports.as_flattened())
        }
        _ => false,
    };
    if is_local {
        return match offload.segments {
            Some(_) => Kind::Malformed,
            None => Kind::Local,
        };
    }
    let stays = |address: Ipv6Addr| {
        address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified()
    };
    if !to_us || stays(source) || stays(destination) {
        return Kind::Chatter;
    }
    Kind::Packet {
        sender,
        source: source.into(),
        destination: destination.into(),
        end: ETHERNET_BYTES + length,
    }
}
