//! What a frame from the LAN is.

use std::net::Ipv4Addr;

use super::Mac;
use crate::Offload;
use crate::batch::ETHERNET_BYTES;

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;

const BROADCAST: Mac = [0xff; 6];
const IP_BYTES: usize = 20;
const UDP: u8 = 17;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// IPv4's flag for more fragments, and where a fragment begins.
const FRAGMENT: u16 = 0x3fff;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 packet that is sent on by way of us.
    Packet {
        sender: Mac,
        source: Ipv4Addr,
        destination: Ipv4Addr,
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
    /// The address that guests know us by.
    pub gateway: Ipv4Addr,
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
        if !to_us && destination != BROADCAST {
            return Kind::Chatter;
        }
        match kind {
            ARP => Kind::Local,
            IPV4 => self.read_ipv4(sender, to_us, payload, offload),
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
        if is_dhcp && (destination == self.gateway || destination == Ipv4Addr::BROADCAST) {
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
            source,
            destination,
            end: ETHERNET_BYTES + length,
        }
    }
}
