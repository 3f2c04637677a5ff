//! Handshakes: who wants a session, who grants one, and the keys both end with.
//!
//! IK when the responder's static key is known, XX when not. The pattern, the initiator's index and
//! its cipher offer stand in the Init's header and enter the Noise prologue; the responder's index
//! and its choice of cipher travel encrypted in its message. So an altered byte of either fails.
//!
//! **Repetition.** An initiator repeats its Init until answered, so a responder may see it more than
//! once; and anyone may replay one. [`Responder::accept`] treats every copy as new: own ephemeral key,
//! own session. The initiator takes the first Response and refuses the others, so superfluous
//! responder sessions are never confirmed and expire. The node recognises copies by
//! [`Init::mac1`](crate::wire::outer::Init::mac1), and sends the Response it made before again.
//! In XX, a lost Final shows as the same Response coming again: the node sends the Final again.

mod initiator;
mod responder;

use std::sync::Arc;

use aws_lc_rs::hkdf;
use snow::HandshakeState;
use zeroize::Zeroizing;

pub use initiator::{CookieError, Initiator};
pub use responder::{Accepted, Responder};

use super::Session;
use super::cipher::CipherSuite;
use super::keys::{Endpoint, mac};
use super::record::{Opener, Sealer};
use super::rekey::{RekeyPolicy, Role};
use crate::time::Instant;
use crate::wire::outer::{HANDSHAKE_MAX_BYTES, INIT_HEADER_BYTES, MAC_BYTES, XX_INIT_BYTES};

/// Largest payload (a certificate and little more) of either side.
pub const MAX_PAYLOAD_BYTES: usize = 1000;
/// After so many messages that do not authenticate, an [`Initiator`] or [`Responder`] looks at no more:
/// each costs several curve multiplications. Only somebody who knows the pool's key and sees the
/// indices on the wire gets this far; who sits there could as well drop our packets.
pub const MAX_FORGERIES: u32 = 32;

const KEY_BYTES: usize = 32;
/// The responder's index and cipher, before its payload.
const ANSWER_BYTES: usize = 5;
/// Noise message 1 of XX: an ephemeral key and zeros.
const XX_NOISE_BYTES: usize = XX_INIT_BYTES - INIT_HEADER_BYTES - 2 * MAC_BYTES;

/// Why a handshake did not proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Our own payload is too long.
    #[error("handshake payload longer than {MAX_PAYLOAD_BYTES} bytes")]
    PayloadTooLong,
    /// Decryption failed or a key was degenerate: damaged, forged, or meant for another key.
    #[error("handshake message does not authenticate")]
    Rejected,
    /// The message is for another handshake.
    #[error("handshake message for another index")]
    WrongIndex,
    /// The peer authenticated itself, and then sent nonsense.
    #[error("handshake message authenticates but is malformed")]
    Malformed,
    /// The two sides share no cipher.
    #[error("no cipher in common with the peer")]
    NoCommonCipher,
    /// The peer's static key is our own: a reflection.
    #[error("handshake with ourselves")]
    OwnKey,
    /// A session was made already. Repeating a message must not make one with the same keys.
    #[error("handshake already finished")]
    AlreadyFinished,
    /// [`MAX_FORGERIES`] reached; start anew.
    #[error("too many forged handshake messages")]
    TooManyForgeries,
}

/// The end of a handshake on one side.
#[derive(Debug)]
pub struct Finished {
    /// The keys.
    pub session: Session,
    /// The static key that the peer proved. Whose it is, the certificate in `payload` must say.
    pub remote_static: [u8; KEY_BYTES],
    /// What the peer sent along.
    pub payload: Vec<u8>,
    /// XX initiator: send this, and again whenever the Response comes again.
    pub final_datagram: Option<Vec<u8>>,
}

fn check_payload(payload: &[u8]) -> Result<(), HandshakeError> {
    match payload.len() <= MAX_PAYLOAD_BYTES {
        true => Ok(()),
        false => Err(HandshakeError::PayloadTooLong),
    }
}

/// `header` and the next Noise message.
fn write(
    state: &mut HandshakeState,
    header: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, HandshakeError> {
    let mut datagram = vec![0; HANDSHAKE_MAX_BYTES];
    datagram[..header.len()].copy_from_slice(header);
    let written = state
        .write_message(payload, &mut datagram[header.len()..])
        .map_err(|_| HandshakeError::Rejected)?;
    datagram.truncate(header.len() + written);
    Ok(datagram)
}

/// The payload of the next Noise message.
fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let length = state
        .read_message(message, &mut payload)
        .map_err(|_| HandshakeError::Rejected)?;
    payload.truncate(length);
    Ok(payload)
}

fn append_mac1(endpoint: &Endpoint, datagram: &mut Vec<u8>) {
    let mac1 = mac(&endpoint.pool().mac1, &[datagram]);
    datagram.extend(mac1);
    debug_assert!(datagram.len() + MAC_BYTES <= HANDSHAKE_MAX_BYTES);
}

fn remote_static(
    endpoint: &Endpoint,
    state: &HandshakeState,
) -> Result<[u8; KEY_BYTES], HandshakeError> {
    let key: [u8; KEY_BYTES] = state
        .get_remote_static()
        .and_then(|key| key.try_into().ok())
        .ok_or(HandshakeError::Malformed)?;
    match key == *endpoint.key().public() {
        true => Err(HandshakeError::OwnKey),
        false => Ok(key),
    }
}

/// Makes a session of a finished handshake. Record keys depend on the whole transcript and on the
/// cipher, so a disagreement about either shows as records that do not open.
fn establish(
    mut state: Box<HandshakeState>,
    role: Role,
    confirmed: bool,
    suite: CipherSuite,
    (local_index, remote_index): (u32, u32),
    now: Instant,
) -> Session {
    assert!(state.is_handshake_finished(), "keys come last");
    let mut handshake_hash = [0; 32];
    handshake_hash.copy_from_slice(state.get_handshake_hash());
    let (to_responder, to_initiator) = state.dangerously_get_raw_split();
    let (to_responder, to_initiator) = (Zeroizing::new(to_responder), Zeroizing::new(to_initiator));
    let (send, receive) = match role {
        Role::Initiator => (&to_responder, &to_initiator),
        Role::Responder => (&to_initiator, &to_responder),
    };
    let send = derive(&handshake_hash, send, suite);
    let receive = derive(&handshake_hash, receive, suite);
    // Rekeying must not depend on a random generator at hand: the transcript is random enough.
    let jitter = match role {
        Role::Initiator => [0, 1, 2, 3],
        Role::Responder => [4, 5, 6, 7],
    };
    let jitter = u32::from_be_bytes(jitter.map(|at: usize| handshake_hash[at]));
    Session {
        sealer: Arc::new(Sealer::new(suite, &send, remote_index)),
        opener: Opener::new(suite, &receive, local_index),
        local_index,
        remote_index,
        handshake_hash,
        suite,
        confirmed,
        policy: RekeyPolicy::new(role, now, jitter),
    }
}

fn derive(salt: &[u8; 32], secret: &[u8; 32], suite: CipherSuite) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[b"wow record v1", &[suite as u8]], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .expect("32 bytes are within HKDF-SHA256's reach");
    key
}

#[cfg(test)]
mod tests;
