//! X25519 for `snow`, which itself takes an all-zero result (RFC 7748 §6.1) for a secret: a peer forces one by
//! a key of low order.

use curve25519_dalek::MontgomeryPoint;
use snow::Error;
use snow::types::{Dh, Random};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// A key pair, all zero and of no use until [`Dh::set`] or [`Dh::generate`].
#[derive(Default)]
pub(super) struct AgreementKey {
    secret: Option<Zeroizing<[u8; KEY_BYTES]>>,
    public: [u8; KEY_BYTES],
}

impl AgreementKey {
    fn load(&mut self, secret: Zeroizing<[u8; KEY_BYTES]>) {
        self.public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        self.secret = Some(secret);
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
        // A key of another length fails on its first use.
        self.secret = None;
        if let Ok(secret) = privkey.try_into() {
            self.load(Zeroizing::new(secret));
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        rng.try_fill_bytes(&mut *secret)?;
        self.load(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret
            .as_deref()
            .map_or(&[0; KEY_BYTES], |secret| secret)
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let secret = self.secret.as_deref().ok_or(Error::Dh)?;
        let pubkey = pubkey.first_chunk().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut().ok_or(Error::Dh)?;
        *out = MontgomeryPoint(*pubkey).mul_clamped(*secret).to_bytes();
        match *out == [0; KEY_BYTES] {
            true => Err(Error::Dh),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

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
    fn another_implementation_agrees() {
        for n in 1..20 {
            let ours = key([n; KEY_BYTES]);
            let theirs = PrivateKey::from_private_key(&X25519, &[n; KEY_BYTES]).unwrap();
            assert_eq!(ours.pubkey(), theirs.compute_public_key().unwrap().as_ref());
            let peer = key([n + 100; KEY_BYTES]);
            let shared = agreed(&ours, peer.pubkey()).unwrap();
            let public = UnparsedPublicKey::new(&X25519, peer.pubkey());
            agree(&theirs, public, (), |theirs| {
                assert_eq!(shared, theirs);
                Ok(())
            })
            .unwrap();
            assert_eq!(agreed(&peer, ours.pubkey()), Ok(shared));
        }
    }
}
