//! Handing records to new near neighbours: at a pace that leaves the receiver's budget for requests
//! room for others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::record::Key;

use super::super::Node;
use super::super::ring::Neighbours;

/// Records that one neighbour is handed at a time, and how long until the next ones: 200 a second, of
/// 500 requests that it takes from us. What a node of a large pool keeps goes at once.
const BATCH: usize = 50;
const PAUSE: Duration = Duration::from_millis(250);

/// What is still to be handed over, and to whom.
#[derive(Default)]
pub(super) struct HandOver {
    /// The near neighbours that have been handed what concerns them, or are.
    known: Neighbours,
    /// The keys left for each new one, the next one last.
    left: BTreeMap<NodeId, Vec<Key>>,
    due: Option<Instant>,
}

impl HandOver {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Node {
    /// Gives new near neighbours the records that concern them.
    pub(super) fn hand_over(&mut self, now: Instant) {
        if self.ring.near != self.dht.hand_over.known {
            self.begin_hand_over(now);
        }
        if self.dht.hand_over.due.is_some_and(|due| due <= now) {
            self.hand_over_some(now);
        }
    }

    fn begin_hand_over(&mut self, now: Instant) {
        let near: BTreeSet<_> = self.ring.near.iter().collect();
        let state = &mut self.dht.hand_over;
        let before = std::mem::replace(&mut state.known, self.ring.near.clone());
        state.left.retain(|id, _| near.contains(id));
        let fresh: Vec<_> = near.iter().filter(|id| !before.contains(**id)).collect();
        if fresh.is_empty() {
            return;
        }
        for id in fresh {
            state.left.insert(*id, Vec::new());
        }
        // Those that have been near for a while and are told all; no link but those of the ring tells
        // who has a record.
        let informed = near.iter().filter(|id| !state.left.contains_key(id));
        let informed: Vec<_> = informed.collect();
        let mut keys = Vec::new();
        for kept in self.dht.store.all_granted(now) {
            let position = kept.position;
            let own = self.id.distance(position);
            let others = informed.iter().map(|id| id.distance(position));
            // Whoever decided until now hands over, so that one copy comes and not five.
            if others.min().is_none_or(|other| own <= other) {
                keys.push((position, kept.verified.claim.key.clone()));
            }
        }
        let own = self.id;
        for (id, left) in &mut self.dht.hand_over.left {
            if before.contains(*id) {
                continue;
            }
            // First what it is now to decide on itself.
            let theirs = |position: &NodeId| id.distance(*position) < own.distance(*position);
            let (first, rest): (Vec<_>, Vec<_>) =
                keys.iter().partition(|(position, _)| theirs(position));
            left.extend(rest.into_iter().chain(first).map(|(_, key)| key.clone()));
        }
        self.dht.hand_over.due = Some(now);
        self.renew_soon(now);
    }

    /// A record that `from` has just told us of goes on to the neighbour that is closer to its key than
    /// both: rings that grow fast may have granted it far from where it is looked for now.
    pub(super) fn pass_on_record(&mut self, now: Instant, from: NodeId, key: &Key) {
        let Some(kept) = self.dht.store.granted(now, key) else {
            return;
        };
        let known = self.ring.near.iter().chain([self.id, from]);
        let closest = known.min_by_key(|id| id.distance(kept.position));
        let other = closest.filter(|id| ![self.id, from].contains(id));
        if let Some(closest) = other {
            self.send_copy(now, closest, key);
        }
    }

    fn hand_over_some(&mut self, now: Instant) {
        let mut some = Vec::new();
        let state = &mut self.dht.hand_over;
        for (id, left) in &mut state.left {
            let rest = left.len().saturating_sub(BATCH);
            some.extend(left.drain(rest..).rev().map(|key| (*id, key)));
        }
        state.left.retain(|_, left| !left.is_empty());
        state.due = (!state.left.is_empty()).then_some(now + PAUSE);
        for (id, key) in some {
            self.send_copy(now, id, &key);
        }
    }
}
