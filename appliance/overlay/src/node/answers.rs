//! Questions of others that end here or pass by: what is answered.

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::frame::{Body, RoutedHeader};
use crate::wire::message::{Answer, Finding, Message, Query, Question};

use super::Node;

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

impl Node {
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
}
