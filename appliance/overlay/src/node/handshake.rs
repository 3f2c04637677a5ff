//! Handshakes: begun towards seeds and contacts, answered, and turned into sessions.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt;

use crate::id::NodeId;
use crate::membership::{Addresses, Certificate, CertificateError};
use crate::session::{
    Accepted, DropReason, Finished, HandshakeError, Initiator, Responder, Session, Verdict,
};
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::Body;
use crate::wire::message::{Contact, Control, Hello, Message};
use crate::wire::outer::{Cookie, Final, Init, MAC_BYTES, Outer, Response};

use super::api::Event;
use super::peer::{LiveSession, Peer, SESSIONS_MAX, Via};
use super::report::Table;
use super::traffic::Source;
use super::{Node, PEERS_MAX};

/// Handshakes of our own under way at once.
const ATTEMPTS_MAX: usize = 64;
/// Of these such with nodes that somebody told of.
const ATTEMPTS_HEARSAY_MAX: usize = 48;
/// Calls without an answer after which a node does not hide others that are farther: it may be dead,
/// or invented.
const DOUBTFUL_AFTER: usize = 3;
/// XX handshakes that wait for their last message.
const PENDING_MAX: usize = 128;
/// Of these such from addresses at which nobody has shown to receive. Beyond it a cookie is asked
/// for, so that forged addresses leave room for true ones.
const PENDING_UNPROVEN_MAX: usize = 64;
/// Of these such from one address, behind which a whole site may be; the oldest gives way.
const PENDING_PER_ORIGIN_MAX: usize = 16;
/// How long such a one waits.
const PENDING_LIFETIME: Duration = Duration::from_secs(5);
/// Answered handshakes remembered, to answer a copy alike.
const ANSWERED_MAX: usize = 64;
/// Direct addresses that one handshake is sent to, beside the overlay.
const DIRECT_TARGETS_MAX: usize = 4;
/// When an unanswered handshake is sent again, counted from the sending before.
const RETRIES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1200),
    Duration::from_millis(1600),
    Duration::from_millis(2000),
];
/// How often it is told that a member's certificate does not hold now.
const OUT_OF_TIME_PAUSE: Duration = Duration::from_secs(60);
/// How often a handshake is sent that most likely nobody answers.
const TRY_SENDINGS: usize = 2;

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

/// Whom a handshake is for.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    /// Whoever answers at a seed's address.
    Seed(Remote),
    /// A known node; `agent` is a node that has a link to it.
    Contact {
        contact: Contact,
        agent: Option<NodeId>,
    },
}

struct Attempt {
    initiator: Initiator,
    goal: Goal,
    begun: Instant,
    sent: usize,
    /// How often it is sent before it is given up.
    patience: usize,
    due: Instant,
}

struct Pending {
    responder: Responder,
    begun: Instant,
    origin: Origin,
    /// Its first message came with a cookie.
    proven: bool,
}

/// Who a handshake is from, as far as anybody can tell before it is finished.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Address(IpAddr),
    Node(NodeId),
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
    attempts: BTreeMap<u32, Attempt>,
    pending: BTreeMap<u32, Pending>,
    answered: VecDeque<Answered>,
    told_out_of_time: Option<Instant>,
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        match source {
            Source::Direct(remote) => Origin::Address(remote.ip()),
            Source::Overlay { from, .. } => Origin::Node(from),
        }
    }
}

impl Handshakes {
    pub(super) fn owner(&self, index: u32) -> Option<Owner> {
        self.owners.get(&index).copied()
    }

