//! The types that cross the facade.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::{Addresses, Certificate, CertificateError, Revocation};
use crate::wire::Remote;
use crate::wire::message::Link;

use super::dht::{LeaseId, RecordInfo};
use super::report::PathInfo;

/// A datagram to send, or several to one destination.
#[derive(Debug)]
pub struct Transmit {
    /// Its destination.
    pub to: Remote,
    /// What it carries; give the buffer back with [`Node::recycle`](super::Node::recycle). Several only
    /// where packets came by [`Node::handle_guest_packets`](super::Node::handle_guest_packets), and only
    /// over UDP.
    pub datagram: Vec<u8>,
    /// The length of each datagram but the last, which may be shorter.
    pub datagram_bytes: usize,
    /// Whether others may be put behind it.
    pub(super) may_join: bool,
}

/// Packets of the guest that have the same addresses, as they come out of one superpacket.
pub trait GuestPackets {
    /// Source and destination; none where it is no IP packet.
    fn addresses(&self) -> Option<(IpAddr, IpAddr)>;

    /// How many there are: one at least.
    fn count(&self) -> usize;

    /// The bytes of one of them. The first is the longest, and none is shorter but the last.
    fn length(&self, index: usize) -> usize;

    /// Whether their transport's checksum is left to the receiver.
    fn lacks_checksum(&self) -> bool;

    /// Appends one of them, of exactly [`length`](Self::length) bytes.
    fn write(&self, index: usize, out: &mut Vec<u8>);
}

/// An IP packet for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPacket<B> {
    /// The packet.
    pub bytes: B,
    /// Its transport's checksum is left to its receiver to compute, or to vouch for: the sender is
    /// known, and what it sent is what came.
    pub lacks_checksum: bool,
}

/// Names an outstanding [`Node::resolve`](super::Node::resolve).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub(super) u64);

/// Names an outstanding [`Node::ping`](super::Node::ping).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub(super) u64);

/// Names an outstanding [`Node::trace`](super::Node::trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub(super) u64);

/// A node on the way to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub id: NodeId,
    /// Its name, in its own words.
    pub name: String,
    /// An address that it is reached at, in its own words.
    pub address: Option<Remote>,
    /// From the question to its answer.
    pub rtt: Duration,
}

/// The way that frames took to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The nodes in order; `None` where nobody answered.
    pub hops: Vec<Option<Hop>>,
    /// Whether the last one is the target.
    pub reached: bool,
}

/// What to resolve to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node by its identifier.
    Id(NodeId),
    /// A node by its name.
    Name(String),
    /// The holder of a virtual IPv4 address.
    V4(Ipv4Addr),
    /// The holder of a virtual IPv6 address.
    V6(Ipv6Addr),
}

/// A node that was looked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its verified certificate.
    pub certificate: Certificate,
    /// Its virtual addresses. For a name of a guest behind it the guest's, whose IPv6 address goes
    /// with the other.
    pub addresses: Addresses,
}

/// Why a target was not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The node responsible for the target knows no holder.
    #[error("no such node in the pool")]
    Unknown,
    /// Nobody answered.
    #[error("no answer from the pool")]
    TimedOut,
    /// Too many questions are open.
    #[error("too many lookups at once")]
    Busy,
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownReason {
    /// No path to it works any more.
    Unreachable,
    /// It answered our handshake, but was never heard of in the session.
    Unheard,
    /// It said that it leaves the pool.
    Left,
    /// Neither side needs the link any more.
    Unneeded,
    /// Its certificate is past its validity.
    Expired,
    /// The pool's authority has ended its membership.
    Revoked,
}

/// What the node's owner may want to know.
#[derive(Debug)]
pub enum Event {
    /// The node has its place in the ring and its virtual address.
    Joined,
    /// The node lost its last neighbour and tries its seeds again.
    Isolated,
    /// A session with a peer is up.
    PeerUp {
        /// The peer.
        id: NodeId,
        /// Its certified name.
        name: String,
    },
    /// Datagrams that leave together do not arrive there: from now on they go one by one.
    BatchesHarm {
        /// Where they went.
        remote: Remote,
    },
    /// A peer is gone.
    PeerDown {
        /// The peer.
        id: NodeId,
        /// Why.
        reason: DownReason,
    },
    /// The answer to [`Node::resolve`](super::Node::resolve).
    Resolved {
        /// The question.
        query: QueryId,
        /// The node.
        result: Result<Found, ResolveError>,
    },
    /// The answer to [`Node::look_up`](super::Node::look_up).
    Record {
        /// The question.
        query: QueryId,
        /// The verified record.
        result: Result<RecordInfo, ResolveError>,
    },
    /// A virtual address is ours to use.
    Leased {
        /// Which lease.
        lease: LeaseId,
        /// The address.
        address: Ipv4Addr,
    },
    /// A virtual address is ours no longer; another one is being leased.
    LeaseLost {
        /// Which lease.
        lease: LeaseId,
        /// The address.
        address: Ipv4Addr,
        /// Who has it, if that is known.
        to: Option<NodeId>,
    },
    /// Somebody else has our name or service; it is tried for again and again.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        with: NodeId,
    },
    /// The answer to [`Node::ping`](super::Node::ping).
    Pong {
        /// The question.
        ping: PingId,
        /// From the request to the answer.
        rtt: Duration,
        /// Nodes that forwarded the request: 0 on a direct path.
        hops: u8,
        /// The path in use to the target.
        path: PathInfo,
    },
    /// A [`Node::ping`](super::Node::ping) had no answer.
    PingTimeout {
        /// The question.
        ping: PingId,
    },
    /// The answer to [`Node::trace`](super::Node::trace).
    Traced {
        /// The question.
        trace: TraceId,
        /// The way.
        route: Route,
    },
    /// The answer to [`Node::ask_links`](super::Node::ask_links).
    Links {
        /// The question.
        query: QueryId,
        /// The node's name and its links; `None` without an answer.
        result: Option<(String, Vec<Link>)>,
    },
    /// The pool's authority has ended somebody's membership; to be kept over restarts.
    Revocation(Revocation),
    /// The pool's authority has ended our own membership.
    Revoked,
    /// A member's certificate does not hold now, by our clock: one of both clocks may be wrong. Told
    /// once a minute at most.
    OutOfTime {
        /// Where its handshake came from, unless over the overlay.
        from: Option<Remote>,
        /// When it holds.
        error: CertificateError,
    },
    /// The address that our certificate fixes is somebody else's; it is tried for again and again.
    AddressConflict {
        /// The holder.
        with: NodeId,
        /// The address.
        address: Ipv4Addr,
    },
}
