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

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::Session;
use super::cipher::CipherSuite;
use super::gate::{cookie_tag, mac2_of};
use super::keys::{Endpoint, mac, same};
use super::noise::{self, Seed};
use super::record::{Opener, Sealer};
use super::rekey::{RekeyPolicy, Role};
use crate::Rng;
use crate::time::Instant;
use crate::wire::outer::{
    self, Cookie, Final, HANDSHAKE_MAX_BYTES, INIT_HEADER_BYTES, Init, MAC_BYTES, Pattern,
    Response, XX_INIT_BYTES,
};

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

/// Why a cookie was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// It is for another handshake.
    #[error("cookie for another index")]
    WrongIndex,
    /// It does not answer the Init that we sent, or comes from outside the pool.
    #[error("cookie does not authenticate")]
    WrongTag,
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

/// The side that wants a session.
pub struct Initiator {
    endpoint: Endpoint,
    pattern: Pattern,
    local_index: u32,
    payload: Vec<u8>,
    datagram: Vec<u8>,
    /// `None` once finished.
    state: Option<Box<HandshakeState>>,
    forgeries: u32,
}

impl Initiator {
    /// Begins a handshake: IK with the peer whose static key is `remote_static`, else XX with
    /// whoever answers. `payload` is for the authenticated peer's eyes only, except that in IK it is
    /// not forward secret towards the responder's static key.
    ///
    /// `rng` must never repeat itself across restarts of the node.
    pub fn start(
        rng: &mut Rng,
        endpoint: &Endpoint,
        remote_static: Option<[u8; KEY_BYTES]>,
        local_index: u32,
        payload: &[u8],
    ) -> Result<Self, HandshakeError> {
        check_payload(payload)?;
        if remote_static.as_ref() == Some(endpoint.key().public()) {
            return Err(HandshakeError::OwnKey);
        }
        let pattern = match remote_static {
            Some(_) => Pattern::Ik,
            None => Pattern::Xx,
        };
        let header = outer::init_header(local_index, pattern, endpoint.ciphers().to_bytes());
        let seed = noise::draw_seed(rng);
        let remote = remote_static.as_ref();
        let mut state = noise::build(endpoint, pattern, true, remote, &header, &seed)
            .map_err(|_| HandshakeError::Rejected)?;
        let mut datagram = match pattern {
            Pattern::Ik => write(&mut state, &header, payload)?,
            // Message 1 of XX is not encrypted: the payload waits for message 3.
            Pattern::Xx => write(&mut state, &header, &[0; XX_NOISE_BYTES - KEY_BYTES])?,
        };
        append_mac1(endpoint, &mut datagram);
        datagram.extend([0; MAC_BYTES]);
        Ok(Initiator {
            endpoint: endpoint.clone(),
            pattern,
            local_index,
            payload: payload.to_vec(),
            datagram,
            state: Some(Box::new(state)),
            forgeries: 0,
        })
    }

    /// The Init to send, and to send again until answered.
    pub fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// The index that answers carry.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Takes a cookie from a responder under load: [`datagram`](Self::datagram) carries its proof
    /// from now on, and should be sent again at once.
    pub fn on_cookie(&mut self, cookie: &Cookie<'_>) -> Result<(), CookieError> {
        if cookie.receiver_index() != self.local_index {
            return Err(CookieError::WrongIndex);
        }
        let mac2_at = self.datagram.len() - MAC_BYTES;
        let (before_mac2, mac2) = self.datagram.split_at_mut(mac2_at);
        let mut mac1 = [0; MAC_BYTES];
        mac1.copy_from_slice(&before_mac2[mac2_at - MAC_BYTES..]);
        let tag = cookie_tag(self.endpoint.pool(), cookie.before_tag(), &mac1);
        if !same(&tag, &cookie.tag()) {
            return Err(CookieError::WrongTag);
        }
        mac2.copy_from_slice(&mac2_of(&cookie.cookie(), before_mac2));
        Ok(())
    }

    /// Takes the answer. A Response that does not authenticate leaves the handshake as it was, so
    /// the true one may still come. One that does ends it, whatever the node then thinks of the
    /// peer's certificate: another attempt is another `Initiator`.
    pub fn on_response(
        &mut self,
        now: Instant,
        response: &Response<'_>,
    ) -> Result<Finished, HandshakeError> {
        if response.receiver_index() != self.local_index {
            return Err(HandshakeError::WrongIndex);
        }
        let state = self.state.as_mut().ok_or(HandshakeError::AlreadyFinished)?;
        if self.forgeries >= MAX_FORGERIES {
            return Err(HandshakeError::TooManyForgeries);
        }
        // On failure `snow` restores its chaining key and hash, and both patterns' second message
        // begins with "e, ee", which replaces the remaining state (ephemeral key, cipher key, nonce).
        let answer = read(state, response.noise()).inspect_err(|_| self.forgeries += 1)?;
        let mut state = self.state.take().expect("borrowed just above");

        let (answer, payload) = answer
            .split_at_checked(ANSWER_BYTES)
            .ok_or(HandshakeError::Malformed)?;
        let remote_index = u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]);
        let suite = self
            .endpoint
            .ciphers()
            .accept_choice(answer[4])
            .ok_or(HandshakeError::NoCommonCipher)?;
        let remote_static = remote_static(&self.endpoint, &state)?;
        let final_datagram = match self.pattern {
            Pattern::Ik => None,
            Pattern::Xx => {
                let header = outer::final_header(remote_index);
                let mut datagram = write(&mut state, &header, &self.payload)?;
                append_mac1(&self.endpoint, &mut datagram);
                Some(datagram)
            }
        };
        Ok(Finished {
            session: establish(
                state,
                Role::Initiator,
                // An IK responder has used a key that only our Init could have given it.
                self.pattern == Pattern::Ik,
                suite,
                (self.local_index, remote_index),
                now,
            ),
            remote_static,
            payload: payload.to_vec(),
            final_datagram,
        })
    }
}

