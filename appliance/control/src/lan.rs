//! The services of a LAN of guests: addresses by DHCP, and ARP and neighbour discovery for everybody who is elsewhere.
//!
//! Sans-IO: frames and the time go in; frames, events and a deadline come out. Addresses are leased by the
//! router, which is asked for them by [`Event::Wanted`]. A guest is known by its hardware address, and with its IPv4
//! address it has the IPv6 address that goes with that one.

mod arp;
mod dhcp;
mod discovery;
mod frame6;
mod table;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv6Packet};

use crate::budget::Budget;
use dhcp::Server;
use discovery::Discovery;
pub use table::{GUESTS_KEPT_MAX, GuestInfo, GuestState, Kept, LeaseKey};

/// A hardware address.
pub type Mac = [u8; 6];

/// Frames that wait to be sent.
const FRAMES_MAX: usize = 128;

/// What guests that are not known may ask together about neighbours: by ARP and by neighbour discovery. A guest that is
/// known has as much for itself, so whoever floods keeps nobody from being answered.
const NEIGHBOUR_BUDGET: Budget = Budget::new(64, Duration::from_millis(10));

/// Where the services stand.
#[derive(Debug, Clone)]
pub struct LanConfig {
    /// The port's own hardware address.
    pub mac: Mac,
    /// The pool's control address: the guests' gateway, name server and DHCP server.
    pub gateway: Ipv4Addr,
    /// The length of the pool's prefix.
    pub prefix_length: u8,
    /// The pool's control address by IPv6. With an IPv4 address instead of its last 32 bits it is the address that
    /// goes with that one.
    pub gateway_v6: Ipv6Addr,
    /// The length of the pool's IPv6 prefix.
    pub prefix_length_v6: u8,
    /// The longest packet that guests may send, in bytes.
    pub mtu_bytes: u16,
    /// The suffix of the pool's names.
    pub domain: Option<String>,
    /// Whether the gateway gives time ([`Control::serve_time`](crate::Control::serve_time)).
    pub gives_time: bool,
}

impl LanConfig {
    fn netmask(&self) -> Ipv4Addr {
        let host_bits = u32::from(32 - self.prefix_length.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) | !u32::from(self.netmask()))
    }

    /// Whether an address is one that members of the pool have.
    fn is_member(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.netmask());
        let (address, gateway) = (u32::from(address), u32::from(self.gateway));
        let inside = address & mask == gateway & mask;
        inside && address & !mask != 0 && address & !mask != !mask && address != gateway
    }

    /// The IPv6 address that goes with an IPv4 address.
    fn twin(&self, v4: Ipv4Addr) -> Ipv6Addr {
        let before = self.gateway_v6.to_bits() >> 32 << 32;
        Ipv6Addr::from_bits(before | u128::from(v4.to_bits()))
    }

    /// Whether an IPv6 address has the form of those that go with IPv4 addresses.
    fn is_twin(&self, v6: Ipv6Addr) -> bool {
        v6.to_bits() >> 32 == self.gateway_v6.to_bits() >> 32
    }

    /// The member's IPv4 address that an IPv6 address goes with.
    fn v4_of(&self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        let v4 = Ipv4Addr::from_bits(v6.to_bits() as u32);
        (self.is_twin(v6) && self.is_member(v4)).then_some(v4)
    }

    /// Whether an address has the pool's prefix.
    fn is_pool_v6(&self, v6: Ipv6Addr) -> bool {
        let host_bits = u32::from(128 - self.prefix_length_v6.min(128));
        let differs = v6.to_bits() ^ self.gateway_v6.to_bits();
        differs.checked_shr(host_bits).unwrap_or(0) == 0
    }

    /// Whether an address is the gateway's.
    fn is_own_v6(&self, v6: Ipv6Addr) -> bool {
        v6 == self.gateway_v6 || v6 == frame6::link_local(self.mac)
    }

    /// A domain as DNS writes it: labels behind their lengths, and an empty one.
    fn domain_labels(&self, domain: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in domain.split('.').filter(|label| !label.is_empty()) {
            let label = &label.as_bytes()[..label.len().min(63)];
            bytes.push(label.len() as u8);
            bytes.extend(label);
        }
        bytes.push(0);
        bytes
    }
}

