//! Everything that happens because time passes.

use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::message::Control;

use super::Node;
use super::api::DownReason;
use super::liveness::Health;
use super::peer::{LiveSession, Peer, Via};
use super::ring::Neighbours;
use super::traversal::Traversal;

/// How often an idle path to a near neighbour is probed: what bounds the noticing of its death.
const KEEPALIVE_NEAR: Duration = Duration::from_secs(5);
/// How often any other idle path is probed: below the 30 s that impatient NATs keep a mapping.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often expired sessions, certificates and records are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long a peer may take to show that it holds a session's keys.
const CONFIRMATION: Duration = Duration::from_secs(8);

impl Node {
    /// Replaces the outside ports that the gateway passes on to the node's sockets.
    pub fn set_mapped_candidates(&mut self, now: Instant, mapped: Vec<Remote>) {
        if !self.candidates.set_mapped(mapped) {
            return;
        }
        // Whoever has no direct path to us may have one now.
        let relayed = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.active().is_none());
        for id in relayed.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send_candidates(now, id, true);
        }
    }

    /// Corrects the wall clock that certificates are judged by.
    pub fn set_wall_clock(&mut self, now: Instant, wall: crate::time::UnixTime) {
        self.wall = super::WallClock::new(now, wall);
    }

    /// Gives up its leases and names and says goodbye to every peer; drain the transmits, then drop the node.
    pub fn leave(&mut self, now: Instant) {
        self.withdraw_all(now);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            self.send_control(now, id, &Control::Bye { leaving: true });
        }
    }

    /// When [`Node::handle_deadline`] is to be called next, and what for.
    pub fn next_deadline(&mut self) -> Option<(Instant, &'static str)> {
        self.settle_peers();
        let mut next = self.ring.deadline();
        let others = [
            (self.handshakes.deadline(), "repeat a handshake"),
            (self.lookups.deadline(), "repeat a lookup"),
            (self.echoes.deadline(), "give an echo up"),
            (self.survey.deadline(), "repeat a survey's question"),
            (self.lost.deadline(), "try a lost peer"),
            (Some(self.housekeeping_due), "housekeeping"),
        ];
        if let Some(due) = self.dht.deadline() {
            next = next.min(due);
        }
        for (due, reason) in others {
            if let Some(due) = due {
                next = next.min((due, reason));
            }
        }
        if let Some(due) = self.peers.next_due() {
            next = next.min((due, "probe a path"));
        }
        Some(next)
    }

    /// Asserts that the order of the peers' deadlines says what looking at each of them would.
    #[cfg(test)]
    pub(super) fn check_order_of_peers(&mut self) {
        self.settle_peers();
        let near = &self.ring.near;
        let each = self
            .peers
            .iter()
            .map(|(id, peer)| deadline(near, *id, peer));
        assert_eq!(self.peers.next_due(), each.min());
    }

    /// Brings the order of the peers' deadlines up to date.
    fn settle_peers(&mut self) {
        let near = &self.ring.near;
        self.peers.settle(|id, peer| deadline(near, id, peer));
    }

    /// Does what is due at `now`.
    pub fn handle_deadline(&mut self, now: Instant) {
        self.settle_peers();
        for id in self.peers.due(now) {
            self.maintain_peer(now, id);
        }
        self.maintain_handshakes(now);
        self.maintain_lookups(now);
        self.maintain_echoes(now);
        self.maintain_survey(now);
        self.maintain_ring(now);
        self.maintain_lost(now);
        if self.housekeeping_due <= now {
            self.housekeeping_due = now + HOUSEKEEPING;
            self.keep_house(now);
        }
        self.maintain_dht(now);
    }

    fn maintain_peer(&mut self, now: Instant, id: NodeId) {
        self.run_race(now, id);
        self.run_traversal(now, id);
        self.maintain_sizes(now, id);
        self.maintain_batches(now, id);
        let keepalive = keepalive(&self.ring.near, id);
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let mut vias: Vec<_> = peer.paths.iter().map(|p| Via::Direct(p.remote)).collect();
        if peer.active().is_none() {
            vias.push(Via::Overlay);
        }
        for via in vias {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let active = peer.via();
            let Some(liveness) = peer.liveness_mut(via) else {
                continue;
            };
            match (liveness.health(now, keepalive), via) {
                (Health::Fine, _) => {}
                (Health::Late, _) if via == active => self.repeat_tail(now, id),
                (Health::Late, _) => liveness.on_repeated(),
                (Health::Probe, _) => self.probe(now, id, via),
                (Health::Dead, Via::Direct(remote)) => self.lose_path(now, id, remote),
                (Health::Dead, Via::Overlay) => {
                    return self.drop_peer(now, id, DownReason::Unreachable);
                }
            }
        }
    }

    fn probe(&mut self, now: Instant, id: NodeId, via: Via) {
        let token = self.token();
        // Each try over the overlay goes by another relay; what answers stays.
        let tries = self.peers.get(&id).map_or(0, |peer| peer.overlay.tries());
        let relay = self.relay_to(id, tries);
        if let Some(peer) = self.peers.get_mut(&id) {
            if via == Via::Overlay && (peer.agent.is_none() || peer.overlay.is_suspect()) {
                peer.agent = relay.or(peer.agent);
            }
            if let Some(liveness) = peer.liveness_mut(via) {
                liveness.on_probe_sent(token, now);
            }
        }
        let last = self.peers.get(&id).and_then(Peer::unanswered_handshake);
        if let (Some(last), Via::Direct(remote)) = (last.cloned(), via) {
            self.transmit(remote, last);
            // It may have come when the peer had no room for it any more. Now that its key is known, a
            // fresh handshake is done in one round trip.
            self.rekey(now, id);
        }
        self.send_control_by(now, id, via, &Control::Probe { token });
    }

    fn lose_path(&mut self, now: Instant, id: NodeId, remote: Remote) {
        self.counters.paths_lost += 1;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.drop_path(remote);
        if peer.active().is_some() {
            return;
        }
        // The overlay carries on while the peer is looked for at all its addresses again.
        peer.start_race(now);
        self.on_hop_changed(now);
        self.probe(now, id, Via::Overlay);
        self.send_candidates(now, id, true);
        self.run_race(now, id);
    }

    /// Probes a peer's candidates, when a round is due.
    pub(super) fn run_race(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let round = peer.race_round(now);
        let failing = !round.is_empty() && peer.race_is_failing();
        let offered = peer.candidates.clone();
        for remote in self.candidates.worth_trying(&offered) {
            if round.contains(&remote) {
                self.probe_candidate(now, id, remote);
            }
        }
        if failing {
            self.begin_traversal(now, id);
        }
    }

    /// Looks for a direct path again where traffic has none; both sides, at once.
    fn race_again(&mut self, now: Instant, id: NodeId) {
        // Every peer is asked every second, and hardly any is changed.
        if !self.peers.get(&id).is_some_and(|peer| peer.wants_race(now)) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.put_off_race(now);
        peer.start_race(now);
        self.send_candidates(now, id, true);
    }

    fn keep_house(&mut self, now: Instant) {
        let wall = self.wall.at(now);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            let is_old = |live: &LiveSession| is_old(live, now);
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let mut released = Vec::new();
            if peer.sessions.iter().any(is_old)
                && let Some(peer) = self.peers.get_mut(&id)
            {
                let old = peer.sessions.extract_if(.., |live| is_old(live));
                released.extend(old.map(|live| live.session.local_index()));
            }
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let empty = peer.sessions.is_empty();
            let expired = peer.certificate.not_after() < wall;
            let due = peer
                .sending()
                .is_some_and(|live| live.session.rekey_due(now));
            for index in released {
                self.handshakes.release(index);
            }
            if empty {
                self.drop_peer(now, id, DownReason::Unreachable);
            } else if expired {
                self.drop_peer(now, id, DownReason::Expired);
            } else if self.is_unneeded(now, id) {
                self.send_control(now, id, &Control::Bye { leaving: false });
                self.drop_peer(now, id, DownReason::Unneeded);
            } else if due {
                self.rekey(now, id);
            }
            self.race_again(now, id);
        }
        self.dht.store.expire(now);
        self.tell_needs(now);
        self.forget_answered(now);
    }
}

/// When a peer needs attention: a probe, or a round of its race.
fn deadline(near: &Neighbours, id: NodeId, peer: &Peer) -> Instant {
    let keepalive = keepalive(near, id);
    let paths = peer.paths.iter().map(|path| &path.liveness);
    let probes = paths.chain([peer.liveness()]);
    let probe = probes.map(|liveness| liveness.deadline(keepalive)).min();
    let sizes = peer
        .paths
        .iter()
        .filter_map(|path| path.mtu.as_ref()?.deadline());
    let batches = peer
        .paths
        .iter()
        .filter_map(|path| path.together.deadline());
    let traversal = peer.traversal.as_ref().map(Traversal::deadline);
    [probe, peer.race_deadline(), traversal]
        .into_iter()
        .flatten()
        .chain(sizes)
        .chain(batches)
        .min()
        .expect("the way in use has a deadline")
}

fn keepalive(near: &Neighbours, id: NodeId) -> Duration {
    match near.contains(id) {
        true => KEEPALIVE_NEAR,
        false => KEEPALIVE,
    }
}

fn is_old(live: &LiveSession, now: Instant) -> bool {
    let unproven = !live.confirmed && now - live.created > CONFIRMATION;
    unproven || live.session.expired(now)
}
