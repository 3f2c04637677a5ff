//! The guests of a LAN: who they are, what they hold, and what they held before.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Mac;
use super::NEIGHBOUR_BUDGET;
use super::dhcp::Question;
use crate::budget::Budget;

/// Guests that are known, those included that have been away for long.
pub const GUESTS_KEPT_MAX: usize = 128;

/// What a guest that is known may send: DHCP needs four messages for a lease.
const OWN_BUDGET: Budget = Budget::new(8, Duration::from_millis(500));

/// Names a lease of the router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(pub u32);

/// What a guest has.
#[derive(Debug, Clone)]
pub enum State {
    /// Nothing now; what it had last is known.
    Away,
    /// An address is being leased for it; the question is answered then.
    Seeking {
        key: LeaseKey,
        until: Duration,
        question: Option<Question>,
    },
    /// An address is kept for it until it asks for it.
    Offered {
        key: LeaseKey,
        address: Ipv4Addr,
        until: Duration,
    },
    /// It uses the address.
    Bound {
        key: LeaseKey,
        address: Ipv4Addr,
        until: Duration,
    },
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    pub state: State,
    /// Its address, or the last one that it had.
    pub last: Option<Ipv4Addr>,
    /// What it calls itself.
    pub name: Option<String>,
    /// When it was last heard.
    pub heard: Duration,
    pub budget: Budget,
    /// For its questions about neighbours.
    pub neighbours: Budget,
    /// It has used an address, so it is worth being remembered.
    pub was_bound: bool,
}

impl Guest {
    pub fn key(&self) -> Option<LeaseKey> {
        match self.state {
            State::Away => None,
            State::Seeking { key, .. } | State::Offered { key, .. } | State::Bound { key, .. } => {
                Some(key)
            }
        }
    }

    /// The address leased for it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self.state {
            State::Away | State::Seeking { .. } => None,
            State::Offered { address, .. } | State::Bound { address, .. } => Some(address),
        }
    }

    pub fn until(&self) -> Option<Duration> {
        match self.state {
            State::Away => None,
            State::Seeking { until, .. }
            | State::Offered { until, .. }
            | State::Bound { until, .. } => Some(until),
        }
    }
}

/// How a guest is, for tables and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    /// It has no address now.
    Away,
    /// An address is being leased, or offered to it.
    Asking,
    /// It holds its address for this long, if it does not renew it.
    Bound(Duration),
}

/// A guest, for tables and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInfo {
    /// Its hardware address.
    pub mac: Mac,
    /// Its address, or the last one.
    pub address: Option<Ipv4Addr>,
    /// What it calls itself.
    pub name: Option<String>,
    /// How it is.
    pub state: GuestState,
    /// Since when nothing was heard by DHCP.
    pub silent: Duration,
}

/// What is kept of a guest over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its hardware address.
    pub mac: Mac,
    /// Its address, or the last one.
    pub address: Ipv4Addr,
    /// What it calls itself.
    pub name: Option<String>,
    /// Whether it was using the address.
    pub bound: bool,
}

/// Every guest that is known.
#[derive(Default)]
pub struct Table {
    guests: BTreeMap<Mac, Guest>,
}

impl Table {
    pub fn get_mut(&mut self, mac: Mac) -> Option<&mut Guest> {
        self.guests.get_mut(&mac)
    }

    pub fn get(&self, mac: Mac) -> Option<&Guest> {
        self.guests.get(&mac)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Mac, &Guest)> {
        self.guests.iter().map(|(mac, guest)| (*mac, guest))
    }

    /// Makes a guest known, in the place of the one that was silent longest if need be. None where
    /// everybody known has an address.
    pub fn insert(&mut self, mac: Mac, now: Duration) -> Option<&mut Guest> {
        if self.guests.len() >= GUESTS_KEPT_MAX && !self.guests.contains_key(&mac) {
            let away = self
                .iter()
                .filter(|(_, guest)| matches!(guest.state, State::Away));
            let (oldest, _) = away.min_by_key(|(_, guest)| guest.heard)?;
            self.guests.remove(&oldest);
        }
        Some(self.guests.entry(mac).or_insert_with(|| Guest {
            state: State::Away,
            last: None,
            name: None,
            heard: now,
            budget: OWN_BUDGET,
            neighbours: NEIGHBOUR_BUDGET,
            was_bound: false,
        }))
    }

    pub fn remove(&mut self, mac: Mac) {
        self.guests.remove(&mac);
    }

    /// Whose lease it is.
    pub fn with_key(&self, key: LeaseKey) -> Option<Mac> {
        let found = self.iter().find(|(_, guest)| guest.key() == Some(key));
        found.map(|(mac, _)| mac)
    }

    /// For whom an address is leased.
    pub fn holder_of(&self, address: Ipv4Addr) -> Option<Mac> {
        let found = self
            .iter()
            .find(|(_, guest)| guest.address() == Some(address));
        found.map(|(mac, _)| mac)
    }

    /// Guests that were promised an address which they do not use yet.
    pub fn unsettled(&self) -> usize {
        let asking = |guest: &Guest| {
            !guest.was_bound && matches!(guest.state, State::Seeking { .. } | State::Offered { .. })
        };
        self.guests.values().filter(|guest| asking(guest)).count()
    }

    /// Guests with a lease.
    pub fn leases(&self) -> usize {
        let guests = self.guests.values();
        guests.filter(|guest| guest.key().is_some()).count()
    }

    pub fn guests(&self, now: Duration) -> Vec<GuestInfo> {
        let info = |(mac, guest): (Mac, &Guest)| GuestInfo {
            mac,
            address: guest.address().or(guest.last),
            name: guest.name.clone(),
            state: match guest.state {
                State::Away => GuestState::Away,
                State::Seeking { .. } | State::Offered { .. } => GuestState::Asking,
                State::Bound { until, .. } => GuestState::Bound(until.saturating_sub(now)),
            },
            silent: now.saturating_sub(guest.heard),
        };
        self.iter().map(info).collect()
    }

    pub fn kept(&self) -> Vec<Kept> {
        let worth = self.iter().filter(|(_, guest)| guest.was_bound);
        worth
            .filter_map(|(mac, guest)| {
                Some(Kept {
                    mac,
                    address: guest.address().or(guest.last)?,
                    name: guest.name.clone(),
                    bound: !matches!(guest.state, State::Away),
                })
            })
            .collect()
    }
}