/// What the router is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Lease an address, this one if it is free; answer with [`LanService::leased`] or
    /// [`LanService::refused`].
    Wanted {
        /// Names the lease.
        key: LeaseKey,
        /// What the guest had before, or asks for.
        preferred: Option<Ipv4Addr>,
    },
    /// Give a lease back.
    Unwanted(LeaseKey),
    /// A guest holds this address from now on, or none.
    Neighbour(Mac, Option<Ipv4Addr>),
    /// What is to be kept over restarts has changed ([`LanService::kept`]).
    Changed,
}

/// What did not go as usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanServiceCounters {
    /// Frames that are not what they say.
    pub malformed: u64,
    /// DHCP messages beyond what their senders may send.
    pub flooded: u64,
    /// Guests that got no address because none is left.
    pub exhausted: u64,
    /// Requests for an address that the guest cannot have.
    pub refused: u64,
    /// Addresses that guests found in use on the LAN.
    pub declined: u64,
    /// ARP and neighbour discovery from machines with addresses that they do not hold.
    pub spoofed: u64,
    /// Questions about neighbours beyond what their senders may ask.
    pub flooded_neighbours: u64,
    /// Answers without room to wait in.
    pub full: u64,
}

/// The services. After every call drain [`Self::poll_event`] and [`Self::poll_frame`], then arm a timer for
/// [`Self::next_deadline`]. All times are since one arbitrary zero.
pub struct LanService {
    config: LanConfig,
    server: Server,
    discovery: Discovery,
    unknown: Budget,
    /// When questions about neighbours were last too many, and whose.
    flooded: Option<(Mac, Duration)>,
    out: Out,
}

/// What comes out.
#[derive(Default)]
struct Out {
    frames: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    counters: LanServiceCounters,
    /// Who last did what only the gateway may: with which address.
    impostor: Option<(Mac, IpAddr, Duration)>,
    /// When the gateway's address was last defended.
    defended: Option<Duration>,
}

impl Out {
    fn frame(&mut self, frame: Vec<u8>) {
        if self.frames.len() < FRAMES_MAX {
            self.frames.push_back(frame);
        } else {
            self.counters.full += 1;
        }
    }

    /// A machine uses an address that is not its own.
    fn spoof(&mut self, now: Duration, mac: Mac, address: IpAddr) {
        self.counters.spoofed += 1;
        self.impostor = Some((mac, address, now));
    }

    fn event(&mut self, event: Event) {
        // Each has a cause that is bounded: guests, and messages within their budgets.
        self.events.push_back(event);
    }
}

impl LanService {
    /// Services for guests of which some are known from before.
    pub fn new(config: LanConfig, kept: Vec<Kept>, now: Duration) -> Self {
        let mut out = Out::default();
        let mut server = Server::new(&config);
        server.restore(kept, now, &mut out);
        let mut service = LanService {
            config,
            server,
            discovery: Discovery::new(now),
            unknown: NEIGHBOUR_BUDGET,
            flooded: None,
            out,
        };
        service.announce();
        service
    }

    /// Tells the LAN which hardware address the gateway has: after the port came up.
    pub fn announce(&mut self) {
        let frame = arp::announcement(&self.config);
        self.out.frame(frame);
        self.discovery.announce(&self.config, &mut self.out);
    }

    /// The port has another hardware address from now on.
    pub fn set_mac(&mut self, mac: Mac) {
        if self.config.mac != mac {
            self.config.mac = mac;
            self.server.set_mac(mac);
            self.announce();
        }
    }

