//! What operators ask about the overlay itself: the way that frames take to a node, and the links of a
//! node.
//!
//! A way is found as traceroute does it: questions whose hops run out at the first node, at the
//! second, and so on; where they run out, the node says who it is. The question is padded to its
//! answer's size, so that a false sender turns nothing large on anybody; a list of links is larger,
//! and given but so often.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::session::{Bucket, Rate};
use crate::time::Instant;
use crate::wire::frame::{Body, Delivery, HOPS_MAX, RoutedHeader};
use crate::wire::message::{
    Answer, Finding, HOP_PADDING, LINKS_MAX, Link, Message, Query, Question,
};

use super::Node;
use super::api::{Event, Hop, QueryId, Route, TraceId};
use super::report::Table;

/// Longest way that is followed: several times the longest of a ring that is whole.
pub const TRACE_HOPS_MAX: usize = 32;
/// Nodes in a row without an answer after which a way is given up.
const SILENT_MAX: usize = 3;
/// Questions open at once.
const OPEN_MAX: usize = 64;
/// Times a question is asked.
const TRIES_MAX: u32 = 2;
/// How long each asking waits for its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Lists of links that are given out, to all askers together.
const LISTS: Rate = Rate {
    per_second: 20,
    burst: 40,
};

/// What an open question is for.
#[derive(Clone)]
enum Purpose {
    /// The next hop of a way.
    Hop(TraceId, Vec<Option<Hop>>),
    /// A node's links.
    Links(QueryId),
}

#[derive(Clone)]
struct Open {
    target: NodeId,
    /// A node that has a link to the target.
    via: Option<NodeId>,
    purpose: Purpose,
    asked: Instant,
    tries: u32,
}

/// The questions that are open.
#[derive(Default)]
pub(super) struct Survey {
    /// By the token of their last asking.
    open: BTreeMap<u64, Open>,
    lists: Bucket,
}

impl Survey {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|open| open.asked + PATIENCE).min()
    }

    pub(super) fn table(&self) -> Table {
        Table {
            name: "surveys",
            entries: self.open.len(),
            limit: OPEN_MAX,
        }
    }
}

impl Node {
    /// Follows the way that frames take to a node; answered by [`Event::Traced`].
    pub fn trace(&mut self, now: Instant, target: NodeId) -> TraceId {
        let trace = TraceId(self.token());
        let purpose = Purpose::Hop(trace, Vec::new());
        if target == self.id {
            self.end_trace(trace, Vec::new(), true);
        } else {
            self.survey(now, target, None, purpose);
        }
        trace
    }

    /// Asks a node for its links; answered by [`Event::Links`]. `via` is a node that has a link to
    /// it, for one that the ring does not lead to.
    pub fn ask_links(&mut self, now: Instant, target: NodeId, via: Option<NodeId>) -> QueryId {
        let query = QueryId(self.token());
        if target == self.id {
            let name = self.certificate.name().to_string();
            let result = Some((name, self.own_links()));
            self.event(Event::Links { query, result });
        } else {
            self.survey(now, target, via, Purpose::Links(query));
        }
        query
    }

    fn survey(&mut self, now: Instant, target: NodeId, via: Option<NodeId>, purpose: Purpose) {
        let open = Open {
            target,
            via: via.filter(|via| *via != self.id),
            purpose,
            asked: now,
            tries: 0,
        };
        if self.survey.open.len() >= OPEN_MAX {
            self.counters.drop_full += 1;
            self.give_survey_up(now, open);
        } else {
            self.survey_again(now, open);
        }
    }

    /// Asks under a new token, so that an answer tells its own time.
    fn survey_again(&mut self, now: Instant, mut open: Open) {
        let token = self.token();
        let (hops, question) = match &open.purpose {
            Purpose::Hop(_, hops) => {
                let behind = u8::try_from(hops.len()).unwrap_or(HOPS_MAX);
                let padding = [[0; 32]; HOP_PADDING];
                (HOPS_MAX - behind, Question::Hop { padding })
            }
            Purpose::Links(_) => (0, Question::Links),
        };
        let header = RoutedHeader {
            delivery: Delivery::Exact,
            body: Body::Query,
            hops,
            destination: open.target,
            source: self.id,
            agent: open.via,
            source_agent: self.own_agent(open.target),
        };
        open.asked = now;
        open.tries += 1;
        self.survey.open.insert(token, open);
        let mut body = self.buffer();
        Query { token, question }.encode(&mut body);
        self.originate(now, header, &body);
        self.recycle(body);
    }

