//! A node's place in the ring: whom it knows of there, finding it, and keeping to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use crate::Rng;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Contact, SIDE_MAX};

use super::api::Event;
use super::attempts::Goal;
use super::far::FarLinks;
use super::peer::Peer;
use super::report::Table;
use super::ring::{self, NEAR_PER_SIDE, Neighbours};
use super::seeds::Seeds;
use super::{Node, PEERS_MAX};

/// Contacts heard of that are remembered; the farthest are forgotten first.
const KNOWN_MAX: usize = 96;
/// Of these such that one node told of: whoever invents contacts does not push out what others say.
const KNOWN_PER_AGENT_MAX: usize = 24;
/// How long a node that could not be reached is not tried again on hearsay.
const SUSPICION: Duration = Duration::from_secs(12);
/// Neighbours are told of a change after this, so that several changes make one message.
pub(super) const ANNOUNCE_DELAY: Duration = Duration::from_millis(20);
/// Neighbours are told that nothing has changed this often.
pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(15);
/// First and longest time between two looks for one's own neighbourhood, and the first after it has
/// changed: neighbours have told of that already.
const LOOKUP_FIRST: Duration = Duration::from_secs(1);
const LOOKUP_CHANGED: Duration = Duration::from_secs(3);
const LOOKUP_LONGEST: Duration = Duration::from_secs(60);
pub(super) struct Known {
    contact: Contact,
    agent: NodeId,
}

/// What a node knows of the ring around it.
pub(super) struct Neighbourhood {
    /// The nearest peers, two a side.
    pub near: Neighbours,
    /// Peers chosen as far links.
    pub far: FarLinks,
    pub known: BTreeMap<NodeId, Known>,
    suspects: BTreeMap<NodeId, Instant>,
    pub seeds: Seeds,
    looked_up: bool,
    joined_at: Option<Instant>,
    pub joined: bool,
    /// [`Event::Joined`] was given since.
    told_joined: bool,
    pub announce_due: Option<Instant>,
    pub announce_next: Instant,
    lookup_due: Instant,
    lookup_pause: Duration,
}

impl Neighbourhood {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        Neighbourhood {
            near: Neighbours::default(),
            far: FarLinks::new(now, rng),
            known: BTreeMap::new(),
            suspects: BTreeMap::new(),
            seeds: Seeds::default(),
            looked_up: false,
            joined_at: None,
            joined: false,
            told_joined: false,
            announce_due: None,
            announce_next: now + jitter(ANNOUNCE_INTERVAL, rng),
            lookup_due: now + LOOKUP_FIRST,
            lookup_pause: LOOKUP_FIRST,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    pub(super) fn joined_at(&self) -> Option<Instant> {
        self.joined_at
    }

    pub(super) fn tables(&self) -> [Table; 3] {
        let table = |name, entries, limit| Table {
            name,
            entries,
            limit,
        };
        [
            table("contacts", self.known.len(), KNOWN_MAX),
            table("suspects", self.suspects.len(), PEERS_MAX),
            table("far links", self.far.len(), ring::FAR_MAX),
        ]
    }

    #[cfg(test)]
    pub(super) fn known_key(&self, id: NodeId) -> Option<[u8; 32]> {
        self.known.get(&id).map(|known| known.contact.static_key)
    }

    /// Forgets the farthest of some contacts until at most so many are left.
    fn forget_farthest(&mut self, centre: NodeId, keep: usize, which: impl Fn(&Known) -> bool) {
        let chosen = self.known.values().filter(|known| which(known)).count();
        for _ in keep..chosen {
            let chosen = |_, known: &Known| which(known).then_some(());
            if let Some((id, ())) = ring::closest(centre.opposite(), &self.known, chosen) {
                self.known.remove(&id);
            }
        }
    }

    /// Whether a node lately could not be reached.
    pub(super) fn is_suspect(&self, id: NodeId) -> bool {
        self.suspects.contains_key(&id)
    }

