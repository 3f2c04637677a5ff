//! Messages of DHCP for IPv6, as the server sees them (RFC 8415), in whole frames.

use std::net::Ipv6Addr;

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{IpProtocol, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

use super::super::super::frame6::{frame, link_local};
use super::super::super::{LanConfig, Mac};
use super::super::message::{Times, label};

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;

const OPTION_CLIENT: u16 = 1;
const OPTION_SERVER: u16 = 2;
const OPTION_ASSOCIATION: u16 = 3;
const OPTION_ADDRESS: u16 = 5;
const OPTION_STATUS: u16 = 13;
const OPTION_DNS: u16 = 23;
const OPTION_SUFFIX: u16 = 24;
const OPTION_NAME: u16 = 39;
const OPTION_TIME: u16 = 56;
/// Of that one, a server's address (RFC 5908, section 4.1).
const TIME_ADDRESS: u16 = 1;

/// A DUID is not longer (RFC 8415, section 11.1).
const DUID_BYTES_MAX: usize = 130;
/// Associations of one message that are answered; a host has one for each card.
const ASSOCIATIONS_MAX: usize = 4;
/// An association's own fields: its number and two times.
const ASSOCIATION_BYTES: usize = 12;
/// An address's: itself and two lifetimes.
const ADDRESS_BYTES: usize = 24;

/// What a guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
}

/// A guest's message.
#[derive(Debug, Clone)]
pub struct Query {
    pub kind: Kind,
    transaction: [u8; 3],
    from: (Mac, Ipv6Addr),
    client: Vec<u8>,
    server: Option<Vec<u8>>,
    /// The numbers of its associations.
    associations: Vec<[u8; 4]>,
    /// It asks for an address.
    pub has_association: bool,
    /// The first address that it says it has or would like.
    pub wished: Option<Ipv6Addr>,
    pub name: Option<String>,
}

/// What a guest is told of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Nothing.
    None,
    /// It has this one, or may have it; any other that it names is over.
    Held(Ipv6Addr),
    /// None, for this reason.
    Status(Status),
}

/// How a request ended (RFC 8415, section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Success = 0,
    NoAddresses = 2,
    NoBinding = 3,
    NotOnLink = 4,
}

impl Query {
    /// Reads an IPv6 packet. None where it is no message of a guest on this very LAN.
    pub fn parse(packet: &[u8], sender: Mac, lacks_checksum: bool) -> Option<Self> {
        let mut checksums = ChecksumCapabilities::default();
        if lacks_checksum {
            checksums.udp = Checksum::None;
        }
        let packet = Ipv6Packet::new_checked(packet).ok()?;
        let ip = Ipv6Repr::parse(&packet).ok()?;
        // By a relay nobody asks on a LAN of our own.
        if ip.next_header != IpProtocol::Udp || !ip.src_addr.is_unicast_link_local() {
            return None;
        }
        let udp = UdpPacket::new_checked(packet.payload()).ok()?;
        UdpRepr::parse(&udp, &ip.src_addr.into(), &ip.dst_addr.into(), &checksums).ok()?;
        if (udp.src_port(), udp.dst_port()) != (CLIENT_PORT, SERVER_PORT) {
            return None;
        }
        Self::parse_message(udp.payload(), (sender, ip.src_addr))
    }

    fn parse_message(bytes: &[u8], from: (Mac, Ipv6Addr)) -> Option<Self> {
        let (&[kind, a, b, c], rest) = bytes.split_first_chunk()?;
        let kind = match kind {
            1 => Kind::Solicit,
            3 => Kind::Request,
            4 => Kind::Confirm,
            5 => Kind::Renew,
            6 => Kind::Rebind,
            8 => Kind::Release,
            9 => Kind::Decline,
            11 => Kind::Information,
            _ => return None,
        };
        let mut query = Query {
            kind,
            transaction: [a, b, c],
            from,
            client: Vec::new(),
            server: None,
            associations: Vec::new(),
            has_association: false,
            wished: None,
            name: None,
        };
        for option in Options(rest) {
            let (kind, data) = option?;
            match kind {
                OPTION_CLIENT if data.len() <= DUID_BYTES_MAX => query.client = data.to_vec(),
                OPTION_CLIENT => return None,
                OPTION_SERVER => {
                    query.server = Some(data.get(..DUID_BYTES_MAX).unwrap_or(data).to_vec())
                }
                OPTION_ASSOCIATION => query.read_association(data)?,
                OPTION_NAME => query.name = name(data),
                _ => {}
            }
        }
        // Only whoever asks for facts alone may leave out who it is.
        let is_known = !query.client.is_empty() || kind == Kind::Information;
        is_known.then_some(query)
    }

