//! What every member knows of its pool: name, CA key, pool key, address range and seeds.

use std::fmt;
use std::net::Ipv4Addr;

use aws_lc_rs::digest::{Context, SHA256};
use ed25519_dalek::VerifyingKey;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use super::label::PoolName;
pub use super::seed::{SeedAddr, SeedAddrError};
use super::{addresses, codec::ReadError};

/// The range of a pool that names none: the upper half of 10/8, which home routers use least.
pub const DEFAULT_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 9);

/// Most seeds a pool has; more would only make its tickets long.
pub const SEEDS_MAX: usize = 8;

/// Ranges have prefixes from this length: the largest private network is a /8.
pub const PREFIX_MIN: u8 = 8;

/// Ranges have prefixes up to this length, which leaves addresses for five nodes.
pub const PREFIX_MAX: u8 = 29;

/// Networks that hosts treat in a special way, so that a pool cannot live there.
const UNUSABLE: [(Ipv4Net, &str); 5] = [
    (net(0, 0, 8), "\"this network\""),
    (net(127, 0, 8), "loopback"),
    (net(169, 254, 16), "link-local addresses"),
    (net(224, 0, 4), "multicast"),
    (net(240, 0, 4), "future use"),
];

const fn net(a: u8, b: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)
}

/// A pool's identifier: a hash of its CA's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub [u8; 16]);

impl PoolId {
    /// The pool whose CA has this public key.
    pub fn of_ca(ca: &[u8; 32]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"wow pool id v1\0");
        hash.update(ca);
        let hash = hash.finish();
        PoolId(
            *hash
                .as_ref()
                .first_chunk()
                .expect("a digest is longer than its beginning"),
        )
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolId({self})")
    }
}

impl Serialize for PoolId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The secret all members share, which keys the MAC on a handshake's first message.
///
/// It keeps strangers from learning that a node is there; it does not make anybody a member.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PoolKey(pub [u8; 32]);

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolKey(secret)")
    }
}

/// What every member knows of its pool. `Debug` and [`summary`](Self::summary) leave the key out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolFacts {
    /// What people call it.
    pub name: PoolName,
    /// The CA's Ed25519 public key.
    pub ca: [u8; 32],
    /// The secret that members share.
    pub key: PoolKey,
    /// Where the nodes' virtual IPv4 addresses come from.
    pub range: Ipv4Net,
    /// Where a new node asks first.
    pub seeds: Vec<SeedAddr>,
}

/// Facts that make no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Bits are set behind the prefix.
    #[error("the range {range} has bits set behind its prefix: did you mean {meant}?")]
    RangeHasHostBits {
        /// The range as given.
        range: Ipv4Net,
        /// The network it lies in.
        meant: Ipv4Net,
    },
    /// The range is too large or too small.
    #[error(
        "the range {range} cannot be used: its prefix must be from /{PREFIX_MIN} to /{PREFIX_MAX}"
    )]
    RangeSize {
        /// The range as given.
        range: Ipv4Net,
    },
    /// The range overlaps a network that hosts treat in a special way.
    #[error(
        "the range {range} cannot be used: {network} is reserved for {purpose}; take a private one \
         such as {DEFAULT_RANGE}"
    )]
    RangeReserved {
        /// The range as given.
        range: Ipv4Net,
        /// What it overlaps.
        network: Ipv4Net,
        /// What that is for.
        purpose: &'static str,
    },
    /// More than [`SEEDS_MAX`] seeds.
    #[error("{found} seeds are too many: name at most {SEEDS_MAX}")]
    TooManySeeds {
        /// How many there are.
        found: usize,
    },
    /// The same seed stands there twice.
    #[error("the seed {0} is named twice")]
    RepeatedSeed(SeedAddr),
    /// The CA's key is no point of the curve, or one that anybody can sign for.
    #[error("the CA's key is no sound Ed25519 key")]
    UnsoundCa,
}

impl PoolFacts {
    /// What the DNS names of its nodes end with, without dots at its ends: `.internal` is set aside for
    /// networks of one's own.
    pub fn dns_suffix(&self) -> String {
        format!("{}.internal", self.name)
    }

