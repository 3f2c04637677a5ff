//! Secure sessions: Noise handshakes, the gate in front of them, sealed records, their lifetime.
//!
//! The order of use at a node: every datagram that is no record passes the [`Gate`] (pool MAC, cookie
//! under load), then goes by its receiver index to the [`Initiator`] or [`Responder`] that waits for
//! it, or as an Init to [`Responder::accept`]. Either ends in a [`Session`]. Records go by
//! [`record_receiver`](crate::wire::outer::record_receiver) to the session's [`Opener`].
//!
//! Left out deliberately: whose key a static key is (the node checks the certificate in the payload
//! against `remote_static`), retransmission (the node's timers), and which path a datagram takes.

mod announcement;
mod bucket;
mod cipher;
mod gate;
mod handshake;
mod keys;
mod noise;
mod record;
mod rekey;
mod replay;
#[cfg(feature = "stand-in")]
mod stand_in;
mod x25519;

use std::fmt;
use std::sync::Arc;

pub use announcement::{ANNOUNCEMENT_MAX_BYTES, Announcer};
pub(crate) use bucket::Bucket;
pub use cipher::{CipherPreference, CipherSuite};
pub use gate::{COOKIE_EPOCH, DropReason, Gate, GateLimits, Rate, Verdict};
pub use handshake::{
    Accepted, CookieError, Finished, HandshakeError, Initiator, MAX_FORGERIES, MAX_PAYLOAD_BYTES,
    Responder,
};
pub use keys::{Endpoint, StaticKey};
pub use record::{OpenError, Opener, RECORD_LIMIT, SealError, Sealer};
pub use rekey::{
    EXPIRE_AFTER, REKEY_AFTER, REKEY_AFTER_RECORDS, REKEY_TAKEOVER_AFTER, RekeyPolicy, Role,
};
pub use replay::{ReplayError, ReplayWindow, WINDOW};

use crate::time::Instant;

/// An established session with one peer: two directions of records under fresh keys.
///
/// The halves are public so that several threads may seal (through the `Arc`) while one opens.
pub struct Session {
    /// Seals what goes to the peer.
    pub sealer: Arc<Sealer>,
    /// Opens what comes from it.
    pub opener: Opener,
    local_index: u32,
    remote_index: u32,
    handshake_hash: [u8; 32],
    suite: CipherSuite,
    confirmed: bool,
    policy: RekeyPolicy,
}

impl Session {
    /// The index that records to us carry.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index that records to the peer carry.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Noise's handshake hash: equal on both sides, unique to this session.
    pub fn handshake_hash(&self) -> &[u8; 32] {
        &self.handshake_hash
    }

    /// The cipher that seals this session's records.
    pub fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// Which side of the handshake we were.
    pub fn role(&self) -> Role {
        self.policy.role()
    }

    /// When the handshake ended on our side.
    pub fn established(&self) -> Instant {
        self.policy.established()
    }

    /// Whether the peer has proved that it holds the session's keys now.
    ///
    /// An IK responder has no such proof until the first record opens: its Init may have been a
    /// replay. Until then the session must not displace another one, nor be sent on. An XX
    /// initiator is unconfirmed in the other sense: whether its Final arrived is unknown, so it
    /// repeats the Final until a record opens.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed || self.opener.highest().is_some()
    }

    /// How many records have been sealed.
    pub fn sealed_count(&self) -> u64 {
        self.sealer.sealed_count()
    }

    /// Whether it is our turn to replace this session by a new handshake.
    pub fn rekey_due(&self, now: Instant) -> bool {
        let received = self.opener.highest().unwrap_or(0);
        self.policy.due(now) || self.sealed_count().max(received) >= REKEY_AFTER_RECORDS
    }

    /// Whether this session must no longer be used, in either direction.
    pub fn expired(&self, now: Instant) -> bool {
        self.policy.expired(now)
    }

    /// When [`rekey_due`](Self::rekey_due) becomes true by time alone.
    pub fn rekey_at(&self) -> Instant {
        self.policy.rekey_at()
    }

    /// When [`expired`](Self::expired) becomes true.
    pub fn expires_at(&self) -> Instant {
        self.policy.expires_at()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("suite", &self.suite)
            .field("confirmed", &self.is_confirmed())
            .finish_non_exhaustive()
    }
}
