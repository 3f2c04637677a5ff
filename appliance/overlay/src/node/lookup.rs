//! Questions to the overlay: asked, answered, asked again when nobody answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::id::NodeId;
use crate::membership::addresses::twin_v4;
use crate::time::Instant;
use crate::wire::frame::{Body, Delivery, RoutedHeader};
use crate::wire::message::{Message, Query, Question};
use crate::wire::record::{Key, Record};

use super::Node;
use super::api::{Event, Found, PingId, QueryId, ResolveError, Target};
use super::dht::Slot;
use super::peer::Peer;
use super::report::Table;

/// Questions open at once.
const OPEN_MAX: usize = 512;
/// Times a question is asked.
pub(super) const TRIES_MAX: u32 = 4;
/// How long the first asking waits for its answer; each further one twice as long.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the answer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Finding our own place.
    OwnPlace,
    /// Finding a far link.
    FarLink,
    /// The node's owner asked.
    Owner,
    /// A guest packet waits for it.
    GuestPacket,
    /// A ping waits for it.
    Ping(PingId),
    /// The node's owner asked for the record.
    Record,
    /// A claim of ours.
    Claim(Slot),
    /// Whether a peer holds an address.
    Lease { peer: NodeId, v4: Ipv4Addr },
    /// Whether the holder of a key is still there.
    Absentee { key: Key, holder: NodeId },
}

pub(super) struct Open {
    target: NodeId,
    pub question: Question,
    pub purpose: Purpose,
    pub agent: Option<NodeId>,
    pub tries: u32,
    due: Instant,
    pub answered: bool,
    pub denials: u32,
    /// Nodes by which it was asked; at most one each time.
    asked_by: Vec<NodeId>,
}

/// The questions that are open.
#[derive(Default)]
pub(super) struct Lookups {
    pub open: BTreeMap<u64, Open>,
}

impl Lookups {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|open| open.due).min()
    }

    pub(super) fn table(&self) -> Table {
        Table {
            name: "questions",
            entries: self.open.len(),
            limit: OPEN_MAX,
        }
    }

    fn is_asking(&self, question: &Question) -> bool {
        self.open.values().any(|open| open.question == *question)
    }
}

impl Node {
    /// Finds the node that a target stands for; answered by [`Event::Resolved`].
    pub fn resolve(&mut self, now: Instant, target: Target) -> QueryId {
        let key = match target {
            Target::Id(id) => Key::Id(id),
            Target::Name(name) => Key::Name(name),
            Target::V4(v4) => Key::V4(v4),
            Target::V6(v6) => match twin_v4(self.pool.pool_id(), self.pool.range, v6) {
                Some(v4) => Key::V4(v4),
                None => Key::V6(v6),
            },
        };
        let token = self.token();
        // An address or a name of a peer may be somebody else's by now: the table knows.
        let is_proof = self.is_ours(&key) || matches!(key, Key::Id(_) | Key::V6(_));
        if is_proof && let Some(found) = self.find_here(&key) {
            self.event(Event::Resolved {
                query: QueryId(token),
                result: Ok(found),
            });
        } else if !key.is_bounded() {
            self.event(Event::Resolved {
                query: QueryId(token),
                result: Err(ResolveError::Unknown),
            });
        } else {
            self.ask_key(now, token, key, Purpose::Owner);
        }
        QueryId(token)
    }

    /// The holder of a key among ourselves and our peers.
    pub(super) fn find_here(&self, key: &Key) -> Option<Found> {
        if self.is_ours(key) {
            return Some(Found {
                certificate: self.certificate.clone(),
                addresses: self.addresses(),
            });
        }
        let peer = self.peers.get(&self.peer_with(key)?)?;
        Some(Found {
            certificate: peer.certificate.clone(),
            addresses: peer.addresses(),
        })
    }

    /// Reads the table's record of a key; answered by [`Event::Record`].
    pub fn look_up(&mut self, now: Instant, key: Key) -> QueryId {
        let token = self.token();
        match key.is_bounded() {
            true => self.ask_key(now, token, key, Purpose::Record),
            false => self.give_up(
                now,
                Question::Resolve(key),
                Purpose::Record,
                token,
                ResolveError::Unknown,
            ),
        }
        QueryId(token)
    }

    /// Asks the closest node to a key for what we claim.
    pub(super) fn ask_claim(&mut self, now: Instant, position: NodeId, record: Record, slot: Slot) {
        let token = self.token();
        let question = Question::Claim(record);
        self.ask(now, token, position, question, Purpose::Claim(slot), None);
    }

    /// Whether a claim is being asked for.
    pub(super) fn is_claiming(&self, slot: &Slot) -> bool {
        let mut open = self.lookups.open.values();
        open.any(|open| matches!(&open.purpose, Purpose::Claim(claimed) if claimed == slot))
    }

    /// Asks the table whether a peer holds an address.
    pub(super) fn check_lease(&mut self, now: Instant, peer: NodeId, v4: Ipv4Addr) {
        let token = self.token();
        self.ask_key(now, token, Key::V4(v4), Purpose::Lease { peer, v4 });
    }

