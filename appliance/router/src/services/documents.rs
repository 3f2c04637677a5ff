//! The documents of the HTTP API, as `openapi.json` describes them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use wow_control::Document;
use wow_overlay::id::NodeId;

use super::metrics;
use crate::api::{Lease, Path, Peer, Status, Traffic};
use crate::daemon::command::Command;
use crate::ipc::Operator;
use crate::logging::{self, LogLines};

/// What begins the names of counters of losses.
pub const DROP: &str = "drop_";

/// One of the nearest nodes of the ring.
#[derive(Debug, Clone, Serialize)]
pub struct Neighbour {
    /// `left`, at decreasing ids, or `right`.
    pub side: &'static str,
    /// 1 for the nearest.
    pub rank: usize,
    /// Its id.
    pub id: String,
    /// Its name, where there is a session with it; so with all that follows.
    pub name: Option<String>,
    /// Its virtual IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its virtual IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The path in use.
    pub path: Option<Path>,
    /// That path's round trip.
    pub rtt_ms: Option<f64>,
}

/// What the node has sent and received.
#[derive(Debug, Clone, Serialize)]
pub struct TrafficReport {
    /// Since the daemon's start, for rates.
    pub uptime_ms: u64,
    /// Datagrams handed to the underlay.
    pub sent: Traffic,
    /// Datagrams from the underlay.
    pub received: Traffic,
    /// Packets of the guest to peers.
    pub guest_sent_packets: u64,
    /// Packets of peers to the guest.
    pub guest_received_packets: u64,
    /// Frames passed on for others.
    pub forwarded_frames: u64,
    /// Losses by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// The ring, as far as the node knows it.
#[derive(Debug, Clone, Serialize)]
pub struct Ring {
    /// How many nodes the pool seems to have.
    pub size_estimate: f64,
    /// The node and its peers, in the order of the ring.
    pub nodes: Vec<RingNode>,
}

/// One node of it.
#[derive(Debug, Clone, Serialize)]
pub struct RingNode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its place: a share of the ring from id 0 on.
    pub position: f64,
    /// `self`, or what the link to it is there for.
    pub link: String,
    /// The kind of the path in use.
    pub path: String,
    /// That path's round trip.
    pub rtt_ms: Option<f64>,
}

/// All of it.
#[derive(Serialize)]
struct Overview {
    status: Status,
    peers: Vec<Peer>,
    neighbours: Vec<Neighbour>,
    leases: Vec<Lease>,
    traffic: TrafficReport,
    ring: Ring,
    log: LogLines,
}

/// The bytes of a document.
pub async fn make(operator: &Operator, document: Document) -> Result<Vec<u8>, String> {
    match document {
        Document::Status => json(&operator.status().await?),
        Document::Peers => json(&operator.ask(Command::Peers).await?),
        Document::Leases => json(&operator.ask(Command::Leases).await?),
        Document::Log { from } => json(&logging::lines(from)),
        Document::Traffic => json(&traffic(&operator.status().await?)),
        Document::Neighbours => {
            let (status, peers) = both(operator).await?;
            json(&neighbours(&status, &peers))
        }
        Document::Ring => {
            let (status, peers) = both(operator).await?;
            json(&ring(&status, &peers))
        }
        Document::Metrics => {
            let (status, peers) = both(operator).await?;
            let leases = operator.ask(Command::Leases).await?;
            Ok(metrics::write(&status, &peers, &leases).into_bytes())
        }
        Document::Overview { from } => {
            let (status, peers) = both(operator).await?;
            json(&Overview {
                neighbours: neighbours(&status, &peers),
                leases: operator.ask(Command::Leases).await?,
                traffic: traffic(&status),
                ring: ring(&status, &peers),
                log: logging::lines(from),
                status,
                peers,
            })
        }
    }
}

async fn both(operator: &Operator) -> Result<(Status, Vec<Peer>), String> {
    let status = operator.status().await?;
    Ok((status, operator.ask(Command::Peers).await?))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn neighbours(status: &Status, peers: &[Peer]) -> Vec<Neighbour> {
    let of = |side, ids: &[String]| -> Vec<Neighbour> {
        let told = ids.iter().enumerate().map(|(behind, id)| {
            let peer = peers.iter().find(|peer| &peer.id == id);
            Neighbour {
                side,
                rank: behind + 1,
                id: id.clone(),
                name: peer.map(|peer| peer.name.clone()),
                v4: peer.map(|peer| peer.v4),
                v6: peer.map(|peer| peer.v6),
                path: peer.map(|peer| peer.path.clone()),
                rtt_ms: peer.and_then(|peer| peer.rtt_ms),
            }
        });
        told.collect()
    };
    let mut all = of("left", &status.neighbours.left);
    all.extend(of("right", &status.neighbours.right));
    all
}

/// What the status counts.
pub fn traffic(status: &Status) -> TrafficReport {
    let count = |name: &str| status.counters.get(name).copied().unwrap_or(0);
    let dropped = status.counters.iter().filter_map(|(name, count)| {
        let reason = name.strip_prefix(DROP)?;
        Some((reason.to_owned(), *count))
    });
    TrafficReport {
        uptime_ms: status.uptime_ms,
        sent: Traffic {
            packets: count("datagrams_out"),
            bytes: count("bytes_out"),
        },
        received: Traffic {
            packets: count("datagrams_in"),
            bytes: count("bytes_in"),
        },
        guest_sent_packets: count("guest_out"),
        guest_received_packets: count("guest_in"),
        forwarded_frames: count("forwarded"),
        dropped: dropped.collect(),
    }
}

fn ring(status: &Status, peers: &[Peer]) -> Ring {
    let own = RingNode {
        id: status.id.clone(),
        name: status.name.clone(),
        position: position(&status.id),
        link: "self".into(),
        path: "self".into(),
        rtt_ms: None,
    };
    let others = peers.iter().map(|peer| RingNode {
        id: peer.id.clone(),
        name: peer.name.clone(),
        position: position(&peer.id),
        link: peer.kind.clone(),
        path: peer.path.kind.clone(),
        rtt_ms: peer.rtt_ms,
    });
    let mut nodes: Vec<_> = std::iter::once(own).chain(others).collect();
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    Ring {
        size_estimate: status.pool_size_estimate,
        nodes,
    }
}

fn position(id: &str) -> f64 {
    let bytes = id.parse::<NodeId>().map_or([0; 20], |id| id.0);
    let top = bytes.first_chunk().copied().map_or(0, u64::from_be_bytes);
    top as f64 / 2f64.powi(64)
}
