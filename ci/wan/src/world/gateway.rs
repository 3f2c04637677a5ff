//! One domain: its switch, and the gateway that answers ARP, DHCP and ping, forwards IPv4 between
//! the segment and the line to the core, and translates if there is a NAT. Packets travel as whole
//! frames; between domains the Ethernet header is stale and is written anew at delivery.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::{
    PortId, Routes, SWEEP_INTERVAL, Shared, What,
    dhcp::{self, Server},
    line::Line,
    neighbours::{Lookup, Neighbours, RETRY, Retry},
    switch::Switch,
};
use crate::{
    config::{Config, Mac, Uplink},
    counters::{Counters, DropReason},
    nat::translate::Translator,
    time::Instant,
    wire::{
        BROADCAST, ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, IPV4_HEADER, Ipv4Header,
        PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, be16, checksum, decrement_ttl,
        icmp::{self, Error},
        mac, pseudo_header, write_ethernet_header, write_ipv4_header,
    },
};

/// Bytes of an ARP message for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;
/// Mean time between ICMP errors of one gateway.
const ERROR_INTERVAL: Duration = Duration::from_millis(5);
/// ICMP errors that may come at once.
const ERROR_BURST: u32 = 100;
/// UDP ports of DHCP.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) nat: Option<Translator>,
    pub(super) dhcp: Server,
    pub(super) counters: Counters,
    index: usize,
    mac: Mac,
    ip: Ipv4Addr,
    subnet: Ipv4Net,
    block_udp: bool,
    ports: Vec<PortId>,
    switch: Switch,
    neighbours: Neighbours,
    up: Line,
    down: Line,
    rng: ChaCha12Rng,
    /// Theoretical arrival time of the ICMP errors' rate limit (GCRA).
    next_error: Instant,
    sweeping: bool,
}

/// The receiver's address of the IPv4 packet in a frame.
pub(super) fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = frame
        .get(ETHERNET_HEADER + 16..ETHERNET_HEADER + 20)?
        .try_into()
        .ok()?;
    Some(Ipv4Addr::from(bytes))
}

impl Gateway {
    pub(super) fn new(config: &Config, index: usize) -> Gateway {
        let domain = &config.domains()[index];
        // Two independent streams a domain: a change of loss does not change the NAT's ports.
        let stream = |which: u64| {
            let mut rng = ChaCha12Rng::seed_from_u64(config.seed());
            rng.set_stream(index as u64 * 2 + which);
            rng
        };
        let [high, low] = (index as u16).to_be_bytes();
        let nat = match &domain.uplink {
            Uplink::Public => None,
            Uplink::Nat(nat) => Some(Translator::new(nat, stream(0))),
        };
        let ports = config
            .ports()
            .iter()
            .enumerate()
            .filter(|(_, port)| port.domain == domain.name)
            .map(|(port, _)| PortId(port))
            .collect();
        Gateway {
            name: domain.name.clone(),
            nat,
            dhcp: Server::new(config, domain),
            counters: Counters::default(),
            index,
            mac: Mac([0x02, b'w', b'a', b'n', high, low]),
            ip: domain.gateway(),
            subnet: domain.subnet,
            block_udp: domain.link.block_udp,
            ports,
            switch: Switch::default(),
            neighbours: Neighbours::default(),
            up: Line::new(&domain.link),
            down: Line::new(&domain.link),
            rng: stream(1),
            next_error: Instant::ZERO,
            sweeping: false,
        }
    }

    /// A frame of valid length from one of the segment's ports.
    pub(super) fn handle_frame(
        &mut self,
        now: Instant,
        port: PortId,
        frame: &[u8],
        routes: &Routes,
        shared: &mut Shared,
    ) {
        let (to, from) = (mac(frame, 0), mac(frame, 6));
        if from.0[0] & 1 == 1 || from == self.mac {
            return self.counters.drops.count(DropReason::Spoofed);
        }
        self.switch.learn(now, from, port);
        if to != self.mac {
            self.switch_frame(now, Some(port), to, frame, shared);
        }
        let multicast = to.0[0] & 1 == 1;
        if to != self.mac && !multicast {
            return;
        }
        let outcome = match be16(frame, 12) {
            ETHERTYPE_ARP => self.handle_arp(now, &frame[ETHERNET_HEADER..], shared),
            ETHERTYPE_IPV4 => self.handle_ipv4(now, port, frame, multicast, routes, shared),
            _ => Ok(()),
        };
        self.count(outcome);
    }

