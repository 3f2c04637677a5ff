//! After a change of the machine or its links every path is in doubt at once.

use crate::time::Instant;
use crate::wire::Remote;

use super::Node;
use super::peer::Via;

impl Node {
    /// Replaces the sockets that the node listens on, of each protocol: call it when any interface
    /// changes. Returns whether they changed; then every path is questioned already.
    pub fn set_host_candidates(&mut self, now: Instant, local: Vec<Remote>) -> bool {
        let news = self.candidates.set_host(local);
        if news {
            self.sightings.clear();
            self.question_paths(now);
        }
        news
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
                if let Via::Direct(remote) = via
                    && let Some(mtu) = peer.mtu_mut(remote)
                {
                    mtu.question(now);
                }
                peer.start_race(now);
            }
        }
    }
}
