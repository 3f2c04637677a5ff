//! Who belongs to a pool, and how that is proven: identities, pools, tickets and certificates.
//!
//! A pool's authority ([`PoolAuthority`], its CA) issues [`Ticket`]s; a node with a ticket makes an
//! [`Identity`] and signs its own [`Certificate`] under the ticket; every other member checks that
//! chain offline. The authority's [`Revocation`]s end a membership early. Left out: leases, and where
//! any of this is stored.
//!
//! What arrives from outside is parsed once, strictly, into types that hold only what was verified.
//! Signed bytes are kept and checked verbatim; every signature has a domain of its own (see
//! `codec`); an encoding that is not the canonical one is refused.

mod armour;
mod codec;
mod delegation;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod label;

pub mod addresses;
pub mod authority;
pub mod certificate;
pub mod identity;
pub mod pool;
pub mod revocation;
pub mod roles;
pub mod seed;
pub mod ticket;
pub mod validity;

pub use addresses::Addresses;
pub use authority::{IssueError, PoolAuthority, PoolFileError};
pub use certificate::{Certificate, CertificateError, CertificateRequest};
pub use delegation::TicketId;
pub use identity::{Identity, IdentityError};
pub use label::{LabelError, NodeName, PoolName, TicketLabel};
pub use pool::{PoolError, PoolFacts, PoolId, PoolKey, PoolSummary};
pub use revocation::{Revocation, RevocationError, Revoked};
pub use roles::{Roles, RolesError};
pub use seed::{SeedAddr, SeedAddrError};
pub use ticket::{Ticket, TicketError, TicketSummary};
pub use validity::{OutOfTime, Validity};
