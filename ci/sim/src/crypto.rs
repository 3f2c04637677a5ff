//! Real cryptography or its stand-in: a run's choice.

use clap::ValueEnum;

/// Most nodes of a pool that uses real cryptography unless told otherwise: beyond, curves would take
/// most of a run's time.
pub const REAL_NODES_MAX: usize = 500;

/// What seals records, agrees on keys and signs certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Crypto {
    /// The ciphers and curves that ship.
    Real,
    /// The overlay's stand-in: the same sizes and failures, no secrecy, little time.
    StandIn,
}

impl Crypto {
    /// What a pool of so many nodes uses unless told otherwise.
    pub const fn for_pool_of(nodes: usize) -> Self {
        match nodes <= REAL_NODES_MAX {
            true => Crypto::Real,
            false => Crypto::StandIn,
        }
    }
}

impl std::fmt::Display for Crypto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Crypto::Real => "real",
            Crypto::StandIn => "stand-in",
        })
    }
}
