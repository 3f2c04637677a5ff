//! A pool, its keys and a node, the same in every test of this module.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use rand::SeedableRng;

use super::certificate::CertificateRequest;
use super::delegation::Delegation;
use super::identity::Identity;
use super::label::{NodeName, PoolName};
use super::pool::{DEFAULT_RANGE, PoolFacts, PoolKey};
use super::roles::Roles;
use super::validity::Validity;
use crate::Rng;
use crate::time::UnixTime;

/// A moment at which everything below holds.
pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn ca() -> SigningKey {
    SigningKey::from_bytes(&[0xca; 32])
}

pub(super) fn facts() -> PoolFacts {
    facts_of(&ca())
}

pub(super) fn facts_of(ca: &SigningKey) -> PoolFacts {
    PoolFacts::new(
        PoolName::new("physics").unwrap(),
        ca.verifying_key().to_bytes(),
        PoolKey([0xa5; 32]),
        DEFAULT_RANGE,
        vec!["seed.example.org:4001".parse().unwrap()],
    )
    .unwrap()
}

/// The secret of the ticket that [`delegation`] is about.
pub(super) fn ticket_key() -> SigningKey {
    SigningKey::from_bytes(&[0x71; 32])
}

/// Workers and routers, for thirty days that began yesterday.
pub(super) fn delegation() -> Delegation {
    Delegation {
        pool: facts().pool_id(),
        key: ticket_key().verifying_key().to_bytes(),
        roles: Roles::WORKER | Roles::ROUTER,
        validity: Validity::new(UnixTime(NOW.0 - 86_400), NOW + 29 * DAY).unwrap(),
    }
}

pub(super) fn identity(seed: u64) -> Identity {
    Identity::generate(&mut Rng::seed_from_u64(seed))
}

/// A router for a week from now on, with a name of 20 characters and a fixed address.
pub(super) fn request() -> CertificateRequest {
    CertificateRequest {
        name: NodeName::new("router-0123456789-ab").unwrap(),
        roles: Roles::ROUTER,
        fixed_address: Some([10, 128, 7, 9].into()),
        not_before: NOW,
        not_after: NOW + 7 * DAY,
    }
}

/// `signature` with the group's order added to its scalar: a second encoding of the same equation.
pub(super) fn malleate(signature: &mut [u8]) {
    /// 2^252 + 27742317777372353535851937790883648493, little-endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, digit) in signature[32..64].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(digit) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "a scalar and the order fit 32 bytes together");
}
