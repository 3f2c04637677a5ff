//! A ticket: what a machine needs to become a member of a pool, in one line of text.
//!
//! It holds a delegated signing key and the pool's facts. Laid out as delegation with the CA's
//! signature, facts, the CA's signature over all before it, and the secret of the delegated key.

use std::fmt;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::armour::{self, ArmourError, TEXT_BYTES_MAX};
use super::authority;
use super::certificate::{self, Certificate, CertificateError, CertificateRequest};
use super::codec::{Domain, ReadError, Reader, is_signed, write_body, write_signature};
use super::delegation::{Delegation, Signed};
use super::identity::Identity;
use super::pool::{FactsBody, PoolFacts, PoolId, PoolSummary};
use super::roles::Roles;
use super::validity::{OutOfTime, Utc};
pub use super::{delegation::TicketId, label::TicketLabel};
use crate::time::UnixTime;

/// What the text of a ticket begins with, before its version.
pub(super) const KIND: &str = "wow-ticket-";

/// A ticket that the CA which it names has really issued. Holds a secret: `Debug` leaves it out,
/// [`encode`](Self::encode) does not.
#[derive(Clone)]
pub struct Ticket {
    bytes: Zeroizing<Vec<u8>>,
    /// Where in `bytes` the delegation with its signature ends.
    delegation_bytes: usize,
    delegation: Delegation,
    id: TicketId,
    label: Option<TicketLabel>,
    facts: PoolFacts,
    secret: SigningKey,
}

/// Why a ticket is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The text is something else.
    #[error(
        "this is no ticket: a ticket is one line that begins with \"{KIND}1.\"; make one with `wow \
         pool ticket`"
    )]
    NotATicket,
    /// The text is a pool's secret file.
    #[error(
        "this is a pool file, not a ticket: keep it secret and make a ticket from it with `wow pool \
         ticket`"
    )]
    PoolFile,
    /// The text is longer than any ticket.
    #[error(
        "this is no ticket: it has {found} characters, and a ticket has at most {TEXT_BYTES_MAX}"
    )]
    TooLong {
        /// How many characters.
        found: usize,
    },
    /// The text ends too early.
    #[error("the ticket is cut off after {found} characters: copy all of its one line again")]
    Truncated {
        /// How many characters there are.
        found: usize,
    },
    /// A character is wrong, missing or too much.
    #[error(
        "the ticket was damaged in copying, its checksum does not fit: copy its one line again"
    )]
    Damaged,
    /// Its version is not ours.
    #[error(
        "the ticket has version {found}, and this program reads version 1: use a `wow` as new as the \
         one that made the ticket"
    )]
    UnsupportedVersion {
        /// The version.
        found: String,
    },
    /// A part is not in the one form it may have, though the checksum fits.
    #[error(
        "the ticket is malformed at {what}: it was not made by `wow pool ticket`; ask the pool's \
         owner for another"
    )]
    Malformed {
        /// The part.
        what: &'static str,
    },
    /// The CA that it names did not sign it.
    #[error(
        "the ticket is forged: the CA of the pool {pool} has not signed {what}; ask the pool's owner \
         for another"
    )]
    Forged {
        /// The pool that it claims.
        pool: PoolId,
        /// What is not signed.
        what: &'static str,
    },
    /// Its secret does not belong to the key that the CA signed.
    #[error(
        "the ticket is forged: its secret is not that of the key which the pool's CA has signed; ask \
         the pool's owner for another"
    )]
    ForeignSecret,
    /// It has ended.
    #[error(
        "the ticket expired on {}: ask the pool's owner for a new one, or set this machine's clock \
         if that is wrong",
        Utc(*.when)
    )]
    Expired {
        /// When it ended.
        when: UnixTime,
    },
    /// It begins too far in the future.
    #[error(
        "the ticket is not valid before {}: wait until then, or set this machine's clock if that is \
         wrong",
        Utc(*.when)
    )]
    NotYetValid {
        /// When it begins.
        when: UnixTime,
    },
    /// It is for another pool.
    #[error(
        "the ticket is for the pool {found}, not for the pool {expected}: ask the owner of {expected} \
         for a ticket"
    )]
    ForeignPool {
        /// The pool it should be for.
        expected: PoolId,
        /// The pool it is for.
        found: PoolId,
    },
}

impl From<ReadError> for TicketError {
    fn from(error: ReadError) -> Self {
        TicketError::Malformed {
            what: match error {
                ReadError::Short => "its end, where bytes are missing",
                ReadError::Malformed(what) => what,
            },
        }
    }
}

/// What follows the delegation.
#[derive(Serialize, Deserialize)]
struct Body {
    label: Option<String>,
    facts: FactsBody,
}

impl Ticket {
    /// Issues a ticket: for the CA alone.
    pub(super) fn issue(
        ca: &SigningKey,
        facts: &PoolFacts,
        delegation: &Delegation,
        label: Option<TicketLabel>,
        secret: &SigningKey,
    ) -> Result<Ticket, TicketError> {
        let mut bytes = delegation.sign(ca);
        let body = Body {
            label: label.map(String::from),
            facts: FactsBody::new(facts),
        };
        write_body(&mut bytes, &body);
        write_signature(&mut bytes, Domain::Ticket, ca);
        bytes.extend_from_slice(secret.as_bytes());
        Ticket::from_payload(bytes)
    }

