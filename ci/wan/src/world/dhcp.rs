//! A domain's DHCP server (RFC 2131), without sockets: a message in, perhaps a reply out.
//! Reservations come from the configuration, all else is given in the order of the addresses.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};

use super::PortId;
use crate::{
    config::{Config, Domain, Mac},
    time::Instant,
};

/// Most leases and offers at a time.
const MAX_LEASES: usize = 1024;
/// How long an offer is kept for a client that has not asked for it yet.
const OFFER: Duration = Duration::from_secs(30);
/// How long an address is avoided that a client found in use.
const DECLINED: Duration = Duration::from_secs(300);
/// Most declined addresses remembered.
const MAX_DECLINED: usize = 64;
/// Shortest message that every client takes (BOOTP, RFC 1542 §2.1).
const MIN_MESSAGE: usize = 300;

pub(super) struct Server {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    dns: Vec<Ipv4Addr>,
    lease: Duration,
    reservations: Vec<Reservation>,
    by_client: BTreeMap<Mac, Lease>,
    by_ip: BTreeMap<Ipv4Addr, Mac>,
    declined: BTreeMap<Ipv4Addr, Instant>,
}

struct Reservation {
    mac: Option<Mac>,
    port: PortId,
    ip: Ipv4Addr,
}

#[derive(Clone, Copy)]
struct Lease {
    ip: Ipv4Addr,
    expires: Instant,
}

/// A reply, to be sent from port 67 to port 68.
pub(super) struct Reply {
    pub(super) message: Vec<u8>,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

impl Server {
    pub(super) fn new(config: &Config, domain: &Domain) -> Server {
        let reservations = config
            .ports()
            .iter()
            .enumerate()
            .filter(|(_, port)| port.domain == domain.name)
            .filter_map(|(index, port)| {
                Some(Reservation {
                    mac: port.mac,
                    port: PortId(index),
                    ip: port.ip?,
                })
            })
            .collect();
        Server {
            subnet: domain.subnet,
            gateway: domain.gateway(),
            dns: domain.dns.clone(),
            lease: domain.lease,
            reservations,
            by_client: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            declined: BTreeMap::new(),
        }
    }

    /// What is told from now on.
    pub(super) fn change(&mut self, domain: &Domain) {
        self.dns.clone_from(&domain.dns);
        self.lease = domain.lease;
    }

    /// Addresses given out, with their holders.
    pub(super) fn leases(&self, now: Instant) -> impl Iterator<Item = (Mac, Ipv4Addr)> {
        self.by_client
            .iter()
            .filter(move |(_, lease)| lease.expires > now)
            .map(|(mac, lease)| (*mac, lease.ip))
    }

