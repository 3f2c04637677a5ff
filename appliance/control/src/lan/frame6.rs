//! IPv6 frames for the LAN, as far as its services send them.

use std::net::Ipv6Addr;

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv6Packet,
    Ipv6Repr,
};

use super::Mac;

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The hardware address of an IPv6 group (RFC 2464).
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The link-local address that a card has by its hardware address (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// Where a frame goes, by hardware address and by IPv6.
pub type To = (Mac, Ipv6Addr);

/// A frame from a card with this hardware address and an address of its own. `fill` writes the payload of `length`
/// bytes, which are zeros.
pub fn frame(
    (mac, source): To,
    (to, destination): To,
    next_header: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header,
        payload_len: length,
        // What neighbour discovery insists on, as it shows that nobody has passed the packet on.
        hop_limit: 255,
    };
    let header = EthernetRepr {
        src_addr: EthernetAddress(mac),
        dst_addr: EthernetAddress(to),
        ethertype: EthernetProtocol::Ipv6,
    };
    let mut bytes = vec![0; header.buffer_len() + ip.buffer_len() + length];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut ethernet);
    let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet);
    fill(packet.payload_mut());
    bytes
}
