//! The emulator itself, without sockets, clocks or threads: frames in with the time, frames out.
//!
//! Contract: after every `handle_*` drain [`World::poll_transmit`] (giving buffers back with
//! [`World::recycle`]), then call [`World::handle_deadline`] at [`World::next_deadline`]. Time
//! never runs backwards. The same configuration and the same calls give the same frames.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;

use crate::{
    config::{Config, Uplink},
    counters::{DropReason, Traffic},
    report::{DomainReport, LeaseReport, PortReport},
    time::Instant,
    wire::{ETHERNET_HEADER, MAX_FRAME},
};

mod between;
mod change;
mod dhcp;
mod gateway;
mod line;
mod neighbours;
mod switch;
#[cfg(test)]
mod tests;

use between::Between;
use gateway::Gateway;

/// Most packets between domains at a time; about 100 MB of full-sized ones.
const MAX_IN_FLIGHT: usize = 65_536;
/// Most events handled in one call; the deadline stays due for the rest.
const MAX_BATCH: usize = 512;
/// Most idle buffers kept for reuse.
const MAX_POOLED: usize = 1024;
/// Largest buffer kept for reuse.
const MAX_POOLED_BYTES: usize = 4096;
/// How often a NAT's expired mappings are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A port, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub usize);

/// A frame to be sent by a port.
#[derive(Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The port.
    pub port: PortId,
    /// The whole Ethernet frame, without checksum.
    pub frame: Vec<u8>,
}

/// All domains and the core between them.
pub struct World {
    /// As it stands now.
    config: Config,
    gateways: Vec<Gateway>,
    ports: Vec<PortState>,
    routes: Routes,
    between: Between,
    shared: Shared,
}

struct PortState {
    domain: usize,
    received: Traffic,
    sent: Traffic,
}

/// What every gateway acts upon.
struct Shared {
    transmits: VecDeque<Transmit>,
    events: BinaryHeap<Event>,
    next_order: u64,
    in_flight: usize,
    pool: Vec<Vec<u8>>,
}

/// Which domain holds an address of the emulated internet. The networks do not overlap.
struct Routes(BTreeMap<Ipv4Addr, (Ipv4Net, usize)>);

struct Event {
    at: Instant,
    /// Among equals, first come first served.
    order: u64,
    what: What,
}

enum What {
    /// A packet reaches the core.
    AtCore { from: usize, frame: Vec<u8> },
    /// A packet leaves the core for a domain's line.
    AtLine { to: usize, frame: Vec<u8> },
    /// A packet reaches a domain's gateway.
    AtGateway { domain: usize, frame: Vec<u8> },
    /// An ARP request may have gone unanswered.
    ArpRetry { domain: usize, ip: Ipv4Addr },
    /// A NAT forgets expired mappings.
    Sweep { domain: usize },
}

impl World {
    /// A world as configured.
    pub fn new(config: &Config) -> World {
        let gateways = (0..config.domains().len())
            .map(|index| Gateway::new(config, index))
            .collect();
        let ports = config
            .ports()
            .iter()
            .map(|port| PortState {
                domain: config
                    .domain_index(&port.domain)
                    .expect("a validated configuration names only its own domains"),
                received: Traffic::default(),
                sent: Traffic::default(),
            })
            .collect();
        let shared = Shared {
            transmits: VecDeque::new(),
            events: BinaryHeap::new(),
            next_order: 0,
            in_flight: 0,
            pool: Vec::new(),
        };
        World {
            gateways,
            ports,
            routes: Routes::new(config),
            between: Between::new(config),
            shared,
            config: config.clone(),
        }
    }

