//! Questions to the overlay: asked, answered, asked again when nobody answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::id::NodeId;
use crate::membership::Addresses;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{Body, Delivery, RoutedHeader};
use crate::wire::message::{Answer, Contact, Control, Finding, Message, Query, Question};
use crate::wire::record::{Key, Record};

use super::Node;
use super::api::{Event, Found, PingId, QueryId, ResolveError, Target};
use super::dht::{RecordInfo, Slot, Verified};
use super::report::Table;

/// Questions open at once.
const OPEN_MAX: usize = 512;
/// Times a question is asked.
const TRIES_MAX: u32 = 4;
/// How long the first asking waits for its answer; each further one twice as long.
const PATIENCE: Duration = Duration::from_millis(500);
/// Nodes that have to say that nobody holds a key, where there is more than one way to ask: the way
/// may lead by a liar.
const DENIALS_WANTED: u32 = 3;
/// How long an echo is waited for.
const ECHO_PATIENCE: Duration = Duration::from_secs(5);

/// What the answer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
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

struct Open {
    target: NodeId,
    question: Question,
    purpose: Purpose,
    agent: Option<NodeId>,
    tries: u32,
    due: Instant,
    answered: bool,
    denials: u32,
    /// Nodes by which it was asked; at most one each time.
    asked_by: Vec<NodeId>,
}

/// Who asked, and where the answer goes.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub source: NodeId,
    agent: Option<NodeId>,
    token: u64,
}

impl Asker {
    pub(super) fn new(header: &RoutedHeader, token: u64) -> Self {
        Asker {
            source: header.source,
            agent: header.source_agent,
            token,
        }
    }
}

struct Echo {
    target: NodeId,
    asked: Option<Instant>,
    due: Instant,
}

/// The questions that are open.
#[derive(Default)]
pub(super) struct Lookups {
    open: BTreeMap<u64, Open>,
    echoes: BTreeMap<u64, Echo>,
}

