//! The DHCP server: addresses of the pool, leased by the router, for guests known by their hardware
//! addresses.
//!
//! It is the LAN's only server, so it refuses addresses that are not of its giving (RFC 2131, section 4.3.2).
//! One that it does not know of is tried for nevertheless: after a restart without memory guests keep
//! their addresses, as far as nobody else has them.

mod message;
mod v6;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::table::{Guest, Kept, LeaseKey, State, Table};
use super::{Event, LanConfig, Mac, Out, TOLD, show};
use crate::budget::Budget;
pub use message::Question;
use message::{Answer, Kind, Times};

/// How long a guest has an address without renewing it. It renews in half that time, which is also how long
/// it takes at most until a router without memory knows it again.
const LEASE: Duration = Duration::from_secs(600);
const TIMES: Times = Times {
    lease: LEASE.as_secs() as u32,
    renewal: LEASE.as_secs() as u32 / 2,
    rebinding: LEASE.as_secs() as u32 / 8 * 7,
};
/// How long an offer stands.
const OFFER: Duration = Duration::from_secs(30);
/// How long a guest that has asked is waited for while the router looks for an address: guests ask again
/// every few seconds, for a minute at least.
const SEEK: Duration = Duration::from_secs(60);
/// Guests that were never seen before and are promised an address, at once.
const UNSETTLED_MAX: usize = 8;
/// What all guests that are not known may send together.
const UNKNOWN_BUDGET: Budget = Budget::new(16, Duration::from_millis(500));
/// Addresses that guests found in use: they are kept out of use, but not too many.
const DECLINED_MAX: usize = 4;
const DECLINED: Duration = Duration::from_secs(600);

/// The server.
pub struct Server {
    config: LanConfig,
    table: Table,
    unknown: Budget,
    next_key: u32,
    declined: VecDeque<Declined>,
    /// When there was last no address left.
    exhausted: Option<Duration>,
    /// When messages were last too many, and whose.
    flooded: Option<(Mac, Duration)>,
}

struct Declined {
    key: LeaseKey,
    address: Ipv4Addr,
    by: Mac,
    until: Duration,
}

impl Server {
    pub fn new(config: &LanConfig) -> Self {
        Server {
            config: config.clone(),
            table: Table::default(),
            unknown: UNKNOWN_BUDGET,
            next_key: 0,
            declined: VecDeque::new(),
            exhausted: None,
            flooded: None,
        }
    }

