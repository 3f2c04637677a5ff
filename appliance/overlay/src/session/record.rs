//! Records: one AEAD over each packet, header as associated data, counter as nonce.
//!
//! A carrier seals the head of a routed frame alone: the record in it is sealed by the two ends, and doing so once
//! more on each link would cost a relay more than all else that it does. Whoever alters it on the way makes it one
//! that does not open at its end, as if it had been lost.
//!
//! No buffers of its own and no lock: sealing appends to the caller's buffer and takes `&self`, so
//! several cores can seal for one peer; opening works inside the datagram.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::cipher::CipherSuite;
use super::replay::{ReplayError, ReplayWindow};
use crate::wire::frame::is_routed_head;
use crate::wire::outer::{
    self, MAC_BYTES, Outer, OuterError, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES,
};

/// No record has this number or a higher one: past it a session is dead, rekeyed or not. Sixteen
/// times [`REKEY_AFTER_RECORDS`](super::REKEY_AFTER_RECORDS).
pub const RECORD_LIMIT: u64 = 1 << 40;

/// Why a record could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The session has used up its record numbers; it must be replaced.
    #[error("session has sealed its last record")]
    Exhausted,
    /// The plaintext is longer than the cipher admits (gigabytes).
    #[error("plaintext too long for one record")]
    TooLong,
}

/// Why a record did not open. None of these but [`OpenError::Headless`] moves the replay window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No record at all.
    #[error(transparent)]
    Malformed(#[from] OuterError),
    /// A datagram, but of another kind.
    #[error("not a record")]
    NotARecord,
    /// A record of another session.
    #[error("record of another session")]
    WrongReceiver,
    /// A number that no honest sender reaches.
    #[error("record number beyond the session's limit")]
    CounterLimit,
    /// Seen before, or too old to tell.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Not sealed by the peer, or altered on the way.
    #[error("record does not authenticate")]
    Forged,
    /// A carrier in which the peer sealed something else than the head of a routed frame.
    #[error("carrier without the head of a routed frame")]
    Headless,
}

/// Seals records to one peer; shared between threads.
pub struct Sealer {
    key: RecordKey,
    remote_index: u32,
    next: AtomicU64,
}

impl Sealer {
    pub(super) fn new(suite: CipherSuite, key: &[u8; 32], remote_index: u32) -> Self {
        Sealer {
            key: RecordKey::new(suite, key),
            remote_index,
            next: AtomicU64::new(0),
        }
    }

