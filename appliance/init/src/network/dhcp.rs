//! A DHCP client on one interface: smoltcp's, fed with checked answers, as a state machine without
//! socket or clock.
//!
//! Contract: after [`Client::handle_frame`] and [`Client::handle_deadline`], drain
//! [`Client::poll_transmit`] and [`Client::poll_event`], then call `handle_deadline` at
//! [`Client::next_deadline`]. `now` counts from an arbitrary zero and never goes back.
//!
//! Leaves out what the appliance does not need: option 121, BOOTP, DHCPINFORM, DHCPRELEASE.

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Cidr, Ipv4Packet, UdpPacket,
};

use super::lease::{Lease, Refusal};

/// First pause after an unanswered DISCOVER or REQUEST; servers on a LAN answer within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Longest pause; a server that comes later is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Shortest pause between two renewals that go unanswered.
const RENEW_PAUSE: Duration = Duration::from_secs(5);
/// NAKs in a row that may start the exchange over at once.
const MOST_NAKS: u32 = 2;
/// REQUESTs before starting again with DISCOVER.
const REQUESTS: u16 = 4;
/// Frames and events waiting at most; a full queue drops the newest, as a wire would.
const QUEUE: usize = 32;
/// Ethernet header and 1500 bytes.
const FRAME_BYTES: usize = 1514;

/// What happened to the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A first lease, or one with other terms than before.
    Acquired(Lease),
    /// The same lease, extended.
    Renewed(Lease),
    /// It ran out, or the server took it back.
    Lost,
    /// An answer was refused; said once for each kind in a row.
    Refused(Refusal),
}