    /// A packet arrives by the line from the core.
    pub(super) fn handle_from_core(&mut self, now: Instant, frame: Vec<u8>, shared: &mut Shared) {
        self.counters.from_core.count(frame.len());
        let outcome = self.accept_from_core(now, frame, shared);
        self.count(outcome);
    }

    pub(super) fn handle_arp_retry(&mut self, now: Instant, ip: Ipv4Addr, shared: &mut Shared) {
        match self.neighbours.retry(ip) {
            Retry::Nothing => {}
            Retry::Ask => self.ask(now, ip, shared),
            Retry::Failed(frames) => {
                for frame in frames {
                    self.counters.drops.count(DropReason::NoHost);
                    let outcome = self.report_inside(
                        now,
                        Error::HostUnreachable,
                        &frame[ETHERNET_HEADER..],
                        shared,
                    );
                    self.count(outcome);
                    shared.recycle(frame);
                }
            }
        }
    }

    pub(super) fn sweep(&mut self, now: Instant, shared: &mut Shared) {
        self.sweeping = false;
        if let Some(nat) = &mut self.nat {
            nat.table.sweep(now);
        }
        self.schedule_sweep(now, shared);
    }

    /// When a packet of this size that leaves the core now arrives here.
    pub(super) fn admit_down(&mut self, at: Instant, bytes: usize) -> Result<Instant, DropReason> {
        self.down.admit(at, bytes, &mut self.rng)
    }

    pub(super) fn forget_port(&mut self, port: PortId) {
        self.switch.forget(port);
    }

    pub(super) fn unplug(&mut self, port: PortId) {
        self.switch.forget(port);
        self.ports.retain(|known| *known != port);
    }

    pub(super) fn plug(&mut self, port: PortId) {
        self.ports.push(port);
    }

    fn handle_arp(
        &mut self,
        now: Instant,
        message: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let malformed = |_| DropReason::Malformed;
        let packet = ArpPacket::new_checked(message).map_err(malformed)?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = ArpRepr::parse(&packet).map_err(malformed)?
        else {
            return Ok(());
        };
        let sender_mac = Mac(source_hardware_addr.0);
        if sender == self.ip || sender_mac.0[0] & 1 == 1 {
            return Err(DropReason::Spoofed);
        }
        if self.is_host(sender) {
            for frame in self.neighbours.learn(now, sender, sender_mac) {
                self.send_to(now, sender_mac, frame, shared);
            }
        }
        if operation == ArpOperation::Request && target == self.ip {
            self.counters.arp_replies += 1;
            self.send_arp(now, ArpOperation::Reply, sender_mac, sender, shared);
        }
        Ok(())
    }

    /// IPv4 from the segment: for the gateway itself, or to be forwarded.
    fn handle_ipv4(
        &mut self,
        now: Instant,
        port: PortId,
        frame: &[u8],
        multicast: bool,
        routes: &Routes,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let header = Ipv4Header::parse(&frame[ETHERNET_HEADER..])?;
        // Ethernet pads short frames; the rest works on the packet alone.
        let frame = &frame[..ETHERNET_HEADER + header.total_bytes];
        let ip = &frame[ETHERNET_HEADER..];
        if is_dhcp_request(&header, ip) {
            return self.handle_dhcp(now, port, &header, ip, shared);
        }
        if multicast {
            return Ok(()); // Other hosts' business.
        }
        if !self.is_host(header.source) {
            return Err(DropReason::Spoofed);
        }
        if header.destination == self.ip {
            return self.handle_own(now, &header, frame, shared);
        }
        if !is_forwardable(header.destination) {
            return Err(DropReason::NotForwarded);
        }
        if header.ttl <= 1 {
            self.report_inside(now, Error::TimeExceeded, ip, shared)?;
            return Err(DropReason::TtlExpired);
        }
        let mut copy = shared.copy(frame);
        decrement_ttl(&mut copy[ETHERNET_HEADER..]);
        if self.subnet.contains(&header.destination) {
            return self.deliver(now, header.destination, copy, shared);
        }
        if routes.find(header.destination).is_none() {
            shared.recycle(copy);
            self.report_inside(now, Error::NetUnreachable, ip, shared)?;
            return Err(DropReason::NoRoute);
        }
        self.send_outward(now, copy, shared)
    }

