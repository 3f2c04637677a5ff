//! DHCP messages as the server sees them (RFC 2131, RFC 2132), in whole frames.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

use super::super::{LanConfig, Mac};

/// Options that smoltcp has no names for.
const HOST_NAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const BROADCAST_ADDRESS: u8 = 28;
const TIME_SERVER: u8 = 42;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const RENEWAL: u8 = 58;
const REBINDING: u8 = 59;
const CLIENT: u8 = 61;

/// BOOTP's messages have this size at least, and some clients insist on it.
const DHCP_BYTES_MIN: usize = 300;
/// The longest identifier that is given back.
const CLIENT_BYTES_MAX: usize = 64;
/// The longest name that is listened to: a label's.
const NAME_BYTES_MAX: usize = 63;

/// What a guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// A guest's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub kind: Kind,
    transaction: u32,
    pub mac: Mac,
    /// The address that it says it has; none where it says none.
    pub current: Option<Ipv4Addr>,
    pub requested: Option<Ipv4Addr>,
    /// The server that it speaks with, if it says so.
    pub server: Option<Ipv4Addr>,
    wants_broadcast: bool,
    /// Its own name for itself, given back as it is (RFC 6842).
    client: Vec<u8>,
    pub name: Option<String>,
}

impl Question {
    /// Reads an IPv4 packet. None where it is no DHCP message of a guest on this very LAN.
    pub fn parse(packet: &[u8], lacks_checksum: bool) -> Option<Self> {
        let mut checksums = ChecksumCapabilities::default();
        if lacks_checksum {
            checksums.udp = smoltcp::phy::Checksum::None;
        }
        let packet = Ipv4Packet::new_checked(packet).ok()?;
        let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
        if ip.next_header != IpProtocol::Udp || packet.more_frags() || packet.frag_offset() != 0 {
            return None;
        }
        let udp = UdpPacket::new_checked(packet.payload()).ok()?;
        UdpRepr::parse(&udp, &ip.src_addr.into(), &ip.dst_addr.into(), &checksums).ok()?;
        if (udp.src_port(), udp.dst_port()) != (DHCP_CLIENT_PORT, DHCP_SERVER_PORT) {
            return None;
        }
        Self::parse_message(udp.payload())
    }

    fn parse_message(bytes: &[u8]) -> Option<Self> {
        const ETHERNET: u8 = 1;
        const COOKIE: u32 = 0x6382_5363;
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        let of_ethernet = bytes.get(1..3) == Some(&[ETHERNET, 6]);
        if !of_ethernet
            || packet.magic_number() != COOKIE
            || !packet.relay_agent_ip().is_unspecified()
        {
            return None;
        }
        let mut question = Question {
            kind: Kind::Inform,
            transaction: packet.transaction_id(),
            mac: packet.client_hardware_address().0,
            current: Some(packet.client_ip()).filter(|ip| !ip.is_unspecified()),
            requested: None,
            server: None,
            wants_broadcast: packet.flags().bits() & 0x8000 != 0,
            client: Vec::new(),
            name: None,
        };
        let mut kind = None;
        for DhcpOption { kind: option, data } in packet.options() {
            let address = || <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
            match option {
                MESSAGE_TYPE => kind = data.first().copied(),
                REQUESTED_ADDRESS => question.requested = address(),
                SERVER => question.server = address(),
                CLIENT if data.len() <= CLIENT_BYTES_MAX => question.client = data.to_vec(),
                HOST_NAME => question.name = label(data),
                _ => {}
            }
        }
        question.kind = match DhcpMessageType::from(kind?) {
            DhcpMessageType::Discover => Kind::Discover,
            DhcpMessageType::Request => Kind::Request,
            DhcpMessageType::Decline => Kind::Decline,
            DhcpMessageType::Release => Kind::Release,
            DhcpMessageType::Inform => Kind::Inform,
            _ => return None,
        };
        Some(question)
    }
}

/// A host's name as a label of the pool's: its first part, in small letters.
pub fn label(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    let label = name.split('.').next()?.to_ascii_lowercase();
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !label.is_empty()
        && label.len() <= NAME_BYTES_MAX
        && label.bytes().all(known)
        && !label.starts_with('-')
        && !label.ends_with('-');
    good.then_some(label)
}