/// The client of one interface.
pub(crate) struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    hardware: EthernetAddress,
    /// The last acknowledgement let through; in force once the socket says so.
    acknowledged: Option<Lease>,
    held: Option<Lease>,
    /// Transaction of the last message sent; answers to others are not for us.
    transaction: Option<u32>,
    /// Messages sent since the last answer; lengthens the pauses.
    unanswered: u32,
    /// Refusals by the server (NAK) in a row.
    naks: u32,
    /// The last answer we refused, so that it is said once.
    refused: Option<Refusal>,
    /// A message is under way, so answers are due.
    asking: bool,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that asks at its first deadline, which is `now`. `seed` makes its transaction ids.
    pub(crate) fn new(hardware: [u8; 6], seed: u64, now: Duration) -> Self {
        let hardware = EthernetAddress(hardware);
        let mut config = Config::new(hardware.into());
        config.random_seed = seed;
        let mut wire = Wire::default();
        let interface = Interface::new(config, &mut wire, instant(now));
        let mut dhcp = dhcpv4::Socket::new();
        // With a buffer, though an empty one, the socket reports renewals too.
        dhcp.set_receive_packet_buffer(&mut []);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(dhcp);
        Self {
            interface,
            sockets,
            socket,
            wire,
            hardware,
            acknowledged: None,
            held: None,
            transaction: None,
            unanswered: 0,
            naks: 0,
            refused: None,
            asking: true,
            events: VecDeque::new(),
        }
    }

    /// Takes one Ethernet frame, whatever it holds.
    pub(crate) fn handle_frame(&mut self, now: Duration, frame: &[u8]) {
        if self.admit(frame) {
            self.wire.push_received(frame);
            self.run(now);
        }
    }

    /// Sends what is due.
    pub(crate) fn handle_deadline(&mut self, now: Duration) {
        self.run(now);
    }

    /// The next frame to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let frame = self.wire.sent.pop_front()?;
        self.wire.noted = self.wire.noted.saturating_sub(1);
        Some(frame)
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Client::handle_deadline`] next.
    pub(crate) fn next_deadline(&mut self, now: Duration) -> Duration {
        let at = self.interface.poll_at(instant(now), &self.sockets);
        let micros = at.map_or(0, |at| u64::try_from(at.total_micros()).unwrap_or(0));
        // The socket always has a timer; LONGEST_PAUSE only guards against waiting for ever.
        if at.is_none() {
            now + LONGEST_PAUSE
        } else {
            Duration::from_micros(micros).max(now)
        }
    }

    /// Whether a lease is held and nothing is under way: no frame is awaited before the next deadline.
    pub(crate) fn is_settled(&self) -> bool {
        self.held.is_some() && !self.asking
    }

    fn run(&mut self, now: Duration) {
        loop {
            self.set_pauses();
            self.interface
                .poll(instant(now), &mut self.wire, &mut self.sockets);
            self.note_sent();
            self.collect_event();
            if self.wire.received.is_empty() {
                return;
            }
        }
    }

    fn set_pauses(&mut self) {
        let doublings = self.unanswered.min(8);
        let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
        let mut config = socket.get_retry_config();
        config.discover_timeout = pause.into();
        config.initial_request_timeout = FIRST_PAUSE.into();
        config.request_retries = REQUESTS;
        config.min_renew_timeout = RENEW_PAUSE.into();
        socket.set_retry_config(config);
    }

    /// Looks at the frames just produced, for their transaction and to know that answers are due.
    fn note_sent(&mut self) {
        for frame in self.wire.sent.iter().skip(self.wire.noted) {
            self.asking = true;
            if let Some(transaction) = message_of(frame, DHCP_CLIENT_PORT, DHCP_SERVER_PORT)
                .and_then(|bytes| Some(DhcpPacket::new_checked(bytes).ok()?.transaction_id()))
            {
                self.transaction = Some(transaction);
                self.unanswered = self.unanswered.saturating_add(1);
            }
        }
        self.wire.noted = self.wire.sent.len();
    }

    fn collect_event(&mut self) {
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
        let lease = match socket.poll() {
            None => return,
            Some(dhcpv4::Event::Deconfigured) => {
                self.acknowledged = None;
                None
            }
            Some(dhcpv4::Event::Configured(_)) => {
                self.asking = false;
                self.unanswered = 0;
                self.naks = 0;
                self.refused = None;
                self.acknowledged.clone()
            }
        };
        let event = match (&lease, &self.held) {
            (None, None) => None,
            (None, Some(_)) => Some(Event::Lost),
            (Some(new), Some(old)) if new.same_terms(old) => Some(Event::Renewed(new.clone())),
            (Some(new), _) => Some(Event::Acquired(new.clone())),
        };
        self.held = lease;
        self.address_interface();
        if let Some(event) = event {
            self.tell(event);
        }
    }

    /// smoltcp's own address and route, from which renewals are sent to the server alone.
    fn address_interface(&mut self) {
        let held = self.held.as_ref();
        let cidr = held.map(|lease| IpCidr::Ipv4(Ipv4Cidr::new(lease.address, lease.prefix)));
        if self.interface.ip_addrs() == cidr.as_slice() {
            return;
        }
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // The table holds at least one.
            addresses.extend(cidr);
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = held.and_then(|lease| lease.gateway) {
            // A full table costs us unicast renewals; broadcasts follow.
            let _ = routes.add_default_ipv4_route(gateway);
        }
    }

    /// Whether a frame may reach smoltcp: an ARP reply while asking, or an answer to us that makes sense.
    fn admit(&mut self, frame: &[u8]) -> bool {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return false;
        };
        if ethernet.ethertype() == EthernetProtocol::Arp {
            return self.asking && self.held.is_some();
        }
        let Some(bytes) = message_of(frame, DHCP_SERVER_PORT, DHCP_CLIENT_PORT) else {
            return false;
        };
        let Ok(packet) = DhcpPacket::new_checked(bytes) else {
            return false;
        };
        let Ok(answer) = DhcpRepr::parse(&packet) else {
            return false;
        };
        if answer.client_hardware_address != self.hardware
            || Some(answer.transaction_id) != self.transaction
        {
            return false;
        }
        match answer.message_type {
            DhcpMessageType::Offer | DhcpMessageType::Ack => match Lease::from_answer(&answer) {
                Ok(lease) => {
                    if answer.message_type == DhcpMessageType::Ack {
                        self.acknowledged = Some(lease);
                    }
                    true
                }
                Err(refusal) => {
                    if self.refused.as_ref() != Some(&refusal) {
                        self.refused = Some(refusal.clone());
                        self.tell(Event::Refused(refusal));
                    }
                    false
                }
            },
            // Each NAK makes the socket start over at once; a server that only says no may not set
            // the pace.
            DhcpMessageType::Nak => {
                self.naks = self.naks.saturating_add(1);
                self.held.is_some() || self.naks <= MOST_NAKS
            }
            _ => false,
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < QUEUE {
            self.events.push_back(event);
        }
    }
}

/// The DHCP message within a frame between these UDP ports.
fn message_of(frame: &[u8], from: u16, to: u16) -> Option<&[u8]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Udp || ip.more_frags() || ip.frag_offset() != 0 {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    ((udp.src_port(), udp.dst_port()) == (from, to)).then(|| udp.payload())
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX / 2))
}

/// The frames between smoltcp and whoever drives the client.
#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    /// How many of `sent` the client has looked at.
    noted: usize,
}

impl Wire {
    fn push_received(&mut self, frame: &[u8]) {
        if self.received.len() < QUEUE {
            self.received.push_back(frame.to_vec());
        }
    }
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        (self.sent.len() < QUEUE).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // A server on the same host (QEMU's, a bridge's) leaves the UDP checksum to an offload that
        // never happens: what a packet socket then sees is a partial one.
        checksum.udp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.checksum = checksum;
        capabilities
    }
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod tests;