    pub(super) fn maintain_survey(&mut self, now: Instant) {
        let late = |open: &Open| open.asked + PATIENCE <= now;
        let tokens = self.survey.open.iter().filter(|(_, open)| late(open));
        for token in tokens.map(|(token, _)| *token).collect::<Vec<_>>() {
            match self.survey.open.remove(&token) {
                Some(open) if open.tries < TRIES_MAX => self.survey_again(now, open),
                Some(open) => self.give_survey_up(now, open),
                None => {}
            }
        }
    }

    fn give_survey_up(&mut self, now: Instant, open: Open) {
        match open.purpose {
            Purpose::Hop(trace, hops) if open.tries == 0 => self.end_trace(trace, hops, false),
            Purpose::Hop(trace, hops) => self.next_trace_hop(now, open.target, trace, hops, None),
            Purpose::Links(query) => self.event(Event::Links {
                query,
                result: None,
            }),
        }
    }

    fn next_trace_hop(
        &mut self,
        now: Instant,
        target: NodeId,
        trace: TraceId,
        mut hops: Vec<Option<Hop>>,
        hop: Option<Hop>,
    ) {
        let reached = hop.as_ref().is_some_and(|hop| hop.id == target);
        hops.push(hop);
        let silent = hops.iter().rev().take_while(|hop| hop.is_none()).count();
        if reached || silent == SILENT_MAX || hops.len() == TRACE_HOPS_MAX {
            self.end_trace(trace, hops, reached);
        } else {
            self.survey(now, target, None, Purpose::Hop(trace, hops));
        }
    }

    fn end_trace(&mut self, trace: TraceId, hops: Vec<Option<Hop>>, reached: bool) {
        let route = Route { hops, reached };
        self.event(Event::Traced { trace, route });
    }

    /// The answer to a survey's question.
    pub(super) fn on_surveyed(&mut self, now: Instant, from: NodeId, answer: Answer) {
        let Some(open) = self.survey.open.get(&answer.token) else {
            // A second answer, or a late one.
            return;
        };
        match (open.clone(), answer.finding) {
            (
                Open {
                    target,
                    asked,
                    purpose: Purpose::Hop(trace, hops),
                    ..
                },
                Finding::Hop { name, address },
            ) => {
                self.survey.open.remove(&answer.token);
                let hop = Hop {
                    id: from,
                    name,
                    address,
                    rtt: now - asked,
                };
                self.next_trace_hop(now, target, trace, hops, Some(hop));
            }
            (
                Open {
                    target,
                    purpose: Purpose::Links(query),
                    ..
                },
                Finding::Links { name, links },
            ) if target == from => {
                self.survey.open.remove(&answer.token);
                let result = Some((name, links));
                self.event(Event::Links { query, result });
            }
            _ => self.counters.drop_message += 1,
        }
    }

    /// A question's hops ran out here. Returns whether that was its purpose.
    pub(super) fn answer_where_hops_end(
        &mut self,
        now: Instant,
        header: &RoutedHeader,
        body: &[u8],
    ) -> bool {
        let asked = Query::decode(body).is_ok_and(|q| matches!(q.question, Question::Hop { .. }));
        if asked {
            self.handle_query(now, header, body);
        }
        asked
    }

    /// Who we are, for whoever follows a way through us.
    pub(super) fn find_hop(&self) -> Finding {
        Finding::Hop {
            name: self.certificate.name().to_string(),
            address: self.own_candidates().first().copied(),
        }
    }

    /// Our links, unless that was asked too often.
    pub(super) fn find_links(&mut self, now: Instant) -> Option<Finding> {
        if !self.survey.lists.take(LISTS, now) {
            self.counters.drop_budget += 1;
            return None;
        }
        Some(Finding::Links {
            name: self.certificate.name().to_string(),
            links: self.own_links(),
        })
    }

    /// Our links, the most important first.
    fn own_links(&self) -> Vec<Link> {
        let links = self.peers().into_iter().map(|peer| Link {
            id: peer.id,
            kind: peer.kind,
            direct: matches!(peer.path, super::PathInfo::Direct { .. }),
            rtt_micros: peer.rtt.and_then(|rtt| u32::try_from(rtt.as_micros()).ok()),
        });
        let mut links: Vec<_> = links.collect();
        links.sort_by_key(|link| (link.kind, link.id));
        links.truncate(LINKS_MAX);
        links
    }
}
