//! The side that grants a session.

use std::fmt;

use snow::HandshakeState;

use super::{
    ANSWER_BYTES, Finished, HandshakeError, KEY_BYTES, MAX_FORGERIES, XX_NOISE_BYTES, append_mac1,
    check_payload, establish, read, remote_static, write,
};
use crate::Rng;
use crate::session::cipher::CipherSuite;
use crate::session::keys::Endpoint;
use crate::session::noise::{self, Seed};
use crate::session::rekey::Role;
use crate::time::Instant;
use crate::wire::outer::{self, Final, INIT_HEADER_BYTES, Init, Pattern};

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

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .finish_non_exhaustive()
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