    /// Believes hearsay about everybody again.
    pub(super) fn forgive(&mut self) {
        self.suspects.clear();
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        let announce = self.announce_due.unwrap_or(self.announce_next);
        let mut next = (announce.min(self.announce_next), "tell neighbours");
        let seeds = self.seeds.deadline().map(|due| (due, "try a seed"));
        let others = [
            (self.lookup_due, "look up the neighbourhood"),
            (self.far.deadline(), "count far links"),
        ];
        for other in seeds.into_iter().chain(others) {
            next = next.min(other);
        }
        next
    }
}

/// `span`, give or take a fifth, so that nodes do not act in step.
pub(super) fn jitter(span: Duration, rng: &mut Rng) -> Duration {
    span.mul_f64(0.8 + 0.4 * rng.random::<f64>())
}

impl Node {
    /// Takes in nodes that `agent` has links to.
    pub(super) fn learn_contacts(
        &mut self,
        now: Instant,
        contacts: impl Iterator<Item = Contact>,
        agent: NodeId,
    ) {
        for contact in contacts {
            if contact.id == self.id || self.ring.is_suspect(contact.id) {
                continue;
            }
            // Nobody changes what another one said, until it turned out to be wrong.
            let theirs = self.ring.known.get(&contact.id);
            if theirs
                .is_none_or(|known| known.agent == agent || !self.peers.contains_key(&known.agent))
            {
                self.ring.known.insert(contact.id, Known { contact, agent });
            }
        }
        self.ring
            .forget_farthest(self.id, KNOWN_PER_AGENT_MAX, |known| known.agent == agent);
        self.ring.forget_farthest(self.id, KNOWN_MAX, |_| true);
        self.stabilise(now);
    }

    /// Brings the links in line with the ring: finds the nearest nodes and reaches for them.
    pub(super) fn stabilise(&mut self, now: Instant) {
        let linked = |_, peer: &Peer| peer.is_established();
        let near = ring::nearest(self.id, &self.peers, NEAR_PER_SIDE, linked);
        if near != self.ring.near {
            let old = std::mem::replace(&mut self.ring.near, near);
            for id in old.iter().chain(self.ring.near.iter()) {
                self.peers.touch(id);
            }
            self.ring.announce_due.get_or_insert(now + ANNOUNCE_DELAY);
            let soon = match self.ring.joined {
                true => LOOKUP_CHANGED,
                false => LOOKUP_FIRST,
            };
            self.ring.lookup_pause = soon;
            self.ring.lookup_due = self.ring.lookup_due.min(now + soon);
        }
        let doubtful: BTreeSet<_> = self.handshakes.attempts.doubtful().collect();
        let hearsay = |id, _: &Known| !doubtful.contains(&id);
        let known = ring::nearest(self.id, &self.ring.known, NEAR_PER_SIDE, hearsay);
        let heard_of = known.iter().chain(self.ring.near.iter());
        let heard_of: BTreeMap<_, ()> = heard_of.map(|id| (id, ())).collect();
        let wanted = ring::nearest(self.id, &heard_of, NEAR_PER_SIDE, |_, ()| true);
        let missing: BTreeSet<_> = wanted.iter().filter(|id| !self.is_linked(*id)).collect();
        for id in missing {
            if !self.handshakes.attempts.has_room_for_hearsay() {
                self.counters.drop_full += 1;
                break;
            }
            if let Some(known) = self.ring.known.get(&id) {
                let goal = Goal::Contact {
                    contact: known.contact.clone(),
                    agent: Some(known.agent),
                };
                self.begin_handshake(now, goal);
            }
        }
        self.seek_relays(now);
        self.judge_joined(now, &wanted);
    }

    fn judge_joined(&mut self, now: Instant, wanted: &Neighbours) {
        if self.ring.near.right.is_empty() {
            if self.is_first() {
                return self.set_joined(now);
            }
            self.ring.told_joined = false;
            if std::mem::take(&mut self.ring.joined) {
                self.event(Event::Isolated);
            }
            self.ring.looked_up = false;
            self.ring.seeds.hasten(now);
            return;
        }
        let nearest = [wanted.left.first(), wanted.right.first()];
        let in_place = nearest.into_iter().flatten().all(|id| self.is_linked(*id));
        if self.ring.looked_up && in_place {
            self.set_joined(now);
        }
    }

