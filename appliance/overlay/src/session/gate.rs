//! The gate before any costly work: pool MAC first, then budgets, then a cookie.
//!
//! Who does not know the pool's key gets silence. Who does, or replays what a member once sent, is
//! bounded: each source, and all sources that have not shown that they receive at their address,
//! have a budget of Inits; beyond it a source gets a cookie, and with its proof a budget of its own.
//! The cookie travels in the clear: it is of use only together with the pool's key, and whoever
//! holds that could decrypt it.
//!
//! Responses and Finals are checked for the MAC alone: the node finds their receiver by an index that
//! an off-path attacker does not know, and that receiver bounds its own work ([`MAX_FORGERIES`]).
//!
//! [`MAX_FORGERIES`]: super::MAX_FORGERIES

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::bucket::Bucket;
use super::keys::{PoolKeys, mac, same};
use crate::Rng;
use crate::time::Instant;
use crate::wire::outer::{self, COOKIE_BYTES, Init, MAC_BYTES, Outer, OuterError};

/// A cookie is good for the rest of the epoch it was made in and the whole next one.
pub const COOKIE_EPOCH: Duration = Duration::from_secs(120);

/// Buckets a table of sources has. Sources share a bucket by keyed hash, so that the table is bounded
/// and nobody can choose whose bucket to empty.
const SOURCE_BUCKETS: usize = 1024;

/// A refill rate and the most that may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second; 0 counts as 1.
    pub per_second: u32,
    /// Depth of the bucket; 0 counts as 1.
    pub burst: u32,
}

/// How many Inits are admitted. A handshake costs the responder about a quarter of a millisecond.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// All sources without a cookie together. Default: a tenth of a core, and a burst for the moment
    /// in which hundreds of nodes boot at once.
    pub unproven: Rate,
    /// One source without a cookie. Default: some retransmissions and a rekey or two.
    pub unproven_source: Rate,
    /// All sources with a cookie together. Default: half a core; beyond it Inits are dropped.
    pub proven: Rate,
    /// One source with a cookie.
    pub proven_source: Rate,
    /// Cookies sent. Default: bounds our outgoing traffic to 160 kB/s.
    pub cookies: Rate,
}

impl Default for GateLimits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        GateLimits {
            unproven: rate(400, 400),
            unproven_source: rate(10, 20),
            proven: rate(2000, 1000),
            proven_source: rate(20, 40),
            cookies: rate(4000, 1000),
        }
    }
}

/// What to do with a datagram.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Handle it: its MAC is right and it is within budget. Records and Cookies pass unchecked here;
    /// [`Opener::open`](super::Opener::open) and [`Initiator::on_cookie`](super::Initiator::on_cookie)
    /// authenticate them.
    Pass(Outer<'a>),
    /// Send this datagram back to the source, and forget the Init.
    Cookie(Vec<u8>),
    /// Drop it silently and count the reason.
    Drop(DropReason),
}

/// Why a datagram is dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// No datagram of ours.
    #[error(transparent)]
    Malformed(#[from] OuterError),
    /// The sender does not know the pool's key.
    #[error("MAC of another pool, or none")]
    WrongMac,
    /// This source, though proven, sends too many Inits.
    #[error("too many handshakes from one source")]
    SourceLimit,
    /// All proven sources together send too many Inits.
    #[error("too many handshakes")]
    Overload,
    /// Even cookies have run out.
    #[error("too many handshakes to answer with cookies")]
    CookieLimit,
}

/// See the [module](self).
pub struct Gate {
    pool: PoolKeys,
    /// Keys cookies (per epoch) and the hash of sources.
    secret: hmac::Key,
    limits: GateLimits,
    demanding: bool,
    unproven: Bucket,
    unproven_sources: Sources,
    proven: Bucket,
    proven_sources: Sources,
    cookies: Bucket,
}

