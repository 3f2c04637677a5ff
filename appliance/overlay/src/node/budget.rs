//! What one peer may ask for: budgets, so that a member that floods costs no more than a busy one.

use crate::session::{Bucket, Rate};
use crate::time::Instant;

/// Messages that cost work or an answer, and questions on their way through or to us. A seed passes
/// on a few hundred a second while a large pool joins by it; handling one takes some 20 µs.
const REQUESTS: Rate = Rate {
    per_second: 500,
    burst: 1000,
};
/// Lists of contacts, each of which may begin handshakes. An honest peer sends one when its
/// neighbours change, at most every 20 ms, and that not for long.
const CONTACTS: Rate = Rate {
    per_second: 20,
    burst: 60,
};
/// Probes to addresses that nobody has proven to be the peer's: it may name a victim's. A race of
/// all candidates takes 112 over four seconds.
const PROBES: Rate = Rate {
    per_second: 32,
    burst: 160,
};

/// What is left to one peer.
#[derive(Default)]
pub(super) struct Budgets {
    requests: Bucket,
    contacts: Bucket,
    probes: Bucket,
}

impl Budgets {
    /// Whether the peer may have something done.
    pub(super) fn take_request(&mut self, now: Instant) -> bool {
        self.requests.take(REQUESTS, now)
    }

    /// Whether the peer may tell of contacts.
    pub(super) fn take_contacts(&mut self, now: Instant) -> bool {
        self.contacts.take(CONTACTS, now)
    }

    /// Whether an address that the peer named may be probed.
    pub(super) fn take_probe(&mut self, now: Instant) -> bool {
        self.probes.take(PROBES, now)
    }
}
