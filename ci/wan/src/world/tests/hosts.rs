//! Simulated hosts: they answer ARP and ping, send what they are told, and keep what they get.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::{
    config::{Config, Domain, Mac, Port},
    time::Instant,
    wire::{
        BROADCAST, ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, IPV4_HEADER, Ipv4Header,
        PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, be16, checksum, icmp, mac, pseudo_header,
        write_ethernet_header, write_ipv4_header,
    },
    world::{PortId, World},
};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: Duration = Duration::from_secs(1);

/// A world, its hosts, and the time.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
}

pub(super) struct Host {
    pub(super) port: PortId,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
    pub(super) gateway: Mac,
    /// A host that is off answers nothing and looks into nothing.
    pub(super) on: bool,
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) packets: Vec<Received>,
}

/// An IPv4 packet that came to a host's own address.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) at: Instant,
    pub(super) header: Ipv4Header,
    pub(super) payload: Vec<u8>,
}

impl Received {
    pub(super) fn source(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.header.source, be16(&self.payload, 0))
    }

    pub(super) fn destination(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.header.destination, be16(&self.payload, 2))
    }

    /// Of an ICMP error: the packet it quotes.
    pub(super) fn quoted(&self) -> (Ipv4Header, &[u8]) {
        let quote = &self.payload[icmp::ICMP_HEADER..];
        let header = Ipv4Header::parse_quoted(quote).unwrap();
        assert_eq!(
            checksum(&quote[..header.header_bytes], 0),
            0,
            "quoted header checksum"
        );
        (header, &quote[header.header_bytes..])
    }
}

impl Net {
    /// One host for each of these (domain, address).
    pub(super) fn new(domains: Vec<Domain>, hosts: &[(&str, [u8; 4])]) -> Net {
        let ports = hosts
            .iter()
            .enumerate()
            .map(|(index, (domain, _))| Port::tap(*domain, format!("t{index}")))
            .collect();
        Net::with_config(&Config::new(1, domains, ports).unwrap(), hosts)
    }

