//! Members on the same local network, found by announcements instead of a seed.
//!
//! The node says what to announce and judges what is heard; sending it to a multicast group now and
//! then is left to the caller. A node reaches for a member it hears of only if it is alone or the
//! other is, or if the other belongs among its nearest: a full network of hundreds stays quiet.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::session::Rate;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::message::{Contact, Message};

use super::Node;
use super::attempts::Goal;
use super::ring::{self, NEAR_PER_SIDE};

/// Announcements opened: beyond it they are dropped unread.
const RATE: Rate = Rate {
    per_second: 50,
    burst: 100,
};
/// Addresses in an announcement.
const CANDIDATES_MAX: usize = 4;

/// What a member tells its neighbourhood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Announcement {
    contact: Contact,
    /// The UDP port it listens on, on the address that this comes from; 0 if that is not so.
    port: u16,
    /// It has no peer.
    alone: bool,
}

impl Message for Announcement {
    fn is_bounded(&self) -> bool {
        self.contact.candidates.len() <= CANDIDATES_MAX && self.contact.is_bounded()
    }
}

impl Node {
    /// An announcement of this node for the local network, at most
    /// [`ANNOUNCEMENT_MAX_BYTES`](crate::session::ANNOUNCEMENT_MAX_BYTES) long. No two are alike.
    pub fn announcement(&mut self) -> Vec<u8> {
        let host = self.candidates.host();
        let udp = host.iter().filter(|remote| remote.is_udp());
        let candidates: Vec<Remote> = udp.copied().take(CANDIDATES_MAX).collect();
        let announcement = Announcement {
            port: candidates.first().map_or(0, |remote| remote.port()),
            contact: Contact {
                id: self.id,
                static_key: self.static_public,
                candidates,
            },
            alone: !self.has_peers(),
        };
        let mut bytes = Vec::new();
        announcement.encode(&mut bytes);
        self.announcer.seal(&mut self.rng, &bytes)
    }

    /// Whether there is a session with anybody: whoever has none announces itself more often.
    pub fn has_peers(&self) -> bool {
        self.peers.values().any(|peer| peer.is_established())
    }

    /// Takes an announcement that came from `from` on a local network.
    pub fn handle_announcement(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        if !self.announcements.take(RATE, now) {
            self.counters.drop_announcement += 1;
            return;
        }
        let opened = self.announcer.open(bytes).map(Announcement::decode);
        let Some(Ok(announcement)) = opened else {
            self.counters.drop_announcement += 1;
            return;
        };
        let Announcement {
            mut contact,
            port,
            alone,
        } = announcement;
        let id = contact.id;
        if id == self.id {
            return;
        }
        if port != 0 {
            let source = Remote::udp(SocketAddr::new(from.ip(), port));
            contact.candidates.retain(|candidate| *candidate != source);
            contact.candidates.insert(0, source);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            let news = peer.offer(&contact.candidates);
            if news {
                peer.start_race(now);
                self.run_race(now, id);
            }
        } else if alone || !self.has_peers() || self.belongs_near(id) {
            let agent = None;
            self.begin_handshake(now, Goal::Contact { contact, agent });
        }
    }

    /// Whether a node would be among our nearest.
    fn belongs_near(&self, id: NodeId) -> bool {
        let established = self.established().into_iter();
        let known: BTreeMap<_, _> = established.chain([id]).map(|id| (id, ())).collect();
        ring::nearest(self.id, &known, NEAR_PER_SIDE, |_, ()| true).contains(id)
    }
}
