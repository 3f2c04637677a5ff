//! The table of peers, with the order in which they need attention: hundreds of peers cost no more at
//! each event than a few.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::id::NodeId;
use crate::time::Instant;

use super::peer::Peer;

/// Peers by position. Read it as a map; what changes a peer goes by the methods here, so that its
/// deadline is computed anew.
#[derive(Default)]
pub(super) struct Peers {
    map: BTreeMap<NodeId, Peer>,
    /// When each peer needs attention, but for those in `touched`.
    agenda: BTreeSet<(Instant, NodeId)>,
    /// Peers that may have changed since they were last [settled](Peers::settle).
    touched: BTreeSet<NodeId>,
}

impl Deref for Peers {
    type Target = BTreeMap<NodeId, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl Peers {
    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        let peer = self.map.get_mut(id)?;
        if let Some(due) = peer.due.take() {
            self.agenda.remove(&(due, *id));
            self.touched.insert(*id);
        }
        Some(peer)
    }

    /// What a peer's deadline depends on has changed outside of it.
    pub(super) fn touch(&mut self, id: NodeId) {
        self.get_mut(&id);
    }

    pub(super) fn insert(&mut self, id: NodeId, peer: Peer) {
        self.remove(&id);
        self.map.insert(id, peer);
        self.touched.insert(id);
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Peer> {
        let peer = self.map.remove(id)?;
        match peer.due {
            Some(due) => self.agenda.remove(&(due, *id)),
            None => self.touched.remove(id),
        };
        Some(peer)
    }

    /// Puts the peers that were touched back into their order.
    pub(super) fn settle(&mut self, deadline: impl Fn(NodeId, &Peer) -> Instant) {
        while let Some(id) = self.touched.pop_first() {
            let Some(peer) = self.map.get_mut(&id) else {
                continue;
            };
            let due = deadline(id, peer);
            peer.due = Some(due);
            self.agenda.insert((due, id));
        }
    }

    /// When the first peer needs attention, once all are settled.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// The peers that need attention at `now`, once all are settled.
    pub(super) fn due(&self, now: Instant) -> Vec<NodeId> {
        let due = self.agenda.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, id)| *id).collect()
    }
}
