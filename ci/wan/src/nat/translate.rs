//! A NAT applied to packets: rewrites an IPv4 packet in place as it leaves or enters a domain,
//! ICMP errors and the packets they quote included. Fragments are dropped: a later one carries no
//! ports, and reassembly is more than this emulator needs (WOW's datagrams never need fragments).

use std::net::{Ipv4Addr, SocketAddrV4};

use rand_chacha::ChaCha12Rng;

use super::table::{Refusal, Table};
use crate::{
    config,
    counters::DropReason,
    time::Instant,
    wire::{
        Ipv4Header, PROTOCOL_ICMP, checksum,
        icmp::{self, ICMP_HEADER},
        transport::{Flow, Protocol, Side, rewrite},
    },
};

/// One NAT at work.
pub(crate) struct Translator {
    public_ip: Ipv4Addr,
    hairpin: bool,
    pub(crate) table: Table,
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> DropReason {
        match refusal {
            Refusal::Unmapped => DropReason::NatUnmapped,
            Refusal::Filtered => DropReason::NatFiltered,
            Refusal::Full => DropReason::NatFull,
        }
    }
}

impl Translator {
    pub(crate) fn new(nat: &config::Nat, rng: ChaCha12Rng) -> Translator {
        Translator {
            public_ip: nat.public_ip,
            hairpin: nat.hairpin,
            table: Table::new(nat.behaviour, nat.ports, nat.timeouts, rng),
        }
    }

    pub(crate) fn public_ip(&self) -> Ipv4Addr {
        self.public_ip
    }

    pub(crate) fn hairpin(&self) -> bool {
        self.hairpin
    }

    /// Rewrites a packet on its way out.
    pub(crate) fn outbound(&mut self, now: Instant, ip: &mut [u8]) -> Result<(), DropReason> {
        let header = check(ip)?;
        if is_icmp_error(&header, ip) {
            return self.error_outbound(now, ip, &header);
        }
        let flow = Flow::parse(&header, ip)?.ok_or(DropReason::Protocol)?;
        if flow.protocol == Protocol::Echo && ip[header.header_bytes] != icmp::ECHO_REQUEST {
            return Err(DropReason::Protocol); // A reply to nothing: requests do not come in.
        }
        let external = self.table.outbound(
            now,
            flow.protocol,
            flow.source,
            flow.destination,
            flow.tcp_flags,
        )?;
        let source = SocketAddrV4::new(self.public_ip, external);
        rewrite(ip, header.header_bytes, flow.protocol, Side::Source, source);
        Ok(())
    }

    /// Rewrites a packet on its way in.
    pub(crate) fn inbound(&mut self, now: Instant, ip: &mut [u8]) -> Result<(), DropReason> {
        let header = check(ip)?;
        if is_icmp_error(&header, ip) {
            return self.error_inbound(now, ip, &header);
        }
        let flow = Flow::parse(&header, ip)?.ok_or(DropReason::Protocol)?;
        if flow.protocol == Protocol::Echo && ip[header.header_bytes] != icmp::ECHO_REPLY {
            return Err(DropReason::NatUnmapped);
        }
        let external = flow.destination.port();
        let inner =
            self.table
                .inbound(now, flow.protocol, external, flow.source, flow.tcp_flags)?;
        rewrite(
            ip,
            header.header_bytes,
            flow.protocol,
            Side::Destination,
            inner,
        );
        Ok(())
    }

    /// An error from outside about a packet that left: the quote names the way back.
    fn error_inbound(
        &mut self,
        now: Instant,
        ip: &mut [u8],
        header: &Ipv4Header,
    ) -> Result<(), DropReason> {
        let (quoted, flow) = quoted(ip, header)?;
        let inner = self
            .table
            .quoted_inbound(now, flow.protocol, flow.source.port(), flow.destination)
            .filter(|_| *flow.source.ip() == self.public_ip)
            .ok_or(DropReason::NatUnmapped)?;
        let message = &mut ip[header.header_bytes..header.total_bytes];
        let quote = &mut message[ICMP_HEADER..];
        rewrite(
            quote,
            quoted.header_bytes,
            flow.protocol,
            Side::Source,
            inner,
        );
        icmp::refresh_checksum(message);
        set_address(ip, Side::Destination, *inner.ip());
        Ok(())
    }

    /// An error from inside about a packet that came in.
    fn error_outbound(
        &mut self,
        now: Instant,
        ip: &mut [u8],
        header: &Ipv4Header,
    ) -> Result<(), DropReason> {
        let (quoted, flow) = quoted(ip, header)?;
        let external = self
            .table
            .quoted_outbound(now, flow.protocol, flow.destination, flow.source)
            .ok_or(DropReason::NatUnmapped)?;
        let outer = SocketAddrV4::new(self.public_ip, external);
        let message = &mut ip[header.header_bytes..header.total_bytes];
        let quote = &mut message[ICMP_HEADER..];
        rewrite(
            quote,
            quoted.header_bytes,
            flow.protocol,
            Side::Destination,
            outer,
        );
        icmp::refresh_checksum(message);
        set_address(ip, Side::Source, self.public_ip);
        Ok(())
    }
}

fn check(ip: &[u8]) -> Result<Ipv4Header, DropReason> {
    let header = Ipv4Header::parse(ip)?;
    if header.fragment {
        Err(DropReason::Fragment)
    } else {
        Ok(header)
    }
}

fn is_icmp_error(header: &Ipv4Header, ip: &[u8]) -> bool {
    header.protocol == PROTOCOL_ICMP
        && ip
            .get(header.header_bytes)
            .is_some_and(|kind| icmp::is_error(*kind))
}

/// The packet quoted in a sound ICMP error.
fn quoted(ip: &[u8], header: &Ipv4Header) -> Result<(Ipv4Header, Flow), DropReason> {
    let message = ip
        .get(header.header_bytes..header.total_bytes)
        .ok_or(DropReason::Malformed)?;
    if message.len() < ICMP_HEADER || checksum(message, 0) != 0 {
        return Err(DropReason::Malformed);
    }
    let quote = &message[ICMP_HEADER..];
    let quoted = Ipv4Header::parse_quoted(quote)?;
    if !quoted.first_fragment {
        return Err(DropReason::Fragment);
    }
    let flow = Flow::parse_quoted(&quoted, &quote[quoted.header_bytes..])?;
    Ok((quoted, flow.ok_or(DropReason::Protocol)?))
}

/// Changes an address of a packet whose payload's checksum does not cover it.
fn set_address(ip: &mut [u8], side: Side, address: Ipv4Addr) {
    let at = match side {
        Side::Source => 12,
        Side::Destination => 16,
    };
    let mut old = [0; 4];
    old.copy_from_slice(&ip[at..at + 4]);
    let sum = crate::wire::adjust(crate::wire::be16(ip, 10), &old, &address.octets());
    ip[at..at + 4].copy_from_slice(&address.octets());
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}
