//! Handshakes that this node begins, towards seeds and contacts: sent again until they are answered, or
//! given up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::session::Initiator;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::Body;
use crate::wire::message::Contact;
use crate::wire::outer::Cookie;

use super::Node;
use super::handshake::Owner;
use super::report::Table;

/// Handshakes of our own under way at once.
const ATTEMPTS_MAX: usize = 64;
/// Of these such with nodes that somebody told of.
const ATTEMPTS_HEARSAY_MAX: usize = 48;
/// Calls without an answer after which a node does not hide others that are farther: it may be dead,
/// or invented.
const DOUBTFUL_AFTER: usize = 3;
/// Direct addresses that one handshake is sent to, beside the overlay.
const DIRECT_TARGETS_MAX: usize = 4;
/// When an unanswered handshake is sent again, counted from the sending before.
pub(super) const RETRIES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1200),
    Duration::from_millis(1600),
    Duration::from_millis(2000),
];
/// How often a handshake is sent that most likely nobody answers.
const TRY_SENDINGS: usize = 2;

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

pub(super) struct Attempt {
    pub initiator: Initiator,
    pub goal: Goal,
    pub begun: Instant,
    pub sent: usize,
    /// How often it is sent before it is given up.
    patience: usize,
    due: Instant,
}

/// The handshakes that were begun, by our session index.
#[derive(Default)]
pub(super) struct Attempts {
    entries: BTreeMap<u32, Attempt>,
}

impl Attempts {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "handshakes begun",
            entries: self.entries.len(),
            limit: ATTEMPTS_MAX,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Attempt> {
        self.entries.get_mut(&index)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Attempt> {
        self.entries.remove(&index)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.values().map(|attempt| attempt.due).min()
    }

    /// Whether a handshake on somebody's word may begin, and leave room for those with a need.
    pub(super) fn has_room_for_hearsay(&self) -> bool {
        self.entries.len() < ATTEMPTS_HEARSAY_MAX
    }

    /// Nodes that have been called several times and have not answered.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = NodeId> + '_ {
        let late = self.entries.values().filter(|a| a.sent >= DOUBTFUL_AFTER);
        late.filter_map(|attempt| match &attempt.goal {
            Goal::Contact { contact, .. } => Some(contact.id),
            Goal::Seed(_) => None,
        })
    }

    /// Whether a handshake with `id` is under way.
    pub(super) fn is_reaching(&self, id: NodeId) -> bool {
        self.entries.values().any(
            |attempt| matches!(&attempt.goal, Goal::Contact { contact, .. } if contact.id == id),
        )
    }

    /// Whether a handshake with a seed's address is under way.
    pub(super) fn is_reaching_seed(&self, address: Remote) -> bool {
        let seed = |attempt: &Attempt| matches!(attempt.goal, Goal::Seed(to) if to == address);
        self.entries.values().any(seed)
    }
}

impl Node {
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
            Goal::Seed(address) => self.handshakes.attempts.is_reaching_seed(*address),
            Goal::Contact { contact, .. } => {
                contact.id == self.id || self.handshakes.attempts.is_reaching(contact.id)
            }
        };
        if under_way {
            return;
        }
        if self.handshakes.attempts.entries.len() >= ATTEMPTS_MAX {
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
        self.handshakes.assign(index, Owner::Attempt);
        self.handshakes.attempts.entries.insert(
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
        let Some(attempt) = self.handshakes.attempts.get_mut(index) else {
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

    /// Too much is going on where a handshake was sent to: it is sent again with the proof asked for.
    pub(super) fn take_cookie(&mut self, now: Instant, cookie: &Cookie<'_>) -> Option<()> {
        let index = cookie.receiver_index();
        let attempt = self.handshakes.attempts.get_mut(index)?;
        attempt.initiator.on_cookie(cookie).ok()?;
        self.send_attempt(now, index);
        Some(())
    }

    /// Sends what is due again and gives up what was never answered.
    pub(super) fn maintain_handshakes(&mut self, now: Instant) {
        for index in self.handshakes.pending.expire(now) {
            self.handshakes.release(index);
        }
        let due = self.handshakes.attempts.entries.iter();
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
            if let Some(attempt) = self.handshakes.attempts.remove(index)
                && attempt.patience > TRY_SENDINGS
            {
                self.on_unreachable(now, attempt.goal);
            }
        }
        if doubted {
            self.stabilise(now);
        }
    }
}
