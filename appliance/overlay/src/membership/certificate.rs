//! A node's proof of membership: its keys, name and roles, signed by itself and under a ticket.
//!
//! Laid out as version, delegation with the CA's signature, body, the node's own signature over all
//! before it, the ticket's signature over all before it. Every member checks all three offline. The
//! node's signature keeps a ticket's holder from claiming somebody else's id.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::addresses::{AddressError, check_v4};
use super::codec::{
    Domain, ReadError, Reader, SIGNATURE_BYTES, is_signed, write_body, write_signature,
};
use super::delegation::{Signed, TicketId};
use super::identity::Identity;
pub use super::label::NodeName;
use super::pool::{PoolFacts, PoolId};
use super::roles::Roles;
use super::validity::{OutOfTime, Utc, Validity};
use crate::id::NodeId;
use crate::time::UnixTime;

/// Longest certificate that is looked at; one with a name of 20 characters has about 370 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 512;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// What a node wants certified.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The node's name.
    pub name: NodeName,
    /// Its roles: some or all of the ticket's.
    pub roles: Roles,
    /// Its virtual IPv4 address, when that shall not be derived from its id.
    pub fixed_address: Option<Ipv4Addr>,
    /// When it begins to hold: not before the ticket does.
    pub not_before: UnixTime,
    /// When it ceases to hold: not after the ticket does.
    pub not_after: UnixTime,
}

/// Why a certificate is refused, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More bytes than any certificate has.
    #[error("the certificate has {found} bytes, more than {CERTIFICATE_BYTES_MAX}")]
    TooLong {
        /// How many.
        found: usize,
    },
    /// The bytes end too early.
    #[error("the certificate is cut off")]
    Truncated,
    /// Its version is not ours.
    #[error(
        "the certificate has version {found}, and this node reads version {VERSION}: the older of \
         both nodes needs an update"
    )]
    UnsupportedVersion {
        /// The version.
        found: u8,
    },
    /// A part is not in the one form it may have.
    #[error("the certificate is malformed at {what}")]
    Malformed {
        /// The part.
        what: &'static str,
    },
    /// It belongs to another pool.
    #[error("the certificate belongs to the pool {found}, this node to the pool {expected}")]
    ForeignPool {
        /// Our pool.
        expected: PoolId,
        /// The certificate's.
        found: PoolId,
    },
    /// The pool's CA did not sign the delegation.
    #[error("the certificate's ticket is forged: the pool's CA has not signed it")]
    ForgedDelegation,
    /// The ticket that it names did not sign it.
    #[error("the certificate is forged: the ticket {ticket} that it names has not signed it")]
    Forged {
        /// The ticket that it names.
        ticket: TicketId,
    },
    /// The node whose id it claims did not sign it.
    #[error("the certificate claims the id {claimed}, but that node's key has not signed it")]
    IdentityNotProven {
        /// The id.
        claimed: NodeId,
    },
    /// It claims roles that its ticket does not grant.
    #[error(
        "the certificate claims the roles {excess} beyond those of its ticket ({granted}): ask the \
         pool's owner for a ticket with these roles"
    )]
    RolesExceedTicket {
        /// The roles too many.
        excess: Roles,
        /// The ticket's roles.
        granted: Roles,
    },
    /// It would hold at times when its ticket does not.
    #[error(
        "the certificate would hold from {} until {}, its ticket only from {} until {}",
        Utc(.claimed.not_before()), Utc(.claimed.not_after()),
        Utc(.granted.not_before()), Utc(.granted.not_after())
    )]
    ValidityExceedsTicket {
        /// The certificate's validity.
        claimed: Validity,
        /// The ticket's.
        granted: Validity,
    },
    /// The address it fixes is none that a node of the pool may have.
    #[error("the certificate fixes an address that no node may have: {0}")]
    Address(AddressError),
    /// It has ended.
    #[error("the certificate expired on {}", Utc(*.when))]
    Expired {
        /// When it ended.
        when: UnixTime,
    },
    /// It begins too far in the future.
    #[error("the certificate is not valid before {}: one of both nodes' clocks is wrong", Utc(*.when))]
    NotYetValid {
        /// When it begins.
        when: UnixTime,
    },
}

