//! The CA's permission for a ticket's key to sign certificates: within these roles and this time.
//!
//! It stands at the head of a ticket and of every certificate made with it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::codec::{Domain, ReadError, Reader, SIGNATURE_BYTES, write_body, write_signature};
use super::pool::PoolId;
use super::roles::Roles;
use super::validity::Validity;
use crate::time::UnixTime;

/// A ticket's identifier: a hash of its delegation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 16]);

impl TicketId {
    fn of_body(body: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"wow ticket id v1\0");
        hash.update(body);
        let hash = hash.finish();
        TicketId(
            *hash
                .as_ref()
                .first_chunk()
                .expect("a digest is longer than its beginning"),
        )
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A text that is no ticket identifier.
#[derive(Debug, thiserror::Error)]
#[error("not a ticket id: expected 32 hexadecimal digits")]
pub struct ParseTicketIdError;

impl FromStr for TicketId {
    type Err = ParseTicketIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| ParseTicketIdError)?;
        Ok(TicketId(bytes.try_into().map_err(|_| ParseTicketIdError)?))
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketId({self})")
    }
}

impl Serialize for TicketId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the CA permits, well-formed. Whether the CA said so is [`Signed`]'s to tell.
#[derive(Clone, Debug)]
pub(super) struct Delegation {
    pub(super) pool: PoolId,
    /// The ticket's Ed25519 public key.
    pub(super) key: [u8; 32],
    pub(super) roles: Roles,
    pub(super) validity: Validity,
}

#[derive(Serialize, Deserialize)]
struct Body {
    pool: [u8; 16],
    key: [u8; 32],
    roles: u8,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// A delegation as it was read, with the signature that claims to be the CA's.
pub(super) struct Signed<'a> {
    pub(super) delegation: Delegation,
    body: &'a [u8],
    signature: &'a [u8; SIGNATURE_BYTES],
}

impl Delegation {
    /// The delegation with the CA's signature.
    pub(super) fn sign(&self, ca: &SigningKey) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::new());
        let body = Body {
            pool: self.pool.0,
            key: self.key,
            roles: self.roles.bits(),
            not_before: self.validity.not_before(),
            not_after: self.validity.not_after(),
        };
        write_body(&mut bytes, &body);
        write_signature(&mut bytes, Domain::Delegation, ca);
        bytes
    }
}

impl<'a> Signed<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, ReadError> {
        let from = reader.passed().len();
        let body: Body = reader.body("its delegation")?;
        let covered = &reader.passed()[from..];
        let signature = reader.array()?;
        let roles = Roles::from_bits(body.roles)
            .filter(|roles| !roles.is_empty())
            .ok_or(ReadError::Malformed("the roles of its delegation"))?;
        let validity = Validity::new(body.not_before, body.not_after)
            .ok_or(ReadError::Malformed("the validity of its delegation"))?;
        Ok(Signed {
            delegation: Delegation {
                pool: PoolId(body.pool),
                key: body.key,
                roles,
                validity,
            },
            body: covered,
            signature,
        })
    }

    /// Whether the CA with this key said it, as `is_signed` judges.
    pub(super) fn is_by(
        &self,
        ca: &[u8; 32],
        is_signed: impl Fn(&[u8; 32], Domain, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> bool {
        is_signed(ca, Domain::Delegation, self.body, self.signature)
    }

    pub(super) fn id(&self) -> TicketId {
        TicketId::of_body(self.body)
    }
}
