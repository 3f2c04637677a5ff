//! A gateway's ARP cache, and the packets that wait for an answer. It decides; the gateway sends.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use crate::{config::Mac, time::Instant};

/// Most neighbours known or asked for.
const MAX_NEIGHBOURS: usize = 4096;
/// How long an answer holds.
const REACHABLE: Duration = Duration::from_secs(60);
/// Time between requests.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Requests before giving up.
const MAX_ATTEMPTS: u8 = 3;
/// Packets held for one unresolved neighbour; a further one pushes out the oldest.
const MAX_HELD: usize = 32;

#[derive(Default)]
pub(super) struct Neighbours {
    known: BTreeMap<Ipv4Addr, (Mac, Instant)>,
    asked: BTreeMap<Ipv4Addr, Asked>,
}

struct Asked {
    attempts: u8,
    held: VecDeque<Vec<u8>>,
}

/// What became of a packet to be delivered.
pub(super) enum Lookup {
    /// Send it there.
    Send(Mac, Vec<u8>),
    /// It is held; ask, and come back after [`RETRY`].
    Ask,
    /// It is held and the question is out; the frame, if any, had to go.
    Held(Option<Vec<u8>>),
    /// No room.
    Full(Vec<u8>),
}

/// What to do when a question stayed open for [`RETRY`].
pub(super) enum Retry {
    /// It has been answered.
    Nothing,
    /// Ask again and come back.
    Ask,
    /// Give up on these packets.
    Failed(VecDeque<Vec<u8>>),
}

impl Neighbours {
    pub(super) fn lookup(&mut self, now: Instant, ip: Ipv4Addr, frame: Vec<u8>) -> Lookup {
        if let Some((mac, learnt)) = self.known.get(&ip) {
            if now - *learnt < REACHABLE {
                return Lookup::Send(*mac, frame);
            }
            self.known.remove(&ip);
        }
        if let Some(asked) = self.asked.get_mut(&ip) {
            asked.held.push_back(frame);
            let pushed_out = if asked.held.len() > MAX_HELD {
                asked.held.pop_front()
            } else {
                None
            };
            return Lookup::Held(pushed_out);
        }
        if self.known.len() + self.asked.len() >= MAX_NEIGHBOURS {
            self.known
                .retain(|_, (_, learnt)| now - *learnt < REACHABLE);
            if self.known.len() + self.asked.len() >= MAX_NEIGHBOURS {
                return Lookup::Full(frame);
            }
        }
        self.asked.insert(
            ip,
            Asked {
                attempts: 1,
                held: VecDeque::from([frame]),
            },
        );
        Lookup::Ask
    }

    /// A host said where it is: the packets held for it.
    pub(super) fn learn(&mut self, now: Instant, ip: Ipv4Addr, mac: Mac) -> VecDeque<Vec<u8>> {
        let held = self
            .asked
            .remove(&ip)
            .map(|asked| asked.held)
            .unwrap_or_default();
        if self.known.len() + self.asked.len() < MAX_NEIGHBOURS || self.known.contains_key(&ip) {
            self.known.insert(ip, (mac, now));
        }
        held
    }

    pub(super) fn retry(&mut self, ip: Ipv4Addr) -> Retry {
        let Some(asked) = self.asked.get_mut(&ip) else {
            return Retry::Nothing;
        };
        if asked.attempts < MAX_ATTEMPTS {
            asked.attempts += 1;
            return Retry::Ask;
        }
        Retry::Failed(
            self.asked
                .remove(&ip)
                .map(|asked| asked.held)
                .unwrap_or_default(),
        )
    }

    /// The fresh entry for an address, if there is one.
    pub(super) fn mac_of(&self, now: Instant, ip: Ipv4Addr) -> Option<Mac> {
        let (mac, learnt) = self.known.get(&ip)?;
        (now - *learnt < REACHABLE).then_some(*mac)
    }
}
