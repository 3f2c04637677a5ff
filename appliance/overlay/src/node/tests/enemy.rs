//! A member that does as it likes: it has a certificate and sessions, and no code of ours behind them.

use std::collections::BTreeMap;

use super::*;
use crate::session::{Endpoint, Initiator, Session, StaticKey};
use crate::wire::frame::{self, Body, Delivery, Frame, RoutedHeader};
use crate::wire::message::{Answer, Control, Finding, Hello, Message, Query};

pub(super) fn enemy_address() -> Remote {
    Remote::udp(([198, 51, 100, 66], 4001).into())
}

/// See the module. It answers probes, so that everybody takes it for a good link; frames that it
/// should pass on end here.
pub(super) struct Enemy {
    pub address: Remote,
    pub id: NodeId,
    certificate: Certificate,
    endpoint: Endpoint,
    rng: Rng,
    calls: BTreeMap<u32, (Remote, Initiator)>,
    sessions: BTreeMap<u32, (Remote, Session)>,
    /// Answers to questions that come by, with a lie instead of silence.
    pub denies: bool,
    /// Frames that ended here.
    pub swallowed: usize,
}

impl Enemy {
    pub(super) fn new(net: &mut Net) -> Self {
        let identity = Identity::generate(&mut net.rng);
        let request = CertificateRequest {
            name: "enemy".parse().unwrap(),
            roles: Roles::ROUTER,
            fixed_address: None,
            not_before: WALL,
            not_after: WALL + MONTH,
        };
        let key = StaticKey::new(*identity.static_secret(), identity.static_public());
        let pool_key = net.ticket.facts().key.0;
        Enemy {
            address: enemy_address(),
            id: identity.node_id(),
            certificate: net.ticket.certify(&identity, &request).unwrap(),
            endpoint: Endpoint::new(key, &pool_key, CipherPreference::aes_first()),
            rng: Rng::from_seed(net.rng.random()),
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            denies: false,
            swallowed: 0,
        }
    }

    /// The first message of a handshake by XX, which anybody with the pool's key can make.
    pub(super) fn knock(&mut self) -> Vec<u8> {
        let index = self.rng.random();
        let started = Initiator::start(&mut self.rng, &self.endpoint, None, index, &[]);
        started.unwrap().datagram().to_vec()
    }

    /// Begins a session with a member.
    pub(super) fn call(&mut self, to: Remote, key: [u8; 32]) -> Vec<u8> {
        let mut hello = Vec::new();
        Hello {
            certificate: self.certificate.bytes().to_vec(),
            candidates: vec![self.address],
            observed: None,
        }
        .encode(&mut hello);
        let index = self.rng.random();
        let started = Initiator::start(&mut self.rng, &self.endpoint, Some(key), index, &hello);
        let initiator = started.unwrap();
        let datagram = initiator.datagram().to_vec();
        self.calls.insert(index, (to, initiator));
        datagram
    }

    pub(super) fn has_session(&self, with: Remote) -> bool {
        self.sessions.values().any(|(at, _)| *at == with)
    }

    /// A frame, sealed for the member at this address.
    pub(super) fn seal(&self, to: Remote, parts: &[&[u8]]) -> Vec<u8> {
        let session = self.sessions.values().find(|(at, _)| *at == to);
        let (_, session) = session.expect("there is a session with it");
        let mut datagram = Vec::new();
        session.sealer.seal(parts, &mut datagram).unwrap();
        datagram
    }

    /// A message, sealed for the member at this address.
    pub(super) fn say(&self, to: Remote, message: &Control) -> Vec<u8> {
        let mut bytes = vec![frame::CONTROL];
        message.encode(&mut bytes);
        self.seal(to, &[&bytes])
    }

    /// Takes a datagram; returns what it sends.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        from: Remote,
        datagram: &mut [u8],
    ) -> Vec<(Remote, Vec<u8>)> {
        match Outer::parse(datagram) {
            Ok(Outer::Response(response)) => {
                let index = response.receiver_index();
                let Some((to, mut call)) = self.calls.remove(&index) else {
                    return Vec::new();
                };
                let session = call.on_response(now, &response).unwrap().session;
                self.sessions.insert(index, (to, session));
                vec![(to, self.say(to, &Control::Probe { token: 1 }))]
            }
            Ok(Outer::Record(record)) => {
                let index = record.receiver_index();
                let Some((_, session)) = self.sessions.get_mut(&index) else {
                    return Vec::new();
                };
                let plaintext = session.opener.open(datagram).map(|plain| plain.to_vec());
                plaintext.map_or_else(|_| Vec::new(), |plaintext| self.react(from, &plaintext))
            }
            _ => Vec::new(),
        }
    }

    fn react(&mut self, from: Remote, plaintext: &[u8]) -> Vec<(Remote, Vec<u8>)> {
        match Frame::parse(plaintext) {
            Ok(Frame::Control(bytes)) => match Control::decode(bytes) {
                Ok(Control::Probe { token }) => {
                    let ack = Control::ProbeAck {
                        token,
                        observed: None,
                    };
                    vec![(from, self.say(from, &ack))]
                }
                _ => Vec::new(),
            },
            Ok(Frame::Routed(header, body)) => {
                self.swallowed += 1;
                match Query::decode(body) {
                    Ok(query) if header.body == Body::Query && self.denies => {
                        vec![(from, self.deny(from, &header, query.token))]
                    }
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn deny(&self, to: Remote, header: &RoutedHeader, token: u64) -> Vec<u8> {
        let answer = Answer {
            token,
            finding: Finding::Nobody,
        };
        let mut frame = Vec::new();
        RoutedHeader {
            delivery: Delivery::Exact,
            body: Body::Answer,
            hops: 0,
            destination: header.source,
            source: self.id,
            agent: header.source_agent,
            source_agent: None,
        }
        .encode(&mut frame);
        answer.encode(&mut frame);
        self.seal(to, &[&frame])
    }
}
