//! Renewing a certificate while sessions go on: the keys stay, so no session is touched.

use crate::id::NodeId;
use crate::membership::Certificate;
use crate::time::Instant;
use crate::wire::message::Control;

use super::Node;

impl Node {
    /// Replaces the node's own certificate by one for the same keys, name and fixed address, and tells
    /// every peer. Returns `false`, and changes nothing, if it is for others.
    pub fn set_certificate(&mut self, now: Instant, certificate: Certificate) -> bool {
        if !is_renewal(&self.certificate, &certificate) {
            return false;
        }
        self.certificate = certificate;
        let message = Control::Certificate(self.certificate.bytes().to_vec());
        for id in self.established() {
            self.send_control(now, id, &message);
        }
        true
    }

    /// A peer has renewed its certificate. One that is lost comes with the next session.
    pub(super) fn handle_certificate(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let wall = self.wall.at(now);
        let verified = self.verify_certificate(bytes, wall);
        let verified = verified
            .ok()
            .filter(|certificate| !self.revocations.strike(certificate));
        let peer = self.peers.get_mut(&from);
        match (verified, peer) {
            (Some(certificate), Some(peer)) if is_renewal(&peer.certificate, &certificate) => {
                peer.certificate = certificate;
            }
            _ => self.counters.drop_message += 1,
        }
    }
}

/// Whether nothing but validity, roles and ticket differ: what peers know of the node still holds.
fn is_renewal(old: &Certificate, new: &Certificate) -> bool {
    old.node_id() == new.node_id()
        && old.static_key() == new.static_key()
        && old.name() == new.name()
        && old.fixed_address() == new.fixed_address()
}
