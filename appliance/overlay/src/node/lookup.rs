//! Questions to the overlay: asked, answered, asked again when nobody answers.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::id::NodeId;
use crate::membership::Certificate;
use crate::time::Instant;
use crate::wire::frame::{Body, Delivery, RoutedHeader};
use crate::wire::message::{
    Answer, Contact, Control, Finding, Key, Message, Publication, Query, Question,
};

use super::Node;
use super::api::{Event, PingId, QueryId, ResolveError, Target};

/// Questions open at once.
const OPEN_MAX: usize = 512;
/// Times a question is asked.
const TRIES_MAX: u32 = 4;
/// How long the first asking waits for its answer; each further one twice as long.
const PATIENCE: Duration = Duration::from_millis(500);
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
}

struct Open {
    target: NodeId,
    question: Question,
    purpose: Purpose,
    agent: Option<NodeId>,
    tries: u32,
    due: Instant,
    answered: bool,
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
        if let Some(certificate) = self.find_certificate(&key) {
            self.event(Event::Resolved {
                query: QueryId(token),
                result: Ok(certificate),
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
        for token in tokens {
            self.send_control(now, target, &Control::Echo { token });
        }
        if let Some(peer) = self.peers.get_mut(&target) {
            peer.last_guest = Some(now);
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
            None => self.give_up(question, purpose, token, ResolveError::Unknown),
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
        };
        if self.lookups.open.len() >= OPEN_MAX {
            self.counters.drop_full += 1;
            return self.give_up(open.question, open.purpose, token, ResolveError::Busy);
        }
        self.lookups.open.insert(token, open);
        self.ask_again(now, token);
    }

    fn ask_again(&mut self, now: Instant, token: u64) {
        let random = self.random_hop();
        let Some(open) = self.lookups.open.get_mut(&token) else {
            return;
        };
        let by = match (&open.question, open.tries) {
            // Our own place is looked for from elsewhere; from here it is always ourselves.
            (Question::Neighbourhood, 0) => open.agent.or(random),
            (Question::Neighbourhood, _) => random,
            // The straight way first, then by others.
            (_, 0 | 1) => None,
            (_, _) => random,
        };
        open.agent = by;
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
            source_agent: self.own_agent(target),
        };
        self.originate(now, header, &body);
        self.recycle(body);
    }

    fn random_hop(&mut self) -> Option<NodeId> {
        let hops = self.peers.iter().filter(|(_, peer)| peer.is_hop());
        hops.map(|(id, _)| *id).choose(&mut self.rng)
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
                self.give_up(open.question, open.purpose, token, ResolveError::TimedOut);
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

    fn give_up(&mut self, question: Question, purpose: Purpose, token: u64, error: ResolveError) {
        match purpose {
            Purpose::Owner => self.event(Event::Resolved {
                query: QueryId(token),
                result: Err(error),
            }),
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
            Purpose::OwnPlace | Purpose::FarLink => {}
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
            Question::Publish(publication) => {
                self.keep_publication(now, publication, true);
                return;
            }
        };
        let answer = Answer {
            token: query.token,
            finding,
        };
        let mut bytes = self.buffer();
        answer.encode(&mut bytes);
        let mut back = self.header_to(header.source, header.source_agent, Body::Answer);
        if header.source == self.id {
            back.source = self.id;
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
        let Some(open) = self.lookups.open.remove(&answer.token) else {
            return;
        };
        match answer.finding {
            Finding::Neighbourhood { closest, .. } if open.purpose == Purpose::FarLink => {
                self.on_far_target(now, closest);
            }
            Finding::Neighbourhood { .. } => {
                let agent = open.agent.unwrap_or(header.source);
                self.on_neighbourhood_of(now, answer.finding, agent);
            }
            Finding::Holder {
                certificate,
                candidates,
            } => self.on_holder(now, open, answer.token, &certificate, candidates, header),
            Finding::Nobody => {
                let (question, purpose) = (open.question, open.purpose);
                self.give_up(question, purpose, answer.token, ResolveError::Unknown);
            }
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

    fn on_holder(
        &mut self,
        now: Instant,
        open: Open,
        token: u64,
        certificate: &[u8],
        candidates: Vec<std::net::SocketAddr>,
        header: &RoutedHeader,
    ) {
        let Question::Resolve(key) = &open.question else {
            return;
        };
        let wall = self.wall.at(now);
        let verified = Certificate::verify(certificate, &self.pool, wall);
        let certificate = match verified {
            Ok(certificate) if self.claims(&certificate, key) => certificate,
            // A lie, or a holder that expired meanwhile.
            Ok(_) | Err(_) => {
                self.counters.drop_message += 1;
                let (question, purpose) = (open.question, open.purpose);
                return self.give_up(question, purpose, token, ResolveError::Unknown);
            }
        };
        if open.purpose == Purpose::Owner {
            return self.event(Event::Resolved {
                query: QueryId(token),
                result: Ok(certificate),
            });
        }
        let contact = Contact {
            id: certificate.node_id(),
            static_key: certificate.static_key(),
            candidates,
        };
        let agent = Some(header.source).filter(|agent| *agent != self.id);
        if open.purpose == Purpose::GuestPacket {
            self.waiting.resolved(key, contact.id);
        }
        self.reach(now, contact, agent);
    }

    /// Keeps a directory record that a neighbour passed on.
    pub(super) fn handle_store(&mut self, now: Instant, publication: Publication) {
        self.keep_publication(now, publication, false);
    }
}
