//! `snow`, with what it leaves to us: seeded randomness, and its key agreement by `aws-lc-rs`.

use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::keys::Endpoint;
#[cfg(feature = "stand-in")]
use super::stand_in;
use super::x25519::AgreementKey;
use crate::Rng;
use crate::wire::outer::{INIT_HEADER_BYTES, Pattern};

/// BLAKE2s rather than SHA-256: as strong, and quick on CPUs without SHA instructions.
const IK: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const XX: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"wow session v1";

/// The seed of one handshake's ephemeral key. The same seed and inputs give the same bytes.
pub(super) type Seed = Zeroizing<[u8; 32]>;

pub(super) fn draw_seed(rng: &mut Rng) -> Seed {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    seed
}

/// A handshake state of `pattern`; `remote_static` is the responder's key, for an IK initiator.
///
/// The prologue holds the version, the pool and the whole Init header, so both sides must have seen
/// the same pattern, index and cipher offer.
pub(super) fn build(
    endpoint: &Endpoint,
    pattern: Pattern,
    initiator: bool,
    remote_static: Option<&[u8; 32]>,
    header: &[u8; INIT_HEADER_BYTES],
    seed: &Seed,
) -> Result<HandshakeState, Error> {
    let name = match pattern {
        Pattern::Ik => IK,
        Pattern::Xx => XX,
    };
    let prologue = [PROLOGUE, &endpoint.pool().tag, header].concat();
    let mut builder = Builder::with_resolver(name.parse()?, resolver(endpoint, seed))
        .local_private_key(endpoint.key().secret())?
        .prologue(&prologue)?;
    if let Some(key) = remote_static {
        builder = builder.remote_public_key(key)?;
    }
    match initiator {
        true => builder.build_initiator(),
        false => builder.build_responder(),
    }
}

fn resolver(endpoint: &Endpoint, seed: &Seed) -> Box<dyn CryptoResolver + Send> {
    #[cfg(feature = "stand-in")]
    if endpoint.ciphers().is_stand_in() {
        return Box::new(StandIn(endpoint.clone(), seed.clone()));
    }
    #[cfg(not(feature = "stand-in"))]
    let _ = endpoint;
    Box::new(Resolver(seed.clone()))
}

struct Resolver(Seed);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(Rng::from_seed(*self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(AgreementKey::default())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[cfg(feature = "stand-in")]
struct StandIn(Endpoint, Seed);

#[cfg(feature = "stand-in")]
impl CryptoResolver for StandIn {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(Rng::from_seed(*self.1))))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(stand_in::Agreement::new(self.0.key().clone())))
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(Box::new(stand_in::Digest::default()))
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(stand_in::Sealing::default()))
    }
}

struct SeededRandom(Rng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}