    /// Reads a ticket; white space around it is no matter. That it holds now is
    /// [`check`](Self::check)'s to tell.
    pub fn parse(text: &str) -> Result<Ticket, TicketError> {
        if text.trim_ascii_start().starts_with(authority::KIND) {
            return Err(TicketError::PoolFile);
        }
        let payload = armour::decode(KIND, text).map_err(|error| match error {
            ArmourError::NotThis => TicketError::NotATicket,
            ArmourError::TooLong { found } => TicketError::TooLong { found },
            ArmourError::UnsupportedVersion { found } => TicketError::UnsupportedVersion { found },
            ArmourError::Truncated { found } => TicketError::Truncated { found },
            ArmourError::Damaged => TicketError::Damaged,
        })?;
        Ticket::from_payload(payload)
    }

    fn from_payload(bytes: Zeroizing<Vec<u8>>) -> Result<Ticket, TicketError> {
        let mut reader = Reader::new(&bytes);
        let signed = Signed::read(&mut reader)?;
        let delegation_bytes = reader.passed().len();
        let body: Body = reader.body("its facts")?;
        let covered = reader.passed();
        let signature = reader.array()?;
        let secret = SigningKey::from_bytes(reader.array()?);
        reader.end()?;
        let facts = body.facts.facts()?;
        let label = body
            .label
            .as_deref()
            .map(TicketLabel::new)
            .transpose()
            .map_err(|_| ReadError::Malformed("its label"))?;
        let (delegation, id) = (signed.delegation.clone(), signed.id());
        let forged = |what| TicketError::Forged {
            pool: delegation.pool,
            what,
        };
        if delegation.pool != facts.pool_id() {
            return Err(forged("it under the key that it names"));
        }
        if !signed.is_by(&facts.ca, is_signed) {
            return Err(forged("its key, roles and validity"));
        }
        if !is_signed(&facts.ca, Domain::Ticket, covered, signature) {
            return Err(forged("its facts about the pool"));
        }
        if secret.verifying_key().to_bytes() != delegation.key {
            return Err(TicketError::ForeignSecret);
        }
        Ok(Ticket {
            bytes,
            delegation_bytes,
            delegation,
            id,
            label,
            facts,
            secret,
        })
    }

    /// The ticket as one line of text without its end, secret and all: for a file of mode 0600.
    pub fn encode(&self) -> String {
        armour::encode(KIND, &self.bytes)
    }

    /// Whether it holds at `now`; up to a day too early counts as held (see
    /// [`EARLY_TOLERANCE`](super::validity::EARLY_TOLERANCE)).
    pub fn check(&self, now: UnixTime) -> Result<(), TicketError> {
        self.delegation
            .validity
            .check(now)
            .map_err(|error| match error {
                OutOfTime::Expired(when) => TicketError::Expired { when },
                OutOfTime::NotYetValid(when) => TicketError::NotYetValid { when },
            })
    }

    /// Whether it is for the pool `expected`.
    pub fn check_pool(&self, expected: PoolId) -> Result<(), TicketError> {
        let found = self.delegation.pool;
        if found == expected {
            Ok(())
        } else {
            Err(TicketError::ForeignPool { expected, found })
        }
    }

    /// Makes the certificate of the node with `identity`, as `request` has it.
    ///
    /// Fails as [`Certificate::verify`] does for roles, times and addresses that no member would
    /// accept under this ticket.
    pub fn certify(
        &self,
        identity: &Identity,
        request: &CertificateRequest,
    ) -> Result<Certificate, CertificateError> {
        let delegation = &self.bytes[..self.delegation_bytes];
        let bytes = certificate::sign(delegation, &self.secret, identity, request);
        Certificate::verify(&bytes, &self.facts, request.not_before)
    }

    /// The pool it is for.
    pub fn facts(&self) -> &PoolFacts {
        &self.facts
    }

    /// Its identifier, which its certificates carry.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// What it was made for.
    pub fn label(&self) -> Option<&TicketLabel> {
        self.label.as_ref()
    }

    /// The roles it can grant.
    pub fn roles(&self) -> Roles {
        self.delegation.roles
    }

    /// When it begins to hold.
    pub fn not_before(&self) -> UnixTime {
        self.delegation.validity.not_before()
    }

    /// When it ceases to hold, and all its certificates with it.
    pub fn not_after(&self) -> UnixTime {
        self.delegation.validity.not_after()
    }

    /// All that may be shown to anybody.
    pub fn summary(&self) -> TicketSummary {
        TicketSummary {
            id: self.id,
            label: self.label.clone(),
            roles: self.roles(),
            not_before: self.not_before(),
            not_after: self.not_after(),
            pool: self.facts.summary(),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("roles", &self.roles())
            .field("pool", &self.facts.name)
            .finish_non_exhaustive()
    }
}

/// A ticket's public facts, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TicketSummary {
    /// Its identifier.
    pub id: TicketId,
    /// What it was made for.
    pub label: Option<TicketLabel>,
    /// The roles it can grant.
    pub roles: Roles,
    /// When it begins to hold.
    pub not_before: UnixTime,
    /// When it ceases to hold.
    pub not_after: UnixTime,
    /// The pool it is for.
    pub pool: PoolSummary,
}

#[cfg(test)]
mod tests;