    pub(super) fn with_config(config: &Config, hosts: &[(&str, [u8; 4])]) -> Net {
        let hosts = hosts.iter().enumerate().map(|(index, (domain, ip))| Host {
            port: PortId(index),
            mac: Mac([2, 0, 0, 0, 1, index as u8]),
            ip: Ipv4Addr::from(*ip),
            gateway: gateway_mac(config.domain_index(domain).unwrap()),
            on: true,
            frames: Vec::new(),
            packets: Vec::new(),
        });
        Net {
            world: World::new(config),
            now: Instant::ZERO,
            hosts: hosts.collect(),
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            match self.world.next_deadline() {
                Some((at, _)) if at <= end => {
                    self.now = self.now.max(at);
                    self.world.handle_deadline(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Delivers frames, and the hosts' answers to them, until there are none.
    fn exchange(&mut self) {
        while let Some(transmit) = self.world.poll_transmit() {
            let mut answers = Vec::new();
            for host in self
                .hosts
                .iter_mut()
                .filter(|host| host.port == transmit.port)
            {
                answers.extend(host.receive(self.now, &transmit.frame));
            }
            for frame in answers {
                self.world.handle_frame(self.now, transmit.port, &frame);
            }
            self.world.recycle(transmit.frame);
        }
    }

    pub(super) fn send_frame(&mut self, host: usize, frame: &[u8]) {
        self.world
            .handle_frame(self.now, self.hosts[host].port, frame);
    }

    /// Sends an IPv4 packet by way of the gateway.
    pub(super) fn send(
        &mut self,
        host: usize,
        to: Ipv4Addr,
        protocol: u8,
        ttl: u8,
        payload: &[u8],
    ) {
        let from = &self.hosts[host];
        let frame = ipv4_frame(from.mac, from.gateway, from.ip, to, protocol, ttl, payload);
        self.send_frame(host, &frame);
    }

    pub(super) fn send_udp(&mut self, host: usize, from: u16, to: SocketAddrV4, data: &[u8]) {
        let datagram = udp(self.hosts[host].ip, from, to, data);
        self.send(host, *to.ip(), PROTOCOL_UDP, 64, &datagram);
    }

    pub(super) fn send_tcp(&mut self, host: usize, from: u16, to: SocketAddrV4, flags: u8) {
        let mut segment = vec![0; 20];
        segment[..2].copy_from_slice(&from.to_be_bytes());
        segment[2..4].copy_from_slice(&to.port().to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = flags;
        let sum = checksum(
            &segment,
            pseudo_header(self.hosts[host].ip, *to.ip(), PROTOCOL_TCP, 20),
        );
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.send(host, *to.ip(), PROTOCOL_TCP, 64, &segment);
    }

    pub(super) fn ping(&mut self, host: usize, to: Ipv4Addr, id: u16, ttl: u8) {
        self.send(host, to, PROTOCOL_ICMP, ttl, &echo(icmp::ECHO_REQUEST, id));
    }

    /// Takes what a host has received.
    pub(super) fn take(&mut self, host: usize) -> Vec<Received> {
        std::mem::take(&mut self.hosts[host].packets)
    }

    /// Takes the one packet that a host has received.
    pub(super) fn take_one(&mut self, host: usize) -> Received {
        let mut packets = self.take(host);
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    /// Drops for this reason, over all domains.
    pub(super) fn drops(&self, reason: crate::counters::DropReason) -> u64 {
        self.world
            .domain_reports(self.now)
            .iter()
            .map(|d| d.counters.drops.of(reason))
            .sum()
    }
}

impl Host {
    fn receive(&mut self, now: Instant, frame: &[u8]) -> Option<Vec<u8>> {
        self.frames.push(frame.to_vec());
        if !self.on {
            return None;
        }
        let to = mac(frame, 0);
        if to != self.mac && to != BROADCAST {
            return None;
        }
        match be16(frame, 12) {
            ETHERTYPE_ARP => self.answer_arp(&frame[ETHERNET_HEADER..]),
            ETHERTYPE_IPV4 => self.receive_ipv4(now, frame),
            _ => None,
        }
    }

    fn answer_arp(&self, message: &[u8]) -> Option<Vec<u8>> {
        let asked = message[7] == 1 && message[24..28] == self.ip.octets();
        asked.then(|| arp_frame(2, self.mac, self.ip, mac(message, 8), &message[14..18]))
    }

    fn receive_ipv4(&mut self, now: Instant, frame: &[u8]) -> Option<Vec<u8>> {
        let ip = &frame[ETHERNET_HEADER..];
        let header = Ipv4Header::parse(ip).expect("what arrives is sound");
        if header.destination != self.ip && !header.destination.is_broadcast() {
            return None;
        }
        let payload = &ip[header.header_bytes..header.total_bytes];
        verify_checksum(&header, payload);
        if header.protocol == PROTOCOL_ICMP && payload[0] == icmp::ECHO_REQUEST {
            let reply = echo(icmp::ECHO_REPLY, be16(payload, 4));
            let to = header.source;
            return Some(ipv4_frame(
                self.mac,
                self.gateway,
                self.ip,
                to,
                PROTOCOL_ICMP,
                64,
                &reply,
            ));
        }
        self.packets.push(Received {
            at: now,
            header,
            payload: payload.to_vec(),
        });
        None
    }
}

fn verify_checksum(header: &Ipv4Header, payload: &[u8]) {
    if header.fragment {
        return;
    }
    let pseudo = pseudo_header(
        header.source,
        header.destination,
        header.protocol,
        payload.len(),
    );
    match header.protocol {
        PROTOCOL_UDP if be16(payload, 6) == 0 => {}
        PROTOCOL_UDP | PROTOCOL_TCP => assert_eq!(checksum(payload, pseudo), 0, "{header:?}"),
        PROTOCOL_ICMP => assert_eq!(checksum(payload, 0), 0, "{header:?}"),
        _ => {}
    }
}

pub(super) fn gateway_mac(domain: usize) -> Mac {
    Mac([0x02, b'w', b'a', b'n', 0, domain as u8])
}

pub(super) fn ipv4_frame(
    from_mac: Mac,
    to_mac: Mac,
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_HEADER + IPV4_HEADER];
    frame.extend_from_slice(payload);
    write_ethernet_header(&mut frame, to_mac, from_mac, ETHERTYPE_IPV4);
    let ip = &mut frame[ETHERNET_HEADER..];
    write_ipv4_header(ip, from, to, protocol, payload.len());
    ip[8] = ttl;
    seal_header(ip);
    frame
}

/// Recomputes an IPv4 header's checksum.
pub(super) fn seal_header(ip: &mut [u8]) {
    let bytes = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let sum = checksum(&ip[..bytes], 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn udp(from_ip: Ipv4Addr, from: u16, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let length = 8 + data.len();
    let mut datagram = Vec::with_capacity(length);
    datagram.extend_from_slice(&from.to_be_bytes());
    datagram.extend_from_slice(&to.port().to_be_bytes());
    datagram.extend_from_slice(&(length as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(data);
    let sum = checksum(
        &datagram,
        pseudo_header(from_ip, *to.ip(), PROTOCOL_UDP, length),
    );
    datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    datagram
}

pub(super) fn echo(kind: u8, id: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(b"\0\x01ping data");
    icmp::refresh_checksum(&mut message);
    message
}

pub(super) fn arp_frame(operation: u8, from: Mac, ip: Ipv4Addr, to: Mac, target: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_HEADER];
    let ethernet_to = if operation == 1 { BROADCAST } else { to };
    write_ethernet_header(&mut frame, ethernet_to, from, ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ip.octets());
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(target);
    frame
}
