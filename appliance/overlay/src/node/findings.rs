//! What the answers to our own questions lead to.

use std::net::Ipv4Addr;

use crate::id::NodeId;
use crate::membership::Addresses;
use crate::membership::addresses::twin_v6;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::RoutedHeader;
use crate::wire::message::{Answer, Contact, Finding, Message, Question};
use crate::wire::record::Key;

use super::Node;
use super::api::{Event, Found, QueryId, ResolveError};
use super::dht::{RecordInfo, Verified};
use super::lookup::{Open, Purpose, TRIES_MAX};

/// Nodes that have to say that nobody holds a key, where there is more than one way to ask: the way
/// may lead by a liar.
const DENIALS_WANTED: u32 = 3;

impl Node {
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
        // A guest behind the node has the IPv6 address that goes with the other.
        let is_guests = match &claim.key {
            Key::Name(name) => certificate.name().as_str() != name,
            _ => false,
        };
        let v6 = match is_guests {
            true => twin_v6(self.pool.pool_id(), v4),
            false => certified.v6,
        };
        let found = Found {
            certificate,
            addresses: Addresses { v4, v6 },
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

    pub(super) fn give_up(
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
                if self.echoes.cancel(ping) {
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
}
