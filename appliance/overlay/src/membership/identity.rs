//! A node's own keys. Where they are kept is the router's business.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::SigningKey;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::codec::{self, Domain, SIGNATURE_BYTES};
use crate::Rng;
use crate::id::NodeId;

/// Length of the stored form.
pub const IDENTITY_BYTES: usize = MAGIC.len() + 32 + 32 + CHECK_BYTES;

/// Opens the stored form: kind and version.
const MAGIC: &[u8; 16] = b"wow identity 01\n";
const CHECK_BYTES: usize = 4;

/// A node's Ed25519 signing key and X25519 static key, with their secrets.
///
/// Secrets are wiped when dropped, and never shown.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    static_secret: Zeroizing<[u8; 32]>,
    static_public: [u8; 32],
    node_id: NodeId,
}

/// Why a stored identity could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes do not begin as an identity of this version does.
    #[error(
        "not a WOW identity of version 1; move the file away to have the node make a new identity"
    )]
    NotAnIdentity,
    /// The bytes are too few or too many.
    #[error(
        "the identity has {0} bytes instead of {IDENTITY_BYTES}: the file is damaged; restore it, or \
         move it away to have the node make a new identity"
    )]
    WrongLength(usize),
    /// The checksum does not fit.
    #[error(
        "the identity's checksum does not fit: the file is damaged; restore it, or move it away to \
         have the node make a new identity"
    )]
    Damaged,
}

impl Identity {
    /// New keys, drawn from `rng`.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        let mut static_secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        rng.fill_bytes(&mut *static_secret);
        Self::from_secrets(&seed, static_secret)
    }

    fn from_secrets(seed: &[u8; 32], static_secret: Zeroizing<[u8; 32]>) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let node_id = NodeId::of_signing_key(&signing.verifying_key().to_bytes());
        let static_public = MontgomeryPoint::mul_base_clamped(*static_secret).to_bytes();
        Identity {
            signing,
            static_secret,
            static_public,
            node_id,
        }
    }

    /// Both secrets with kind, version and checksum: for a file of mode 0600.
    pub fn to_bytes(&self) -> Zeroizing<[u8; IDENTITY_BYTES]> {
        let mut bytes = Zeroizing::new([0; IDENTITY_BYTES]);
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..48].copy_from_slice(self.signing.as_bytes());
        bytes[48..80].copy_from_slice(&*self.static_secret);
        let check = checksum(&bytes[..80]);
        bytes[80..].copy_from_slice(&check);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        if !bytes.starts_with(MAGIC) {
            return Err(IdentityError::NotAnIdentity);
        }
        let bytes: &[u8; IDENTITY_BYTES] = bytes
            .try_into()
            .map_err(|_| IdentityError::WrongLength(bytes.len()))?;
        if checksum(&bytes[..80]) != bytes[80..] {
            return Err(IdentityError::Damaged);
        }
        let mut seed = Zeroizing::new([0; 32]);
        let mut static_secret = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&bytes[16..48]);
        static_secret.copy_from_slice(&bytes[48..80]);
        Ok(Self::from_secrets(&seed, static_secret))
    }

    /// The node's position on the ring.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The Ed25519 public key.
    pub fn signing_public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The X25519 public key.
    pub fn static_public(&self) -> [u8; 32] {
        self.static_public
    }

    /// The X25519 secret, for the handshake.
    pub fn static_secret(&self) -> &[u8; 32] {
        &self.static_secret
    }

    /// The node's signature over a claim of its own, to be checked by
    /// [`Certificate::has_signed_claim`](super::Certificate::has_signed_claim).
    pub fn sign_claim(&self, claim: &[u8]) -> [u8; SIGNATURE_BYTES] {
        codec::sign(&self.signing, Domain::Claim, claim)
    }

    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.signing
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    *digest(&SHA256, bytes)
        .as_ref()
        .first_chunk()
        .expect("a digest is longer than its beginning")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn identity() -> Identity {
        Identity::generate(&mut Rng::seed_from_u64(1))
    }

    #[test]
    fn x25519_public_keys_are_rfc_7748_s() {
        let unhex = |text: &[u8]| -> [u8; 32] {
            let bytes = data_encoding::HEXLOWER.decode(text).unwrap();
            bytes.try_into().unwrap()
        };
        // RFC 7748, 6.1: Alice's and Bob's keys.
        for (secret, public) in [
            (
                b"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                b"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                b"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                b"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
        ] {
            assert_eq!(
                MontgomeryPoint::mul_base_clamped(unhex(secret)).to_bytes(),
                unhex(public)
            );
        }
    }

    #[test]
    fn the_stored_form_brings_the_same_keys_back() {
        let before = identity();
        let after = Identity::from_bytes(&*before.to_bytes()).unwrap();
        assert_eq!(after.node_id(), before.node_id());
        assert_eq!(after.signing_public(), before.signing_public());
        assert_eq!(after.static_public(), before.static_public());
        assert_eq!(after.static_secret(), before.static_secret());
        assert_eq!(
            after.node_id(),
            NodeId::of_signing_key(&after.signing_public())
        );
    }

    #[test]
    fn the_same_seed_makes_the_same_identity_and_another_another() {
        let other = Identity::generate(&mut Rng::seed_from_u64(2));
        assert_eq!(identity().node_id(), identity().node_id());
        assert_ne!(identity().node_id(), other.node_id());
    }

    #[test]
    fn every_flipped_bit_and_every_length_is_refused() {
        let good = identity().to_bytes();
        for bit in 0..8 * IDENTITY_BYTES {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 8 * MAGIC.len() {
                IdentityError::NotAnIdentity
            } else {
                IdentityError::Damaged
            };
            assert_eq!(Identity::from_bytes(&*bytes).unwrap_err(), expected);
        }
        for length in 0..IDENTITY_BYTES {
            assert!(Identity::from_bytes(&good[..length]).is_err());
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(
            Identity::from_bytes(&longer).unwrap_err(),
            IdentityError::WrongLength(IDENTITY_BYTES + 1)
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(
            format!("{:?}", identity()),
            format!("Identity {{ node_id: {:?}, .. }}", identity().node_id())
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Identity::from_bytes(&bytes);
        }
    }
}
