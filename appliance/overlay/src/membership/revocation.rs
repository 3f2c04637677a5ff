//! Revocations: the CA's word that a node, or every node of a ticket, is a member no longer.
//!
//! A revocation holds for ever. It spreads over the overlay from member to member, and every one of
//! them checks the CA's signature, so it may come from anybody.

use std::fmt;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::armour;
use super::certificate::Certificate;
use super::codec::{Domain, ReadError, Reader, is_signed, write_body, write_signature};
use super::delegation::TicketId;
use super::pool::{PoolFacts, PoolId};
use crate::id::{ID_BYTES, NodeId};

/// Longest encoded revocation: version, pool, kind and id, signature.
pub const REVOCATION_BYTES_MAX: usize = 1 + 16 + 1 + ID_BYTES + 64;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// What the text of a revocation begins with, before its version.
const KIND: &str = "wow-revocation-";

/// Who is a member no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revoked {
    /// The node with this id.
    Node(NodeId),
    /// Every node whose certificate was made with this ticket.
    Ticket(TicketId),
}

impl Revoked {
    /// Whether it strikes the holder of `certificate`.
    pub fn strikes(&self, certificate: &Certificate) -> bool {
        match self {
            Revoked::Node(id) => certificate.node_id() == *id,
            Revoked::Ticket(id) => certificate.ticket_id() == *id,
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revoked::Node(id) => write!(f, "node {id}"),
            Revoked::Ticket(id) => write!(f, "ticket {id}"),
        }
    }
}

/// Why a revocation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The text or the bytes are something else, cut off or damaged.
    #[error("this is no revocation, or a damaged one: copy its one line again")]
    Malformed,
    /// It belongs to another pool.
    #[error("the revocation is of the pool {found}, this node belongs to {expected}")]
    ForeignPool {
        /// Our pool.
        expected: PoolId,
        /// The revocation's.
        found: PoolId,
    },
    /// The CA did not sign it.
    #[error("the revocation is forged: the pool's CA has not signed it")]
    Forged,
}

impl From<ReadError> for RevocationError {
    fn from(_: ReadError) -> Self {
        RevocationError::Malformed
    }
}

/// A revocation that the pool's CA has signed. One that exists was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    bytes: Box<[u8]>,
    revoked: Revoked,
}

#[derive(Serialize, Deserialize)]
struct Body {
    pool: [u8; 16],
    target: Target,
}

#[derive(Serialize, Deserialize)]
enum Target {
    Node([u8; ID_BYTES]),
    Ticket([u8; 16]),
}

impl Revocation {
    pub(super) fn sign(pool: PoolId, revoked: Revoked, ca: &SigningKey) -> Self {
        let mut bytes = Zeroizing::new(vec![VERSION]);
        let body = Body {
            pool: pool.0,
            target: match revoked {
                Revoked::Node(id) => Target::Node(id.0),
                Revoked::Ticket(id) => Target::Ticket(id.0),
            },
        };
        write_body(&mut bytes, &body);
        write_signature(&mut bytes, Domain::Revocation, ca);
        Revocation {
            bytes: bytes.as_slice().into(),
            revoked,
        }
    }

    /// The revocation in `bytes`, if the CA of `pool` has signed it.
    pub fn verify(bytes: &[u8], pool: &PoolFacts) -> Result<Self, RevocationError> {
        let mut reader = Reader::new(bytes);
        let [version] = *reader.array()?;
        if version != VERSION {
            return Err(RevocationError::Malformed);
        }
        let body: Body = reader.body("its body")?;
        let covered = reader.passed();
        let signature = reader.array()?;
        reader.end()?;
        let (expected, found) = (pool.pool_id(), PoolId(body.pool));
        if found != expected {
            return Err(RevocationError::ForeignPool { expected, found });
        }
        if !is_signed(&pool.ca, Domain::Revocation, covered, signature) {
            return Err(RevocationError::Forged);
        }
        Ok(Revocation {
            bytes: bytes.into(),
            revoked: match body.target {
                Target::Node(id) => Revoked::Node(NodeId(id)),
                Target::Ticket(id) => Revoked::Ticket(TicketId(id)),
            },
        })
    }

    /// The revocation in a line of text, white space around it being no matter.
    pub fn parse(text: &str, pool: &PoolFacts) -> Result<Self, RevocationError> {
        let bytes = armour::decode(KIND, text).map_err(|_| RevocationError::Malformed)?;
        Self::verify(&bytes, pool)
    }

    /// One line of text, without its end. It is no secret.
    pub fn encode(&self) -> String {
        armour::encode(KIND, &self.bytes)
    }

    /// The bytes that were verified, for sending on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who is struck.
    pub fn revoked(&self) -> Revoked {
        self.revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::fixtures::{ca, facts, facts_of};
    use proptest::prelude::*;

    fn revocations() -> [Revocation; 2] {
        let pool = facts().pool_id();
        [
            Revoked::Node(NodeId([7; 20])),
            Revoked::Ticket(TicketId([9; 16])),
        ]
        .map(|revoked| Revocation::sign(pool, revoked, &ca()))
    }

    #[test]
    fn it_survives_bytes_and_text() {
        for revocation in revocations() {
            assert!(revocation.bytes().len() <= REVOCATION_BYTES_MAX);
            let read = Revocation::verify(revocation.bytes(), &facts());
            assert_eq!(read.as_ref(), Ok(&revocation));
            let line = format!("{}\n", revocation.encode());
            assert_eq!(Revocation::parse(&line, &facts()), Ok(revocation));
        }
    }

    #[test]
    fn only_the_pool_s_ca_can_revoke() {
        let stranger = SigningKey::from_bytes(&[1; 32]);
        let other = facts_of(&stranger);
        let [good, _] = revocations();
        let forged = Revocation::sign(facts().pool_id(), good.revoked(), &stranger);
        let refused = Revocation::verify(forged.bytes(), &facts());
        assert_eq!(refused, Err(RevocationError::Forged));
        let foreign = Revocation::verify(good.bytes(), &other);
        assert!(matches!(foreign, Err(RevocationError::ForeignPool { .. })));
    }

    proptest! {
        #[test]
        fn any_change_is_refused(at in 0..REVOCATION_BYTES_MAX, bit in 0u8..8) {
            let [good, _] = revocations();
            let mut bytes = good.bytes().to_vec();
            prop_assume!(at < bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Revocation::verify(&bytes, &facts()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Revocation::verify(&bytes, &facts()).is_err());
        }
    }
}
