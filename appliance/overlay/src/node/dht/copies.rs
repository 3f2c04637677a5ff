//! Copies of records that near neighbours keep: each is sent again until it is confirmed, or too often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Control;
use crate::wire::record::Key;

use super::super::Node;
use super::super::report::Table;

/// Copies that are waited for; further ones are sent once, and made up for by the claim's next renewal.
const COPIES_MAX: usize = 4096;
/// When a copy that nobody confirms is sent again, counted from the sending before.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3200),
];

struct Copy {
    to: NodeId,
    key: Key,
    /// How many of [`RETRIES`] are used up.
    sent: usize,
    due: Instant,
}

/// The copies that were sent and not confirmed.
#[derive(Default)]
pub(in super::super) struct Copies {
    waiting: BTreeMap<u64, Copy>,
    by_due: BTreeSet<(Instant, u64)>,
    /// The token of the last one. Its receiver names it and is known to be the receiver, so that a number
    /// that can be guessed will do.
    last: u64,
}

impl Copies {
    pub(in super::super) fn table(&self) -> Table {
        Table {
            name: "copies to confirm",
            entries: self.waiting.len(),
            limit: COPIES_MAX,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// A copy goes out. Returns its token.
    fn note(&mut self, now: Instant, to: NodeId, key: Key) -> u64 {
        self.last += 1;
        if self.waiting.len() < COPIES_MAX {
            let sent = 1;
            let due = now + RETRIES[0];
            let copy = Copy { to, key, sent, due };
            self.insert(self.last, copy);
        }
        self.last
    }

    fn insert(&mut self, token: u64, copy: Copy) {
        self.by_due.insert((copy.due, token));
        self.waiting.insert(token, copy);
    }

    fn remove(&mut self, token: u64) -> Option<Copy> {
        let copy = self.waiting.remove(&token)?;
        self.by_due.remove(&(copy.due, token));
        Some(copy)
    }

    fn take_due(&mut self, now: Instant) -> Option<(u64, Copy)> {
        let (_, token) = *self.by_due.first().filter(|(due, _)| *due <= now)?;
        Some((token, self.remove(token)?))
    }
}

impl Node {
    /// Sends a copy of what is kept for a key.
    pub(super) fn send_copy(&mut self, now: Instant, to: NodeId, key: &Key) {
        if let Some(kept) = self.dht.store.granted(now, key) {
            let token = self.dht.copies.note(now, to, key.clone());
            let copy = kept.copy(now, token);
            self.send_control(now, to, &copy);
        }
    }

    /// A copy has arrived.
    pub(in super::super) fn handle_stored(&mut self, from: NodeId, token: u64) {
        let copy = self.dht.copies.waiting.get(&token);
        if copy.is_some_and(|copy| copy.to == from) {
            self.dht.copies.remove(token);
        }
    }

    /// Confirms a copy, unless nobody waits for that.
    pub(super) fn confirm_copy(&mut self, now: Instant, from: NodeId, token: u64) {
        if token != 0 {
            self.send_control(now, from, &Control::Stored { token });
        }
    }

    /// Sends the copies again that are due and still concern their receivers.
    pub(super) fn maintain_copies(&mut self, now: Instant) {
        while let Some((token, mut copy)) = self.dht.copies.take_due(now) {
            let kept = self.dht.store.granted(now, &copy.key);
            let Some(kept) = kept.filter(|_| self.ring.near.contains(copy.to)) else {
                continue;
            };
            let (to, message) = (copy.to, kept.copy(now, token));
            if let Some(pause) = RETRIES.get(copy.sent) {
                copy.sent += 1;
                copy.due = now + *pause;
                self.dht.copies.insert(token, copy);
            }
            self.send_control(now, to, &message);
        }
    }
}
