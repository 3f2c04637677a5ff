//! X25519 for `snow`, by `aws-lc-rs`: less than half the time of the pure Rust one, and it refuses
//! an all-zero result (RFC 7748 §6.1), which a peer forces by a low-order key.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use snow::Error;
use snow::types::{Dh, Random};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// A key pair, all zero and of no use until [`Dh::set`] or [`Dh::generate`].
#[derive(Default)]
pub(super) struct AgreementKey {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    public: [u8; KEY_BYTES],
    key: Option<PrivateKey>,
}

impl AgreementKey {
    fn load(&mut self) -> Result<(), Error> {
        let key = PrivateKey::from_private_key(&X25519, &*self.secret).map_err(|_| Error::Dh)?;
        let public = key.compute_public_key().map_err(|_| Error::Dh)?;
        self.public = public.as_ref().try_into().map_err(|_| Error::Dh)?;
        self.key = Some(key);
        Ok(())
    }
}

impl Dh for AgreementKey {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, privkey: &[u8]) {
        self.key = None;
        if let Ok(secret) = privkey.try_into() {
            self.secret = Zeroizing::new(secret);
            // A key that did not load fails on its first use.
            let _ = self.load();
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        rng.try_fill_bytes(&mut *self.secret)?;
        self.load()
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let key = self.key.as_ref().ok_or(Error::Dh)?;
        let pubkey = pubkey.get(..KEY_BYTES).ok_or(Error::Dh)?;
        let out = out.get_mut(..KEY_BYTES).ok_or(Error::Dh)?;
        agree(
            key,
            UnparsedPublicKey::new(&X25519, pubkey),
            Error::Dh,
            |shared| {
                out.copy_from_slice(shared);
                Ok(())
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snow::params::DHChoice;
    use snow::resolvers::{CryptoResolver, DefaultResolver};

    fn key(secret: [u8; KEY_BYTES]) -> AgreementKey {
        let mut key = AgreementKey::default();
        key.set(&secret);
        key
    }

    fn agreed(key: &dyn Dh, pubkey: &[u8]) -> Result<[u8; KEY_BYTES], Error> {
        let mut out = [0; KEY_BYTES];
        key.dh(pubkey, &mut out).map(|()| out)
    }

    #[test]
    fn low_order_keys_are_refused() {
        let key = key([5; KEY_BYTES]);
        let mut point = [0; KEY_BYTES];
        assert_eq!(agreed(&key, &point), Err(Error::Dh));
        point[0] = 1;
        assert_eq!(agreed(&key, &point), Err(Error::Dh));
        point[0] = 9;
        assert_eq!(agreed(&key, &point).unwrap(), key.pubkey());
    }

    #[test]
    fn an_unset_key_agrees_on_nothing() {
        let other = key([5; KEY_BYTES]);
        assert_eq!(
            agreed(&AgreementKey::default(), other.pubkey()),
            Err(Error::Dh)
        );
    }

    #[test]
    fn the_pure_rust_implementation_agrees() {
        for n in 1..20 {
            let ours = key([n; KEY_BYTES]);
            let mut theirs = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
            theirs.set(&[n; KEY_BYTES]);
            assert_eq!(ours.pubkey(), theirs.pubkey());
            let peer = key([n + 100; KEY_BYTES]);
            let shared = agreed(&ours, peer.pubkey());
            assert_eq!(shared, agreed(&*theirs, peer.pubkey()));
            assert_eq!(shared, agreed(&peer, ours.pubkey()));
        }
    }
}
