//! Handshakes that others have begun by XX and that wait for their last message: how many there may be,
//! and which one gives way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::id::NodeId;
use crate::session::Responder;
use crate::time::Instant;

use super::report::Table;
use super::traffic::Source;

/// XX handshakes that wait for their last message: what the gate lets in within half a second, longer
/// than a round trip. Were there fewer, newcomers from afar would give way to nearer ones before they can
/// answer. Each takes a kilobyte.
const PENDING_MAX: usize = 1024;
/// Of these such from addresses at which nobody has shown to receive: what the gate lets in of them
/// within half a second. Beyond it a cookie is asked for, so that forged addresses leave room for true
/// ones.
pub(super) const PENDING_UNPROVEN_MAX: usize = 256;
/// Of these such from one address, behind which a whole site may be; the oldest gives way.
const PENDING_PER_ORIGIN_MAX: usize = 16;
/// How long such a one waits.
const PENDING_LIFETIME: Duration = Duration::from_secs(5);

/// A handshake that waits.
pub(super) struct Pending {
    pub responder: Responder,
    pub begun: Instant,
    pub origin: Origin,
    /// Its first message came with a cookie.
    pub proven: bool,
}

/// Who a handshake is from, as far as anybody can tell before it is finished.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Address(IpAddr),
    Node(NodeId),
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        match source {
            Source::Direct(remote) => Origin::Address(remote.ip()),
            Source::Overlay { from, .. } => Origin::Node(from),
        }
    }
}

/// The handshakes that wait, by our session index.
#[derive(Default)]
pub(super) struct PendingTable {
    entries: BTreeMap<u32, Pending>,
    /// The oldest first.
    by_age: BTreeSet<(Instant, u32)>,
    unproven: usize,
}

impl PendingTable {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "handshakes granted",
            entries: self.entries.len(),
            limit: PENDING_MAX,
        }
    }

    /// Whether those that have proven nothing take all the room that they may.
    pub(super) fn is_crowded(&self) -> bool {
        self.unproven >= PENDING_UNPROVEN_MAX
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Pending> {
        self.entries.get_mut(&index)
    }

    /// Takes one in. Returns the index of an older one that gave way.
    pub(super) fn insert(&mut self, index: u32, pending: Pending) -> Option<u32> {
        let gives_way = self.one_to_give_way(pending.origin);
        if let Some(index) = gives_way {
            self.remove(index);
        }
        self.unproven += usize::from(!pending.proven);
        self.by_age.insert((pending.begun, index));
        self.entries.insert(index, pending);
        gives_way
    }

    fn one_to_give_way(&self, origin: Origin) -> Option<u32> {
        let indices = || self.by_age.iter().map(|(_, index)| *index);
        let alike = |index: &u32| self.entries[index].origin == origin;
        if indices().filter(alike).count() >= PENDING_PER_ORIGIN_MAX {
            indices().find(alike)
        } else if self.entries.len() >= PENDING_MAX {
            indices().next()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Pending> {
        let pending = self.entries.remove(&index)?;
        self.by_age.remove(&(pending.begun, index));
        self.unproven -= usize::from(!pending.proven);
        Some(pending)
    }

    /// Removes what has waited too long. Returns its indices.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u32> {
        let late = self.by_age.iter();
        let late = late.take_while(|(begun, _)| *begun + PENDING_LIFETIME <= now);
        let late: Vec<_> = late.map(|(_, index)| *index).collect();
        for index in &late {
            self.remove(*index);
        }
        late
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let (oldest, _) = self.by_age.first()?;
        Some(*oldest + PENDING_LIFETIME)
    }
}