    /// The facts, if a pool can have them.
    pub fn new(
        name: PoolName,
        ca: [u8; 32],
        key: PoolKey,
        range: Ipv4Net,
        seeds: Vec<SeedAddr>,
    ) -> Result<Self, PoolError> {
        check_range(range)?;
        let found = seeds.len();
        if found > SEEDS_MAX {
            return Err(PoolError::TooManySeeds { found });
        }
        if let Some((_, twice)) = seeds
            .iter()
            .enumerate()
            .find(|(index, seed)| seeds[..*index].contains(seed))
        {
            return Err(PoolError::RepeatedSeed(twice.clone()));
        }
        if VerifyingKey::from_bytes(&ca).map_or(true, |ca| ca.is_weak()) {
            return Err(PoolError::UnsoundCa);
        }
        Ok(PoolFacts {
            name,
            ca,
            key,
            range,
            seeds,
        })
    }

    /// The pool's identifier.
    pub fn pool_id(&self) -> PoolId {
        PoolId::of_ca(&self.ca)
    }

    /// All that may be shown to anybody.
    pub fn summary(&self) -> PoolSummary {
        let id = self.pool_id();
        PoolSummary {
            name: self.name.clone(),
            id,
            range: self.range,
            control_address: addresses::control_v4(self.range),
            v6_prefix: addresses::v6_prefix(id),
            seeds: self.seeds.clone(),
        }
    }
}

/// Whether a pool can live in `range`.
pub fn check_range(range: Ipv4Net) -> Result<(), PoolError> {
    if !(PREFIX_MIN..=PREFIX_MAX).contains(&range.prefix_len()) {
        return Err(PoolError::RangeSize { range });
    }
    let meant = range.trunc();
    if meant.addr() != range.addr() {
        return Err(PoolError::RangeHasHostBits { range, meant });
    }
    for (network, purpose) in UNUSABLE {
        if network.contains(&range) || range.contains(&network) {
            return Err(PoolError::RangeReserved {
                range,
                network,
                purpose,
            });
        }
    }
    Ok(())
}

/// A pool's public facts, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSummary {
    /// What people call it.
    pub name: PoolName,
    /// Its identifier.
    pub id: PoolId,
    /// Where virtual IPv4 addresses come from.
    pub range: Ipv4Net,
    /// The address at which every node answers its own guests.
    pub control_address: Ipv4Addr,
    /// Where virtual IPv6 addresses come from.
    pub v6_prefix: Ipv6Net,
    /// Where a new node asks first.
    pub seeds: Vec<SeedAddr>,
}

/// The facts as they stand in tickets and pool files.
#[derive(Serialize, Deserialize)]
pub(super) struct FactsBody {
    name: String,
    ca: [u8; 32],
    key: [u8; 32],
    network: [u8; 4],
    prefix: u8,
    seeds: Vec<String>,
}

impl FactsBody {
    pub(super) fn new(facts: &PoolFacts) -> Self {
        FactsBody {
            name: facts.name.to_string(),
            ca: facts.ca,
            key: facts.key.0,
            network: facts.range.addr().octets(),
            prefix: facts.range.prefix_len(),
            seeds: facts.seeds.iter().map(SeedAddr::to_string).collect(),
        }
    }

    pub(super) fn facts(&self) -> Result<PoolFacts, ReadError> {
        let name =
            PoolName::new(&self.name).map_err(|_| ReadError::Malformed("the pool's name"))?;
        let range = Ipv4Net::new(self.network.into(), self.prefix)
            .map_err(|_| ReadError::Malformed("the pool's range"))?;
        let seed = |text: &String| {
            text.parse()
                .ok()
                .filter(|seed: &SeedAddr| seed.as_str() == text)
        };
        let seeds: Option<Vec<SeedAddr>> = self.seeds.iter().map(seed).collect();
        let seeds = seeds.ok_or(ReadError::Malformed("a seed of the pool"))?;
        PoolFacts::new(name, self.ca, PoolKey(self.key), range, seeds)
            .map_err(|_| ReadError::Malformed("the pool's facts"))
    }
}

impl Drop for FactsBody {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests;
