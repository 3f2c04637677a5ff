//! What the control socket carries: requests and replies as JSON, one a line.
//!
//! A client begins with an empty line and ignores replies with ids that it did not use, so that a
//! serial port with remains of an earlier conversation works as well as a fresh connection.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wow_overlay::wire::Remote;

/// Longest request line that a node reads.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Longest reply line that a client reads: 512 peers with all their details fit.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// Longest wait that a request may ask for.
pub const TIMEOUT_MS_MAX: u64 = 24 * 3600 * 1000;

/// Most echo requests in one `ping`.
pub const PING_COUNT_MAX: u32 = 1000;

/// Most nodes in one `links`.
pub const LINKS_NODES_MAX: usize = 16;

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Repeated in the reply.
    pub id: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub op: Op,
}

/// What a client may want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// How the node is: [`Status`].
    Status,
    /// The nodes it has sessions with: a list of [`Peer`].
    Peers,
    /// Echo requests to a node: [`PingReport`].
    Ping {
        /// A name, a virtual address or an id.
        target: String,
        /// How many requests.
        #[serde(default = "default_count")]
        count: u32,
        /// The pause between two.
        #[serde(default = "default_interval_ms")]
        interval_ms: u64,
        /// How long to wait for each answer.
        #[serde(default = "default_timeout_ms")]
        timeout_ms: u64,
        /// By the overlay's own echo instead of ICMP.
        #[serde(default)]
        overlay: bool,
    },
    /// Until the node has joined: [`Status`], or an error when the time is over.
    Wait {
        /// Must be true: nothing else can be waited for.
        #[serde(default = "default_true")]
        joined: bool,
        /// How long.
        timeout_ms: u64,
    },
    /// The node's leased addresses: a list of [`Lease`].
    Leases,
    /// What the pool's table holds under a key: [`Record`].
    LookUp {
        /// A name, a virtual IPv4 address, or `service:NAME`.
        key: String,
    },
    /// Where the machine's configuration came from: [`Report`](crate::configuration::Report).
    Config,
    /// The slots of the disk that the machine was booted from: [`SlotsReport`](crate::update::SlotsReport).
    Slots,
    /// A step of an update of the appliance, see there.
    Update(crate::update::Step),
    /// Spread a revocation: [`RevocationReport`].
    Revoke {
        /// Its line of text.
        revocation: String,
    },
    /// Who holds a virtual IPv6 address, by the session with it: [`Resolved`], or an error without a session.
    Whois {
        /// The address.
        address: Ipv6Addr,
    },
    /// Offer a service to the pool for as long as the node runs: `true`.
    Offer {
        /// Its name: a label.
        service: String,
        /// What others read.
        value: String,
    },
    /// Cease to offer a service: `true`.
    Withdraw {
        /// Its name.
        service: String,
    },
    /// What keeps another program of this machine from its work: `true`.
    Trouble {
        /// The program: a label.
        from: String,
        /// A sentence each, instead of those before; none when it is over.
        sentences: Vec<String>,
    },
    /// The node behind a name, an address or an id: [`Resolved`].
    Resolve {
        /// A name, a virtual address or an id.
        target: String,
    },
    /// The way that frames take to a node over the overlay: [`TraceReport`].
    Trace {
        /// A name, a virtual address or an id.
        target: String,
    },
    /// The links of some nodes: a list of [`NodeLinks`], in the order asked for.
    Links {
        /// At most [`LINKS_NODES_MAX`] of them.
        nodes: Vec<Place>,
    },
}

impl Op {
    /// Whether it changes something, for this machine or for the pool.
    pub fn changes(&self) -> bool {
        match self {
            Op::Revoke { .. }
            | Op::Offer { .. }
            | Op::Withdraw { .. }
            | Op::Trouble { .. }
            | Op::Update(_) => true,
            Op::Status
            | Op::Peers
            | Op::Ping { .. }
            | Op::Wait { .. }
            | Op::Leases
            | Op::Config
            | Op::Slots
            | Op::LookUp { .. }
            | Op::Whois { .. }
            | Op::Resolve { .. }
            | Op::Trace { .. }
            | Op::Links { .. } => false,
        }
    }
}

/// A node to ask for its links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its id.
    pub id: String,
    /// The id of a node that has a link to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

fn default_count() -> u32 {
    4
}

fn default_interval_ms() -> u64 {
    1000
}

fn default_timeout_ms() -> u64 {
    5000
}

fn default_true() -> bool {
    true
}