    /// The configuration as it stands after all changes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A frame came in at a port. Hostile ones are counted and dropped.
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        let Some(state) = self.ports.get_mut(port.0) else {
            return;
        };
        state.received.count(frame.len());
        let gateway = &mut self.gateways[state.domain];
        if (ETHERNET_HEADER..=MAX_FRAME).contains(&frame.len()) {
            gateway.handle_frame(now, port, frame, &self.routes, &mut self.shared);
        } else {
            gateway.counters.drops.count(DropReason::Malformed);
        }
        self.handle_deadline(now);
    }

    /// A port's machine is gone: its addresses are forgotten by the switch.
    pub fn handle_port_down(&mut self, port: PortId) {
        if let Some(state) = self.ports.get(port.0) {
            self.gateways[state.domain].forget_port(port);
        }
    }

    /// The time of [`World::next_deadline`] has come, or passed.
    pub fn handle_deadline(&mut self, now: Instant) {
        for _ in 0..MAX_BATCH {
            match self.shared.events.peek() {
                Some(event) if event.at <= now => {}
                _ => return,
            }
            let Some(event) = self.shared.events.pop() else {
                return;
            };
            self.handle_event(now, event);
        }
    }

    /// When to call [`World::handle_deadline`] next, and why.
    pub fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let event = self.shared.events.peek()?;
        let reason = match event.what {
            What::AtCore { .. } => "packet reaches the core",
            What::AtLine { .. } => "packet leaves the core",
            What::AtGateway { .. } => "packet reaches a gateway",
            What::ArpRetry { .. } => "ARP retry",
            What::Sweep { .. } => "NAT sweep",
        };
        Some((event.at, reason))
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.shared.transmits.pop_front()?;
        if let Some(state) = self.ports.get_mut(transmit.port.0) {
            state.sent.count(transmit.frame.len());
        }
        Some(transmit)
    }

    /// Gives a buffer back for reuse.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.shared.recycle(buffer);
    }

    /// What each domain did and holds, in the configuration's order.
    pub fn domain_reports(&self, now: Instant) -> Vec<DomainReport> {
        let report = |gateway: &Gateway| DomainReport {
            name: gateway.name.clone(),
            nat_mappings: gateway.nat.as_ref().map(|nat| nat.table.mappings()),
            nat_sessions: gateway.nat.as_ref().map(|nat| nat.table.sessions()),
            leases: gateway
                .dhcp
                .leases(now)
                .map(|(mac, ip)| LeaseReport {
                    mac: mac.to_string(),
                    ip,
                })
                .collect(),
            counters: gateway.counters,
        };
        self.gateways.iter().map(report).collect()
    }

    /// What each port carried, in the configuration's order.
    pub fn port_reports(&self) -> Vec<PortReport> {
        self.ports
            .iter()
            .map(|port| PortReport {
                received: port.received,
                sent: port.sent,
            })
            .collect()
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event.what {
            What::AtCore { from, frame } => {
                self.shared.in_flight -= 1;
                self.cross_core(event.at, from, frame);
            }
            What::AtLine { to, frame } => {
                self.shared.in_flight -= 1;
                self.leave_core(event.at, to, frame);
            }
            What::AtGateway { domain, frame } => {
                self.shared.in_flight -= 1;
                self.gateways[domain].handle_from_core(now, frame, &mut self.shared);
            }
            What::ArpRetry { domain, ip } => {
                self.gateways[domain].handle_arp_retry(now, ip, &mut self.shared);
            }
            What::Sweep { domain } => self.gateways[domain].sweep(now, &mut self.shared),
        }
    }

    /// A packet is at the core: it takes its time to the destination's line. `at` is when it was due
    /// here, so that a late call adds no delay.
    fn cross_core(&mut self, at: Instant, from: usize, frame: Vec<u8>) {
        let destination = gateway::destination(&frame);
        let Some(to) = destination.and_then(|ip| self.routes.find(ip)) else {
            return self.drop_packet(from, DropReason::NoRoute, frame);
        };
        match self.between.latency(from, to) {
            None => self.drop_packet(from, DropReason::Cut, frame),
            Some(Duration::ZERO) => self.leave_core(at, to, frame),
            // Lines keep the order of what enters them, so it must not enter before its time.
            Some(latency) => {
                let event = What::AtLine { to, frame };
                if let Err(frame) = self.shared.schedule_packet(at + latency, event) {
                    self.drop_packet(to, DropReason::QueueFull, frame);
                }
            }
        }
    }

    fn leave_core(&mut self, at: Instant, to: usize, frame: Vec<u8>) {
        match self.gateways[to].admit_down(at, frame.len()) {
            Ok(out) => {
                let event = What::AtGateway { domain: to, frame };
                if let Err(frame) = self.shared.schedule_packet(out, event) {
                    self.drop_packet(to, DropReason::QueueFull, frame);
                }
            }
            Err(reason) => self.drop_packet(to, reason, frame),
        }
    }

    fn drop_packet(&mut self, domain: usize, reason: DropReason, frame: Vec<u8>) {
        self.gateways[domain].counters.drops.count(reason);
        self.shared.recycle(frame);
    }
}

impl Shared {
    fn transmit(&mut self, port: PortId, frame: Vec<u8>) {
        self.transmits.push_back(Transmit { port, frame });
    }

    /// An empty buffer.
    fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// A buffer with these bytes.
    fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.buffer();
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < MAX_POOLED && buffer.capacity() <= MAX_POOLED_BYTES {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Schedules a packet's arrival; gives the frame back when too many are in flight.
    fn schedule_packet(&mut self, at: Instant, what: What) -> Result<(), Vec<u8>> {
        if self.in_flight >= MAX_IN_FLIGHT
            && let What::AtCore { frame, .. }
            | What::AtLine { frame, .. }
            | What::AtGateway { frame, .. } = what
        {
            return Err(frame);
        }
        self.in_flight += 1;
        self.schedule(at, what);
        Ok(())
    }

    fn schedule(&mut self, at: Instant, what: What) {
        let order = self.next_order;
        self.next_order += 1;
        self.events.push(Event { at, order, what });
    }
}

impl Routes {
    fn new(config: &Config) -> Routes {
        let entry = |(index, domain): (usize, &crate::config::Domain)| {
            let net = match &domain.uplink {
                Uplink::Public => domain.subnet,
                Uplink::Nat(nat) => Ipv4Net::from(nat.public_ip),
            };
            (net.network(), (net, index))
        };
        Routes(config.domains().iter().enumerate().map(entry).collect())
    }

    fn find(&self, ip: Ipv4Addr) -> Option<usize> {
        let (_, (net, domain)) = self.0.range(..=ip).next_back()?;
        net.contains(&ip).then_some(*domain)
    }
}

impl Ord for Event {
    /// The earliest is the greatest, as `BinaryHeap` wants it.
    fn cmp(&self, other: &Event) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}