impl From<ReadError> for CertificateError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Short => CertificateError::Truncated,
            ReadError::Malformed(what) => CertificateError::Malformed { what },
        }
    }
}

impl From<OutOfTime> for CertificateError {
    fn from(error: OutOfTime) -> Self {
        match error {
            OutOfTime::Expired(when) => CertificateError::Expired { when },
            OutOfTime::NotYetValid(when) => CertificateError::NotYetValid { when },
        }
    }
}

/// A member's certificate. One that exists was verified. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Verified>);

#[derive(PartialEq, Eq)]
struct Verified {
    bytes: Box<[u8]>,
    pool: PoolId,
    ticket: TicketId,
    node_id: NodeId,
    signing_key: [u8; 32],
    static_key: [u8; 32],
    name: NodeName,
    roles: Roles,
    fixed_address: Option<Ipv4Addr>,
    validity: Validity,
}

#[derive(Serialize, Deserialize)]
struct Body {
    signing_key: [u8; 32],
    static_key: [u8; 32],
    name: String,
    roles: u8,
    fixed_address: Option<[u8; 4]>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Certificate {
    /// The certificate in `bytes`, if it holds in `pool` at `now`.
    ///
    /// Signatures come before what they cover is judged, so that an error other than of form, pool
    /// or forgery tells what the signer really said.
    pub fn verify(
        bytes: &[u8],
        pool: &PoolFacts,
        now: UnixTime,
    ) -> Result<Certificate, CertificateError> {
        Self::read(bytes, pool, now, is_signed)
    }

    /// The certificate in `bytes`, judged as [`verify`](Self::verify) does but for its signatures.
    #[cfg(feature = "stand-in")]
    pub(crate) fn trust(
        bytes: &[u8],
        pool: &PoolFacts,
        now: UnixTime,
    ) -> Result<Certificate, CertificateError> {
        Self::read(bytes, pool, now, |_, _, _, _| true)
    }

    fn read(
        bytes: &[u8],
        pool: &PoolFacts,
        now: UnixTime,
        is_signed: impl Fn(&[u8; 32], Domain, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<Certificate, CertificateError> {
        let found = bytes.len();
        if found > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLong { found });
        }
        let mut reader = Reader::new(bytes);
        let [found] = *reader.array()?;
        if found != VERSION {
            return Err(CertificateError::UnsupportedVersion { found });
        }
        let signed = Signed::read(&mut reader)?;
        let body: Body = reader.body("its body")?;
        let by_holder = reader.passed();
        let holder_signature = reader.array()?;
        let by_ticket = reader.passed();
        let ticket_signature = reader.array()?;
        reader.end()?;
        let malformed = |what| CertificateError::Malformed { what };
        let name = NodeName::new(&body.name).map_err(|_| malformed("its name"))?;
        let roles = Roles::from_bits(body.roles)
            .filter(|roles| !roles.is_empty())
            .ok_or(malformed("its roles"))?;
        let validity =
            Validity::new(body.not_before, body.not_after).ok_or(malformed("its validity"))?;

        let (expected, granted) = (pool.pool_id(), &signed.delegation);
        if granted.pool != expected {
            return Err(CertificateError::ForeignPool {
                expected,
                found: granted.pool,
            });
        }
        if !signed.is_by(&pool.ca, &is_signed) {
            return Err(CertificateError::ForgedDelegation);
        }
        let ticket = signed.id();
        if !is_signed(
            &granted.key,
            Domain::Certificate,
            by_ticket,
            ticket_signature,
        ) {
            return Err(CertificateError::Forged { ticket });
        }
        let node_id = NodeId::of_signing_key(&body.signing_key);
        if !is_signed(
            &body.signing_key,
            Domain::Holder,
            by_holder,
            holder_signature,
        ) {
            return Err(CertificateError::IdentityNotProven { claimed: node_id });
        }

        if !granted.roles.contains(roles) {
            return Err(CertificateError::RolesExceedTicket {
                excess: roles - granted.roles,
                granted: granted.roles,
            });
        }
        if !granted.validity.encloses(&validity) {
            return Err(CertificateError::ValidityExceedsTicket {
                claimed: validity,
                granted: granted.validity,
            });
        }
        let fixed_address = body.fixed_address.map(Ipv4Addr::from);
        if let Some(address) = fixed_address {
            check_v4(pool.range, address).map_err(CertificateError::Address)?;
        }
        validity.check(now)?;
        Ok(Certificate(Arc::new(Verified {
            bytes: bytes.into(),
            pool: expected,
            ticket,
            node_id,
            signing_key: body.signing_key,
            static_key: body.static_key,
            name,
            roles,
            fixed_address,
            validity,
        })))
    }

    /// The bytes that were verified, for sending on.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The pool it belongs to.
    pub fn pool_id(&self) -> PoolId {
        self.0.pool
    }

    /// The ticket it was made with.
    pub fn ticket_id(&self) -> TicketId {
        self.0.ticket
    }

    /// The node's position on the ring.
    pub fn node_id(&self) -> NodeId {
        self.0.node_id
    }

    /// The node's Ed25519 public key.
    pub fn signing_key(&self) -> [u8; 32] {
        self.0.signing_key
    }

    /// The node's X25519 public key.
    pub fn static_key(&self) -> [u8; 32] {
        self.0.static_key
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.0.name
    }

    /// The node's roles.
    pub fn roles(&self) -> Roles {
        self.0.roles
    }

    /// The virtual IPv4 address, if it is not derived from the id.
    pub fn fixed_address(&self) -> Option<Ipv4Addr> {
        self.0.fixed_address
    }

    /// Whether the node has made `signature` over a claim of its own.
    pub fn has_signed_claim(&self, claim: &[u8], signature: &[u8]) -> bool {
        let key = &self.0.signing_key;
        let signature = signature.try_into();
        signature.is_ok_and(|signature| is_signed(key, Domain::Claim, claim, signature))
    }

    /// When it begins to hold.
    pub fn not_before(&self) -> UnixTime {
        self.0.validity.not_before()
    }

    /// When it ceases to hold.
    pub fn not_after(&self) -> UnixTime {
        self.0.validity.not_after()
    }

    /// Whether it still holds at `now`.
    pub fn check(&self, now: UnixTime) -> Result<(), CertificateError> {
        Ok(self.0.validity.check(now)?)
    }

    /// Whether it certifies the keys of `identity`.
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.0.signing_key == identity.signing_public()
            && self.0.static_key == identity.static_public()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("node_id", &self.node_id())
            .field("name", self.name())
            .field("roles", &self.roles())
            .finish_non_exhaustive()
    }
}

/// The bytes of a certificate for `identity`, whether or not anybody would accept it.
pub(super) fn sign(
    delegation: &[u8],
    ticket: &SigningKey,
    identity: &Identity,
    request: &CertificateRequest,
) -> Zeroizing<Vec<u8>> {
    let body = Body {
        signing_key: identity.signing_public(),
        static_key: identity.static_public(),
        name: request.name.to_string(),
        roles: request.roles.bits(),
        fixed_address: request.fixed_address.map(|address| address.octets()),
        not_before: request.not_before,
        not_after: request.not_after,
    };
    let mut bytes = Zeroizing::new(vec![VERSION]);
    bytes.extend_from_slice(delegation);
    write_body(&mut bytes, &body);
    write_signature(&mut bytes, Domain::Holder, identity.signing_key());
    write_signature(&mut bytes, Domain::Certificate, ticket);
    bytes
}

#[cfg(test)]
mod tests;
