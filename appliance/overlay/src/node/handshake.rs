//! Handshake messages: what becomes of each, and the index that says whose a session is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;

use crate::id::NodeId;
use crate::session::{Accepted, DropReason, Finished, HandshakeError, Responder, Verdict};
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::Body;
use crate::wire::message::{Hello, Message};
use crate::wire::outer::{Final, Init, MAC_BYTES, Outer, Response};

use super::Node;
use super::attempts::{Attempts, Goal, RETRIES};
use super::pending::{Pending, PendingTable};
use super::report::Table;
use super::traffic::Source;

/// Answered handshakes remembered, to answer a copy alike: those of the last quarter of a second, after
/// which the first copy comes, when as many come as the gate lets in.
const ANSWERED_MAX: usize = 512;

/// Whose a session index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A handshake of our own.
    Attempt,
    /// An XX handshake that waits for its last message.
    Pending,
    /// A session with this peer.
    Peer(NodeId),
}

struct Answered {
    /// Names the message: the same for every copy, with or without a cookie.
    mac: [u8; MAC_BYTES],
    response: Vec<u8>,
    at: Instant,
}

/// The handshakes under way, and the index that says whose a session is.
#[derive(Default)]
pub(super) struct Handshakes {
    owners: BTreeMap<u32, Owner>,
    pub attempts: Attempts,
    pub pending: PendingTable,
    answered: VecDeque<Answered>,
    pub told_out_of_time: Option<Instant>,
}

impl Handshakes {
    pub(super) fn owner(&self, index: u32) -> Option<Owner> {
        self.owners.get(&index).copied()
    }

    pub(super) fn assign(&mut self, index: u32, owner: Owner) {
        self.owners.insert(index, owner);
    }

    pub(super) fn release(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    pub(super) fn tables(&self) -> [Table; 3] {
        let answered = Table {
            name: "handshakes answered",
            entries: self.answered.len(),
            limit: ANSWERED_MAX,
        };
        [self.attempts.table(), self.pending.table(), answered]
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.attempts.deadline(), self.pending.deadline()];
        deadlines.into_iter().flatten().min()
    }
}