    /// Handles the payload of a UDP datagram to port 67 that came in at `port`. `holder` tells who
    /// is known to use an address without asking for it.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        port: PortId,
        message: &[u8],
        holder: impl Fn(Ipv4Addr) -> Option<Mac>,
    ) -> Option<Reply> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let client = Mac(request.client_hardware_address.0);
        if client.0[0] & 1 == 1 || client.0 == [0; 6] {
            return None;
        }
        let for_us = request
            .server_identifier
            .is_none_or(|server| server == self.gateway);
        let wanted = request
            .requested_ip
            .or_else(|| Some(request.client_ip).filter(|ip| !ip.is_unspecified()));
        match request.message_type {
            DhcpMessageType::Discover => {
                let ip = self.choose(now, client, port, request.requested_ip, &holder)?;
                // A lease that is held keeps its term; an offer only reserves for a moment.
                let held = self.by_client.get(&client).filter(|lease| lease.ip == ip);
                let expires = held.map_or(now, |lease| lease.expires).max(now + OFFER);
                self.record(client, ip, expires);
                Some(self.reply(&request, DhcpMessageType::Offer, ip))
            }
            DhcpMessageType::Request if !for_us => {
                self.release(client);
                None
            }
            DhcpMessageType::Request => {
                let wanted = wanted?;
                if self.choose(now, client, port, Some(wanted), &holder) != Some(wanted) {
                    return Some(self.reply(&request, DhcpMessageType::Nak, wanted));
                }
                self.record(client, wanted, now + self.lease);
                Some(self.reply(&request, DhcpMessageType::Ack, wanted))
            }
            DhcpMessageType::Inform => {
                Some(self.reply(&request, DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED))
            }
            DhcpMessageType::Release if for_us => {
                self.release(client);
                None
            }
            DhcpMessageType::Decline if for_us => {
                let held = self.by_client.get(&client).map(|lease| lease.ip);
                if held.is_some() && held == request.requested_ip {
                    self.release(client);
                    self.declined.retain(|_, until| *until > now);
                    if self.declined.len() < MAX_DECLINED {
                        self.declined.extend(held.map(|ip| (ip, now + DECLINED)));
                    }
                }
                None
            }
            _ => None,
        }
    }

    /// The address for this client: reserved, held, wished for, or the first free one.
    fn choose(
        &mut self,
        now: Instant,
        client: Mac,
        port: PortId,
        wish: Option<Ipv4Addr>,
        holder: &impl Fn(Ipv4Addr) -> Option<Mac>,
    ) -> Option<Ipv4Addr> {
        let by_mac = self.reservations.iter().find(|r| r.mac == Some(client));
        let by_port = self
            .reservations
            .iter()
            .find(|r| r.mac.is_none() && r.port == port);
        if let Some(reservation) = by_mac.or(by_port) {
            // A port's reservation goes to its first machine; a second one gets a common address.
            let ip = reservation.ip;
            let other = self.by_ip.get(&ip).filter(|mac| **mac != client);
            let other_holds = other
                .and_then(|mac| self.by_client.get(mac))
                .is_some_and(|lease| lease.expires > now);
            if reservation.mac.is_some() || !other_holds {
                return Some(ip);
            }
        }
        if self.by_client.len() >= MAX_LEASES && !self.by_client.contains_key(&client) {
            self.purge(now);
            if self.by_client.len() >= MAX_LEASES {
                return None;
            }
        }
        let held = self.by_client.get(&client).map(|lease| lease.ip);
        [held, wish]
            .into_iter()
            .flatten()
            .find(|ip| self.is_free(now, *ip, client, holder))
            .or_else(|| {
                // Bounded: at most so many addresses can be taken.
                let bound = 2 * MAX_LEASES + MAX_DECLINED + self.reservations.len();
                self.subnet
                    .hosts()
                    .take(bound)
                    .find(|ip| self.is_free(now, *ip, client, holder))
            })
    }

    fn is_free(
        &self,
        now: Instant,
        ip: Ipv4Addr,
        client: Mac,
        holder: &impl Fn(Ipv4Addr) -> Option<Mac>,
    ) -> bool {
        let leased_to_other = self.by_ip.get(&ip).is_some_and(|mac| {
            *mac != client
                && self
                    .by_client
                    .get(mac)
                    .is_some_and(|lease| lease.expires > now)
        });
        self.subnet.contains(&ip)
            && ip != self.subnet.network()
            && ip != self.subnet.broadcast()
            && ip != self.gateway
            && !leased_to_other
            && !self
                .reservations
                .iter()
                .any(|reservation| reservation.ip == ip)
            && self.declined.get(&ip).is_none_or(|until| *until <= now)
            && holder(ip).is_none_or(|mac| mac == client)
    }

    fn record(&mut self, client: Mac, ip: Ipv4Addr, expires: Instant) {
        self.release(client);
        if let Some(former) = self.by_ip.insert(ip, client) {
            self.by_client.remove(&former);
        }
        self.by_client.insert(client, Lease { ip, expires });
    }

    fn release(&mut self, client: Mac) {
        if let Some(lease) = self.by_client.remove(&client) {
            self.by_ip.remove(&lease.ip);
        }
    }

    fn purge(&mut self, now: Instant) {
        let by_ip = &mut self.by_ip;
        self.by_client.retain(|_, lease| {
            let keep = lease.expires > now;
            if !keep {
                by_ip.remove(&lease.ip);
            }
            keep
        });
    }

    fn reply(&self, request: &DhcpRepr<'_>, kind: DhcpMessageType, ip: Ipv4Addr) -> Reply {
        let nak = kind == DhcpMessageType::Nak;
        let inform = request.message_type == DhcpMessageType::Inform;
        let seconds = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX);
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: if nak {
                Ipv4Addr::UNSPECIFIED
            } else {
                request.client_ip
            },
            your_ip: if nak { Ipv4Addr::UNSPECIFIED } else { ip },
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: (!nak).then_some(self.gateway),
            subnet_mask: (!nak).then(|| self.subnet.netmask()),
            relay_agent_ip: request.relay_agent_ip,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.gateway),
            parameter_request_list: None,
            dns_servers: (!nak && !self.dns.is_empty()).then(|| self.dns.iter().copied().collect()),
            max_size: None,
            lease_duration: (!nak && !inform).then_some(seconds),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut message = vec![0; repr.buffer_len().max(MIN_MESSAGE)];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut message[..]))
            .expect("the buffer is at least as long as the message asked for");
        // RFC 2131 §4.1: who has an address gets it there, who cannot take unicast yet by
        // broadcast, a refusal always by broadcast.
        let EthernetAddress(mac) = request.client_hardware_address;
        let (mac, ip) = if nak {
            (crate::wire::BROADCAST, Ipv4Addr::BROADCAST)
        } else if !request.client_ip.is_unspecified() {
            (Mac(mac), request.client_ip)
        } else if request.broadcast || ip.is_unspecified() {
            (crate::wire::BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (Mac(mac), ip)
        };
        Reply { message, mac, ip }
    }
}