/// A reply: one of `ok` and `error`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id; 0 when the request could not be read.
    pub id: u64,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A node's virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualAddresses {
    /// In the pool's range.
    pub v4: Ipv4Addr,
    /// In the pool's unique local prefix.
    pub v6: Ipv6Addr,
}

/// The nearest nodes of the ring, nearest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours {
    /// At decreasing ids.
    pub left: Vec<String>,
    /// At increasing ids.
    pub right: Vec<String>,
}

/// How a node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The pool's name.
    pub pool: String,
    /// The pool's id.
    pub pool_id: String,
    /// The pool's virtual range.
    pub range: String,
    /// Its virtual addresses.
    pub addresses: VirtualAddresses,
    /// Its roles.
    pub roles: String,
    /// The workstation's role that was asked for; it counts if `roles` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether it has its place in the ring.
    pub joined: bool,
    /// What keeps it from its work, and what to do about it: a sentence each.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// From the daemon's start to its first place in the ring.
    pub joined_after_ms: Option<u64>,
    /// From the kernel's start to that, when the daemon booted the machine.
    pub boot_to_joined_ms: Option<u64>,
    /// Since the daemon's start.
    pub uptime_ms: u64,
    /// Resident memory of the process.
    pub rss_bytes: u64,
    /// Its neighbours in the ring.
    pub neighbours: Neighbours,
    /// How many nodes it has sessions with.
    pub peers: usize,
    /// How many nodes the pool seems to have.
    pub pool_size_estimate: f64,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where it listens for TCP connections.
    #[serde(default)]
    pub tcp_listen: Vec<SocketAddr>,
    /// The guest back end, and the interface's name if it has one.
    pub guest: String,
    /// The machines of the LAN behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan: Vec<LanGuest>,
    /// When its certificate ends, in seconds since 1970.
    pub certificate_until: u64,
    /// What its clock is kept by; none of an older node.
    #[serde(default)]
    pub clock: Option<Clock>,
    /// The program's version.
    pub version: String,
    /// Monotonic counts; those that begin with `drop` are losses by reason.
    pub counters: BTreeMap<String, u64>,
}

/// What a node's clock is kept by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Who it was last compared with, or whose it is.
    pub from: String,
    /// How many servers it is away from one that needs none, as others are told; none where it is not known to be
    /// right.
    pub stratum: Option<u8>,
    /// By how much it was behind when it was last compared; less than nothing is ahead.
    pub offset_ms: Option<f64>,
    /// Since then.
    pub age_ms: Option<u64>,
}

/// A machine of the LAN behind a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanGuest {
    /// Its hardware address.
    pub mac: String,
    /// Its address, or the last one that it had.
    pub address: Option<Ipv4Addr>,
    /// The IPv6 address that goes with it.
    pub v6: Option<Ipv6Addr>,
    /// What it calls itself.
    pub name: Option<String>,
    /// `bound`, `asking` or `away`.
    pub state: String,
    /// How long it holds the address without renewing it.
    pub remaining_ms: Option<u64>,
}

/// The path in use to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// `udp` or `tcp` straight to the node, `relay` by a node that both have a direct path to,
    /// `overlay` from node to node, or `self`.
    pub kind: String,
    /// The other end of a path over UDP or TCP.
    #[serde(default)]
    pub remote: Option<SocketAddr>,
    /// The relay, or the first node of the way over the overlay.
    #[serde(default)]
    pub via: Option<String>,
}

/// One session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// The other node.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address.
    pub v6: Ipv6Addr,
    /// Its roles.
    pub roles: String,
    /// What the link is there for.
    pub kind: String,
    /// The path in use.
    pub path: Path,
    /// That path's round-trip time.
    pub rtt_ms: Option<f64>,
    /// The longest packet that goes this way whole.
    pub mtu_bytes: usize,
    /// Since the session began.
    pub age_ms: u64,
    /// Packets and bytes to it.
    pub sent: Traffic,
    /// Packets and bytes from it.
    pub received: Traffic,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Records.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A node found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address.
    pub v6: Ipv6Addr,
    /// Its roles.
    pub roles: String,
}

/// A virtual address that the node leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// 0 for the node's own address.
    pub id: u16,
    /// The address.
    pub address: Ipv4Addr,
    /// How long it holds without being renewed; none while it is not held.
    pub remaining_ms: Option<u64>,
}

