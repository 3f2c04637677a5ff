//! Which AEAD seals a session's records, and how two peers agree on one.

use aws_lc_rs::aead;

/// A cipher for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherSuite {
    /// AES-256-GCM: four times as fast as the other where the CPU has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305: fast and constant-time on any CPU.
    ChaCha20Poly1305 = 2,
    /// No cipher: see [`CipherPreference::stand_in`].
    #[cfg(feature = "stand-in")]
    StandIn = 3,
}

/// What a node offers and takes: a set of ciphers and the favourite among them.
///
/// The overlay reads no CPU flags; the caller does, and says so here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherPreference {
    supported: u8,
    favourite: CipherSuite,
}

impl CipherSuite {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(CipherSuite::Aes256Gcm),
            2 => Some(CipherSuite::ChaCha20Poly1305),
            #[cfg(feature = "stand-in")]
            3 => Some(CipherSuite::StandIn),
            _ => None,
        }
    }

    const fn bit(self) -> u8 {
        1 << (self as u8 - 1)
    }

    /// The AEAD; none for the stand-in.
    pub(super) fn algorithm(self) -> Option<&'static aead::Algorithm> {
        match self {
            CipherSuite::Aes256Gcm => Some(&aead::AES_256_GCM),
            CipherSuite::ChaCha20Poly1305 => Some(&aead::CHACHA20_POLY1305),
            #[cfg(feature = "stand-in")]
            CipherSuite::StandIn => None,
        }
    }
}

impl CipherPreference {
    /// Both ciphers, AES preferred: for a CPU with AES instructions.
    pub const fn aes_first() -> Self {
        Self::both(CipherSuite::Aes256Gcm)
    }

    /// Both ciphers, ChaCha20 preferred: for a CPU without.
    pub const fn chacha_first() -> Self {
        Self::both(CipherSuite::ChaCha20Poly1305)
    }

    /// Nothing but `suite`; a peer without it is refused.
    pub const fn only(suite: CipherSuite) -> Self {
        CipherPreference {
            supported: suite.bit(),
            favourite: suite,
        }
    }

    /// No cryptography at all, in handshakes, records and certificates, at the same sizes: for
    /// simulations of thousands of nodes. Such a node and any other refuse each other.
    #[cfg(feature = "stand-in")]
    pub const fn stand_in() -> Self {
        Self::only(CipherSuite::StandIn)
    }

    /// Whether this is [`stand_in`](Self::stand_in).
    #[cfg(feature = "stand-in")]
    pub(crate) const fn is_stand_in(self) -> bool {
        matches!(self.favourite, CipherSuite::StandIn)
    }

    const fn both(favourite: CipherSuite) -> Self {
        let supported = CipherSuite::Aes256Gcm.bit() | CipherSuite::ChaCha20Poly1305.bit();
        CipherPreference {
            supported,
            favourite,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 2] {
        [self.supported, self.favourite as u8]
    }

    /// The responder's choice for an initiator that offers `offer`; `None` if nothing is common.
    ///
    /// A favourite of both wins. Otherwise one side lacks AES instructions, and ChaCha20 suits both.
    /// Bits and favourites that a later version may add are passed over.
    pub(super) fn choose(self, offer: [u8; 2]) -> Option<CipherSuite> {
        let [supported, favourite] = offer;
        let common = self.supported & supported;
        let shared_favourite =
            CipherSuite::from_byte(favourite).filter(|suite| *suite == self.favourite);
        shared_favourite
            .into_iter()
            .chain([CipherSuite::ChaCha20Poly1305, CipherSuite::Aes256Gcm])
            .find(|suite| common & suite.bit() != 0)
    }

    /// The suite that a responder's `byte` names, if it was among those offered.
    pub(super) fn accept_choice(self, byte: u8) -> Option<CipherSuite> {
        CipherSuite::from_byte(byte).filter(|suite| self.supported & suite.bit() != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::CipherSuite::{Aes256Gcm, ChaCha20Poly1305};
    use super::*;

    fn check(offer: CipherPreference, own: CipherPreference, chosen: Option<CipherSuite>) {
        assert_eq!(
            own.choose(offer.to_bytes()),
            chosen,
            "{own:?} given {offer:?}"
        );
    }

    #[test]
    fn aes_is_chosen_only_where_both_favour_it_or_nothing_else_is_common() {
        let (aes, chacha) = (
            CipherPreference::aes_first(),
            CipherPreference::chacha_first(),
        );
        let (only_aes, only_chacha) = (
            CipherPreference::only(Aes256Gcm),
            CipherPreference::only(ChaCha20Poly1305),
        );
        check(aes, aes, Some(Aes256Gcm));
        check(aes, chacha, Some(ChaCha20Poly1305));
        check(chacha, aes, Some(ChaCha20Poly1305));
        check(chacha, chacha, Some(ChaCha20Poly1305));
        check(only_aes, chacha, Some(Aes256Gcm));
        check(only_aes, only_chacha, None);
    }

    #[test]
    fn hostile_offers_yield_nothing_or_something_offered() {
        let own = CipherPreference::aes_first();
        assert_eq!(own.choose([0, 1]), None);
        assert_eq!(own.choose([0xfc, 1]), None);
        // A favourite outside the offered set does not count.
        assert_eq!(own.choose([2, 1]), Some(ChaCha20Poly1305));
        let only = CipherPreference::only(Aes256Gcm);
        assert_eq!(only.accept_choice(2), None);
        assert_eq!(only.accept_choice(0), None);
        assert_eq!(only.accept_choice(1), Some(Aes256Gcm));
    }
}