    /// Takes a frame from the LAN. Where its transport's checksum was left out it is not looked at.
    pub fn handle_frame(&mut self, now: Duration, frame: &[u8], lacks_checksum: bool) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            self.out.counters.malformed += 1;
            return;
        };
        let EthernetAddress(sender) = ethernet.src_addr();
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                if !self.may_ask(now, sender) {
                    return;
                }
                let table = self.server.table();
                arp::handle(
                    &self.config,
                    table,
                    now,
                    sender,
                    ethernet.payload(),
                    &mut self.out,
                );
            }
            EthernetProtocol::Ipv4 => {
                let payload = ethernet.payload();
                self.server
                    .handle(now, sender, payload, lacks_checksum, &mut self.out);
            }
            EthernetProtocol::Ipv6 => {
                self.handle_v6(now, sender, ethernet.payload(), lacks_checksum)
            }
            _ => self.out.counters.malformed += 1,
        }
    }

    fn handle_v6(&mut self, now: Duration, sender: Mac, packet: &[u8], lacks_checksum: bool) {
        let next = Ipv6Packet::new_checked(packet).map(|packet| packet.next_header());
        match next {
            Ok(IpProtocol::Icmpv6) => {
                if self.may_ask(now, sender) {
                    let (config, table) = (&self.config, self.server.table());
                    let out = &mut self.out;
                    self.discovery
                        .handle(config, table, now, sender, packet, lacks_checksum, out);
                }
            }
            Ok(IpProtocol::Udp) => {
                self.server
                    .handle_v6(now, sender, packet, lacks_checksum, &mut self.out);
            }
            _ => self.out.counters.malformed += 1,
        }
    }

    /// Whether a machine may ask about a neighbour once more.
    fn may_ask(&mut self, now: Duration, sender: Mac) -> bool {
        let budget = match self.server.guest_mut(sender) {
            Some(guest) => &mut guest.neighbours,
            None => &mut self.unknown,
        };
        let may = budget.take(now);
        if !may {
            self.out.counters.flooded_neighbours += 1;
            self.flooded = Some((sender, now));
        }
        may
    }

    /// The router has leased an address.
    pub fn leased(&mut self, now: Duration, key: LeaseKey, address: Ipv4Addr) {
        self.server.leased(now, key, address, &mut self.out);
    }

    /// The router has no address to lease.
    pub fn refused(&mut self, now: Duration, key: LeaseKey) {
        self.server.refused(now, key, &mut self.out);
    }

    /// An address that was leased is somebody else's now; another one is being leased.
    pub fn lost(&mut self, now: Duration, key: LeaseKey) {
        self.server.lost(now, key, &mut self.out);
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Duration) {
        self.server.handle_deadline(now, &mut self.out);
        self.discovery
            .handle_deadline(&self.config, now, &mut self.out);
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&self) -> Option<(Duration, &'static str)> {
        let lease = self
            .server
            .next_deadline()
            .map(|due| (due, "a guest's lease"));
        let advertisement = (self.discovery.next_deadline(), "a router's advertisement");
        lease.into_iter().chain([advertisement]).min()
    }

    /// The next frame for the LAN.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.out.frames.pop_front()
    }

    /// What the router is to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// The guests that are known.
    pub fn guests(&self, now: Duration) -> Vec<GuestInfo> {
        self.server.table().guests(now)
    }

    /// What is to be kept over restarts.
    pub fn kept(&self) -> Vec<Kept> {
        self.server.table().kept()
    }

    /// What did not go as usual.
    pub fn counters(&self) -> LanServiceCounters {
        self.out.counters
    }

    /// What the operator should know of the LAN, in sentences.
    pub fn trouble(&self, now: Duration) -> Vec<String> {
        let mut all = self.server.trouble(now);
        if let Some((mac, address, at)) = self.out.impostor
            && now.saturating_sub(at) < TOLD
        {
            all.push(format!(
                "the machine {} on the guests' network uses {address}, which {}: give it an address by DHCP",
                show(mac),
                match address {
                    IpAddr::V4(v4) if v4 == self.config.gateway => "is the gateway's",
                    IpAddr::V6(v6) if self.config.is_own_v6(v6) => "is the gateway's",
                    _ => "is not leased to it",
                },
            ));
        }
        if let Some((mac, at)) = self.flooded
            && now.saturating_sub(at) < TOLD
        {
            all.push(format!(
                "too many questions about neighbours (ARP, IPv6) on the guests' network, lately from {}; what is too \
                 much is not answered, and guests that have an address are answered as before",
                show(mac),
            ));
        }
        all
    }
}

/// How long something is told that happened once.
pub(crate) const TOLD: Duration = Duration::from_secs(300);

/// A hardware address as people write it.
pub fn show(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests;