    fn accept_from_core(
        &mut self,
        now: Instant,
        mut frame: Vec<u8>,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let ip = &mut frame[ETHERNET_HEADER..];
        let header = Ipv4Header::parse(ip)?;
        if self.block_udp && header.protocol == PROTOCOL_UDP {
            return Err(DropReason::UdpBlocked);
        }
        if self.nat.is_none() && header.destination == self.ip {
            return self.handle_own(now, &header, &frame, shared);
        }
        if header.ttl <= 1 {
            self.report_outside(now, Error::TimeExceeded, ip, shared)?;
            return Err(DropReason::TtlExpired);
        }
        decrement_ttl(ip);
        if let Some(nat) = &mut self.nat {
            nat.inbound(now, ip)?;
        }
        let to = destination(&frame).ok_or(DropReason::Malformed)?;
        self.deliver(now, to, frame, shared)
    }

    /// A packet to the gateway's own address: ping is answered, services there are none.
    fn handle_own(
        &mut self,
        now: Instant,
        header: &Ipv4Header,
        frame: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let mut copy = shared.copy(frame);
        if icmp::reply_to_echo(&mut copy[ETHERNET_HEADER..], header) {
            return self.send_own(now, header.source, copy, shared);
        }
        shared.recycle(copy);
        match header.protocol {
            PROTOCOL_UDP | PROTOCOL_TCP => {
                let about = &frame[ETHERNET_HEADER..];
                if self.subnet.contains(&header.source) {
                    self.report_inside(now, Error::PortUnreachable, about, shared)
                } else {
                    self.report_outside(now, Error::PortUnreachable, about, shared)
                }
            }
            // Errors about our own packets need no answer.
            PROTOCOL_ICMP => Ok(()),
            _ => Err(DropReason::NotForwarded),
        }
    }

    fn handle_dhcp(
        &mut self,
        now: Instant,
        port: PortId,
        header: &Ipv4Header,
        ip: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if header.destination != self.ip && !self.is_broadcast(header.destination) {
            return Ok(());
        }
        let datagram = &ip[header.header_bytes..header.total_bytes];
        let length = usize::from(be16(datagram, 4));
        let message = datagram.get(8..length).ok_or(DropReason::Malformed)?;
        let neighbours = &self.neighbours;
        let reply = self
            .dhcp
            .handle(now, port, message, |ip| neighbours.mac_of(now, ip));
        if let Some(reply) = reply {
            self.counters.dhcp_replies += 1;
            self.send_dhcp(now, reply, shared);
        }
        Ok(())
    }

    /// From the segment to the core, or back into the segment by hairpin.
    fn send_outward(
        &mut self,
        now: Instant,
        mut frame: Vec<u8>,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if let Some(nat) = &mut self.nat {
            let to_self = destination(&frame) == Some(nat.public_ip());
            if to_self && !nat.hairpin() {
                return Err(DropReason::HairpinOff);
            }
            let ip = &mut frame[ETHERNET_HEADER..];
            // Blocked traffic makes no mapping.
            if self.block_udp && !to_self && ip[9] == PROTOCOL_UDP {
                return Err(DropReason::UdpBlocked);
            }
            nat.outbound(now, ip)?;
            if to_self {
                nat.inbound(now, ip)?;
            }
            self.schedule_sweep(now, shared);
            if to_self {
                let inner = destination(&frame).ok_or(DropReason::Malformed)?;
                return self.deliver(now, inner, frame, shared);
            }
        }
        self.send_to_core(now, frame, shared)
    }

