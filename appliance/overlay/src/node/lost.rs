//! Peers that fell silent without a word. They may be beyond a cut in the network, so they are tried
//! again, ever less often: where a cut heals, the two rings find each other by them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Distance, NodeId};
use crate::time::Instant;
use crate::wire::message::Contact;

use super::Node;
use super::attempts::Goal;
use super::neighbourhood::jitter;
use super::ring;

/// Lost peers that are remembered; the farthest in the ring are forgotten first.
pub(super) const LOST_MAX: usize = 16;
/// How long each is remembered.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// First and longest time between two tries of one. With half of its peers beyond a cut a node tries
/// one every few seconds, however long the cut has lasted.
const PAUSE_FIRST: Duration = Duration::from_secs(3);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// Once one is back, the others are tried this soon after each other.
const SOON: Duration = Duration::from_millis(100);

struct Entry {
    contact: Contact,
    since: Instant,
    due: Instant,
    pause: Duration,
}

/// The peers that were lost.
#[derive(Default)]
pub(super) struct Lost {
    entries: BTreeMap<NodeId, Entry>,
}

impl Lost {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }
}

impl Node {
    /// Remembers a peer that no path leads to any more.
    pub(super) fn remember_lost(&mut self, now: Instant, contact: Contact) {
        let entry = Entry {
            since: now,
            due: now + jitter(PAUSE_FIRST, &mut self.rng),
            pause: PAUSE_FIRST,
            contact,
        };
        self.lost.entries.insert(entry.contact.id, entry);
        if self.lost.entries.len() > LOST_MAX {
            // The farthest from here is the closest to the other end of the ring.
            let opposite = self.id.offset(Distance::from_fraction(0.5));
            let farthest = ring::closest(opposite, &self.lost.entries, |_, _| Some(()));
            let (farthest, ()) = farthest.expect("there are more than a few");
            self.lost.entries.remove(&farthest);
        }
    }

    /// A peer is up. If it was lost, the others may be back as well, and a ring with it.
    pub(super) fn on_found(&mut self, now: Instant, id: NodeId) {
        if self.lost.entries.remove(&id).is_none() {
            return;
        }
        self.ring.forgive();
        self.renew_soon(now);
        self.look_up_neighbourhood(now, self.id, Some(id));
        let mut due = now;
        for entry in self.lost.entries.values_mut() {
            due = due + SOON;
            entry.due = entry.due.min(due);
            entry.pause = PAUSE_FIRST;
        }
    }

    pub(super) fn maintain_lost(&mut self, now: Instant) {
        let entries = &mut self.lost.entries;
        entries.retain(|_, entry| now - entry.since < LIFETIME);
        let mut due = Vec::new();
        for entry in entries.values_mut().filter(|entry| entry.due <= now) {
            entry.pause = (entry.pause * 2).min(PAUSE_LONGEST);
            entry.due = now + jitter(entry.pause, &mut self.rng);
            due.push(entry.contact.clone());
        }
        for contact in due {
            if !self.peers.contains_key(&contact.id) {
                let agent = None;
                self.try_handshake(now, Goal::Contact { contact, agent });
            }
        }
    }
}
