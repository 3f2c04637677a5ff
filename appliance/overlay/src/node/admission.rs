//! What a finished handshake leads to: its certificate is checked, the peer gets an entry and a session,
//! and is greeted.

use std::time::Duration;

use crate::id::NodeId;
use crate::membership::{Addresses, Certificate, CertificateError};
use crate::session::Session;
use crate::time::Instant;
use crate::wire::message::{Control, Hello, Message};

use super::api::Event;
use super::attempts::Goal;
use super::handshake::Owner;
use super::peer::{LiveSession, Peer, SESSIONS_MAX, Via};
use super::sizes::longest_datagram;
use super::traffic::Source;
use super::{Node, PEERS_MAX};

/// How often it is told that a member's certificate does not hold now.
const OUT_OF_TIME_PAUSE: Duration = Duration::from_secs(60);

impl Node {
    /// Checks what a handshake carried against the keys that it proved.
    pub(super) fn verify(
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
    pub(super) fn admit(&mut self, now: Instant, certificate: Certificate) -> Option<()> {
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
        let longest = longest_datagram(self.guest_mtu);
        self.peers
            .insert(id, Peer::new(certificate, certified, longest, now));
        self.note_holdings(id);
        Some(())
    }

    pub(super) fn install(
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
        let unheard = peer.unanswered_handshake().is_some();
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
        self.handshakes.assign(index, Owner::Peer(id));
        self.counters.handshakes += 1;
        if first && confirmed {
            self.on_established(now, id);
        } else if unheard && confirmed {
            // What was said in the last session has reached nobody.
            self.introduce(now, id);
        }
    }

    /// After a handshake: race the peer's candidates and show that we hold the session's keys.
    pub(super) fn greet(&mut self, now: Instant, id: NodeId, source: Source, hello: &Hello) {
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
        self.introduce(now, id);
    }

    /// Tells a peer what it should know of us, and asks it what we should.
    fn introduce(&mut self, now: Instant, id: NodeId) {
        self.tell_addresses_to(now, id);
        self.flush_waiting(now, id);
        self.on_peer_up(now, id);
        self.seek_holders(now);
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
}
