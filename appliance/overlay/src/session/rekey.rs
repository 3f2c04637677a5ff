//! How long a session lives: when who replaces it, and when it must not be used any more.

use std::time::Duration;

use crate::time::Instant;

/// The initiator of a session replaces it after this time, give or take a tenth: rekeys of sessions
/// that began together must not come together (tinc's hourly storms).
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The responder does, give or take a tenth, when the initiator has not.
pub const REKEY_TAKEOVER_AFTER: Duration = Duration::from_secs(150);
/// After this time a session is not used in either direction. Leaves 15 s for the latest rekey.
pub const EXPIRE_AFTER: Duration = Duration::from_secs(180);
/// A session is also replaced after this many records in one direction. Even if each were a 64 KiB
/// superpacket, AES-GCM's distinguishing advantage would still be below 2^-32 (birthday bound on
/// 2^48 blocks); at 10 million records a second, time comes first by far.
pub const REKEY_AFTER_RECORDS: u64 = 1 << 36;

const JITTER_DIVISOR: u32 = 10;

/// A side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent the Init.
    Initiator,
    /// Answered it.
    Responder,
}

/// The times of one session. Pure: says what is due, does nothing.
#[derive(Clone, Copy, Debug)]
pub struct RekeyPolicy {
    role: Role,
    established: Instant,
    rekey_at: Instant,
}

impl RekeyPolicy {
    /// A session established at `now`; `jitter` is uniformly random.
    pub fn new(role: Role, now: Instant, jitter: u32) -> Self {
        let middle = match role {
            Role::Initiator => REKEY_AFTER,
            Role::Responder => REKEY_TAKEOVER_AFTER,
        };
        let spread = middle / JITTER_DIVISOR;
        let offset = (2 * spread).mul_f64(f64::from(jitter) / f64::from(u32::MAX));
        RekeyPolicy {
            role,
            established: now,
            rekey_at: now + (middle - spread + offset),
        }
    }

    /// Whether it is this side's turn to start a new handshake.
    pub fn due(&self, now: Instant) -> bool {
        now >= self.rekey_at
    }

    /// Whether the session is past use.
    pub fn expired(&self, now: Instant) -> bool {
        now >= self.expires_at()
    }

    /// When [`due`](Self::due) becomes true.
    pub fn rekey_at(&self) -> Instant {
        self.rekey_at
    }

    /// When [`expired`](Self::expired) becomes true.
    pub fn expires_at(&self) -> Instant {
        self.established + EXPIRE_AFTER
    }

    /// Which side of the handshake we were.
    pub fn role(&self) -> Role {
        self.role
    }

    /// When the session began.
    pub fn established(&self) -> Instant {
        self.established
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: Role, jitter: u32, expected_secs: u64) {
        let start = Instant::from_micros(1_000_000);
        let policy = RekeyPolicy::new(role, start, jitter);
        let at = start + Duration::from_secs(expected_secs);
        assert_eq!(policy.rekey_at(), at);
        assert!(!policy.due(Instant::from_micros(at.as_micros() - 1)));
        assert!(policy.due(at));
        assert!(!policy.expired(at), "there must be time for the rekey");
        let end = start + EXPIRE_AFTER;
        assert!(!policy.expired(Instant::from_micros(end.as_micros() - 1)));
        assert!(policy.expired(end));
    }

    #[test]
    fn the_initiator_rekeys_first_and_the_responder_takes_over() {
        check(Role::Initiator, 0, 108);
        check(Role::Initiator, u32::MAX, 132);
        check(Role::Responder, 0, 135);
        check(Role::Responder, u32::MAX, 165);
    }
}
