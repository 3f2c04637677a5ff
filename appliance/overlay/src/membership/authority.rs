//! The pool's CA: makes a pool, keeps its secret, and issues tickets.

use std::fmt;

use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::armour::{self, ArmourError};
use super::codec::{ReadError, Reader, write_body};
use super::delegation::Delegation;
use super::label::{PoolName, TicketLabel};
use super::pool::{FactsBody, PoolError, PoolFacts, PoolId, PoolKey, SeedAddr};
use super::revocation::{Revocation, Revoked};
use super::roles::Roles;
use super::ticket::Ticket;
use super::validity::Validity;
use crate::Rng;
use crate::time::UnixTime;

/// What the text of a pool file begins with, before its version.
pub(super) const KIND: &str = "wow-pool-";

/// A pool with the secret key of its CA. `Debug` leaves that out, [`encode`](Self::encode) does not.
#[derive(Clone)]
pub struct PoolAuthority {
    facts: PoolFacts,
    secret: SigningKey,
}

/// Why a pool file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFileError {
    /// The text is something else.
    #[error(
        "this is no pool file: it holds one line that begins with \"{KIND}1.\"; make one with `wow \
         pool new`"
    )]
    NotAPool,
    /// The text ends too early.
    #[error("the pool file is cut off after {found} characters: restore it from a copy")]
    Truncated {
        /// How many characters there are.
        found: usize,
    },
    /// A character is wrong, missing or too much.
    #[error("the pool file is damaged, its checksum does not fit: restore it from a copy")]
    Damaged,
    /// Its version is not ours.
    #[error(
        "the pool file has version {found}, and this program reads version 1: use a `wow` as new as \
         the one that made it"
    )]
    UnsupportedVersion {
        /// The version.
        found: String,
    },
    /// A part is not in the one form it may have, though the checksum fits.
    #[error("the pool file is malformed at {what}: restore it from a copy")]
    Malformed {
        /// The part.
        what: &'static str,
    },
}

impl From<ArmourError> for PoolFileError {
    fn from(error: ArmourError) -> Self {
        match error {
            ArmourError::NotThis | ArmourError::TooLong { .. } => PoolFileError::NotAPool,
            ArmourError::UnsupportedVersion { found } => {
                PoolFileError::UnsupportedVersion { found }
            }
            ArmourError::Truncated { found } => PoolFileError::Truncated { found },
            ArmourError::Damaged => PoolFileError::Damaged,
        }
    }
}

impl From<ReadError> for PoolFileError {
    fn from(error: ReadError) -> Self {
        PoolFileError::Malformed {
            what: match error {
                ReadError::Short => "its end, where bytes are missing",
                ReadError::Malformed(what) => what,
            },
        }
    }
}

/// Why no ticket can be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A ticket for no role would be of no use.
    #[error("a ticket needs at least one role: head, worker, login or router")]
    NoRoles,
    /// A ticket that ends before it begins would never hold.
    #[error("a ticket must end after it begins")]
    EmptyValidity,
}

impl PoolAuthority {
    /// A new pool, its keys drawn from `rng`.
    pub fn create(
        name: PoolName,
        range: Ipv4Net,
        seeds: Vec<SeedAddr>,
        rng: &mut Rng,
    ) -> Result<Self, PoolError> {
        let secret = draw_key(rng);
        let mut key = PoolKey([0; 32]);
        rng.fill_bytes(&mut key.0);
        let ca = secret.verifying_key().to_bytes();
        let facts = PoolFacts::new(name, ca, key, range, seeds)?;
        Ok(PoolAuthority { facts, secret })
    }

    /// Reads what [`encode`](Self::encode) gave; white space around it is no matter.
    pub fn parse(text: &str) -> Result<Self, PoolFileError> {
        let bytes = armour::decode(KIND, text)?;
        let mut reader = Reader::new(&bytes);
        let body: FactsBody = reader.body("its facts")?;
        let secret = SigningKey::from_bytes(reader.array()?);
        reader.end()?;
        let facts = body.facts()?;
        if secret.verifying_key().to_bytes() != facts.ca {
            return Err(PoolFileError::Malformed {
                what: "its secret key, which is not that of the pool",
            });
        }
        Ok(PoolAuthority { facts, secret })
    }

    /// The pool with its secret as one line of text without its end: for a file of mode 0600.
    pub fn encode(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::new());
        write_body(&mut bytes, &FactsBody::new(&self.facts));
        bytes.extend_from_slice(self.secret.as_bytes());
        armour::encode(KIND, &bytes)
    }

    /// Issues a ticket with a key of its own, drawn from `rng`.
    pub fn issue_ticket(
        &self,
        roles: Roles,
        not_before: UnixTime,
        not_after: UnixTime,
        label: Option<TicketLabel>,
        rng: &mut Rng,
    ) -> Result<Ticket, IssueError> {
        if roles.is_empty() {
            return Err(IssueError::NoRoles);
        }
        let validity = Validity::new(not_before, not_after).ok_or(IssueError::EmptyValidity)?;
        let secret = draw_key(rng);
        let delegation = Delegation {
            pool: self.pool_id(),
            key: secret.verifying_key().to_bytes(),
            roles,
            validity,
        };
        let ticket = Ticket::issue(&self.secret, &self.facts, &delegation, label, &secret);
        Ok(ticket.expect("a ticket of checked parts, signed by this CA, reads back"))
    }

    /// Ends a node's membership, or that of every node of a ticket, for ever.
    pub fn revoke(&self, revoked: Revoked) -> Revocation {
        Revocation::sign(self.pool_id(), revoked, &self.secret)
    }

    /// What every member will know of the pool.
    pub fn facts(&self) -> &PoolFacts {
        &self.facts
    }

    /// The pool's identifier.
    pub fn pool_id(&self) -> PoolId {
        self.facts.pool_id()
    }
}

