//! Guests on a LAN: between their port, the services that they are answered by, the node that leases
//! their addresses, and the file that remembers them.

mod file;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use wow_control::lan::{self, GuestState, LanConfig, LanService, LeaseKey, Mac};
use wow_guest::ethernet::{LanCounters, Spoofed};
use wow_guest::{Guest, Lan};
use wow_overlay::membership::addresses::{control_v4, control_v6, twin_v6};
use wow_overlay::membership::{NodeName, PoolFacts};
use wow_overlay::node::{LeaseId, Node};
use wow_overlay::time::Instant;

use super::report::whole_milliseconds;
use crate::api;
use crate::config::GuestMtu;
use crate::state::State;

/// How long a guest is named that took another's address.
const TOLD: Duration = Duration::from_secs(300);

/// See the module.
pub struct Guests {
    /// The back end and its interface.
    kind: String,
    pool: PoolFacts,
    /// What is wrong with the file.
    unkept: Option<String>,
    service: LanService,
    leases: BTreeMap<LeaseKey, LeaseId>,
    /// The names that the pool knows guests by.
    names: BTreeMap<NodeName, Ipv4Addr>,
    counters: LanCounters,
    lost: u64,
    port_trouble: Option<String>,
    spoofed: Option<(Spoofed, Instant)>,
}

impl Guests {
    /// Services for the LAN of a port with this hardware address. Guests that were known before are
    /// known again.
    pub fn new(
        (kind, mac): (String, Mac),
        pool: &PoolFacts,
        mtu: GuestMtu,
        gives_time: bool,
        state: &State,
    ) -> Self {
        let config = LanConfig {
            mac,
            gateway: control_v4(pool.range),
            prefix_length: pool.range.prefix_len(),
            gateway_v6: control_v6(pool.pool_id()),
            prefix_length_v6: pool.summary().v6_prefix.prefix_len(),
            mtu_bytes: mtu.bytes(),
            domain: Some(pool.dns_suffix()),
            gives_time,
        };
        let (kept, unkept) = file::read(state.files(), pool);
        if let Some(unkept) = &unkept {
            tracing::warn!("{unkept}");
        }
        tracing::info!(kind, known = kept.len(), "serving the guests' network");
        Guests {
            kind,
            pool: pool.clone(),
            unkept,
            service: LanService::new(config, kept, Duration::ZERO),
            leases: BTreeMap::new(),
            names: BTreeMap::new(),
            counters: LanCounters::default(),
            lost: 0,
            port_trouble: None,
            spoofed: None,
        }
    }

    /// The back end and its interface.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// An address was leased, perhaps for a guest.
    pub fn leased(&mut self, now: Instant, lease: LeaseId, address: Ipv4Addr) {
        if let Some(key) = self.key_of(lease) {
            self.service.leased(span(now), key, address);
        }
    }

    /// An address was lost, perhaps a guest's.
    pub fn lost(&mut self, now: Instant, lease: LeaseId) {
        if let Some(key) = self.key_of(lease) {
            self.service.lost(span(now), key);
        }
    }

    fn key_of(&self, lease: LeaseId) -> Option<LeaseKey> {
        let found = self.leases.iter().find(|(_, held)| **held == lease);
        found.map(|(key, _)| *key)
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (due, _) = self.service.next_deadline()?;
        Some(Instant::ZERO + due)
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Instant) {
        self.service.handle_deadline(span(now));
    }

    /// Takes what the port has for the services and does what they want; whether the node was asked for
    /// anything.
    pub fn drive(
        &mut self,
        now: Instant,
        guest: &mut dyn Guest,
        node: &mut Node,
        state: &State,
    ) -> bool {
        let Some(port) = guest.lan() else {
            return false;
        };
        self.service.set_mac(port.mac());
        while let Some(frame) = port.poll_local() {
            self.service
                .handle_frame(span(now), &frame.bytes, frame.lacks_checksum);
        }
        if let Some(spoofed) = port.take_spoofed() {
            self.note_spoofed(now, spoofed);
        }
        let trouble = port.trouble();
        if self.port_trouble.is_some() && trouble.is_none() {
            self.service.announce();
        }
        self.port_trouble = trouble;
        let asked = self.handle_events(now, port, node, state);
        let mut sent = false;
        while let Some(frame) = self.service.poll_frame() {
            sent = true;
            if let Err(error) = port.send_local(&frame) {
                tracing::debug!(%error, "frame not sent to the guests' network");
            }
        }
        self.counters = port.counters();
        self.lost = port.lost();
        if sent {
            guest.flush();
        }
        asked
    }