/// What an Init led to.
#[derive(Debug)]
pub enum Accepted {
    /// IK: both know all. The session is unconfirmed until a record opens.
    Finished {
        /// Send this back, once the peer's certificate is found good.
        response: Vec<u8>,
        /// The session and who the peer is.
        finished: Finished,
    },
    /// XX: the peer's identity comes with its Final.
    Pending {
        /// Send this back.
        response: Vec<u8>,
        /// Keep this under its index until the Final comes, for some seconds, and not too many.
        responder: Responder,
    },
}

/// The side that grants a session, between the first and the third message of XX.
///
/// Not `snow`'s state, which takes 2 KiB in a dozen allocations and does not survive a forged third
/// message, but what it takes to compute that state again: little more than our payload.
pub struct Responder {
    endpoint: Endpoint,
    seed: Seed,
    header: [u8; INIT_HEADER_BYTES],
    ephemeral: [u8; KEY_BYTES],
    answer: Box<[u8]>,
    local_index: u32,
    remote_index: u32,
    suite: CipherSuite,
    forgeries: u32,
    finished: bool,
}

impl Responder {
    /// Takes an Init that has passed the [`Gate`](super::Gate), and answers with `payload`.
    pub fn accept(
        rng: &mut Rng,
        now: Instant,
        endpoint: &Endpoint,
        init: &Init<'_>,
        local_index: u32,
        payload: &[u8],
    ) -> Result<Accepted, HandshakeError> {
        check_payload(payload)?;
        let suite = endpoint
            .ciphers()
            .choose(init.cipher_bytes())
            .ok_or(HandshakeError::NoCommonCipher)?;
        let seed = noise::draw_seed(rng);
        let header = init.header();
        let remote_index = init.sender_index();
        let mut state = noise::build(endpoint, init.pattern(), false, None, &header, &seed)
            .map_err(|_| HandshakeError::Rejected)?;
        let remote_payload = read(&mut state, init.noise())?;
        let mut answer = Vec::with_capacity(ANSWER_BYTES + payload.len());
        answer.extend(local_index.to_be_bytes());
        answer.push(suite as u8);
        answer.extend(payload);

        match init.pattern() {
            Pattern::Ik => {
                let remote_static = remote_static(endpoint, &state)?;
                let response = respond(endpoint, &mut state, remote_index, &answer)?;
                let indices = (local_index, remote_index);
                let session =
                    establish(Box::new(state), Role::Responder, false, suite, indices, now);
                Ok(Accepted::Finished {
                    response,
                    finished: Finished {
                        session,
                        remote_static,
                        payload: remote_payload,
                        final_datagram: None,
                    },
                })
            }
            Pattern::Xx => {
                let response = respond(endpoint, &mut state, remote_index, &answer)?;
                let mut ephemeral = [0; KEY_BYTES];
                ephemeral.copy_from_slice(&init.noise()[..KEY_BYTES]);
                Ok(Accepted::Pending {
                    response,
                    responder: Responder {
                        endpoint: endpoint.clone(),
                        seed,
                        header,
                        ephemeral,
                        answer: answer.into_boxed_slice(),
                        local_index,
                        remote_index,
                        suite,
                        forgeries: 0,
                        finished: false,
                    },
                })
            }
        }
    }

    /// The index that the Final carries.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Takes the Final. One that does not authenticate leaves all as it was.
    pub fn on_final(&mut self, now: Instant, last: &Final<'_>) -> Result<Finished, HandshakeError> {
        if last.receiver_index() != self.local_index {
            return Err(HandshakeError::WrongIndex);
        }
        if self.finished {
            return Err(HandshakeError::AlreadyFinished);
        }
        if self.forgeries >= MAX_FORGERIES {
            return Err(HandshakeError::TooManyForgeries);
        }
        let mut state = self.recompute()?;
        let payload = read(&mut state, last.noise()).inspect_err(|_| self.forgeries += 1)?;
        self.finished = true;
        let remote_static = remote_static(&self.endpoint, &state)?;
        let indices = (self.local_index, self.remote_index);
        let session = establish(
            Box::new(state),
            Role::Responder,
            true,
            self.suite,
            indices,
            now,
        );
        Ok(Finished {
            session,
            remote_static,
            payload,
            final_datagram: None,
        })
    }

    /// The state after the second message: the same seed and inputs give the same bytes.
    fn recompute(&self) -> Result<HandshakeState, HandshakeError> {
        let mut state = noise::build(
            &self.endpoint,
            Pattern::Xx,
            false,
            None,
            &self.header,
            &self.seed,
        )
        .map_err(|_| HandshakeError::Rejected)?;
        let mut first = [0; XX_NOISE_BYTES];
        first[..KEY_BYTES].copy_from_slice(&self.ephemeral);
        read(&mut state, &first)?;
        write(&mut state, &[], &self.answer)?;
        Ok(state)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("pattern", &self.pattern)
            .field("local_index", &self.local_index)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .finish_non_exhaustive()
    }
}

fn check_payload(payload: &[u8]) -> Result<(), HandshakeError> {
    match payload.len() <= MAX_PAYLOAD_BYTES {
        true => Ok(()),
        false => Err(HandshakeError::PayloadTooLong),
    }
}

fn respond(
    endpoint: &Endpoint,
    state: &mut HandshakeState,
    remote_index: u32,
    answer: &[u8],
) -> Result<Vec<u8>, HandshakeError> {
    let mut datagram = write(state, &outer::response_header(remote_index), answer)?;
    append_mac1(endpoint, &mut datagram);
    Ok(datagram)
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