impl fmt::Debug for PoolAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolAuthority")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

fn draw_key(rng: &mut Rng) -> SigningKey {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    SigningKey::from_bytes(&seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::membership::fixtures::{DAY, NOW, identity, request};
    use crate::membership::pool::DEFAULT_RANGE;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn authority(seed: u64) -> PoolAuthority {
        let name = PoolName::new("physics").unwrap();
        let seeds = vec!["seed.example.org:4001".parse().unwrap()];
        PoolAuthority::create(name, DEFAULT_RANGE, seeds, &mut Rng::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn a_pool_survives_its_text() {
        let before = authority(1);
        let after = PoolAuthority::parse(&format!("{}\n", before.encode())).unwrap();
        assert_eq!(after.facts().summary(), before.facts().summary());
        assert_eq!(after.facts().key.0, before.facts().key.0);
        assert_eq!(after.secret.to_bytes(), before.secret.to_bytes());
        assert_eq!(after.encode(), before.encode());
    }

    #[test]
    fn pools_differ_with_the_seed_alone() {
        assert_eq!(authority(1).encode(), authority(1).encode());
        assert_ne!(authority(1).pool_id(), authority(2).pool_id());
        assert_ne!(authority(1).facts().key.0, authority(2).facts().key.0);
    }

    #[test]
    fn an_unusable_range_makes_no_pool() {
        let name = PoolName::new("physics").unwrap();
        let range = "127.0.0.0/8".parse().unwrap();
        let error = PoolAuthority::create(name, range, vec![], &mut Rng::seed_from_u64(1));
        assert!(matches!(error, Err(PoolError::RangeReserved { .. })));
    }

    #[test]
    fn its_tickets_are_good_and_have_keys_of_their_own() {
        let (authority, mut rng) = (authority(1), Rng::seed_from_u64(7));
        let mut issue = || {
            authority
                .issue_ticket(Roles::ROUTER, NOW, NOW + 30 * DAY, None, &mut rng)
                .unwrap()
        };
        let (a, b) = (issue(), issue());
        assert_ne!(a.id(), b.id());
        for ticket in [a, b] {
            let ticket = Ticket::parse(&ticket.encode()).unwrap();
            ticket.check_pool(authority.pool_id()).unwrap();
            ticket.certify(&identity(1), &request()).unwrap();
        }
    }

    #[test]
    fn useless_tickets_are_not_issued() {
        let (authority, mut rng) = (authority(1), Rng::seed_from_u64(7));
        let mut issue = |roles, until| {
            let issued = authority.issue_ticket(roles, NOW, until, None, &mut rng);
            issued.map(|_| ()).unwrap_err()
        };
        assert_eq!(issue(Roles::NONE, NOW + DAY), IssueError::NoRoles);
        assert_eq!(issue(Roles::ALL, NOW), IssueError::EmptyValidity);
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let good = authority(1).encode();
        let newer = good.replacen("-1.", "-3.", 1);
        let found = "3".to_owned();
        let mut typo = good.clone();
        typo.replace_range(60..61, if &good[60..61] == "x" { "y" } else { "x" });
        for (text, expected) in [
            ("", PoolFileError::NotAPool),
            ("wow-ticket-1.AAAA", PoolFileError::NotAPool),
            (&"w".repeat(5000), PoolFileError::NotAPool),
            (newer.as_str(), PoolFileError::UnsupportedVersion { found }),
            (&good[..50], PoolFileError::Truncated { found: 50 }),
            (typo.as_str(), PoolFileError::Damaged),
        ] {
            assert_eq!(PoolAuthority::parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_secret_that_is_not_the_pool_s_is_refused() {
        let mut mixed = authority(1);
        mixed.secret = authority(2).secret;
        let what = "its secret key, which is not that of the pool";
        assert_eq!(
            PoolAuthority::parse(&mixed.encode()).unwrap_err(),
            PoolFileError::Malformed { what }
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut authority = authority(1);
        authority.secret = SigningKey::from_bytes(&[113; 32]);
        let shown = format!("{authority:?}");
        assert!(
            shown.contains("PoolKey(secret)") && shown.ends_with(", .. }"),
            "{shown}"
        );
        assert!(
            !shown.contains("113, 113") && !shown.contains("7171"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_are_refused(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = armour::encode(KIND, &payload);
            prop_assert!(PoolAuthority::parse(&text).is_err());
        }
    }
}
