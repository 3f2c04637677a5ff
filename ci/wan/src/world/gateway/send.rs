//! How a gateway sends: into its segment with ARP and the switch, and to the core through the NAT.

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::{DHCP_CLIENT, DHCP_SERVER, Gateway, destination};
use crate::{
    config::Mac,
    counters::DropReason,
    time::Instant,
    wire::{
        BROADCAST, ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, IPV4_HEADER, PROTOCOL_UDP,
        checksum, pseudo_header, write_ethernet_header, write_ipv4_header,
    },
    world::{
        PortId, Shared, What, dhcp,
        neighbours::{Lookup, RETRY},
    },
};

/// Bytes of an ARP message for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;

impl Gateway {
    /// From the segment to the core, or back into the segment by hairpin.
    pub(super) fn send_outward(
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

    pub(super) fn send_to_core(
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
    pub(super) fn send_own(
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

    /// To a host of the segment, asking for its MAC address first if need be.
    pub(super) fn deliver(
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

    pub(super) fn ask(&mut self, now: Instant, ip: Ipv4Addr, shared: &mut Shared) {
        self.send_arp(now, ArpOperation::Request, BROADCAST, ip, shared);
        shared.schedule(
            now + RETRY,
            What::ArpRetry {
                domain: self.index,
                ip,
            },
        );
    }

    pub(super) fn send_arp(
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

    pub(super) fn send_dhcp(&mut self, now: Instant, reply: dhcp::Reply, shared: &mut Shared) {
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
    pub(super) fn send_to(
        &mut self,
        now: Instant,
        to: Mac,
        mut frame: Vec<u8>,
        shared: &mut Shared,
    ) {
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
    pub(super) fn switch_frame(
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
}