    fn send_to_core(
        &mut self,
        now: Instant,
        frame: Vec<u8>,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if self.block_udp && frame[ETHERNET_HEADER + 9] == PROTOCOL_UDP {
            return Err(DropReason::UdpBlocked);
        }
        let at = self.up.admit(now, frame.len(), &mut self.rng)?;
        self.counters.to_core.count(frame.len());
        shared
            .schedule_packet(
                at,
                What::AtCore {
                    from: self.index,
                    frame,
                },
            )
            .map_err(|_| DropReason::QueueFull)
    }

    /// A packet of our own to anywhere: the segment, or past the NAT.
    fn send_own(
        &mut self,
        now: Instant,
        to: Ipv4Addr,
        frame: Vec<u8>,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if self.subnet.contains(&to) {
            self.deliver(now, to, frame, shared)
        } else {
            self.send_to_core(now, frame, shared)
        }
    }

    /// Reports an error about a packet as hosts inside know it; if it goes outside, the NAT
    /// translates it.
    fn report_inside(
        &mut self,
        now: Instant,
        error: Error,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let Some((to, frame)) = self.error(now, error, self.ip, about, shared)? else {
            return Ok(());
        };
        if self.subnet.contains(&to) {
            self.deliver(now, to, frame, shared)
        } else {
            self.send_outward(now, frame, shared)
        }
    }

    /// Reports an error about a packet as the outside knows it.
    fn report_outside(
        &mut self,
        now: Instant,
        error: Error,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let from = self.nat.as_ref().map_or(self.ip, Translator::public_ip);
        match self.error(now, error, from, about, shared)? {
            Some((_, frame)) => self.send_to_core(now, frame, shared),
            None => Ok(()),
        }
    }