impl Lookups {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let open = self.open.values().map(|open| open.due);
        open.chain(self.echoes.values().map(|echo| echo.due)).min()
    }

    pub(super) fn tables(&self) -> [Table; 2] {
        [
            Table {
                name: "questions",
                entries: self.open.len(),
                limit: OPEN_MAX,
            },
            Table {
                name: "echoes",
                entries: self.echoes.len(),
                limit: OPEN_MAX,
            },
        ]
    }

    /// Ends an echo. Returns when it was asked, if it was and of this peer.
    pub(super) fn take_echo(&mut self, token: u64, from: NodeId) -> Option<Instant> {
        let echo = self.echoes.get(&token)?;
        if echo.target != from {
            return None;
        }
        let asked = echo.asked;
        self.echoes.remove(&token);
        asked
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
            Target::V6(v6) => Key::V6(v6),
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
    fn find_here(&self, key: &Key) -> Option<Found> {
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

    /// Sends an echo request to a node, reaching for it first if need be; answered by
    /// [`Event::Pong`] or [`Event::PingTimeout`].
    pub fn ping(&mut self, now: Instant, target: NodeId) -> PingId {
        let token = self.token();
        if self.lookups.echoes.len() >= OPEN_MAX || target == self.id {
            self.event(Event::PingTimeout {
                ping: PingId(token),
            });
            return PingId(token);
        }
        self.lookups.echoes.insert(
            token,
            Echo {
                target,
                asked: None,
                due: now + ECHO_PATIENCE,
            },
        );
        if self.peers.get(&target).is_some_and(|p| p.is_established()) {
            self.send_echoes(now, target);
        } else {
            let asked = self.token();
            self.ask_key(now, asked, Key::Id(target), Purpose::Ping(PingId(token)));
        }
        PingId(token)
    }

    /// Sends the echo requests that waited for a session with `target`.
    pub(super) fn send_echoes(&mut self, now: Instant, target: NodeId) {
        let waiting = self.lookups.echoes.iter_mut();
        let waiting = waiting.filter(|(_, echo)| echo.target == target && echo.asked.is_none());
        let mut tokens = Vec::new();
        for (token, echo) in waiting {
            echo.asked = Some(now);
            tokens.push(*token);
        }
        if !tokens.is_empty() {
            self.note_traffic(now, target);
        }
        for token in tokens {
            self.send_control(now, target, &Control::Echo { token });
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
        if !self.lookups.is_asking(&Question::Resolve(key.clone())) {
            let token = self.token();
            self.ask_key(now, token, key, Purpose::GuestPacket);
        }
    }

    fn ask_key(&mut self, now: Instant, token: u64, key: Key, purpose: Purpose) {
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

    fn ask_again(&mut self, now: Instant, token: u64) {
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
        let late = self.lookups.echoes.iter().filter(|(_, e)| e.due <= now);
        for token in late.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.lookups.echoes.remove(&token);
            self.event(Event::PingTimeout {
                ping: PingId(token),
            });
        }
    }

    fn give_up(
        &mut self,
        now: Instant,
        question: Question,
        purpose: Purpose,
        token: u64,
        error: ResolveError,
    ) {
        match purpose {
            Purpose::Owner => {
                // The record may be under way still.
                let here = match &question {
                    Question::Resolve(key) => self.find_here(key),
                    _ => None,
                };
                self.event(Event::Resolved {
                    query: QueryId(token),
                    result: here.ok_or(error),
                });
            }
            Purpose::Ping(ping) => {
                if self.lookups.echoes.remove(&ping.0).is_some() {
                    self.event(Event::PingTimeout { ping });
                }
            }
            Purpose::GuestPacket => {
                if let Question::Resolve(key) = &question {
                    self.drop_unresolved(key);
                }
            }
            Purpose::Record => self.event(Event::Record {
                query: QueryId(token),
                result: Err(error),
            }),
            Purpose::Absentee { key, holder } => self.on_absent(now, &key, holder),
            Purpose::Lease { peer, v4 } => self.on_lease_checked(now, peer, v4, None),
            // A claim is made again when it is due.
            Purpose::OwnPlace | Purpose::FarLink | Purpose::Claim(_) => {}
        }
    }

    /// A question passes by on its way from a node that chose us to begin with: whoever looks for
    /// its own place is told what we know of it, besides what the closest node will say. A seed
    /// that many join by at once so tells each of all the others.
    pub(super) fn answer_as_agent(&mut self, now: Instant, header: &RoutedHeader, body: &[u8]) {
        let own_place = header.source == header.destination;
        let query = Query::decode(body);
        if own_place && query.is_ok_and(|query| query.question == Question::Neighbourhood) {
            self.handle_query(now, header, body);
        }
    }

    /// Answers a question that ended here.
    pub(super) fn handle_query(&mut self, now: Instant, header: &RoutedHeader, body: &[u8]) {
        let Ok(query) = Query::decode(body) else {
            self.counters.drop_message += 1;
            return;
        };
        let finding = match query.question {
            // From here one's own place is always one's own.
            Question::Neighbourhood if header.source == self.id => return,
            Question::Neighbourhood => {
                let (left, right) = self.contacts_around(header.destination, header.source);
                Finding::Neighbourhood {
                    closest: self.own_contact(),
                    left,
                    right,
                }
            }
            Question::Resolve(key) => self.find_holder(now, &key),
            Question::Claim(record) => return self.handle_claim(now, header, query.token, record),
            Question::Hop { .. } => self.find_hop(),
            Question::Links => match self.find_links(now) {
                Some(links) => links,
                None => return,
            },
        };
        self.answer(now, Asker::new(header, query.token), finding);
    }

    /// Answers a question, at once or when it is decided.
    pub(super) fn answer(&mut self, now: Instant, asker: Asker, finding: Finding) {
        let token = asker.token;
        let mut bytes = self.buffer();
        Answer { token, finding }.encode(&mut bytes);
        let back = self.header_to(asker.source, asker.agent, Body::Answer);
        if asker.source == self.id {
            self.handle_answer(now, &back, &bytes);
        } else {
            self.originate(now, back, &bytes);
        }
        self.recycle(bytes);
    }

    /// Takes the answer to one of our questions.
    pub(super) fn handle_answer(&mut self, now: Instant, header: &RoutedHeader, body: &[u8]) {
        let Ok(answer) = Answer::decode(body) else {
            self.counters.drop_message += 1;
            return;
        };
        if let Finding::Hop { .. } | Finding::Links { .. } = answer.finding {
            return self.on_surveyed(now, header.source, answer);
        }
        let Some(open) = self.lookups.open.get_mut(&answer.token) else {
            // A second answer, after a second asking.
            return;
        };
        if let Finding::Neighbourhood { closest, .. } = &answer.finding
            && open.purpose == Purpose::OwnPlace
            && open.agent == Some(closest.id)
        {
            // The agent told what it knows; the closest node's own answer may follow.
            open.answered = true;
            return self.on_neighbourhood_of(now, answer.finding, header.source);
        }
        if answer.finding == Finding::Nobody {
            open.denials += 1;
            if open.denials < DENIALS_WANTED && open.tries < TRIES_MAX {
                return self.ask_again(now, answer.token);
            }
        }
        let Some(open) = self.lookups.open.remove(&answer.token) else {
            return;
        };
        match answer.finding {
            Finding::Neighbourhood {
                closest,
                left,
                right,
            } if open.purpose == Purpose::FarLink => {
                let beside = left.into_iter().chain(right).collect();
                self.on_far_target(now, closest, beside);
            }
            Finding::Neighbourhood { .. } => {
                let agent = open.agent.unwrap_or(header.source);
                self.on_neighbourhood_of(now, answer.finding, agent);
            }
            finding if matches!(open.purpose, Purpose::Claim(_)) => {
                if let Purpose::Claim(slot) = &open.purpose {
                    self.on_claimed(now, slot, finding);
                }
            }
            Finding::Holder {
                certificate,
                candidates,
                v4,
            } => match self.verify_holder(now, &open, &certificate, v4) {
                Some(found) => self.on_holder(now, open, answer.token, found, candidates, header),
                None => self.on_lie(now, open, answer.token),
            },
            Finding::Record(record) => {
                let verified = self.verify_record(now, record);
                let asked = verified.filter(|verified| {
                    open.question == Question::Resolve(verified.claim.key.clone())
                });
                match asked {
                    Some(verified) => self.on_record(now, open, answer.token, verified, header),
                    None => self.on_lie(now, open, answer.token),
                }
            }
            Finding::Granted | Finding::Undecided | Finding::Nobody => {
                let (question, purpose) = (open.question, open.purpose);
                self.give_up(now, question, purpose, answer.token, ResolveError::Unknown);
            }
            // Taken above.
            Finding::Hop { .. } | Finding::Links { .. } => {}
        }
    }

    /// Takes in who is around us. The node that told is reached by way of `agent`, the others by it.
    fn on_neighbourhood_of(&mut self, now: Instant, finding: Finding, agent: NodeId) {
        if let Finding::Neighbourhood {
            closest,
            left,
            right,
        } = finding
        {
            let from = closest.id;
            self.learn_contacts(now, std::iter::once(closest), agent);
            self.on_neighbourhood(now, left.into_iter().chain(right), from);
        }
    }

    /// The answer is a lie, or about a holder that expired meanwhile.
    fn on_lie(&mut self, now: Instant, open: Open, token: u64) {
        self.counters.drop_message += 1;
        self.give_up(
            now,
            open.question,
            open.purpose,
            token,
            ResolveError::Unknown,
        );
    }

    /// A node that is said to hold what was asked for, without a record.
    fn verify_holder(
        &self,
        now: Instant,
        open: &Open,
        certificate: &[u8],
        v4: Ipv4Addr,
    ) -> Option<Found> {
        let Question::Resolve(key) = &open.question else {
            return None;
        };
        let wall = self.wall.at(now);
        let certificate = self.verify_certificate(certificate, wall).ok()?;
        let addresses = Addresses {
            v4,
            ..Addresses::new(&self.pool, &certificate)
        };
        let claims = match key {
            // Whoever answers for it, itself or for its peer, may hold it.
            Key::V4(asked) => v4 == *asked,
            key => self.is_certified(&certificate, key),
        };
        let good = claims && !self.revocations.strike(&certificate);
        good.then_some(Found {
            certificate,
            addresses,
        })
    }

    fn on_record(
        &mut self,
        now: Instant,
        open: Open,
        token: u64,
        verified: Verified,
        header: &RoutedHeader,
    ) {
        let Verified {
            certificate, claim, ..
        } = verified;
        if open.purpose == Purpose::Record {
            let info = RecordInfo {
                owner: certificate,
                claim,
            };
            return self.event(Event::Record {
                query: QueryId(token),
                result: Ok(info),
            });
        }
        let certified = Addresses::new(&self.pool, &certificate);
        let stored = claim.value.first_chunk::<4>().map(|v4| Ipv4Addr::from(*v4));
        let v4 = match (&claim.key, stored) {
            (Key::V4(v4), _) => *v4,
            (Key::Name(_), Some(v4)) if self.pool.range.contains(&v4) => v4,
            _ => certified.v4,
        };
        let found = Found {
            certificate,
            addresses: Addresses { v4, ..certified },
        };
        self.on_holder(now, open, token, found, claim.candidates, header);
    }

    fn on_holder(
        &mut self,
        now: Instant,
        open: Open,
        token: u64,
        found: Found,
        candidates: Vec<Remote>,
        header: &RoutedHeader,
    ) {
        let id = found.certificate.node_id();
        match open.purpose {
            Purpose::Owner => {
                return self.event(Event::Resolved {
                    query: QueryId(token),
                    result: Ok(found),
                });
            }
            // The holder answers for itself, but has no record.
            Purpose::Record => {
                let (question, purpose) = (open.question, open.purpose);
                return self.give_up(now, question, purpose, token, ResolveError::Unknown);
            }
            Purpose::Lease { peer, v4 } => {
                return self.on_lease_checked(now, peer, v4, Some(id));
            }
            // It is there.
            Purpose::Absentee { .. } => return,
            Purpose::GuestPacket => {
                if let Question::Resolve(key) = &open.question {
                    self.waiting.resolved(key, id);
                }
            }
            Purpose::OwnPlace | Purpose::FarLink | Purpose::Ping(_) | Purpose::Claim(_) => {}
        }
        let contact = Contact {
            id,
            static_key: found.certificate.static_key(),
            candidates,
        };
        let agent = Some(header.source).filter(|agent| *agent != self.id);
        self.reach(now, contact, agent);
    }
}
