//! What a node tells about its peers.

use std::time::Duration;

use serde::Serialize;

use crate::id::NodeId;
use crate::membership::{Addresses, Roles};
use crate::time::Instant;
use crate::wire::Remote;

use super::Node;
use super::lost::LOST_MAX;
use super::peer::Traffic;
use super::ring::FAR_MAX;

pub use crate::wire::message::LinkKind;

/// The path in use to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PathInfo {
    /// Straight to the peer.
    Direct {
        /// Where it is and how it is reached.
        remote: Remote,
    },
    /// By one node that both sides have a direct path to.
    Relay {
        /// That node.
        via: NodeId,
    },
    /// Over the overlay, from node to node.
    Overlay {
        /// The node that is visited first, if one is.
        via: Option<NodeId>,
    },
}

/// One peer, for tables and programs.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its position.
    pub id: NodeId,
    /// Its certified name.
    pub name: String,
    /// Its guest's addresses.
    pub addresses: Addresses,
    /// Its certified roles.
    pub roles: Roles,
    /// What the link is there for.
    pub kind: LinkKind,
    /// The path in use.
    pub path: PathInfo,
    /// Smoothed round-trip time of that path, once measured.
    pub rtt: Option<Duration>,
    /// The longest packet of a guest that goes that way whole, in bytes.
    pub mtu_bytes: usize,
    /// When the first session with it began.
    pub since: Instant,
    /// Records sent to it.
    pub sent: Traffic,
    /// Records received from it.
    pub received: Traffic,
}

/// How full one of the node's tables is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Which one.
    pub name: &'static str,
    /// Entries in it; of a table that each peer has, those of the fullest one.
    pub entries: usize,
    /// Entries it may have.
    pub limit: usize,
}

impl Node {
    /// Every table that others can fill, with its limit.
    pub fn tables(&self) -> Vec<Table> {
        let table = |name, entries, limit| Table {
            name,
            entries,
            limit,
        };
        let mut tables = vec![
            table("peers", self.peers.len(), super::PEERS_MAX),
            table("transmits", self.transmits.len(), super::OUTBOX_MAX),
            table("guest packets", self.guest_packets.len(), super::OUTBOX_MAX),
            table("events", self.events.len(), super::OUTBOX_MAX),
            table("records", self.records_kept(), super::RECORDS_MAX),
            table("lost peers", self.lost.len(), LOST_MAX),
            table("far links", self.ring.far.len(), FAR_MAX),
        ];
        tables.extend(self.handshakes.tables());
        tables.extend([
            self.lookups.table(),
            self.echoes.table(),
            self.dht.copies.table(),
        ]);
        tables.push(self.survey.table());
        tables.extend(self.ring.tables());
        tables.extend(self.waiting.tables());
        let fullest = |size: fn(&super::peer::Peer) -> Vec<Table>| {
            let mut fullest: Vec<Table> = Vec::new();
            for table in self.peers.values().flat_map(size) {
                match fullest.iter_mut().find(|known| known.name == table.name) {
                    Some(known) => known.entries = known.entries.max(table.entries),
                    None => fullest.push(table),
                }
            }
            fullest
        };
        tables.extend(fullest(super::peer::Peer::tables));
        tables
    }

    /// Every peer that we have a session with, in the order of their positions.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let established = self.peers.iter().filter(|(_, peer)| peer.is_established());
        established
            .map(|(id, peer)| PeerInfo {
                id: *id,
                name: peer.certificate.name().to_string(),
                addresses: peer.addresses(),
                roles: peer.certificate.roles(),
                kind: self.link_kind(*id),
                path: self.path_info(*id),
                rtt: peer.liveness().rtt(),
                mtu_bytes: peer.guest_mtu().min(self.guest_mtu),
                since: peer.since,
                sent: peer.sent,
                received: peer.received,
            })
            .collect()
    }

    fn link_kind(&self, id: NodeId) -> LinkKind {
        if self.ring.near.contains(id) {
            LinkKind::Near
        } else if self.ring.far.contains(id) {
            LinkKind::Far
        } else if self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.last_guest.is_some())
        {
            LinkKind::OnDemand
        } else {
            LinkKind::Idle
        }
    }

    pub(super) fn path_info(&self, id: NodeId) -> PathInfo {
        let peer = self.peers.get(&id);
        if let Some(path) = peer.and_then(|peer| peer.active()) {
            return PathInfo::Direct {
                remote: path.remote,
            };
        }
        match self.relay_of(id) {
            Some(via) if self.common_relays(id).contains(&via) => PathInfo::Relay { via },
            relay => PathInfo::Overlay {
                via: relay.or_else(|| peer.and_then(|peer| peer.agent)),
            },
        }
    }
}
