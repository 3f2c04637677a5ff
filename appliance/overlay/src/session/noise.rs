//! `snow`, with what it leaves to us: seeded randomness, and refusal of degenerate keys.

use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::keys::Endpoint;
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
    let resolver = Resolver(seed.clone());
    let mut builder = Builder::with_resolver(name.parse()?, Box::new(resolver))
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

struct Resolver(Seed);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(Rng::from_seed(*self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let dh = DefaultResolver.resolve_dh(choice)?;
        Some(Box::new(ContributoryDh(dh)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct SeededRandom(Rng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

/// X25519 that refuses an all-zero result (RFC 7748 §6.1), which a peer forces by a low-order key.
struct ContributoryDh(Box<dyn Dh>);

impl Dh for ContributoryDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.0.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.0.dh(pubkey, out)?;
        let shared = out.get(..self.dh_len()).ok_or(Error::Dh)?;
        match shared.ct_eq(&[0; 32]).into() {
            true => Err(Error::Dh),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_keys_are_refused() {
        let resolver = Resolver(Zeroizing::new([1; 32]));
        let mut dh = resolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.set(&[5; 32]);
        let mut out = [0; 32];
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(dh.dh(&[0; 32], &mut out), Err(Error::Dh));
        assert_eq!(dh.dh(&one, &mut out), Err(Error::Dh));
        let mut base_point = [0; 32];
        base_point[0] = 9;
        assert_eq!(dh.dh(&base_point, &mut out), Ok(()));
        assert_eq!(out, dh.pubkey());
    }
}
