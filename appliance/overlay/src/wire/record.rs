//! Records: what a node claims in the pool's distributed table, signed by it.
//!
//! ```text
//! record = certificate, claim (postcard), the node's signature over the claim
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Remote;
use super::message::{CERTIFICATE_MAX, Message, MessageError};
use crate::id::NodeId;

/// Longest name in a key, in bytes.
pub const NAME_MAX: usize = 63;
/// Longest value of a record, in bytes.
pub const VALUE_MAX: usize = 128;
/// Addresses in a record.
pub const RECORD_CANDIDATES_MAX: usize = 4;
/// Longest encoded claim, in bytes.
pub const CLAIM_MAX: usize = 512;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest life of a record that is not renewed.
pub const LIFETIME_MAX: Duration = Duration::from_secs(300);

/// What the table is searched by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// A node's identifier. Never claimed: it proves itself.
    Id(NodeId),
    /// A virtual IPv4 address: a lease.
    V4(Ipv4Addr),
    /// A virtual IPv6 address. Never claimed: it follows from the identifier.
    V6(Ipv6Addr),
    /// A node's name.
    Name(String),
    /// A service of the pool.
    Service(String),
}

/// What a node says of itself under one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The key.
    pub key: Key,
    /// Grows with every claim that the node makes: of two, the greater one holds.
    pub sequence: u64,
    /// Seconds for which the record lives without being renewed.
    pub lifetime_s: u16,
    /// How to reach the node.
    pub candidates: Vec<Remote>,
    /// What is stored: under a name or a service the node's virtual IPv4 address, four bytes; else
    /// whatever the claimant likes.
    pub value: Vec<u8>,
}

/// A claim with its proof. Nothing here is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The claimant's certificate.
    pub certificate: Vec<u8>,
    /// An encoded [`Claim`].
    pub claim: Vec<u8>,
    /// The claimant's signature over it.
    pub signature: Vec<u8>,
}

impl Claim {
    /// Decodes a claim within its bounds.
    pub fn decode(bytes: &[u8]) -> Result<Claim, MessageError> {
        <Claim as Message>::decode(bytes)
    }

    /// The lifetime.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_s.into())
    }
}

impl Message for Claim {
    fn is_bounded(&self) -> bool {
        self.key.is_bounded()
            && self.candidates.len() <= RECORD_CANDIDATES_MAX
            && self.value.len() <= VALUE_MAX
            && self.lifetime() <= LIFETIME_MAX
    }
}

impl Message for Record {
    fn is_bounded(&self) -> bool {
        self.certificate.len() <= CERTIFICATE_MAX
            && self.claim.len() <= CLAIM_MAX
            && self.signature.len() == SIGNATURE_BYTES
    }
}

impl Message for Key {
    fn is_bounded(&self) -> bool {
        match self {
            Key::Name(name) | Key::Service(name) => name.len() <= NAME_MAX,
            Key::Id(_) | Key::V4(_) | Key::V6(_) => true,
        }
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Key::V4(v4),
            IpAddr::V6(v6) => Key::V6(v6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(name: usize, value: usize, candidates: usize, lifetime_s: u16) -> Vec<u8> {
        let claim = Claim {
            key: Key::Service("s".repeat(name)),
            sequence: u64::MAX,
            lifetime_s,
            candidates: vec!["[2001:db8::1]:65535".parse().unwrap(); candidates],
            value: vec![0xff; value],
        };
        let mut bytes = Vec::new();
        claim.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_largest_record_fits_a_datagram() {
        let claim = claim(NAME_MAX, VALUE_MAX, RECORD_CANDIDATES_MAX, 300);
        assert!(claim.len() <= CLAIM_MAX, "{}", claim.len());
        Claim::decode(&claim).unwrap();
        let record = Record {
            certificate: vec![0; 512],
            claim,
            signature: vec![0; SIGNATURE_BYTES],
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert!(bytes.len() < 1100, "{} bytes", bytes.len());
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn what_is_beyond_a_bound_is_refused() {
        Claim::decode(&claim(1, 1, 1, 300)).unwrap();
        for (name, value, candidates, lifetime_s) in [
            (NAME_MAX + 1, 1, 1, 300),
            (1, VALUE_MAX + 1, 1, 300),
            (1, 1, RECORD_CANDIDATES_MAX + 1, 300),
            (1, 1, 1, 301),
        ] {
            let bytes = claim(name, value, candidates, lifetime_s);
            assert_eq!(Claim::decode(&bytes), Err(MessageError));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Claim::decode(&bytes);
            let _ = Record::decode(&bytes);
        }
    }
}
