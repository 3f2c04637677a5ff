//! DHCP for IPv6 (RFC 8415): the address that goes with the one leased for a guest. Both are one lease, which either
//! renews; a guest is known by its hardware address here as well, and its DUID is only given back.
//!
//! Whoever asks before an address is leased for it gets no answer, and asks again within a second or two.

mod message;

use std::time::Duration;

use super::super::{Mac, Out};
use super::{Server, TIMES};
use message::{Address, Kind, Query, Status};

impl Server {
    /// Takes an IPv6 packet that goes to DHCP servers.
    pub fn handle_v6(
        &mut self,
        now: Duration,
        sender: Mac,
        packet: &[u8],
        lacks_checksum: bool,
        out: &mut Out,
    ) {
        let Some(query) = Query::parse(packet, sender, lacks_checksum) else {
            out.counters.malformed += 1;
            return;
        };
        if !self.is_within_budget(now, sender, out) || !query.is_for(&self.config) {
            return;
        }
        let held = self.table.get(sender).and_then(|guest| guest.address());
        let held = held.map(|v4| (v4, self.config.twin(v4)));
        let wished = query.wished.and_then(|v6| self.config.v4_of(v6));
        let own = held.map(|(_, v6)| Address::Held(v6));
        match (query.kind, held) {
            (Kind::Information, _) => self.answer_v6(&query, Address::None, out),
            (Kind::Solicit, Some((_, v6))) if query.has_association => {
                self.answer_v6(&query, Address::Held(v6), out);
            }
            (Kind::Request | Kind::Renew | Kind::Rebind, Some((v4, v6)))
                if query.has_association =>
            {
                self.settle(now, sender, query.name.clone(), v4, out);
                self.answer_v6(&query, Address::Held(v6), out);
            }
            (Kind::Confirm, Some((_, v6))) => {
                let status = match query.wished {
                    Some(wished) if wished == v6 => Status::Success,
                    _ => Status::NotOnLink,
                };
                self.answer_v6(&query, Address::Status(status), out);
            }
            (Kind::Release, _) => {
                if held.is_some() && query.wished == held.map(|(_, v6)| v6) {
                    self.put_away(sender, out);
                }
                self.answer_v6(&query, Address::Status(Status::Success), out);
            }
            (Kind::Decline, _) => {
                if own.is_some() && query.wished == held.map(|(_, v6)| v6) {
                    self.decline(now, sender, out);
                }
                self.answer_v6(&query, Address::Status(Status::Success), out);
            }
            (Kind::Renew | Kind::Rebind | Kind::Confirm, None)
                if wished.is_none_or(|v4| !self.may_have(sender, v4)) =>
            {
                let status = match query.kind {
                    Kind::Confirm => Status::NotOnLink,
                    _ => Status::NoBinding,
                };
                out.counters.refused += 1;
                self.answer_v6(&query, Address::Status(status), out);
            }
            (_, None) => self.seek(now, sender, None, wished, out),
            // Without a word on which address there is nothing to give.
            (_, Some(_)) => out.counters.malformed += 1,
        }
    }

    fn answer_v6(&self, query: &Query, address: Address, out: &mut Out) {
        out.frame(message::answer(&self.config, query, address, TIMES));
    }
}