/// What a guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It may have this address.
    Offer(Ipv4Addr),
    /// It has this address for a while.
    Acknowledge(Ipv4Addr),
    /// The network's facts alone.
    Facts,
    /// It must begin again.
    Refuse,
}

/// The times of a lease, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub lease: u32,
    pub renewal: u32,
    pub rebinding: u32,
}

/// The frame that answers a message.
pub fn answer(config: &LanConfig, question: &Question, answer: Answer, times: Times) -> Vec<u8> {
    let broadcast = config.broadcast().octets();
    let mtu = config.mtu_bytes.to_be_bytes();
    let (renewal, rebinding) = (times.renewal.to_be_bytes(), times.rebinding.to_be_bytes());
    let gateway = config.gateway.octets();
    let mut options = Vec::new();
    let mut option = |kind, data| options.push(DhcpOption { kind, data });
    if !question.client.is_empty() {
        option(CLIENT, &question.client);
    }
    let is_lease = matches!(answer, Answer::Offer(_) | Answer::Acknowledge(_));
    let has_facts = answer != Answer::Refuse;
    if is_lease {
        option(RENEWAL, &renewal);
        option(REBINDING, &rebinding);
    }
    if has_facts {
        option(BROADCAST_ADDRESS, &broadcast);
        option(MTU, &mtu);
        if let Some(domain) = &config.domain {
            option(DOMAIN, domain.as_bytes());
        }
        if config.gives_time {
            option(TIME_SERVER, &gateway);
        }
    }
    let (message_type, address) = match answer {
        Answer::Offer(address) => (DhcpMessageType::Offer, address),
        Answer::Acknowledge(address) => (DhcpMessageType::Ack, address),
        Answer::Facts => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
        Answer::Refuse => (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED),
    };
    let current = question.current.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let message = DhcpRepr {
        message_type,
        transaction_id: question.transaction,
        secs: 0,
        client_hardware_address: EthernetAddress(question.mac),
        client_ip: match answer {
            Answer::Acknowledge(_) | Answer::Facts => current,
            Answer::Offer(_) | Answer::Refuse => Ipv4Addr::UNSPECIFIED,
        },
        your_ip: address,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: has_facts.then_some(config.gateway),
        subnet_mask: has_facts.then(|| config.netmask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: question.wants_broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(config.gateway),
        parameter_request_list: None,
        dns_servers: has_facts.then(|| [config.gateway].into_iter().collect()),
        max_size: None,
        lease_duration: is_lease.then_some(times.lease),
        // Emitted by hand: smoltcp only reads these two.
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    // Where it goes: RFC 2131, section 4.1. A guest without an address takes what comes to its hardware
    // address, unless it says that it cannot.
    let everybody = (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
    let itself = EthernetAddress(question.mac);
    let (to, destination) = match (answer, question.current) {
        (Answer::Refuse, _) => everybody,
        (_, Some(current)) => (itself, current),
        (_, None) if question.wants_broadcast => everybody,
        (_, None) => (itself, address),
    };
    frame(config, to, destination, &message)
}

fn frame(
    config: &LanConfig,
    to: EthernetAddress,
    destination: Ipv4Addr,
    message: &DhcpRepr<'_>,
) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let payload_bytes = message.buffer_len().max(DHCP_BYTES_MIN);
    let udp = UdpRepr {
        src_port: DHCP_SERVER_PORT,
        dst_port: DHCP_CLIENT_PORT,
    };
    let ip = Ipv4Repr {
        src_addr: config.gateway,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload_bytes,
        hop_limit: 64,
    };
    let header = EthernetRepr {
        src_addr: EthernetAddress(config.mac),
        dst_addr: to,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; header.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut ethernet);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        payload_bytes,
        |payload| {
            let mut packet = DhcpPacket::new_unchecked(payload);
            message
                .emit(&mut packet)
                .expect("the buffer has the length that the message says");
        },
        &checksums,
    );
    bytes
}