    /// Whether a session with a node is up.
    pub(super) fn is_linked(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(Peer::is_established)
    }

    fn set_joined(&mut self, now: Instant) {
        if std::mem::replace(&mut self.ring.joined, true) {
            return;
        }
        self.claim_all(now);
        self.check_joined(now);
    }

    /// Says so when the node has become of use.
    pub(super) fn check_joined(&mut self, now: Instant) {
        if self.is_joined() && !std::mem::replace(&mut self.ring.told_joined, true) {
            self.ring.joined_at.get_or_insert(now);
            self.event(Event::Joined);
        }
    }

    pub(super) fn on_peer_up(&mut self, now: Instant, id: NodeId) {
        self.ring.suspects.remove(&id);
        self.ring.known.remove(&id);
        self.stabilise(now);
        self.announce_link(now, id);
        self.on_found(now, id);
        // Each new link may know the place better than the last one did. A neighbour tells by itself.
        let tells = self.ring.looked_up && self.ring.near.contains(id);
        if !self.ring.joined && !tells {
            self.look_up_neighbourhood(now, self.id, Some(id));
        }
    }

    /// A direct path to a peer was found or lost: the ring's links that are relayed hear of it.
    pub(super) fn on_hop_changed(&mut self, now: Instant) {
        self.ring.announce_due.get_or_insert(now + ANNOUNCE_DELAY);
        self.seek_relays(now);
    }

    /// Our own neighbourhood was answered for.
    pub(super) fn on_neighbourhood(
        &mut self,
        now: Instant,
        contacts: impl Iterator<Item = Contact>,
        from: NodeId,
    ) {
        self.ring.looked_up = true;
        self.learn_contacts(now, contacts, from);
    }

    /// A handshake was never answered.
    pub(super) fn on_unreachable(&mut self, now: Instant, goal: Goal) {
        match goal {
            Goal::Seed(address) => {
                self.ring.seeds.failed(now, address, &mut self.rng);
            }
            Goal::Contact { contact, .. } => {
                if !self.peers.contains_key(&contact.id) {
                    self.suspect(now, contact.id);
                    // Neighbours do not repeat what has not changed.
                    self.ring.lookup_due = self.ring.lookup_due.min(now + SUSPICION);
                    self.waiting.remove(contact.id);
                    self.stabilise(now);
                }
            }
        }
    }

    pub(super) fn suspect(&mut self, now: Instant, id: NodeId) {
        self.ring.known.remove(&id);
        self.ring.far.remove(id);
        // Whoever told of it may tell of it again.
        for neighbour in self.ring.near.clone().iter() {
            if let Some(peer) = self.peers.get_mut(&neighbour) {
                peer.heard_list = 0;
            }
        }
        if self.ring.suspects.len() < PEERS_MAX {
            self.ring.suspects.insert(id, now + SUSPICION);
        }
    }

    /// The peers nearest to a position on both sides as contacts, without `except`.
    pub(super) fn contacts_around(
        &self,
        position: NodeId,
        except: NodeId,
    ) -> (Vec<Contact>, Vec<Contact>) {
        let linked = |id, peer: &Peer| id != except && peer.is_established();
        let around = ring::nearest(position, &self.peers, SIDE_MAX, linked);
        let contacts = |ids: &[NodeId]| {
            let peers = ids.iter().filter_map(|id| self.peers.get(id));
            peers.map(|peer| peer.contact()).collect::<Vec<_>>()
        };
        (contacts(&around.left), contacts(&around.right))
    }

    pub(super) fn maintain_ring(&mut self, now: Instant) {
        self.ring.suspects.retain(|_, until| *until > now);
        if self.ring.announce_due.is_some_and(|due| due <= now) || self.ring.announce_next <= now {
            self.announce(now);
        }
        if self.ring.lookup_due <= now {
            let pause = jitter(self.ring.lookup_pause, &mut self.rng);
            self.ring.lookup_due = now + pause;
            self.ring.lookup_pause = (self.ring.lookup_pause * 2).min(LOOKUP_LONGEST);
            self.look_up_neighbourhood(now, self.id, None);
        }
        self.maintain_far(now);
        self.try_seeds(now);
    }
}
