//! How signed things are laid out: canonical postcard bodies, each followed by its signatures.
//!
//! A signature covers its domain and then bytes that stand before it, verbatim. Domains end in a
//! zero byte and hold no other, so that none is the beginning of another.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Length of an Ed25519 signature.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// What a signature says about the bytes it covers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Domain {
    /// By the pool's CA: this key may sign certificates within these limits.
    Delegation,
    /// By the pool's CA: these are the pool's facts and belong to this ticket.
    Ticket,
    /// By the node's own key: this certificate is mine.
    Holder,
    /// By the ticket's key: this node is a member.
    Certificate,
    /// By the node's own key: this claim is mine.
    Claim,
    /// By the pool's CA: this node, or this ticket's nodes, are members no longer.
    Revocation,
}

impl Domain {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Domain::Delegation => b"wow delegation v1\0",
            Domain::Ticket => b"wow ticket v1\0",
            Domain::Holder => b"wow certificate holder v1\0",
            Domain::Certificate => b"wow certificate v1\0",
            Domain::Claim => b"wow claim v1\0",
            Domain::Revocation => b"wow revocation v1\0",
        }
    }

    fn message(self, covered: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.prefix(), covered].concat())
    }
}

/// Why bytes could not be read. What that means to a user is for the caller to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The bytes end too early.
    Short,
    /// What is there has no meaning, or not in this form.
    Malformed(&'static str),
}

/// Appends `body` in its canonical form.
pub(super) fn write_body(bytes: &mut Zeroizing<Vec<u8>>, body: &impl Serialize) {
    let encoded = Zeroizing::new(
        postcard::to_allocvec(body).expect("bodies are plain data, and a Vec takes all of it"),
    );
    bytes.extend_from_slice(&encoded);
}

/// `key`'s signature over `covered`.
pub(super) fn sign(key: &SigningKey, domain: Domain, covered: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key.sign(&domain.message(covered)).to_bytes()
}

/// Appends `key`'s signature over all that `bytes` hold so far.
pub(super) fn write_signature(bytes: &mut Zeroizing<Vec<u8>>, domain: Domain, key: &SigningKey) {
    let signature = sign(key, domain, bytes);
    bytes.extend_from_slice(&signature);
}

/// Whether `key` made `signature` over `covered`, with no latitude for other encodings.
///
/// `verify_strict` refuses weak keys, points of small order and a scalar beyond the group's order:
/// nobody but the signer can turn a good signature into another good one.
pub(super) fn is_signed(
    key: &[u8; 32],
    domain: Domain,
    covered: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(&domain.message(covered), &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// Reads from the front of `bytes`, and knows what has been passed.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, position: 0 }
    }

    /// All that has been read: what the next signature covers.
    pub(super) fn passed(&self) -> &'a [u8] {
        &self.bytes[..self.position]
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], ReadError> {
        let array = self.bytes[self.position..]
            .first_chunk()
            .ok_or(ReadError::Short)?;
        self.position += N;
        Ok(array)
    }

    /// The next body, which must stand in the form that [`write_body`] gives it.
    pub(super) fn body<T: Serialize + DeserializeOwned>(
        &mut self,
        what: &'static str,
    ) -> Result<T, ReadError> {
        let rest = &self.bytes[self.position..];
        let (body, after) = postcard::take_from_bytes::<T>(rest).map_err(|error| match error {
            postcard::Error::DeserializeUnexpectedEnd => ReadError::Short,
            _ => ReadError::Malformed(what),
        })?;
        let read = &rest[..rest.len() - after.len()];
        let mut canonical = Zeroizing::new(Vec::with_capacity(read.len()));
        write_body(&mut canonical, &body);
        if canonical.as_slice() != read {
            return Err(ReadError::Malformed(what));
        }
        self.position += read.len();
        Ok(body)
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), ReadError> {
        if self.position == self.bytes.len() {
            Ok(())
        } else {
            Err(ReadError::Malformed("its end, after which bytes follow"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlong_number_is_not_canonical() {
        assert_eq!(Reader::new(&[5]).body::<u64>("n"), Ok(5));
        assert_eq!(
            Reader::new(&[0x85, 0x00]).body::<u64>("n"),
            Err(ReadError::Malformed("n"))
        );
        assert_eq!(Reader::new(&[0x85]).body::<u64>("n"), Err(ReadError::Short));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_short_and_reserves_nothing() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, b'a'];
        assert!(Reader::new(&huge).body::<String>("s").is_err());
        assert!(Reader::new(&huge).body::<Vec<String>>("v").is_err());
    }

    #[test]
    fn a_signature_holds_for_its_domain_and_bytes_alone() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let mut bytes = Zeroizing::new(b"covered".to_vec());
        write_signature(&mut bytes, Domain::Ticket, &key);
        let signature: &[u8; SIGNATURE_BYTES] = bytes[7..].try_into().unwrap();
        assert!(is_signed(&public, Domain::Ticket, b"covered", signature));
        assert!(!is_signed(&public, Domain::Holder, b"covered", signature));
        assert!(!is_signed(&public, Domain::Ticket, b"coverec", signature));
    }

    #[test]
    fn a_weak_key_signs_nothing() {
        // The neutral element as key and as R, with S = 0, satisfies the plain equation always.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; SIGNATURE_BYTES];
        signature[0] = 1;
        assert!(!is_signed(&neutral, Domain::Holder, b"any", &signature));
    }
}