    fn read_association(&mut self, data: &[u8]) -> Option<()> {
        let (fields, options) = data.split_first_chunk::<ASSOCIATION_BYTES>()?;
        self.has_association = true;
        if self.associations.len() < ASSOCIATIONS_MAX {
            self.associations
                .push(*fields.first_chunk().expect("twelve are more than four"));
        }
        for option in Options(options) {
            let (kind, data) = option?;
            if kind == OPTION_ADDRESS {
                let fields = data.first_chunk::<ADDRESS_BYTES>()?;
                let address: [u8; 16] = *fields.first_chunk().expect("of twenty-four bytes");
                self.wished = self.wished.or(Some(address.into()));
            }
        }
        Some(())
    }

    /// Whether it goes to this server: by its name, or to every server, as each kind of message must.
    pub fn is_for(&self, config: &LanConfig) -> bool {
        match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => self.server.is_none(),
            Kind::Information => self
                .server
                .as_ref()
                .is_none_or(|server| *server == duid(config)),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => {
                self.server.as_deref() == Some(&duid(config))
            }
        }
    }
}

/// Options, each with its kind; `None` for one that is cut short, which ends them.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let Some((&[a, b, c, d], rest)) = rest.split_first_chunk() else {
            return Some(None);
        };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let Some((data, rest)) = rest.split_at_checked(length) else {
            return Some(None);
        };
        self.0 = rest;
        Some(Some((u16::from_be_bytes([a, b]), data)))
    }
}

/// The first label of a host's name (RFC 4704): a byte of flags, then labels behind their lengths.
fn name(data: &[u8]) -> Option<String> {
    let (_, rest) = data.split_first()?;
    let (length, rest) = rest.split_first()?;
    label(rest.get(..usize::from(*length))?)
}

/// The server's own name: by its card.
fn duid(config: &LanConfig) -> [u8; 10] {
    let [a, b, c, d, e, f] = config.mac;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

/// The frame that answers a message.
pub fn answer(config: &LanConfig, query: &Query, address: Address, times: Times) -> Vec<u8> {
    let kind = match query.kind {
        Kind::Solicit => ADVERTISE,
        _ => REPLY,
    };
    let [a, b, c] = query.transaction;
    let mut message = vec![kind, a, b, c];
    if !query.client.is_empty() {
        option(&mut message, OPTION_CLIENT, &[&query.client]);
    }
    option(&mut message, OPTION_SERVER, &[&duid(config)]);
    match address {
        Address::None => {}
        Address::Status(status) => match query.kind {
            Kind::Renew | Kind::Rebind => {
                for number in &query.associations {
                    association(&mut message, number, times, &status_option(status));
                }
            }
            _ => message.extend(status_option(status)),
        },
        Address::Held(held) => {
            let mut numbers = query.associations.iter();
            if let Some(first) = numbers.next() {
                let mut inner = address_option(held, times.lease);
                if let Some(old) = query.wished.filter(|old| *old != held) {
                    inner.extend(address_option(old, 0));
                }
                association(&mut message, first, times, &inner);
            }
            for number in numbers {
                let none = status_option(Status::NoAddresses);
                association(&mut message, number, times, &none);
            }
        }
    }
    option(&mut message, OPTION_DNS, &[&config.gateway_v6.octets()]);
    if config.gives_time {
        let mut server = Vec::new();
        option(&mut server, TIME_ADDRESS, &[&config.gateway_v6.octets()]);
        option(&mut message, OPTION_TIME, &[&server]);
    }
    if let Some(domain) = &config.domain {
        option(
            &mut message,
            OPTION_SUFFIX,
            &[&config.domain_labels(domain)],
        );
    }
    to_guest(config, query.from, &message)
}

fn to_guest(config: &LanConfig, to: (Mac, Ipv6Addr), message: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: SERVER_PORT,
        dst_port: CLIENT_PORT,
    };
    let source = link_local(config.mac);
    let length = udp.header_len() + message.len();
    frame(
        (config.mac, source),
        to,
        IpProtocol::Udp,
        length,
        |payload| {
            udp.emit(
                &mut UdpPacket::new_unchecked(payload),
                &source.into(),
                &to.1.into(),
                message.len(),
                |payload| payload.copy_from_slice(message),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

fn association(message: &mut Vec<u8>, number: &[u8; 4], times: Times, inner: &[u8]) {
    let (renewal, rebinding) = (times.renewal.to_be_bytes(), times.rebinding.to_be_bytes());
    let parts: [&[u8]; 4] = [number, &renewal, &rebinding, inner];
    option(message, OPTION_ASSOCIATION, &parts);
}

fn address_option(address: Ipv6Addr, lifetime_s: u32) -> Vec<u8> {
    let lifetime = lifetime_s.to_be_bytes();
    let mut bytes = Vec::new();
    let parts: [&[u8]; 3] = [&address.octets(), &lifetime, &lifetime];
    option(&mut bytes, OPTION_ADDRESS, &parts);
    bytes
}

fn status_option(status: Status) -> Vec<u8> {
    let mut bytes = Vec::new();
    option(&mut bytes, OPTION_STATUS, &[&(status as u16).to_be_bytes()]);
    bytes
}

fn option(message: &mut Vec<u8>, kind: u16, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(parts.iter().copied().flatten());
}
