//! Announcements on a local network: sealed with the pool's key, so that strangers see noise.
//!
//! ```text
//! 0 kind | 1 version | 2..4 zero | 4..16 nonce | ciphertext | tag (16)
//! ```
//!
//! Whoever replays one makes members try an address, in vain: the handshake that follows proves who
//! is there.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use rand::RngExt;

use crate::Rng;
use crate::wire::outer::VERSION;

/// The longest announcement.
pub const ANNOUNCEMENT_MAX_BYTES: usize = 512;

const KIND: u8 = 6;
const HEADER: [u8; 4] = [KIND, VERSION, 0, 0];

/// Seals and opens the announcements of one pool.
pub struct Announcer(LessSafeKey);

impl Announcer {
    /// For the pool with secret `pool_key`.
    pub fn new(pool_key: &[u8; 32]) -> Self {
        let pool = hmac::Key::new(hmac::HMAC_SHA256, pool_key);
        let derived = hmac::sign(&pool, b"wow pool announcement v1");
        let key = UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref());
        Announcer(LessSafeKey::new(key.expect("the MAC has the key's length")))
    }

    /// Seals what members nearby are to know.
    pub fn seal(&self, rng: &mut Rng, plaintext: &[u8]) -> Vec<u8> {
        // Drawn, as many nodes share the key: none repeats in 2^32 of them but once in 2^33 pools.
        let nonce: [u8; NONCE_LEN] = rng.random();
        let mut out = HEADER.to_vec();
        out.extend(nonce);
        let mut sealed = plaintext.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce, Aad::from(HEADER), &mut sealed)
            .expect("an announcement is far below the cipher's limit");
        out.extend(sealed);
        out
    }

    /// Opens an announcement; `None` if it is no member's.
    pub fn open<'a>(&self, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        if bytes.len() > ANNOUNCEMENT_MAX_BYTES {
            return None;
        }
        let (header, rest) = bytes.split_first_chunk_mut::<4>()?;
        let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_LEN>()?;
        if *header != HEADER {
            return None;
        }
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(HEADER), sealed);
        opened.ok().map(|plaintext| &*plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use proptest::prelude::*;
    use rand::SeedableRng;

    #[test]
    fn members_alone_read_what_is_announced() {
        let mut rng = Rng::seed_from_u64(1);
        let (ours, theirs) = (Announcer::new(&[1; 32]), Announcer::new(&[2; 32]));
        let sealed = ours.seal(&mut rng, b"here");
        assert_eq!(ours.open(&mut sealed.clone()), Some(&b"here"[..]));
        assert_eq!(theirs.open(&mut sealed.clone()), None);
        for byte in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[byte] ^= 1;
            assert_eq!(ours.open(&mut altered), None, "byte {byte}");
        }
        assert_ne!(ours.seal(&mut rng, b"here"), sealed, "never twice the same");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
            prop_assert_eq!(Announcer::new(&[1; 32]).open(&mut bytes), None);
        }
    }
}
