//! The side that wants a session.

use std::fmt;

use snow::HandshakeState;

use super::{
    ANSWER_BYTES, Finished, HandshakeError, KEY_BYTES, MAX_FORGERIES, XX_NOISE_BYTES, append_mac1,
    check_payload, establish, read, remote_static, write,
};
use crate::Rng;
use crate::session::gate::{cookie_tag, mac2_of};
use crate::session::keys::{Endpoint, same};
use crate::session::noise;
use crate::session::rekey::Role;
use crate::time::Instant;
use crate::wire::outer::{self, Cookie, MAC_BYTES, Pattern, Response};

/// Why a cookie was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// It is for another handshake.
    #[error("cookie for another index")]
    WrongIndex,
    /// It does not answer the Init that we sent, or comes from outside the pool.
    #[error("cookie does not authenticate")]
    WrongTag,
    /// The Init carries its proof already. Replayed cookies must not make us send.
    #[error("cookie taken already")]
    Repeated,
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
        let proof = mac2_of(&cookie.cookie(), before_mac2);
        if *mac2 == proof {
            return Err(CookieError::Repeated);
        }
        mac2.copy_from_slice(&proof);
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

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("pattern", &self.pattern)
            .field("local_index", &self.local_index)
            .finish_non_exhaustive()
    }
}