impl Node {
    pub(super) fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            if !self.handshakes.owners.contains_key(&index) {
                return index;
            }
        }
    }

    pub(super) fn hello(&self, observed: Option<Remote>) -> Vec<u8> {
        let hello = Hello {
            certificate: self.certificate.bytes().to_vec(),
            candidates: self.own_candidates(),
            observed,
        };
        let mut bytes = Vec::with_capacity(640);
        hello.encode(&mut bytes);
        bytes
    }

    /// Takes a handshake message; `datagram` is known to parse as one.
    pub(super) fn handle_handshake(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        // Who passes a demanding gate has proven its address.
        let crowded = self.handshakes.pending.is_crowded();
        self.gate.demand_proof(crowded);
        let outer = match self.gate.check(now, &source_bytes(source), datagram) {
            Verdict::Pass(outer) => outer,
            Verdict::Cookie(reply) => {
                self.counters.drop_gate += 1;
                return self.reply(now, source, reply);
            }
            Verdict::Drop(DropReason::Malformed(_)) => {
                self.counters.drop_malformed += 1;
                return;
            }
            Verdict::Drop(_) => {
                self.counters.drop_gate += 1;
                return;
            }
        };
        let done = match outer {
            Outer::Init(init) => self.accept(now, source, &init, crowded),
            Outer::Response(response) => self.finish(now, source, &response),
            Outer::Final(last) => self.accept_final(now, source, &last),
            Outer::Cookie(cookie) => self.take_cookie(now, &cookie),
            // Records do not come this way.
            Outer::Record(_) => None,
        };
        if done.is_none() {
            self.counters.drop_handshake += 1;
        }
    }

    /// Answers `source` with a handshake message by the way it came.
    fn reply(&mut self, now: Instant, source: Source, datagram: Vec<u8>) {
        match source {
            Source::Direct(remote) => self.transmit(remote, datagram),
            Source::Overlay { from, agent, .. } => {
                let header = self.header_to(from, agent, Body::Datagram);
                self.originate(now, header, &datagram);
                self.recycle(datagram);
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        source: Source,
        init: &Init<'_>,
        crowded: bool,
    ) -> Option<()> {
        let answered = &self.handshakes.answered;
        if let Some(copy) = answered.iter().find(|answered| answered.mac == init.mac1()) {
            let response = copy.response.clone();
            self.reply(now, source, response);
            return Some(());
        }
        let index = self.fresh_index();
        let payload = self.hello(source.remote());
        self.counters.handshake_work += 1;
        let accepted =
            Responder::accept(&mut self.rng, now, &self.endpoint, init, index, &payload).ok()?;
        let response = match accepted {
            Accepted::Finished { response, finished } => {
                let (certificate, hello) =
                    self.verify(now, source, &finished.payload, finished.remote_static)?;
                let id = certificate.node_id();
                self.admit(now, certificate)?;
                self.install(now, id, index, finished.session, None, None);
                self.greet(now, id, source, &hello);
                response
            }
            Accepted::Pending {
                response,
                responder,
            } => {
                let pending = Pending {
                    responder,
                    begun: now,
                    origin: source.into(),
                    proven: crowded,
                };
                self.handshakes.assign(index, Owner::Pending);
                if let Some(older) = self.handshakes.pending.insert(index, pending) {
                    self.handshakes.release(older);
                }
                response
            }
        };
        if self.handshakes.answered.len() >= ANSWERED_MAX {
            self.handshakes.answered.pop_front();
        }
        self.handshakes.answered.push_back(Answered {
            mac: init.mac1(),
            response: response.clone(),
            at: now,
        });
        self.reply(now, source, response);
        Some(())
    }

    fn accept_final(&mut self, now: Instant, source: Source, last: &Final<'_>) -> Option<()> {
        let index = last.receiver_index();
        if matches!(self.handshakes.owner(index), Some(Owner::Peer(_))) {
            return Some(());
        }
        let pending = self.handshakes.pending.get_mut(index)?;
        self.counters.handshake_work += 1;
        let finished = pending.responder.on_final(now, last).ok()?;
        self.handshakes.pending.remove(index);
        self.handshakes.release(index);
        let (certificate, hello) =
            self.verify(now, source, &finished.payload, finished.remote_static)?;
        let id = certificate.node_id();
        self.admit(now, certificate)?;
        // The last message proves the initiator's keys.
        self.install(now, id, index, finished.session, None, Some(source));
        self.greet(now, id, source, &hello);
        Some(())
    }

    fn finish(&mut self, now: Instant, source: Source, response: &Response<'_>) -> Option<()> {
        let index = response.receiver_index();
        if let Some(Owner::Peer(_)) = self.handshakes.owner(index) {
            // The same answer by another way.
            return Some(());
        }
        let attempt = self.handshakes.attempts.get_mut(index)?;
        self.counters.handshake_work += 1;
        let finished = match attempt.initiator.on_response(now, response) {
            Ok(finished) => finished,
            Err(HandshakeError::OwnKey) => return self.met_ourselves(now, index),
            Err(_) => return None,
        };
        let Finished {
            session,
            remote_static,
            payload,
            final_datagram,
        } = finished;
        let begun = attempt.begun;
        let was_sent_once = attempt.sent == 1;
        let goal = attempt.goal.clone();
        self.handshakes.attempts.remove(index);
        self.handshakes.release(index);
        let (certificate, hello) = self.verify(now, source, &payload, remote_static)?;
        let id = certificate.node_id();
        if let Goal::Contact { contact, .. } = &goal
            && contact.id != id
        {
            return None;
        }
        if let Goal::Seed(address) = goal {
            self.ring.seeds.answered(now, address, id);
        }
        self.admit(now, certificate)?;
        if let Some(last) = &final_datagram {
            self.reply(now, source, last.clone());
        }
        self.install(now, id, index, session, final_datagram, Some(source));
        if let (Source::Direct(remote), Some(peer)) = (source, self.peers.get_mut(&id)) {
            let liveness = peer.adopt(remote, now);
            if was_sent_once {
                liveness.sample(now - begun);
            }
        }
        if let Some(observed) = hello.observed {
            self.candidates.learn(observed);
            self.sightings.note(now, id, observed);
        }
        self.greet(now, id, source, &hello);
        Some(())
    }

    /// A seed's address is our own.
    fn met_ourselves(&mut self, now: Instant, index: u32) -> Option<()> {
        let attempt = self.handshakes.attempts.remove(index)?;
        self.handshakes.release(index);
        if let Goal::Seed(address) = attempt.goal {
            self.ring.seeds.answered(now, address, self.id);
            self.stabilise(now);
        }
        Some(())
    }

    /// Forgets answers that can no longer be asked for.
    pub(super) fn forget_answered(&mut self, now: Instant) {
        let lifetime: Duration = RETRIES.iter().sum();
        let answered = &mut self.handshakes.answered;
        answered.retain(|answered| answered.at + lifetime > now);
    }
}

fn source_bytes(source: Source) -> Vec<u8> {
    match source {
        Source::Direct(remote) => {
            let mut bytes = match remote.ip() {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            bytes.extend(remote.protocol().name().as_bytes());
            bytes.extend(remote.port().to_be_bytes());
            bytes
        }
        Source::Overlay { from, .. } => from.0.to_vec(),
    }
}
