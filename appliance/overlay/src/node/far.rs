//! Far links: how many, whereto, and the exchange of one for an equal that is nearer in the underlay.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::Rng;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Contact;

use super::Node;
use super::attempts::Goal;
use super::neighbourhood::jitter;
use super::ring;

/// How often far links are counted, and while there are too few.
const INTERVAL: Duration = Duration::from_secs(4);
const INTERVAL_SHORT: Duration = Duration::from_secs(1);
/// How often one of them is compared with another node beside it.
const REVIEW_INTERVAL: Duration = Duration::from_secs(60);
/// A link is exchanged for one whose round trip is below this share of its own.
const EXCHANGE_BELOW: f64 = 0.7;

/// The peers chosen as far links.
pub(super) struct FarLinks {
    links: BTreeSet<NodeId>,
    due: Instant,
    review_due: Instant,
    /// A far link, and the node beside it that may take its place once its round trip is measured.
    trial: Option<(NodeId, NodeId)>,
}

impl FarLinks {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        FarLinks {
            links: BTreeSet::new(),
            due: now + jitter(INTERVAL, rng),
            review_due: now + jitter(REVIEW_INTERVAL, rng),
            trial: None,
        }
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.links.contains(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        self.links.remove(&id);
    }

    pub(super) fn deadline(&self) -> Instant {
        self.due
    }
}

impl Node {
    pub(super) fn maintain_far(&mut self, now: Instant) {
        if self.ring.far.due > now {
            return;
        }
        let peers = &self.peers;
        self.ring.far.links.retain(|id| peers.contains_key(id));
        self.end_trial();
        let size = self.size_estimate();
        let lacking = self.is_joined() && self.ring.far.len() < ring::far_links_wanted(size);
        let pause = match lacking {
            true => INTERVAL_SHORT,
            false => INTERVAL,
        };
        self.ring.far.due = now + jitter(pause, &mut self.rng);
        if lacking {
            let target = ring::draw_far_target(self.id, size, &mut self.rng);
            self.look_up_neighbourhood(now, target, None);
        } else if self.ring.far.review_due <= now {
            self.ring.far.review_due = now + jitter(REVIEW_INTERVAL, &mut self.rng);
            if let Some(link) = self.ring.far.iter().choose(&mut self.rng) {
                self.look_up_neighbourhood(now, link, None);
            }
        }
    }

    /// Who is around a far target was answered: the closest becomes a far link. Where it is one, a node
    /// beside it is tried.
    pub(super) fn on_far_target(&mut self, now: Instant, closest: Contact, beside: Vec<Contact>) {
        let id = closest.id;
        if id == self.id || self.ring.near.contains(id) {
            return;
        }
        let wanted = ring::far_links_wanted(self.size_estimate());
        if self.ring.far.contains(id) {
            if self.ring.far.len() < wanted {
                return;
            }
            let strange =
                |contact: &Contact| contact.id != self.id && !self.peers.contains_key(&contact.id);
            let rival = beside.into_iter().filter(strange).choose(&mut self.rng);
            if let Some(contact) = rival {
                self.ring.far.trial = Some((id, contact.id));
                let agent = Some(id);
                self.try_handshake(now, Goal::Contact { contact, agent });
            }
        } else if self.ring.far.len() < wanted {
            self.ring.far.links.insert(id);
            if !self.peers.contains_key(&id) {
                let goal = Goal::Contact {
                    contact: closest,
                    agent: None,
                };
                self.begin_handshake(now, goal);
            }
        }
    }

    /// Compares the round trips of a far link and its rival, and keeps the shorter. The other link is
    /// dropped when nobody needs it.
    fn end_trial(&mut self) {
        let Some((link, rival)) = self.ring.far.trial else {
            return;
        };
        let rtt = |id| {
            let active = self.peers.get(&id)?.active()?;
            active.liveness.rtt()
        };
        if let (Some(present), Some(other)) = (rtt(link), rtt(rival))
            && other < present.mul_f64(EXCHANGE_BELOW)
        {
            self.ring.far.links.remove(&link);
            self.ring.far.links.insert(rival);
        }
        self.ring.far.trial = None;
    }
}