    pub fn set_mac(&mut self, mac: Mac) {
        self.config.mac = mac;
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// A guest that is known.
    pub fn guest_mut(&mut self, mac: Mac) -> Option<&mut Guest> {
        self.table.get_mut(mac)
    }

    /// Makes guests known that were known before. Those that had an address get it at once: they
    /// go on using it without asking.
    pub fn restore(&mut self, kept: Vec<Kept>, now: Duration, out: &mut Out) {
        for kept in kept {
            if !self.config.is_member(kept.address) {
                continue;
            }
            let key = self.new_key();
            let Some(guest) = self.table.insert(kept.mac, now) else {
                return;
            };
            guest.last = Some(kept.address);
            guest.name = kept.name;
            guest.was_bound = true;
            if kept.bound {
                guest.state = State::Seeking {
                    key,
                    until: now + LEASE,
                    question: None,
                };
                out.event(Event::Wanted {
                    key,
                    preferred: Some(kept.address),
                });
            }
        }
    }

    /// Takes an IPv4 packet that goes to a DHCP server.
    pub fn handle(
        &mut self,
        now: Duration,
        sender: Mac,
        packet: &[u8],
        lacks_checksum: bool,
        out: &mut Out,
    ) {
        let question = Question::parse(packet, lacks_checksum);
        // Relays are not for a LAN of our own, and nobody asks for others.
        let Some(question) = question.filter(|question| question.mac == sender) else {
            out.counters.malformed += 1;
            return;
        };
        if !self.is_within_budget(now, sender, out) {
            return;
        }
        match question.kind {
            Kind::Discover => self.on_discover(now, question, out),
            Kind::Request => self.on_request(now, question, out),
            Kind::Decline => self.on_decline(now, &question, out),
            Kind::Release => self.on_release(&question, out),
            Kind::Inform => self.answer(&question, Answer::Facts, out),
        }
    }

    /// Whether somebody may send one more message; who may, and is known, was heard.
    fn is_within_budget(&mut self, now: Duration, sender: Mac, out: &mut Out) -> bool {
        let budget = match self.table.get_mut(sender) {
            Some(guest) => &mut guest.budget,
            None => &mut self.unknown,
        };
        if !budget.take(now) {
            out.counters.flooded += 1;
            self.flooded = Some((sender, now));
            return false;
        }
        if let Some(guest) = self.table.get_mut(sender) {
            guest.heard = now;
        }
        true
    }

    fn on_discover(&mut self, now: Duration, question: Question, out: &mut Out) {
        let held = self
            .table
            .get(question.mac)
            .and_then(|guest| guest.address());
        match held {
            Some(address) => self.answer(&question, Answer::Offer(address), out),
            None => {
                let wish = question.requested;
                self.seek(now, question.mac, Some(question), wish, out);
            }
        }
    }

    fn on_request(&mut self, now: Duration, question: Question, out: &mut Out) {
        let mac = question.mac;
        let held = self.table.get(mac).and_then(|guest| guest.address());
        if let Some(server) = question.server {
            if server != self.config.gateway {
                // It has chosen another server.
                if let Some(State::Offered { .. }) = self.table.get(mac).map(|guest| &guest.state) {
                    self.put_away(mac, out);
                }
                return;
            }
            return match question.requested {
                Some(wanted) if held == Some(wanted) => self.bind(now, &question, wanted, out),
                _ => self.refuse(&question, out),
            };
        }
        let Some(wanted) = question.current.or(question.requested) else {
            out.counters.malformed += 1;
            return;
        };
        match held {
            Some(held) if held == wanted => self.bind(now, &question, wanted, out),
            Some(_) => self.refuse(&question, out),
            None if !self.may_have(mac, wanted) => self.refuse(&question, out),
            None => self.seek(now, mac, Some(question), Some(wanted), out),
        }
    }

    /// A guest has found that somebody else uses the address that it was given.
    fn on_decline(&mut self, now: Duration, question: &Question, out: &mut Out) {
        let held = self
            .table
            .get(question.mac)
            .and_then(|guest| guest.address());
        if held.is_some() && question.requested == held {
            self.decline(now, question.mac, out);
        }
    }

    /// Nobody shall use the address that a guest was given.
    fn decline(&mut self, now: Duration, mac: Mac, out: &mut Out) {
        let Some(guest) = self.table.get_mut(mac) else {
            return;
        };
        let (Some(key), Some(address)) = (guest.key(), guest.address()) else {
            return;
        };
        guest.state = State::Away;
        guest.last = None;
        out.counters.declined += 1;
        out.event(Event::Neighbour(mac, None));
        out.event(Event::Changed);
        // Nobody else shall be given it meanwhile.
        if self.declined.len() >= DECLINED_MAX
            && let Some(oldest) = self.declined.pop_front()
        {
            out.event(Event::Unwanted(oldest.key));
        }
        self.declined.push_back(Declined {
            key,
            address,
            by: mac,
            until: now + DECLINED,
        });
    }

    fn on_release(&mut self, question: &Question, out: &mut Out) {
        let held = self
            .table
            .get(question.mac)
            .and_then(|guest| guest.address());
        if held.is_some() && held == question.current {
            self.put_away(question.mac, out);
        }
    }

    /// Has an address leased for a guest, whose question is answered then.
    fn seek(
        &mut self,
        now: Duration,
        mac: Mac,
        question: Option<Question>,
        wish: Option<Ipv4Addr>,
        out: &mut Out,
    ) {
        let wish = wish.filter(|wish| self.may_have(mac, *wish));
        let is_new = self.table.get(mac).is_none_or(|guest| !guest.was_bound);
        let is_asking = self
            .table
            .get(mac)
            .is_some_and(|guest| guest.key().is_some());
        if is_new && !is_asking && self.table.unsettled() >= UNSETTLED_MAX {
            out.counters.flooded += 1;
            self.flooded = Some((mac, now));
            return;
        }
        let key = self.new_key();
        let Some(guest) = self.table.insert(mac, now) else {
            self.exhausted = Some(now);
            out.counters.exhausted += 1;
            return;
        };
        match &mut guest.state {
            // It asks again while the router is still looking.
            State::Seeking {
                question: waiting,
                until,
                ..
            } => {
                *waiting = question.or(waiting.take());
                *until = (*until).max(now + SEEK);
            }
            state => {
                let preferred = wish.or(guest.last);
                *state = State::Seeking {
                    key,
                    until: now + SEEK,
                    question,
                };
                out.event(Event::Wanted { key, preferred });
            }
        }
    }

    /// Whether a guest may ask for an address at all.
    fn may_have(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let held = self.table.holder_of(address);
        self.config.is_member(address)
            && held.is_none_or(|holder| holder == mac)
            && !self
                .declined
                .iter()
                .any(|declined| declined.address == address)
    }

    /// The router has leased an address.
    pub fn leased(&mut self, now: Duration, key: LeaseKey, address: Ipv4Addr, out: &mut Out) {
        if let Some(declined) = self
            .declined
            .iter_mut()
            .find(|declined| declined.key == key)
        {
            declined.address = address;
            return;
        }
        let Some(mac) = self.table.with_key(key) else {
            // It was given up meanwhile.
            return out.event(Event::Unwanted(key));
        };
        let Some(guest) = self.table.get_mut(mac) else {
            return;
        };
        let before = guest.last;
        let question = match &mut guest.state {
            State::Seeking { question, .. } => question.take(),
            _ => None,
        };
        // A guest that has used this very address goes on with it.
        let is_known = guest.was_bound && before == Some(address);
        guest.state = match is_known {
            true => State::Bound {
                key,
                address,
                until: now + LEASE,
            },
            false => State::Offered {
                key,
                address,
                until: now + OFFER,
            },
        };
        guest.last = Some(address);
        out.event(Event::Neighbour(mac, is_known.then_some(address)));
        if is_known {
            out.event(Event::Changed);
        }
        match question {
            Some(question) if question.kind == Kind::Discover => {
                self.answer(&question, Answer::Offer(address), out);
            }
            Some(question) => {
                let wanted = question.current.or(question.requested);
                match wanted == Some(address) {
                    true => self.bind(now, &question, address, out),
                    false => self.refuse(&question, out),
                }
            }
            None => {}
        }
    }

    /// The router has none.
    pub fn refused(&mut self, now: Duration, key: LeaseKey, out: &mut Out) {
        let Some(mac) = self.table.with_key(key) else {
            return;
        };
        self.exhausted = Some(now);
        out.counters.exhausted += 1;
        self.forget_lease(mac);
    }

    /// An address is somebody else's now. The guest's next renewal is refused, and then it gets another.
    pub fn lost(&mut self, now: Duration, key: LeaseKey, out: &mut Out) {
        let Some(mac) = self.table.with_key(key) else {
            return;
        };
        if let Some(guest) = self.table.get_mut(mac) {
            guest.state = State::Seeking {
                key,
                until: now + LEASE,
                question: None,
            };
            out.event(Event::Neighbour(mac, None));
        }
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        let guests = self.table.iter().filter_map(|(_, guest)| guest.until());
        let declined = self.declined.iter().map(|declined| declined.until);
        guests.chain(declined).min()
    }

    pub fn handle_deadline(&mut self, now: Duration, out: &mut Out) {
        let over = self
            .table
            .iter()
            .filter(|(_, guest)| guest.until().is_some_and(|until| until <= now));
        for mac in over.map(|(mac, _)| mac).collect::<Vec<_>>() {
            self.put_away(mac, out);
        }
        while let Some(declined) = self.declined.front()
            && declined.until <= now
        {
            out.event(Event::Unwanted(declined.key));
            self.declined.pop_front();
        }
    }

    /// Sentences for the operator.
    pub fn trouble(&self, now: Duration) -> Vec<String> {
        let lately = |at: Duration| now.saturating_sub(at) < TOLD;
        let mut all = Vec::new();
        if self.exhausted.is_some_and(lately) {
            all.push(format!(
                "no address is left for another guest: {} are leased; let guests that are gone release \
                 theirs, or put some of them behind another router",
                self.table.leases(),
            ));
        }
        if let Some((mac, at)) = self.flooded
            && lately(at)
        {
            all.push(format!(
                "too many DHCP requests on the guests' network, lately from {}; what is too much is not \
                 answered, and guests that have an address keep it",
                show(mac),
            ));
        }
        all.extend(self.declined.iter().map(|declined| {
            format!(
                "the guest {} found {} in use by another machine of its network: give that machine an \
                 address by DHCP",
                show(declined.by),
                declined.address,
            )
        }));
        all
    }

    /// A guest has the address from now on.
    fn bind(&mut self, now: Duration, question: &Question, address: Ipv4Addr, out: &mut Out) {
        self.settle(now, question.mac, question.name.clone(), address, out);
        self.answer(question, Answer::Acknowledge(address), out);
    }

    /// A guest uses the address that is leased for it, and calls itself so, if it says how.
    fn settle(
        &mut self,
        now: Duration,
        mac: Mac,
        name: Option<String>,
        address: Ipv4Addr,
        out: &mut Out,
    ) {
        let Some(guest) = self.table.get_mut(mac) else {
            return;
        };
        let Some(key) = guest.key() else {
            return;
        };
        let is_news = !guest.was_bound
            || !matches!(guest.state, State::Bound { .. })
            || name.is_some() && guest.name != name;
        guest.state = State::Bound {
            key,
            address,
            until: now + LEASE,
        };
        guest.last = Some(address);
        guest.was_bound = true;
        if name.is_some() {
            guest.name = name;
        }
        if is_news {
            out.event(Event::Changed);
        }
        out.event(Event::Neighbour(mac, Some(address)));
    }

    /// A guest needs its address no longer.
    fn put_away(&mut self, mac: Mac, out: &mut Out) {
        let Some(guest) = self.table.get(mac) else {
            return;
        };
        if let Some(key) = guest.key() {
            out.event(Event::Unwanted(key));
        }
        if guest.was_bound {
            out.event(Event::Changed);
        }
        out.event(Event::Neighbour(mac, None));
        self.forget_lease(mac);
    }

    fn forget_lease(&mut self, mac: Mac) {
        let Some(guest) = self.table.get_mut(mac) else {
            return;
        };
        guest.state = State::Away;
        if !guest.was_bound {
            self.table.remove(mac);
        }
    }

    fn new_key(&mut self) -> LeaseKey {
        self.next_key = self.next_key.wrapping_add(1);
        LeaseKey(self.next_key)
    }

    fn refuse(&mut self, question: &Question, out: &mut Out) {
        out.counters.refused += 1;
        self.answer(question, Answer::Refuse, out);
    }

    fn answer(&self, question: &Question, answer: Answer, out: &mut Out) {
        out.frame(message::answer(&self.config, question, answer, TIMES));
    }
}