impl Gate {
    /// A gate of the pool with secret `pool_key`, all budgets full.
    pub fn new(rng: &mut Rng, pool_key: &[u8; 32], limits: GateLimits) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Gate {
            pool: PoolKeys::derive(pool_key),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &*secret),
            limits,
            demanding: false,
            unproven: Bucket::default(),
            unproven_sources: Sources::default(),
            proven: Bucket::default(),
            proven_sources: Sources::default(),
            cookies: Bucket::default(),
        }
    }

    /// Whether from now on only sources with a cookie pass: their budget apart, unproven ones may
    /// also use up what a handshake takes further in.
    pub fn demand_proof(&mut self, demanding: bool) {
        self.demanding = demanding;
    }

    /// Judges `datagram` from `source`: the bytes of its address and port, or for a routed one of
    /// its origin's id. The node chooses the form and keeps to it.
    pub fn check<'a>(&mut self, now: Instant, source: &[u8], datagram: &'a [u8]) -> Verdict<'a> {
        let outer = match Outer::parse(datagram) {
            Ok(outer) => outer,
            Err(malformed) => return Verdict::Drop(malformed.into()),
        };
        let (covered, mac1) = match &outer {
            Outer::Init(init) => (init.before_mac1(), init.mac1()),
            Outer::Response(response) => (response.before_mac1(), response.mac1()),
            Outer::Final(last) => (last.before_mac1(), last.mac1()),
            Outer::Cookie(_) | Outer::Record(_) => return Verdict::Pass(outer),
        };
        if !same(&mac(&self.pool.mac1, &[covered]), &mac1) {
            return Verdict::Drop(DropReason::WrongMac);
        }
        match outer {
            Outer::Init(init) => self.check_init(now, source, init),
            _ => Verdict::Pass(outer),
        }
    }

    fn check_init<'a>(&mut self, now: Instant, source: &[u8], init: Init<'a>) -> Verdict<'a> {
        let slot = self.slot(source);
        if self.is_proven(now, source, &init) {
            // The source first, so that one source cannot empty what all share.
            if !self
                .proven_sources
                .take(slot, self.limits.proven_source, now)
            {
                return Verdict::Drop(DropReason::SourceLimit);
            }
            if !self.proven.take(self.limits.proven, now) {
                return Verdict::Drop(DropReason::Overload);
            }
            return Verdict::Pass(Outer::Init(init));
        }
        if !self.demanding
            && self
                .unproven_sources
                .take(slot, self.limits.unproven_source, now)
            && self.unproven.take(self.limits.unproven, now)
        {
            return Verdict::Pass(Outer::Init(init));
        }
        if !self.cookies.take(self.limits.cookies, now) {
            return Verdict::Drop(DropReason::CookieLimit);
        }
        Verdict::Cookie(self.answer(now, source, &init))
    }

    fn is_proven(&self, now: Instant, source: &[u8], init: &Init<'_>) -> bool {
        let mac2 = init.mac2();
        if mac2 == [0; MAC_BYTES] {
            return false;
        }
        let epoch = epoch(now);
        [Some(epoch), epoch.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|epoch| {
                same(
                    &mac2_of(&self.cookie(epoch, source), init.before_mac2()),
                    &mac2,
                )
            })
    }

    fn answer(&self, now: Instant, source: &[u8], init: &Init<'_>) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(COOKIE_BYTES);
        datagram.extend(outer::cookie_header(init.sender_index()));
        datagram.extend(self.cookie(epoch(now), source));
        let tag = cookie_tag(&self.pool, &datagram, &init.mac1());
        datagram.extend(tag);
        datagram
    }

    fn cookie(&self, epoch: u64, source: &[u8]) -> [u8; MAC_BYTES] {
        mac(&self.secret, &[b"cookie", &epoch.to_be_bytes(), source])
    }

    fn slot(&self, source: &[u8]) -> usize {
        let hash = mac(&self.secret, &[b"source", source]);
        usize::from(u16::from_be_bytes([hash[0], hash[1]])) % SOURCE_BUCKETS
    }
}

/// The buckets of sources, made when the first one comes: most nodes never see a proven one.
#[derive(Default)]
struct Sources(Vec<Bucket>);

impl Sources {
    fn take(&mut self, slot: usize, rate: Rate, now: Instant) -> bool {
        if self.0.is_empty() {
            self.0 = vec![Bucket::default(); SOURCE_BUCKETS];
        }
        self.0[slot].take(rate, now)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

fn epoch(now: Instant) -> u64 {
    now.as_micros() / (COOKIE_EPOCH.as_secs() * 1_000_000)
}

/// The MAC that proves possession of `cookie`.
pub(super) fn mac2_of(cookie: &[u8; MAC_BYTES], before_mac2: &[u8]) -> [u8; MAC_BYTES] {
    mac(&hmac::Key::new(hmac::HMAC_SHA256, cookie), &[before_mac2])
}

/// Binds a Cookie datagram to the very Init that it answers, and to the pool.
pub(super) fn cookie_tag(
    pool: &PoolKeys,
    before_tag: &[u8],
    init_mac1: &[u8; MAC_BYTES],
) -> [u8; MAC_BYTES] {
    mac(&pool.cookie, &[before_tag, init_mac1])
}

#[cfg(test)]
mod tests;