    fn handle_events(
        &mut self,
        now: Instant,
        port: &mut dyn Lan,
        node: &mut Node,
        state: &State,
    ) -> bool {
        let mut asked = false;
        while let Some(event) = self.service.poll_event() {
            match event {
                lan::Event::Wanted { key, preferred } => {
                    match node.lease_preferring(now, preferred) {
                        Some(lease) => {
                            self.leases.insert(key, lease);
                        }
                        None => self.service.refused(span(now), key),
                    }
                    asked = true;
                }
                lan::Event::Unwanted(key) => {
                    if let Some(lease) = self.leases.remove(&key) {
                        node.release(now, lease);
                        asked = true;
                    }
                }
                lan::Event::Neighbour(mac, address) => {
                    if !port.set_neighbour(mac, address) {
                        tracing::error!(mac = lan::show(mac), "no room for another guest");
                    }
                }
                lan::Event::Changed => {
                    self.keep(state);
                    self.claim_names(now, node);
                    asked = true;
                }
            }
        }
        asked
    }

    /// Has the pool know the guests by their names, as far as nobody else has them. Of two guests of one
    /// name the first has it.
    fn claim_names(&mut self, now: Instant, node: &mut Node) {
        let mut wanted = BTreeMap::new();
        for guest in self.service.guests(span(now)) {
            let name = guest.name.and_then(|name| NodeName::new(&name).ok());
            if let (Some(name), Some(address), GuestState::Bound(_)) =
                (name, guest.address, guest.state)
            {
                wanted.entry(name).or_insert(address);
            }
        }
        wanted.remove(node.certificate().name());
        for name in self.names.keys().filter(|name| !wanted.contains_key(name)) {
            node.withdraw_guest_name(now, name);
        }
        for (name, address) in &wanted {
            if self.names.get(name) != Some(address) {
                node.claim_guest_name(now, name, *address);
            }
        }
        self.names = wanted;
    }

    /// Whether the pool was to know one of the guests by this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.keys().any(|claimed| claimed.as_str() == name)
    }

    fn note_spoofed(&mut self, now: Instant, spoofed: Spoofed) {
        let is_news = self
            .spoofed
            .is_none_or(|(last, at)| last != spoofed || now - at > TOLD);
        if is_news {
            tracing::warn!("{}", told(&spoofed));
        }
        self.spoofed = Some((spoofed, now));
    }

    fn keep(&mut self, state: &State) {
        let written = file::write(state.files(), &self.pool, self.service.kept());
        let unkept = written
            .err()
            .map(|error| format!("guests' addresses will be forgotten with a restart: {error:#}"));
        if let Some(unkept) = unkept.as_ref().filter(|_| self.unkept != unkept) {
            tracing::warn!("{unkept}");
        }
        // The file is whole again, if it was damaged.
        self.unkept = unkept;
    }

    /// Monotonic counts.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let (port, service) = (self.counters, self.service.counters());
        let counts = [
            ("drop_lan_spoofed", port.spoofed + service.spoofed),
            ("drop_lan_chatter", port.chatter),
            ("drop_lan_full", port.local_full + service.full),
            ("drop_lan_lost", self.lost),
            ("drop_lan_malformed", service.malformed),
            ("drop_lan_flooded", service.flooded_neighbours),
            ("drop_dhcp_flooded", service.flooded),
            ("drop_dhcp_exhausted", service.exhausted),
            ("dhcp_refused", service.refused),
            ("dhcp_declined", service.declined),
            ("lan_hairpin", port.hairpin),
        ];
        counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }

    /// Sentences for the operator.
    pub fn trouble(&self, now: Instant) -> Vec<String> {
        let mut all: Vec<_> = self
            .port_trouble
            .iter()
            .chain(&self.unkept)
            .cloned()
            .collect();
        all.extend(self.service.trouble(span(now)));
        if let Some((spoofed, at)) = &self.spoofed
            && now - *at < TOLD
        {
            all.push(told(spoofed));
        }
        all
    }

    /// The guests that are known.
    pub fn list(&self, now: Instant) -> Vec<api::LanGuest> {
        let guest = |info: lan::GuestInfo| {
            let (state, remaining) = match info.state {
                GuestState::Away => ("away", None),
                GuestState::Asking => ("asking", None),
                GuestState::Bound(remaining) => ("bound", Some(remaining)),
            };
            api::LanGuest {
                mac: lan::show(info.mac),
                address: info.address,
                v6: info.address.map(|v4| twin_v6(self.pool.pool_id(), v4)),
                name: info.name,
                state: state.into(),
                remaining_ms: remaining.map(whole_milliseconds),
            }
        };
        self.service
            .guests(span(now))
            .into_iter()
            .map(guest)
            .collect()
    }
}

fn told(spoofed: &Spoofed) -> String {
    format!(
        "the guest {} sends from {}, which is not leased to it: its packets are dropped; have it take the \
         address that DHCP gives it",
        lan::show(spoofed.mac),
        spoofed.source,
    )
}

fn span(now: Instant) -> Duration {
    now - Instant::ZERO
}

/// The hardware address of a port that has none of its own: the same whenever this node starts.
pub fn own_mac(v6: Ipv6Addr) -> Mac {
    let octets = v6.octets();
    // Locally administered, and no group's.
    [
        2, octets[11], octets[12], octets[13], octets[14], octets[15],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_own_address_is_a_single_machines() {
        let mac = own_mac("fd00::ffff:ffff:ffff".parse().unwrap());
        assert_eq!(mac[0] & 3, 2);
    }
}
