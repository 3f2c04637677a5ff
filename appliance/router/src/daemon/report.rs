//! The node's state in the words of the control socket.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use wow_overlay::id::NodeId;
use wow_overlay::node::{
    Found, Hop, LeaseInfo, LinkKind, Node, PathInfo, PeerInfo, RecordInfo, Route, Traffic,
};
use wow_overlay::time::Instant;
use wow_overlay::wire::message::Link;
use wow_overlay::wire::record::Key;

use crate::api;

/// What the name of a service is written with.
const SERVICE: &str = "service:";

/// A node that was looked for.
pub fn resolved(found: &Found) -> api::Resolved {
    let Found {
        certificate,
        addresses,
    } = found;
    api::Resolved {
        id: certificate.node_id().to_string(),
        name: certificate.name().to_string(),
        v4: addresses.v4,
        v6: addresses.v6,
        roles: certificate.roles().to_string(),
    }
}

/// The peer with an IPv6 address. Only that one sends from it: the address follows from the node's id.
pub fn whois(node: &Node, address: Ipv6Addr) -> Option<api::Resolved> {
    let peer = node
        .peers()
        .into_iter()
        .find(|peer| peer.addresses.v6 == address)?;
    Some(api::Resolved {
        id: peer.id.to_string(),
        name: peer.name,
        v4: peer.addresses.v4,
        v6: peer.addresses.v6,
        roles: peer.roles.to_string(),
    })
}

/// The node's leases.
pub fn leases(node: &Node, now: Instant) -> Vec<api::Lease> {
    let lease = |lease: LeaseInfo| api::Lease {
        id: lease.id.0,
        address: lease.address,
        remaining_ms: lease.remaining.map(whole_milliseconds),
    };
    node.leases(now).into_iter().map(lease).collect()
}

/// A record of the pool's table.
pub fn record(info: RecordInfo) -> api::Record {
    let RecordInfo { owner, claim } = info;
    let stored_address = match claim.key {
        Key::Name(_) => claim.value.first_chunk::<4>().copied(),
        _ => None,
    };
    let value = match stored_address {
        Some(v4) => Ipv4Addr::from(v4).to_string(),
        None => String::from_utf8(claim.value).unwrap_or_else(|error| {
            let bytes = error.as_bytes().iter();
            bytes.map(|byte| format!("{byte:02x}")).collect()
        }),
    };
    api::Record {
        key: show_key(&claim.key),
        owner: owner.node_id().to_string(),
        name: owner.name().to_string(),
        roles: owner.roles().to_string(),
        value,
        lifetime_s: claim.lifetime_s,
        sequence: claim.sequence,
        candidates: claim.candidates,
    }
}

fn show_key(key: &Key) -> String {
    match key {
        Key::Id(id) => id.to_string(),
        Key::V4(v4) => v4.to_string(),
        Key::V6(v6) => v6.to_string(),
        Key::Name(name) => name.clone(),
        Key::Service(name) => format!("{SERVICE}{name}"),
    }
}

/// What a person calls a key: a name, a virtual IPv4 address, or `service:NAME`.
pub fn key(text: &str) -> Key {
    match (text.strip_prefix(SERVICE), text.parse()) {
        (Some(name), _) => Key::Service(name.to_owned()),
        (None, Ok(v4)) => Key::V4(v4),
        (None, Err(_)) => Key::Name(text.to_ascii_lowercase()),
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
    path(info.map_or(PathInfo::Overlay { via: None }, |peer| peer.path))
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
        kind: kind(info.kind).into(),
        path: path(info.path),
        rtt_ms: info.rtt.map(milliseconds),
        mtu_bytes: info.mtu_bytes,
        age_ms: whole_milliseconds(now - info.since),
        sent: traffic(info.sent),
        received: traffic(info.received),
    }
}

fn kind(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Near => "near",
        LinkKind::Far => "far",
        LinkKind::OnDemand => "on-demand",
        LinkKind::Idle => "idle",
    }
}

/// What a node told of its links, if it did.
pub fn links(of: NodeId, told: Option<(String, Vec<Link>)>) -> api::NodeLinks {
    let (name, links) = told.map_or((None, Vec::new()), |(name, links)| (Some(name), links));
    let link = |link: &Link| api::Link {
        id: link.id.to_string(),
        kind: kind(link.kind).into(),
        direct: link.direct,
        rtt_ms: link.rtt_micros.map(|micros| f64::from(micros) / 1e3),
    };
    api::NodeLinks {
        id: of.to_string(),
        name,
        links: links.iter().map(link).collect(),
    }
}

/// The way to a node.
pub fn trace(target: &str, node: api::Resolved, route: Route) -> api::TraceReport {
    let hop = |(behind, hop): (usize, Option<Hop>)| api::TraceHop {
        hop: behind + 1,
        node: hop.map(|hop| api::HopNode {
            id: hop.id.to_string(),
            name: hop.name,
            address: hop.address,
            rtt_ms: milliseconds(hop.rtt),
        }),
    };
    api::TraceReport {
        target: target.to_owned(),
        id: node.id,
        name: node.name,
        v4: node.v4,
        reached: route.reached,
        hops: route.hops.into_iter().enumerate().map(hop).collect(),
    }
}

fn path(info: PathInfo) -> api::Path {
    match info {
        PathInfo::Direct { remote } => api::Path {
            kind: remote.protocol().name().into(),
            remote: Some(remote.address()),
            via: None,
        },
        PathInfo::Relay { via } => api::Path {
            kind: "relay".into(),
            remote: None,
            via: Some(via.to_string()),
        },
        PathInfo::Overlay { via } => api::Path {
            kind: "overlay".into(),
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
