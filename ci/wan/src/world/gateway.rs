//! One domain: its switch, and the gateway that answers ARP, DHCP and ping, forwards IPv4 between
//! the segment and the line to the core, and translates if there is a NAT. Packets travel as whole
//! frames; between domains the Ethernet header is stale and is written anew at delivery.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::{
    PortId, Routes, SWEEP_INTERVAL, Shared, What,
    dhcp::Server,
    line::Line,
    neighbours::{Neighbours, Retry},
    switch::Switch,
};
use crate::{
    config::{Config, Domain, Mac, Uplink},
    counters::{Counters, DropReason},
    nat::translate::Translator,
    time::Instant,
    wire::{
        ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ipv4Header, PROTOCOL_ICMP, PROTOCOL_TCP,
        PROTOCOL_UDP, be16, decrement_ttl,
        icmp::{self, Error},
        mac,
    },
};

/// UDP ports of DHCP.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

mod errors;
mod send;

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
    /// Times the NAT began anew.
    nat_restarts: u32,
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
        let [high, low] = (index as u16).to_be_bytes();
        let ports = config
            .ports()
            .iter()
            .enumerate()
            .filter(|(_, port)| port.domain == domain.name)
            .map(|(port, _)| PortId(port))
            .collect();
        Gateway {
            name: domain.name.clone(),
            nat: make_nat(config, index, 0),
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
            rng: stream(config, index, 1, 0),
            next_error: Instant::ZERO,
            sweeping: false,
            nat_restarts: 0,
        }
    }

    /// The domain has other settings now.
    pub(super) fn change(&mut self, config: &Config, old: &Domain, new: &Domain) {
        if old.uplink != new.uplink {
            self.restart_nat(config);
        }
        if old.link != new.link {
            self.up = Line::new(&new.link);
            self.down = Line::new(&new.link);
            self.block_udp = new.link.block_udp;
        }
        self.dhcp.change(new);
    }

    /// Begins the NAT anew; false if there is none.
    pub(super) fn restart_nat(&mut self, config: &Config) -> bool {
        self.nat_restarts = self.nat_restarts.wrapping_add(1);
        self.nat = make_nat(config, self.index, self.nat_restarts);
        self.nat.is_some()
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

fn make_nat(config: &Config, index: usize, restarts: u32) -> Option<Translator> {
    match &config.domains()[index].uplink {
        Uplink::Public => None,
        Uplink::Nat(nat) => Some(Translator::new(nat, stream(config, index, 0, restarts))),
    }
}

/// Two independent streams a domain: a change of loss does not change the NAT's ports. A NAT that
/// begins anew has another, so that it does not hand out the same ports again.
fn stream(config: &Config, index: usize, which: u64, restarts: u32) -> ChaCha12Rng {
    let mut rng = ChaCha12Rng::seed_from_u64(config.seed());
    rng.set_stream(u64::from(restarts) << 32 | (index as u64 * 2 + which));
    rng
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
