//! A stand-in for all cryptography: the same sizes, orders and failures, no secrecy whatever.
//!
//! Ten thousand simulated nodes would spend minutes on curves. Damaged, misdirected and replayed
//! messages fail here as they do in earnest; who computes can forge all of them. It exists under the
//! feature `stand-in` only, which nothing but the simulator may enable, and even there only nodes whose
//! configuration asks for it use it: they speak with nobody else.

use snow::Error;
use snow::types::{Cipher, Dh, Hash, Random};

use super::keys::StaticKey;
use crate::wire::outer::MAC_BYTES;

const KEY_BYTES: usize = 32;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of four lanes that tells inputs apart; nobody attacks it.
#[derive(Clone)]
pub(super) struct Mixer {
    lanes: [u64; 4],
    turn: usize,
}

impl Default for Mixer {
    fn default() -> Self {
        Mixer {
            lanes: [1, 2, 3, 4],
            turn: 0,
        }
    }
}

impl Mixer {
    fn word(&mut self, word: u64) {
        let lane = &mut self.lanes[self.turn % 4];
        *lane = (*lane ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
        self.turn += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(word));
    }

    fn finish(mut self) -> [u8; KEY_BYTES] {
        // Twice around, so that each lane depends on every other.
        for _ in 0..2 {
            for lane in 0..4 {
                let next = self.lanes[(lane + 1) % 4];
                self.lanes[lane] = (self.lanes[lane] ^ next)
                    .wrapping_mul(MULTIPLIER)
                    .rotate_left(31);
            }
        }
        let mut out = [0; KEY_BYTES];
        for (chunk, lane) in out.chunks_exact_mut(8).zip(self.lanes) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        out
    }
}

fn hash(parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mixer = Mixer::default();
    for part in parts {
        mixer.bytes(part);
    }
    mixer.finish()
}

/// The tag in place of an AEAD's.
fn tag(key: &[u8; KEY_BYTES], nonce: u64, header: &[u8], text: &[u8]) -> [u8; MAC_BYTES] {
    let hash = hash(&[key, &nonce.to_le_bytes(), header, text]);
    let mut tag = [0; MAC_BYTES];
    tag.copy_from_slice(&hash[..MAC_BYTES]);
    tag
}

/// Stands in for the key of a direction of records.
pub(super) struct RecordKey([u8; KEY_BYTES]);

impl RecordKey {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        RecordKey(*key)
    }

    /// "Encrypts" in place; returns the tag.
    pub(super) fn seal(&self, counter: u64, header: &[u8], text: &[u8]) -> [u8; MAC_BYTES] {
        tag(&self.0, counter, header, text)
    }

    /// "Decrypts" `sealed`, a text and its tag, in place; `None` when the tag is another.
    pub(super) fn open<'d>(
        &self,
        counter: u64,
        header: &[u8],
        sealed: &'d mut [u8],
    ) -> Option<&'d mut [u8]> {
        let length = sealed.len().checked_sub(MAC_BYTES)?;
        let (text, found) = sealed.split_at_mut(length);
        (tag(&self.0, counter, header, text) == *found).then_some(text)
    }
}

/// Stands in for X25519: what two keys agree on follows from their public halves.
pub(super) struct Agreement {
    /// The node's own pair, whose public half the certificate names.
    own: StaticKey,
    secret: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl Agreement {
    pub(super) fn new(own: StaticKey) -> Self {
        Agreement {
            own,
            secret: [0; KEY_BYTES],
            public: [0; KEY_BYTES],
        }
    }
}

impl Dh for Agreement {
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
        self.secret.copy_from_slice(privkey);
        self.public = match self.secret == *self.own.secret() {
            true => *self.own.public(),
            false => hash(&[b"public", &self.secret]),
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        rng.try_fill_bytes(&mut self.secret)?;
        self.public = hash(&[b"public", &self.secret]);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs = pubkey.get(..KEY_BYTES).ok_or(Error::Dh)?;
        let (low, high) = match self.public.as_slice() <= theirs {
            true => (&self.public[..], theirs),
            false => (theirs, &self.public[..]),
        };
        let shared = hash(&[b"shared", low, high]);
        out.get_mut(..KEY_BYTES)
            .ok_or(Error::Dh)?
            .copy_from_slice(&shared);
        Ok(())
    }
}

/// Stands in for BLAKE2s.
#[derive(Default)]
pub(super) struct Digest(Mixer);

impl Hash for Digest {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        KEY_BYTES
    }

    fn reset(&mut self) {
        self.0 = Mixer::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.bytes(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..KEY_BYTES].copy_from_slice(&std::mem::take(&mut self.0).finish());
    }

    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        input_key_material: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        out3: &mut [u8],
    ) {
        let outs = [out1, out2, out3].into_iter().take(outputs);
        for (n, out) in (1u8..).zip(outs) {
            let derived = hash(&[&[n], chaining_key, input_key_material]);
            out[..KEY_BYTES].copy_from_slice(&derived);
        }
    }
}

/// Stands in for ChaCha20-Poly1305 in handshakes.
#[derive(Default)]
pub(super) struct Sealing([u8; KEY_BYTES]);

impl Cipher for Sealing {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.0 = *key;
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let length = plaintext.len();
        out[..length].copy_from_slice(plaintext);
        let tag = tag(&self.0, nonce, authtext, plaintext);
        out[length..length + MAC_BYTES].copy_from_slice(&tag);
        length + MAC_BYTES
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let length = ciphertext
            .len()
            .checked_sub(MAC_BYTES)
            .ok_or(Error::Decrypt)?;
        let (text, found) = ciphertext.split_at(length);
        if tag(&self.0, nonce, authtext, text) != *found {
            return Err(Error::Decrypt);
        }
        out[..length].copy_from_slice(text);
        Ok(length)
    }
}
