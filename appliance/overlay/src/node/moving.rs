//! After a change of the machine or its links every path is in doubt at once.

use std::net::SocketAddr;

use crate::time::Instant;
use crate::wire::message::CANDIDATES_MAX;

use super::Node;

impl Node {
    /// Replaces the node's own underlay addresses: call it when any interface changes.
    pub fn set_host_candidates(&mut self, now: Instant, mut local: Vec<SocketAddr>) {
        local.truncate(CANDIDATES_MAX);
        if local == self.host_candidates {
            return;
        }
        self.host_candidates = local;
        // Whatever others saw us as came from the old addresses.
        self.reflexive.clear();
        self.question_paths(now);
    }

    /// Probes every path and every candidate of every peer now: call it when the machine may have
    /// stood still or its link may lead somewhere else, though no address changed.
    pub fn question_paths(&mut self, now: Instant) {
        self.tell_reflexive = true;
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            self.send_candidates(now, id, false);
            if let Some(peer) = self.peers.get_mut(&id) {
                let via = peer.via();
                if let Some(liveness) = peer.liveness_mut(via) {
                    liveness.suspect();
                }
                peer.start_race(now);
            }
        }
    }
}
