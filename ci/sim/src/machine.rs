//! What the world drives: a sans-IO node, or its twin in tests of the simulator itself.
//!
//! The production implementation is a thin mapping onto `overlay::node::Node`
//! ([`crate::production`]); the contract (mutate, drain every poll, re-arm the deadline) is the
//! facade's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use wow_overlay::id::NodeId;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use crate::network::HostId;

/// A node's virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualAddresses {
    /// In the pool's range.
    pub v4: Ipv4Addr,
    /// In the pool's ULA prefix.
    pub v6: Ipv6Addr,
}

/// What a lookup is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// The holder of a virtual address.
    Address(IpAddr),
    /// The node of a name.
    Name(String),
}

/// A datagram to send.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to.
    pub to: Remote,
    /// What.
    pub datagram: Vec<u8>,
}

/// What a machine tells that the checkers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A lookup ended: the node found, or why none was.
    Resolved {
        /// As returned by [`Machine::lookup`].
        token: u64,
        /// The finding.
        result: Result<NodeId, String>,
    },
    /// A ping was answered.
    Pong {
        /// As returned by [`Machine::ping`].
        token: u64,
        /// Round trip.
        rtt: Duration,
        /// Nodes that forwarded the request.
        hops: u8,
    },
    /// A ping was not answered.
    PingTimeout {
        /// As returned by [`Machine::ping`].
        token: u64,
    },
}

/// The size of a table against its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Which table.
    pub table: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it may have.
    pub limit: usize,
}

/// A node without clock, socket or randomness of its own.
pub trait Machine: Send {
    /// A datagram arrived.
    fn handle_datagram(&mut self, now: Instant, from: Remote, datagram: &mut [u8]);
    /// The guest sent an IP packet.
    fn handle_guest_packet(&mut self, now: Instant, packet: &[u8]);
    /// The deadline has passed.
    fn handle_deadline(&mut self, now: Instant);
    /// When to call [`Machine::handle_deadline`], and what for.
    fn next_deadline(&mut self) -> Option<(Instant, &'static str)>;
    /// The next datagram to send.
    fn poll_transmit(&mut self) -> Option<Outgoing>;
    /// The next IP packet for the guest.
    fn poll_guest_packet(&mut self) -> Option<Vec<u8>>;
    /// The next event that checkers care about.
    fn poll_notice(&mut self) -> Option<Notice>;
    /// Takes a buffer back.
    fn recycle(&mut self, buffer: Vec<u8>);
    /// Asks who has a virtual address or a name.
    fn lookup(&mut self, now: Instant, sought: Sought) -> u64;
    /// Asks a node for an echo, over the overlay.
    fn ping(&mut self, now: Instant, target: NodeId) -> u64;
    /// The host's interface has another address.
    fn handle_move(&mut self, now: Instant, local: Vec<Remote>);
    /// Its owner tells the authority's word that somebody is a member no longer.
    fn revoke(&mut self, now: Instant, word: &[u8]);
    /// Says goodbye.
    fn leave(&mut self, now: Instant);
    /// When the node became part of the ring.
    fn joined_at(&self) -> Option<Instant>;
    /// Whether it is part of the ring now.
    fn is_joined(&self) -> bool;
    /// Nearest neighbours at decreasing and at increasing positions, nearest first.
    fn neighbours(&self) -> (Vec<NodeId>, Vec<NodeId>);
    /// The virtual addresses of the node's guest; the IPv4 address may still be tried for.
    fn addresses(&self) -> VirtualAddresses;
    /// The IPv4 addresses that the node takes for its own to use.
    fn leases(&self) -> Vec<Ipv4Addr>;
    /// Everybody the node has a session with.
    fn peers(&self) -> Vec<NodeId>;
    /// Tables and their limits.
    fn occupancies(&self) -> Vec<Occupancy>;
    /// Counts by name, for reports.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}

/// What a machine is started with.
#[derive(Debug)]
pub struct Start {
    /// Which host it runs on: the same host has the same identity after a restart.
    pub host: HostId,
    /// The sockets on the host's interface: UDP, then TCP where it listens.
    pub local: Vec<Remote>,
    /// Where to join.
    pub seeds: Vec<Remote>,
    /// What all its random choices come from.
    pub rng_seed: [u8; 32],
    /// The time.
    pub now: Instant,
}

/// Everybody's identities, and the making of machines.
pub trait Population: Sync {
    /// What is made.
    type Machine: Machine;
    /// Boots the machine of a host.
    fn start(&self, start: Start) -> Self::Machine;
    /// The position of a host's node.
    fn id(&self, host: HostId) -> NodeId;
    /// The name of a host's node.
    fn name(&self, host: HostId) -> String;
    /// The authority's word that a host's node is a member no longer.
    fn revocation(&self, host: HostId) -> Vec<u8>;
}