    /// Finds out whether the holder of a key that somebody else claims is still there.
    pub(super) fn look_for_absentee(&mut self, now: Instant, key: Key, holder: NodeId) {
        let purpose = Purpose::Absentee { key, holder };
        if holder != self.id
            && !self
                .lookups
                .open
                .values()
                .any(|open| open.purpose == purpose)
        {
            let token = self.token();
            self.ask_key(now, token, Key::Id(holder), purpose);
        }
    }

    /// Looks who is around `target`; by a given peer, or one chosen at random.
    pub(super) fn look_up_neighbourhood(
        &mut self,
        now: Instant,
        target: NodeId,
        by: Option<NodeId>,
    ) {
        let purpose = if target == self.id {
            Purpose::OwnPlace
        } else {
            Purpose::FarLink
        };
        let token = self.token();
        self.ask(now, token, target, Question::Neighbourhood, purpose, by);
    }

    /// Looks for the holder of an address that a guest packet goes to.
    pub(super) fn seek_holder(&mut self, now: Instant, key: Key) {
        // Without anybody to ask it waits for the first link, unless we are the whole pool.
        let alone = !self.ring.is_joined() && !self.peers.values().any(Peer::is_hop);
        if !alone && !self.lookups.is_asking(&Question::Resolve(key.clone())) {
            let token = self.token();
            self.ask_key(now, token, key, Purpose::GuestPacket);
        }
    }

    pub(super) fn ask_key(&mut self, now: Instant, token: u64, key: Key, purpose: Purpose) {
        let target = self.position_of(&key);
        let question = Question::Resolve(key);
        match target {
            Some(target) => self.ask(now, token, target, question, purpose, None),
            None => self.give_up(now, question, purpose, token, ResolveError::Unknown),
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        token: u64,
        target: NodeId,
        question: Question,
        purpose: Purpose,
        agent: Option<NodeId>,
    ) {
        let open = Open {
            target,
            question,
            purpose,
            agent,
            tries: 0,
            due: now,
            answered: false,
            denials: 0,
            asked_by: Vec::new(),
        };
        if self.lookups.open.len() >= OPEN_MAX {
            self.counters.drop_full += 1;
            return self.give_up(now, open.question, open.purpose, token, ResolveError::Busy);
        }
        self.lookups.open.insert(token, open);
        self.ask_again(now, token);
    }

    pub(super) fn ask_again(&mut self, now: Instant, token: u64) {
        let asked = self
            .lookups
            .open
            .get(&token)
            .map(|open| open.asked_by.clone());
        let random = self.random_hop(&asked.unwrap_or_default());
        let Some(open) = self.lookups.open.get_mut(&token) else {
            return;
        };
        let by = match (&open.question, open.tries) {
            // Our own place is looked for from elsewhere; from here it is always ourselves.
            (Question::Neighbourhood, 0) => open.agent.or(random),
            (Question::Neighbourhood, _) => random,
            // Who has no place yet does not know which of its peers is near anything.
            _ if !self.ring.is_joined() => random,
            // The straight way first, then by others: somebody on it may be dead, or a liar.
            (_, 0) => None,
            (_, _) => random,
        };
        open.agent = by;
        open.asked_by.extend(by);
        open.due = now + PATIENCE * 2u32.pow(open.tries.min(8));
        open.tries += 1;
        let query = Query {
            token,
            question: open.question.clone(),
        };
        let target = open.target;
        self.send_query(now, target, by, &query);
    }

    /// Sends a question that has no answer to whoever is closest to `target`.
    pub(super) fn tell_closest(&mut self, now: Instant, target: NodeId, question: Question) {
        let token = self.token();
        self.send_query(now, target, None, &Query { token, question });
    }

    fn send_query(&mut self, now: Instant, target: NodeId, by: Option<NodeId>, query: &Query) {
        if query.question == Question::Neighbourhood && by.is_none() {
            return;
        }
        let mut body = self.buffer();
        query.encode(&mut body);
        let header = RoutedHeader {
            delivery: Delivery::Closest,
            body: Body::Query,
            hops: 0,
            destination: target,
            source: self.id,
            agent: by,
            // The answer comes back by the way that was chosen, not by the one that may have failed.
            source_agent: by.or_else(|| self.own_agent(target)),
        };
        self.originate(now, header, &body);
        self.recycle(body);
    }

    /// A way to begin with, other than these if there is another one.
    fn random_hop(&mut self, except: &[NodeId]) -> Option<NodeId> {
        let hops = self.peers.iter().filter(|(_, peer)| peer.is_hop());
        let hops = hops.map(|(id, _)| *id);
        let others = hops.clone().filter(|id| !except.contains(id));
        others
            .choose(&mut self.rng)
            .or_else(|| hops.choose(&mut self.rng))
    }

    pub(super) fn maintain_lookups(&mut self, now: Instant) {
        let due = self.lookups.open.iter().filter(|(_, open)| open.due <= now);
        let due = due.map(|(token, open)| (*token, open.answered, open.tries));
        for (token, answered, tries) in due.collect::<Vec<_>>() {
            if answered {
                self.lookups.open.remove(&token);
            } else if tries < TRIES_MAX {
                self.ask_again(now, token);
            } else if let Some(open) = self.lookups.open.remove(&token) {
                self.give_up(
                    now,
                    open.question,
                    open.purpose,
                    token,
                    ResolveError::TimedOut,
                );
            }
        }
    }
}
