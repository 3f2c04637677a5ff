//! The node's state in the words of the control socket.

use std::collections::BTreeMap;
use std::time::Duration;

use wow_overlay::id::NodeId;
use wow_overlay::membership::{Addresses, Certificate, PoolFacts};
use wow_overlay::node::{LinkKind, Node, PathInfo, PeerInfo, Traffic};
use wow_overlay::time::Instant;

use crate::api;

/// A certificate's node.
pub fn resolved(pool: &PoolFacts, certificate: &Certificate) -> api::Resolved {
    let addresses = Addresses::new(pool, certificate);
    api::Resolved {
        id: certificate.node_id().to_string(),
        name: certificate.name().to_string(),
        v4: addresses.v4,
        v6: addresses.v6,
        roles: certificate.roles().to_string(),
    }
}

/// The path in use to `id`.
pub fn path_to(node: &Node, id: NodeId) -> api::Path {
    if id == node.id() {
        return api::Path {
            kind: "self".into(),
            remote: None,
            via: None,
        };
    }
    let info = node.peers().into_iter().find(|peer| peer.id == id);
    path(info.map_or(PathInfo::Routed { via: None }, |peer| peer.path))
}

/// Every session.
pub fn peers(node: &Node, now: Instant) -> Vec<api::Peer> {
    node.peers()
        .into_iter()
        .map(|info| peer(info, now))
        .collect()
}

fn peer(info: PeerInfo, now: Instant) -> api::Peer {
    api::Peer {
        id: info.id.to_string(),
        name: info.name,
        v4: info.addresses.v4,
        v6: info.addresses.v6,
        roles: info.roles.to_string(),
        kind: match info.kind {
            LinkKind::Near => "near",
            LinkKind::Far => "far",
            LinkKind::OnDemand => "on-demand",
            LinkKind::Idle => "idle",
        }
        .into(),
        path: path(info.path),
        rtt_ms: info.rtt.map(milliseconds),
        age_ms: whole_milliseconds(now - info.since),
        sent: traffic(info.sent),
        received: traffic(info.received),
    }
}

fn path(info: PathInfo) -> api::Path {
    match info {
        PathInfo::Direct { remote } => api::Path {
            kind: "direct".into(),
            remote: Some(remote),
            via: None,
        },
        PathInfo::Routed { via } => api::Path {
            kind: "routed".into(),
            remote: None,
            via: via.map(|id| id.to_string()),
        },
    }
}

fn traffic(traffic: Traffic) -> api::Traffic {
    api::Traffic {
        packets: traffic.packets,
        bytes: traffic.bytes,
    }
}

/// The node's counters by name.
pub fn counters(node: &Node) -> BTreeMap<String, u64> {
    node.counters()
        .iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// The neighbours in the ring.
pub fn neighbours(node: &Node) -> api::Neighbours {
    let near = node.near_neighbours();
    let texts = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect();
    api::Neighbours {
        left: texts(&near.left),
        right: texts(&near.right),
    }
}

/// A span in milliseconds.
pub fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// A span in whole milliseconds.
pub fn whole_milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
