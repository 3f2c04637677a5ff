//! The long-lived keys behind handshakes: a node's static key, and what is derived from the pool's.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::CipherPreference;
use crate::wire::outer::MAC_BYTES;

/// A node's X25519 key pair, wiped from memory when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StaticKey {
    secret: [u8; 32],
    #[zeroize(skip)]
    public: [u8; 32],
}

impl StaticKey {
    /// The pair of `secret` and the `public` key that belongs to it.
    pub fn new(secret: [u8; 32], public: [u8; 32]) -> Self {
        StaticKey { secret, public }
    }

    /// The public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey").finish_non_exhaustive()
    }
}

/// What every handshake of one node in one pool shares. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    key: StaticKey,
    pool: PoolKeys,
    ciphers: CipherPreference,
}

impl Endpoint {
    /// The node with static key `key` in the pool with secret `pool_key`.
    pub fn new(key: StaticKey, pool_key: &[u8; 32], ciphers: CipherPreference) -> Self {
        Endpoint(Arc::new(Shared {
            key,
            pool: PoolKeys::derive(pool_key),
            ciphers,
        }))
    }

    pub(super) fn key(&self) -> &StaticKey {
        &self.0.key
    }

    pub(super) fn pool(&self) -> &PoolKeys {
        &self.0.pool
    }

    pub(super) fn ciphers(&self) -> CipherPreference {
        self.0.ciphers
    }

    /// Whether this node does without cryptography.
    #[cfg(feature = "stand-in")]
    pub(crate) fn is_stand_in(&self) -> bool {
        self.0.ciphers.is_stand_in()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// Keys derived from the pool's secret, one for each use.
pub(super) struct PoolKeys {
    pub(super) mac1: hmac::Key,
    pub(super) cookie: hmac::Key,
    /// Public by construction: enters the Noise prologue, so that peers of different pools fail.
    pub(super) tag: [u8; MAC_BYTES],
}

impl PoolKeys {
    pub(super) fn derive(pool_key: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, pool_key);
        let derived =
            |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, label).as_ref());
        PoolKeys {
            mac1: derived(b"wow pool mac1 v1"),
            cookie: derived(b"wow pool cookie v1"),
            tag: mac(&root, &[b"wow pool prologue v1"]),
        }
    }
}

/// HMAC-SHA256 over the concatenation of `parts`, truncated to 128 bits.
pub(super) fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut truncated = [0; MAC_BYTES];
    truncated.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
    truncated
}

/// Compares in constant time.
pub(super) fn same(left: &[u8; MAC_BYTES], right: &[u8; MAC_BYTES]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let key = StaticKey::new([0xab; 32], [1; 32]);
        let endpoint = Endpoint::new(key.clone(), &[0xcd; 32], CipherPreference::aes_first());
        let text = format!("{key:?} {endpoint:?}");
        assert_eq!(text, "StaticKey { .. } Endpoint { .. }");
    }

    #[test]
    fn each_use_of_the_pool_key_has_its_own_key() {
        let keys = PoolKeys::derive(&[7; 32]);
        assert_ne!(mac(&keys.mac1, &[b"x"]), mac(&keys.cookie, &[b"x"]));
        assert_ne!(
            mac(&keys.mac1, &[b"x"]),
            mac(&PoolKeys::derive(&[8; 32]).mac1, &[b"x"])
        );
    }
}