    fn error(
        &mut self,
        now: Instant,
        error: Error,
        from: Ipv4Addr,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<Option<(Ipv4Addr, Vec<u8>)>, DropReason> {
        let header = Ipv4Header::parse(about)?;
        if !icmp::deserves_error(&header, about) {
            return Ok(None);
        }
        let due = self.next_error.max(now);
        if due - now > ERROR_INTERVAL * ERROR_BURST {
            return Err(DropReason::ErrorLimit);
        }
        self.next_error = due + ERROR_INTERVAL;
        self.counters.icmp_errors += 1;
        let mut frame = shared.buffer();
        frame.resize(ETHERNET_HEADER, 0);
        icmp::write_error(&mut frame, error, from, header.source, about);
        Ok(Some((header.source, frame)))
    }

    /// To a host of the segment, asking for its MAC address first if need be.
    fn deliver(
        &mut self,
        now: Instant,
        to: Ipv4Addr,
        frame: Vec<u8>,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if !self.is_host(to) {
            return Err(DropReason::NotForwarded);
        }
        match self.neighbours.lookup(now, to, frame) {
            Lookup::Send(mac, frame) => self.send_to(now, mac, frame, shared),
            Lookup::Ask => self.ask(now, to, shared),
            Lookup::Held(None) => {}
            Lookup::Held(Some(frame)) | Lookup::Full(frame) => {
                shared.recycle(frame);
                return Err(DropReason::HeldFull);
            }
        }
        Ok(())
    }

    fn ask(&mut self, now: Instant, ip: Ipv4Addr, shared: &mut Shared) {
        self.send_arp(now, ArpOperation::Request, BROADCAST, ip, shared);
        shared.schedule(
            now + RETRY,
            What::ArpRetry {
                domain: self.index,
                ip,
            },
        );
    }

    fn send_arp(
        &mut self,
        now: Instant,
        operation: ArpOperation,
        to: Mac,
        target: Ipv4Addr,
        shared: &mut Shared,
    ) {
        let target_hardware = match operation {
            ArpOperation::Request => [0; 6],
            _ => to.0,
        };
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac.0),
            source_protocol_addr: self.ip,
            target_hardware_addr: EthernetAddress(target_hardware),
            target_protocol_addr: target,
        };
        let mut frame = shared.buffer();
        frame.resize(ETHERNET_HEADER + ARP_BYTES, 0);
        repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER..]));
        write_ethernet_header(&mut frame, to, self.mac, ETHERTYPE_ARP);
        self.switch_frame(now, None, to, &frame, shared);
        shared.recycle(frame);
    }

    fn send_dhcp(&mut self, now: Instant, reply: dhcp::Reply, shared: &mut Shared) {
        let length = 8 + reply.message.len();
        let mut frame = shared.buffer();
        frame.resize(ETHERNET_HEADER + IPV4_HEADER + 8, 0);
        frame.extend_from_slice(&reply.message);
        let packet = &mut frame[ETHERNET_HEADER..];
        write_ipv4_header(packet, self.ip, reply.ip, PROTOCOL_UDP, length);
        let datagram = &mut packet[IPV4_HEADER..];
        datagram[..2].copy_from_slice(&DHCP_SERVER.to_be_bytes());
        datagram[2..4].copy_from_slice(&DHCP_CLIENT.to_be_bytes());
        datagram[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        let sum = checksum(
            datagram,
            pseudo_header(self.ip, reply.ip, PROTOCOL_UDP, length),
        );
        datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        self.send_to(now, reply.mac, frame, shared);
    }

    /// Sends an IPv4 frame of ours into the segment.
    fn send_to(&mut self, now: Instant, to: Mac, mut frame: Vec<u8>, shared: &mut Shared) {
        write_ethernet_header(&mut frame, to, self.mac, ETHERTYPE_IPV4);
        match self.switch.port_of(now, to) {
            Some(port) => shared.transmit(port, frame),
            None => {
                self.switch_frame(now, None, to, &frame, shared);
                shared.recycle(frame);
            }
        }
    }

    /// Switches a frame: to the port where its receiver is, else to all but where it came from.
    fn switch_frame(
        &self,
        now: Instant,
        from: Option<PortId>,
        to: Mac,
        frame: &[u8],
        shared: &mut Shared,
    ) {
        let known = if to.0[0] & 1 == 1 {
            None
        } else {
            self.switch.port_of(now, to)
        };
        for port in self.ports.iter().copied() {
            if Some(port) != from && known.is_none_or(|known| known == port) {
                let copy = shared.copy(frame);
                shared.transmit(port, copy);
            }
        }
    }

    fn schedule_sweep(&mut self, now: Instant, shared: &mut Shared) {
        let filled = self
            .nat
            .as_ref()
            .is_some_and(|nat| nat.table.mappings() > 0);
        if filled && !self.sweeping {
            self.sweeping = true;
            shared.schedule(now + SWEEP_INTERVAL, What::Sweep { domain: self.index });
        }
    }

    fn count(&mut self, outcome: Result<(), DropReason>) {
        if let Err(reason) = outcome {
            tracing::trace!(domain = self.name, ?reason, "dropped");
            self.counters.drops.count(reason);
        }
    }

    /// Whether a host of the segment may hold this address.
    fn is_host(&self, ip: Ipv4Addr) -> bool {
        self.subnet.contains(&ip)
            && ip != self.ip
            && ip != self.subnet.network()
            && ip != self.subnet.broadcast()
    }

    fn is_broadcast(&self, ip: Ipv4Addr) -> bool {
        ip.is_broadcast() || ip == self.subnet.broadcast()
    }
}

fn is_dhcp_request(header: &Ipv4Header, ip: &[u8]) -> bool {
    let datagram = &ip[header.header_bytes..header.total_bytes];
    header.protocol == PROTOCOL_UDP
        && !header.fragment
        && datagram.len() >= 8
        && be16(datagram, 2) == DHCP_SERVER
        && (header.source.is_unspecified() || be16(datagram, 0) == DHCP_CLIENT)
}

fn is_forwardable(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !ip.is_link_local()
        && ip.octets()[0] < 240
}