/// A record of the pool's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// As it was asked for.
    pub key: String,
    /// The claimant's id.
    pub owner: String,
    /// The claimant's name.
    pub name: String,
    /// The claimant's roles.
    pub roles: String,
    /// What is stored: text, or else hexadecimal digits; under a name the node's address.
    pub value: String,
    /// How long a claim lives without being renewed.
    pub lifetime_s: u16,
    /// Grows with every claim of the claimant.
    pub sequence: u64,
    /// Where the claimant said that it is reached.
    pub candidates: Vec<Remote>,
}

/// What became of a `revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationReport {
    /// Whom it strikes: `node ID` or `ticket ID`.
    pub revoked: String,
    /// Whether this node did not know of it before.
    pub news: bool,
    /// Nodes that were told at once.
    pub told: usize,
}

/// What became of a `ping`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PingReport {
    /// As asked for.
    pub target: String,
    /// The node's id; none for the control address.
    pub id: Option<String>,
    /// The node's name.
    pub name: Option<String>,
    /// The address asked.
    pub v4: Ipv4Addr,
    /// `icmp` or `overlay`.
    pub method: String,
    /// Requests.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Of the answers; none without any.
    pub rtt_ms: Option<RttSummary>,
    /// The path in use at the end.
    pub path: Path,
    /// Every request's outcome, in order.
    pub replies: Vec<PingReply>,
}

/// The way to a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceReport {
    /// As asked for.
    pub target: String,
    /// The node's id.
    pub id: String,
    /// The node's name.
    pub name: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Whether the last hop is the node.
    pub reached: bool,
    /// The nodes on the way, in order.
    pub hops: Vec<TraceHop>,
}

/// One node on the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceHop {
    /// Counted from 1.
    pub hop: usize,
    /// Who is there; nothing if nobody answered.
    pub node: Option<HopNode>,
}

/// A node on the way, in its own words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HopNode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// An underlay address that it is reached at.
    pub address: Option<Remote>,
    /// From the question to its answer.
    pub rtt_ms: f64,
}

/// One node's links.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeLinks {
    /// The node's id.
    pub id: String,
    /// Its name; none if it did not answer.
    pub name: Option<String>,
    /// Its links, the most important first; at most 32.
    pub links: Vec<Link>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The other node's id.
    pub id: String,
    /// `near`, `far`, `on-demand` or `idle`.
    pub kind: String,
    /// Whether a direct path is in use.
    pub direct: bool,
    /// The path's round-trip time.
    pub rtt_ms: Option<f64>,
}

/// Round-trip times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RttSummary {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub avg: f64,
    /// The longest.
    pub max: f64,
}

/// One echo request's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Counted from 1.
    pub seq: u32,
    /// None if no answer came in time.
    pub rtt_ms: Option<f64>,
    /// Nodes that forwarded an overlay echo; none for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
}

impl RttSummary {
    /// Of the requests that were answered.
    pub fn of(replies: &[PingReply]) -> Option<Self> {
        let times: Vec<f64> = replies.iter().filter_map(|reply| reply.rtt_ms).collect();
        let count = f64::from(u32::try_from(times.len()).ok().filter(|&count| count > 0)?);
        Some(RttSummary {
            min: times.iter().copied().fold(f64::INFINITY, f64::min),
            avg: times.iter().sum::<f64>() / count,
            max: times.iter().copied().fold(0.0, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        let check = |line: &str, op: Op| {
            let request: Request = serde_json::from_str(line).unwrap();
            assert_eq!((request.id, request.op), (7, op), "{line}");
        };
        check(r#"{"id":7,"op":"status"}"#, Op::Status);
        check(
            r#"{"id":7,"op":"ping","target":"n1","count":2,"overlay":true}"#,
            Op::Ping {
                target: "n1".into(),
                count: 2,
                interval_ms: 1000,
                timeout_ms: 5000,
                overlay: true,
            },
        );
        check(
            r#"{"id":7,"op":"wait","joined":true,"timeout_ms":9}"#,
            Op::Wait {
                joined: true,
                timeout_ms: 9,
            },
        );
        assert!(serde_json::from_str::<Request>(r#"{"id":7,"op":"reboot"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"op":"status"}"#).is_err());
    }

    #[test]
    fn round_trips_are_summed_up() {
        let reply = |rtt_ms| PingReply {
            seq: 1,
            rtt_ms,
            hops: None,
        };
        assert_eq!(RttSummary::of(&[reply(None)]), None);
        assert_eq!(
            RttSummary::of(&[reply(Some(1.0)), reply(None), reply(Some(3.0))]),
            Some(RttSummary {
                min: 1.0,
                avg: 2.0,
                max: 3.0
            })
        );
    }
}