    pub(super) fn release(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    pub(super) fn tables(&self) -> [Table; 3] {
        let table = |name, entries, limit| Table {
            name,
            entries,
            limit,
        };
        [
            table("handshakes begun", self.attempts.len(), ATTEMPTS_MAX),
            table("handshakes granted", self.pending.len(), PENDING_MAX),
            table("handshakes answered", self.answered.len(), ANSWERED_MAX),
        ]
    }

    /// Whether those that wait and have proven nothing take all the room that they may.
    fn is_crowded(&self) -> bool {
        let unproven = self.pending.values().filter(|pending| !pending.proven);
        unproven.count() >= PENDING_UNPROVEN_MAX
    }

    /// Takes a handshake that waits for its last message; an older one gives way.
    fn wait(&mut self, index: u32, pending: Pending) {
        let alike = |other: &Pending| other.origin == pending.origin;
        let from_there = self.pending.values().filter(|other| alike(other)).count();
        let oldest = |waiting: &BTreeMap<u32, Pending>, all: bool| {
            let entries = waiting.iter().filter(|(_, other)| all || alike(other));
            entries
                .min_by_key(|(_, other)| other.begun)
                .map(|(index, _)| *index)
        };
        let goes = if from_there >= PENDING_PER_ORIGIN_MAX {
            oldest(&self.pending, false)
        } else if self.pending.len() >= PENDING_MAX {
            oldest(&self.pending, true)
        } else {
            None
        };
        if let Some(goes) = goes {
            self.pending.remove(&goes);
            self.release(goes);
        }
        self.owners.insert(index, Owner::Pending);
        self.pending.insert(index, pending);
    }

    /// Whether a handshake on somebody's word may begin, and leave room for those with a need.
    pub(super) fn has_room_for_hearsay(&self) -> bool {
        self.attempts.len() < ATTEMPTS_HEARSAY_MAX
    }

    /// Nodes that have been called several times and have not answered.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = NodeId> + '_ {
        let late = self.attempts.values().filter(|a| a.sent >= DOUBTFUL_AFTER);
        late.filter_map(|attempt| match &attempt.goal {
            Goal::Contact { contact, .. } => Some(contact.id),
            Goal::Seed(_) => None,
        })
    }

    /// Whether a handshake with `id` is under way.
    pub(super) fn is_reaching(&self, id: NodeId) -> bool {
        self.attempts.values().any(
            |attempt| matches!(&attempt.goal, Goal::Contact { contact, .. } if contact.id == id),
        )
    }

    /// Whether a handshake with a seed's address is under way.
    pub(super) fn is_reaching_seed(&self, address: Remote) -> bool {
        let seed = |attempt: &Attempt| matches!(attempt.goal, Goal::Seed(to) if to == address);
        self.attempts.values().any(seed)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let attempts = self.attempts.values().map(|attempt| attempt.due);
        let pending = self.pending.values().map(|p| p.begun + PENDING_LIFETIME);
        attempts.chain(pending).min()
    }
}