    /// Appends one record to `out` (which keeps what it holds, and grows by the plaintext's length
    /// and [`RECORD_OVERHEAD_BYTES`]) and returns its number. The plaintext is `parts` in sequence.
    /// On an error `out` is as it was.
    pub fn seal(&self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<u64, SealError> {
        let plaintext: usize = parts.iter().map(|part| part.len()).sum();
        out.reserve(plaintext + RECORD_OVERHEAD_BYTES);
        self.seal_with(out, |out| {
            for part in parts {
                out.extend_from_slice(part);
            }
        })
    }

    /// The same with a plaintext that `write` appends to what it is given, where it is then sealed.
    pub fn seal_with(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SealError> {
        let counter = self.number()?;
        let header = outer::record_header(self.remote_index, counter);
        self.seal_text(counter, header, out, write)
    }

    /// Appends a carrier to `out`: `head`, which begins a routed frame, is sealed, and the record that `write`
    /// appends stays as it is. Grows by as much as [`Sealer::seal`] with both.
    pub fn seal_carrier(
        &self,
        head: &[u8],
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SealError> {
        let text_bytes = u16::try_from(head.len()).map_err(|_| SealError::TooLong)?;
        let counter = self.number()?;
        let header = outer::carrier_header(self.remote_index, counter, text_bytes);
        self.seal_text(counter, header, out, |out| out.extend_from_slice(head))?;
        write(out);
        Ok(counter)
    }

    /// Appends the header, the text that `text` appends, which is sealed there, and the tag. Returns the number.
    fn seal_text(
        &self,
        counter: u64,
        header: [u8; RECORD_HEADER_BYTES],
        out: &mut Vec<u8>,
        text: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SealError> {
        let start = out.len();
        out.extend_from_slice(&header);
        text(out);
        let sealed = self
            .key
            .seal(counter, &header, &mut out[start + RECORD_HEADER_BYTES..]);
        match sealed {
            Some(tag) => {
                out.extend_from_slice(&tag);
                Ok(counter)
            }
            None => {
                out.truncate(start);
                Err(SealError::TooLong)
            }
        }
    }

    /// The next record's.
    fn number(&self) -> Result<u64, SealError> {
        // Only uniqueness matters, which the read-modify-write gives under any ordering.
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next < RECORD_LIMIT).then_some(next + 1)
            })
            .map_err(|_| SealError::Exhausted)
    }

    /// How many records have been sealed.
    pub fn sealed_count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

/// Opens records from one peer.
pub struct Opener {
    key: RecordKey,
    local_index: u32,
    window: ReplayWindow,
}

impl Opener {
    pub(super) fn new(suite: CipherSuite, key: &[u8; 32], local_index: u32) -> Self {
        Opener {
            key: RecordKey::new(suite, key),
            local_index,
            window: ReplayWindow::default(),
        }
    }

    /// Opens the record that `datagram` is, and returns its plaintext, which lies inside it. Of a carrier that is a
    /// routed frame, whose body the peer has not sealed. On [`OpenError::Forged`] the datagram's content is undefined;
    /// on the errors before it in this list it is untouched.
    pub fn open<'d>(&mut self, datagram: &'d mut [u8]) -> Result<&'d mut [u8], OpenError> {
        let Outer::Record(record) = Outer::parse(datagram)? else {
            return Err(OpenError::NotARecord);
        };
        if record.receiver_index() != self.local_index {
            return Err(OpenError::WrongReceiver);
        }
        let (counter, sealed_bytes) = (record.counter(), record.sealed_bytes());
        let carries = record.carries();
        if counter >= RECORD_LIMIT {
            return Err(OpenError::CounterLimit);
        }
        self.window.check(counter)?;
        let (header, text) = datagram.split_at_mut(RECORD_HEADER_BYTES);
        let plaintext = self
            .key
            .open(counter, header, &mut text[..sealed_bytes])
            .ok_or(OpenError::Forged)?;
        self.window.commit(counter);
        let length = plaintext.len();
        if !carries {
            return Ok(&mut text[..length]);
        }
        if !is_routed_head(plaintext) {
            return Err(OpenError::Headless);
        }
        // Over the tag, so that the frame is one piece.
        text.copy_within(..length, MAC_BYTES);
        Ok(&mut text[MAC_BYTES..])
    }

    /// The highest record number that has opened; `None` before the first.
    pub fn highest(&self) -> Option<u64> {
        self.window.highest()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("remote_index", &self.remote_index)
            .field("sealed", &self.sealed_count())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("local_index", &self.local_index)
            .field("highest", &self.highest())
            .finish_non_exhaustive()
    }
}

/// The key of one direction.
enum RecordKey {
    Aead(LessSafeKey),
    #[cfg(feature = "stand-in")]
    StandIn(super::stand_in::RecordKey),
}

impl RecordKey {
    fn new(suite: CipherSuite, key: &[u8; 32]) -> Self {
        let Some(algorithm) = suite.algorithm() else {
            #[cfg(feature = "stand-in")]
            return RecordKey::StandIn(super::stand_in::RecordKey::new(key));
            #[cfg(not(feature = "stand-in"))]
            unreachable!("every cipher has its algorithm");
        };
        let key = UnboundKey::new(algorithm, key).expect("both ciphers take a 256-bit key");
        RecordKey::Aead(LessSafeKey::new(key))
    }

    /// Encrypts in place. `None` when the text is too long.
    fn seal(&self, counter: u64, header: &[u8], text: &mut [u8]) -> Option<[u8; MAC_BYTES]> {
        match self {
            RecordKey::Aead(key) => {
                let tag = key.seal_in_place_separate_tag(nonce(counter), Aad::from(header), text);
                tag.ok()?.as_ref().try_into().ok()
            }
            #[cfg(feature = "stand-in")]
            RecordKey::StandIn(key) => Some(key.seal(counter, header, text)),
        }
    }

    /// Decrypts text and tag in place. `None` when they do not authenticate.
    fn open<'d>(&self, counter: u64, header: &[u8], sealed: &'d mut [u8]) -> Option<&'d mut [u8]> {
        match self {
            RecordKey::Aead(key) => key
                .open_in_place(nonce(counter), Aad::from(header), sealed)
                .ok(),
            #[cfg(feature = "stand-in")]
            RecordKey::StandIn(key) => key.open(counter, header, sealed),
        }
    }
}

/// Each direction has its own key, so the counter alone makes a nonce unique.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

const _: () = assert!(RECORD_OVERHEAD_BYTES == RECORD_HEADER_BYTES + MAC_BYTES);

#[cfg(test)]
mod tests;