impl Node {
    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            if !self.handshakes.owners.contains_key(&index) {
                return index;
            }
        }
    }

    fn hello(&self, observed: Option<Remote>) -> Vec<u8> {
        let hello = Hello {
            certificate: self.certificate.bytes().to_vec(),
            candidates: self.own_candidates(),
            observed,
        };
        let mut bytes = Vec::with_capacity(640);
        hello.encode(&mut bytes);
        bytes
    }

    /// Begins a handshake, unless one for the same goal is under way.
    pub(super) fn begin_handshake(&mut self, now: Instant, goal: Goal) {
        self.start_handshake(now, goal, RETRIES.len());
    }

    /// Begins a handshake that is soon given up, by direct paths alone: most likely nobody answers.
    pub(super) fn try_handshake(&mut self, now: Instant, goal: Goal) {
        self.start_handshake(now, goal, TRY_SENDINGS);
    }

    fn start_handshake(&mut self, now: Instant, goal: Goal, patience: usize) {
        let under_way = match &goal {
            Goal::Seed(address) => self.handshakes.is_reaching_seed(*address),
            Goal::Contact { contact, .. } => {
                contact.id == self.id || self.handshakes.is_reaching(contact.id)
            }
        };
        if under_way {
            return;
        }
        if self.handshakes.attempts.len() >= ATTEMPTS_MAX {
            self.counters.drop_full += 1;
            return;
        }
        let index = self.fresh_index();
        let remote_static = match &goal {
            Goal::Seed(_) => None,
            Goal::Contact { contact, .. } => Some(contact.static_key),
        };
        let payload = self.hello(None);
        let initiator = Initiator::start(
            &mut self.rng,
            &self.endpoint,
            remote_static,
            index,
            &payload,
        );
        let Ok(initiator) = initiator else {
            // A key that no handshake works with: the contact is a lie.
            self.counters.drop_handshake += 1;
            return;
        };
        self.handshakes.owners.insert(index, Owner::Attempt);
        self.handshakes.attempts.insert(
            index,
            Attempt {
                initiator,
                goal,
                begun: now,
                sent: 0,
                patience,
                due: now,
            },
        );
        self.send_attempt(now, index);
    }

    fn send_attempt(&mut self, now: Instant, index: u32) {
        let Some(attempt) = self.handshakes.attempts.get_mut(&index) else {
            return;
        };
        attempt.due = now + RETRIES[attempt.sent.min(RETRIES.len() - 1)];
        let first = attempt.sent == 0;
        attempt.sent += 1;
        let datagram = attempt.initiator.datagram().to_vec();
        let patient = attempt.patience > TRY_SENDINGS;
        let again = attempt.sent > 1;
        let turn = attempt.sent - 1;
        match attempt.goal.clone() {
            Goal::Seed(address) => self.transmit(address, datagram),
            Goal::Contact { contact, agent } => {
                let active = self
                    .peers
                    .get(&contact.id)
                    .and_then(|peer| peer.active().map(|path| path.remote));
                let targets = match active {
                    Some(remote) => vec![remote],
                    None => {
                        let mut worth = self.candidates.worth_trying(&contact.candidates);
                        // TCP is for those whom UDP does not reach.
                        worth.retain(|remote| remote.is_udp() || !first);
                        worth
                    }
                };
                for remote in targets.into_iter().take(DIRECT_TARGETS_MAX) {
                    self.transmit(remote, datagram.clone());
                }
                // A node without an agent was found by its address: the overlay is the second way.
                let by_overlay = agent.is_some() || contact.candidates.is_empty() || again;
                if active.is_none() && patient && by_overlay {
                    let mut header = self.header_to(contact.id, agent, Body::Datagram);
                    if again {
                        // The answer to the last one may have been lost by the way we named.
                        header.source_agent = self.own_agent_at(contact.id, turn);
                    }
                    self.originate(now, header, &datagram);
                }
            }
        }
    }

    /// Sends what is due again and gives up what was never answered.
    pub(super) fn maintain_handshakes(&mut self, now: Instant) {
        let late = |pending: &Pending| pending.begun + PENDING_LIFETIME <= now;
        let stale = self.handshakes.pending.iter().filter(|(_, p)| late(p));
        for index in stale.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.handshakes.pending.remove(&index);
            self.handshakes.release(index);
        }
        let due = self.handshakes.attempts.iter();
        let due: Vec<_> = due
            .filter(|(_, attempt)| attempt.due <= now)
            .map(|(index, attempt)| (*index, attempt.sent, attempt.sent < attempt.patience))
            .collect();
        let doubted = due.iter().any(|(_, sent, _)| sent + 1 == DOUBTFUL_AFTER);
        for (index, _, again) in due {
            if again {
                self.send_attempt(now, index);
                continue;
            }
            self.handshakes.release(index);
            if let Some(attempt) = self.handshakes.attempts.remove(&index)
                && attempt.patience > TRY_SENDINGS
            {
                self.on_unreachable(now, attempt.goal);
            }
        }
        if doubted {
            self.stabilise(now);
        }
    }

    /// Takes a handshake message; `datagram` is known to parse as one.
    pub(super) fn handle_handshake(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        // Who passes a demanding gate has proven its address.
        let crowded = self.handshakes.is_crowded();
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

    fn take_cookie(&mut self, now: Instant, cookie: &Cookie<'_>) -> Option<()> {
        let index = cookie.receiver_index();
        let attempt = self.handshakes.attempts.get_mut(&index)?;
        attempt.initiator.on_cookie(cookie).ok()?;
        self.send_attempt(now, index);
        Some(())
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
                self.handshakes.wait(index, pending);
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
        let pending = self.handshakes.pending.get_mut(&index)?;
        self.counters.handshake_work += 1;
        let finished = pending.responder.on_final(now, last).ok()?;
        self.handshakes.pending.remove(&index);
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
        let attempt = self.handshakes.attempts.get_mut(&index)?;
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
        self.handshakes.attempts.remove(&index);
        self.handshakes.release(index);
        let (certificate, hello) = self.verify(now, source, &payload, remote_static)?;
        let id = certificate.node_id();
        if let Goal::Contact { contact, .. } = &goal
            && contact.id != id
        {
            return None;
        }
        if let Goal::Seed(address) = goal {
            self.ring.seed_answered(now, address, id);
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
        let attempt = self.handshakes.attempts.remove(&index)?;
        self.handshakes.release(index);
        if let Goal::Seed(address) = attempt.goal {
            self.ring.seed_answered(now, address, self.id);
            self.stabilise(now);
        }
        Some(())
    }

    /// Checks what a handshake carried against the keys that it proved.
    fn verify(
        &mut self,
        now: Instant,
        source: Source,
        payload: &[u8],
        remote_static: [u8; 32],
    ) -> Option<(Certificate, Hello)> {
        let hello = Hello::decode(payload).ok()?;
        let wall = self.wall.at(now);
        let certificate = match self.verify_certificate(&hello.certificate, wall) {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::debug!(%error, "refused a peer's certificate");
                self.refused(now, source, error);
                return None;
            }
        };
        if self.revocations.strike(&certificate) {
            tracing::debug!(name = %certificate.name(), "refused a revoked node");
            return None;
        }
        let proven = certificate.static_key() == remote_static;
        (proven && certificate.node_id() != self.id).then_some((certificate, hello))
    }

    /// Tells of a certificate that would hold at another time: it is some member's.
    fn refused(&mut self, now: Instant, source: Source, error: CertificateError) {
        let late = matches!(
            error,
            CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }
        );
        let told = &mut self.handshakes.told_out_of_time;
        if late && told.is_none_or(|last| now - last >= OUT_OF_TIME_PAUSE) {
            *told = Some(now);
            let from = source.remote();
            self.event(Event::OutOfTime { from, error });
        }
    }

    /// Makes room for the peer, and an entry, if it has none.
    fn admit(&mut self, now: Instant, certificate: Certificate) -> Option<()> {
        let id = certificate.node_id();
        if let Some(peer) = self.peers.get_mut(&id) {
            // An old first message, sent again by anybody, must not bring an old certificate back.
            if certificate.not_after() >= peer.certificate.not_after() {
                peer.certificate = certificate;
            }
            return Some(());
        }
        if self.peers.len() >= PEERS_MAX && !self.evict_idle_peer(now) {
            self.counters.drop_full += 1;
            return None;
        }
        let certified = Addresses::new(&self.pool, &certificate);
        self.peers
            .insert(id, Peer::new(certificate, certified, now));
        self.note_holdings(id);
        Some(())
    }

    fn install(
        &mut self,
        now: Instant,
        id: NodeId,
        index: u32,
        session: Session,
        last_message: Option<Vec<u8>>,
        confirmed_by: Option<Source>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let confirmed = confirmed_by.is_some();
        if let Some(Source::Direct(remote)) = confirmed_by {
            peer.adopt(remote, now);
        }
        let first = !peer.is_established();
        if !first {
            self.counters.rekeys += 1;
        }
        peer.sessions.push(LiveSession {
            session,
            confirmed,
            last_message,
            created: now,
        });
        let mut released = Vec::new();
        while peer.sessions.len() > SESSIONS_MAX {
            // The oldest that is not the only confirmed one.
            let confirmed = peer.sessions.iter().filter(|live| live.confirmed).count();
            let spare = |live: &LiveSession| !live.confirmed || confirmed > 1;
            let oldest = peer.sessions.iter().position(spare).unwrap_or(0);
            released.push(peer.sessions.remove(oldest).session.local_index());
        }
        for index in released {
            self.handshakes.release(index);
        }
        self.handshakes.owners.insert(index, Owner::Peer(id));
        self.counters.handshakes += 1;
        if first && confirmed {
            self.on_established(now, id);
        }
    }

    /// After a handshake: race the peer's candidates and show that we hold the session's keys.
    fn greet(&mut self, now: Instant, id: NodeId, source: Source, hello: &Hello) {
        let token = self.token();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.offer(&hello.candidates);
        match source {
            // An accepted connection's far port leads back through that connection alone.
            Source::Direct(remote) if remote.is_tcp() => {}
            Source::Direct(remote) => {
                peer.offer(&[remote.on_lane(0)]);
            }
            // A first message may be an old one, sent again by somebody else: a record tells.
            Source::Overlay { agent, .. } if !peer.is_established() => peer.agent = agent,
            Source::Overlay { .. } => {}
        }
        if peer.active().is_none() {
            peer.start_race(now);
        }
        // A path that is not known yet is probed by the race, like every candidate.
        if let Some(liveness) = peer.liveness_mut(source.via()) {
            liveness.on_probe_sent(token, now);
            self.send_control_by(now, id, source.via(), &Control::Probe { token });
        }
        self.run_race(now, id);
    }

    /// The first session with a peer is up.
    pub(super) fn on_established(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.since = now;
        let name = peer.certificate.name().to_string();
        self.event(Event::PeerUp { id, name });
        self.tell_addresses_to(now, id);
        self.flush_waiting(now, id);
        self.on_peer_up(now, id);
    }

    /// Begins a fresh session with a peer over its best path.
    pub(super) fn rekey(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let agent = match peer.via() {
            Via::Overlay => peer.agent,
            Via::Direct(_) => None,
        };
        let contact = peer.contact();
        self.begin_handshake(now, Goal::Contact { contact, agent });
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
