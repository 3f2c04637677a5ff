//! A NAT's memory: mappings from inner endpoints to external ports, and within each the sessions
//! that keep it alive and decide what its filter lets in. It knows no packet bytes.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    ops::Bound,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::{Behaviour, Dependence, PortAllocation, Timeouts};
use crate::{
    time::Instant,
    wire::transport::{Protocol, TCP_FIN, TCP_RST, TCP_SYN},
};

/// Most mappings of one NAT; a quarter of the ports, so that a free one is found at once.
pub(crate) const MAX_MAPPINGS: usize = 16_384;
/// Most sessions of one NAT, over all its mappings.
pub(crate) const MAX_SESSIONS: usize = 65_536;
/// Lowest external port; those below are for well-known services (RFC 4787 REQ-3).
const FIRST_PORT: u16 = 1024;
/// A full table looks for expired entries this often at most.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why a packet finds no way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No mapping has this external port.
    Unmapped,
    /// The mapping's filter does not know this remote.
    Filtered,
    /// A table is at its limit.
    Full,
}

/// All mappings of one NAT.
pub(crate) struct Table {
    behaviour: Behaviour,
    allocation: PortAllocation,
    timeouts: Timeouts,
    rng: ChaCha12Rng,
    next_sequential: u16,
    by_inner: BTreeMap<Key, u16>,
    by_external: BTreeMap<(Protocol, u16), Mapping>,
    sessions: usize,
    last_sweep: Instant,
}

/// What shares one external port: the inner endpoint, and of the remote as much as the mapping
/// depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: Protocol,
    inner: SocketAddrV4,
    remote: Option<SocketAddrV4>,
}

struct Mapping {
    key: Key,
    /// When the last session ends.
    expires: Instant,
    sessions: BTreeMap<SocketAddrV4, Session>,
}

/// Traffic of a mapping with one remote endpoint.
#[derive(Clone, Copy)]
struct Session {
    expires: Instant,
    answered: bool,
    closed_inside: bool,
    closed_outside: bool,
}

impl Table {
    pub(crate) fn new(
        behaviour: Behaviour,
        allocation: PortAllocation,
        timeouts: Timeouts,
        rng: ChaCha12Rng,
    ) -> Table {
        Table {
            behaviour,
            allocation,
            timeouts,
            rng,
            next_sequential: FIRST_PORT,
            by_inner: BTreeMap::new(),
            by_external: BTreeMap::new(),
            sessions: 0,
            last_sweep: Instant::ZERO,
        }
    }

    pub(crate) fn mappings(&self) -> usize {
        self.by_external.len()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions
    }

    /// A packet leaves: its external port, from an old mapping refreshed or a new one.
    pub(crate) fn outbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inner: SocketAddrV4,
        remote: SocketAddrV4,
        tcp_flags: u8,
    ) -> Result<u16, Refusal> {
        let key = self.key(protocol, inner, remote);
        let external = match self.live_external(now, &key) {
            Some(external) => external,
            None => self.create(now, key)?,
        };
        let full = self.sessions >= MAX_SESSIONS;
        let timeouts = self.timeouts;
        let mapping = self
            .by_external
            .get_mut(&(protocol, external))
            .expect("by_inner only names ports in by_external");
        let new = !mapping.sessions.contains_key(&remote);
        if new && full {
            return Err(Refusal::Full);
        }
        self.sessions += usize::from(new);
        let session = mapping.sessions.entry(remote).or_insert(Session::new(now));
        session.leave(now, protocol, tcp_flags, &timeouts);
        if session.closed() {
            mapping.shorten();
        } else {
            mapping.expires = mapping.expires.max(session.expires);
        }
        Ok(external)
    }

    /// A packet arrives: the inner endpoint it is for.
    pub(crate) fn inbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        external: u16,
        remote: SocketAddrV4,
        tcp_flags: u8,
    ) -> Result<SocketAddrV4, Refusal> {
        let filtering = self.behaviour.filtering;
        let timeouts = self.timeouts;
        let mapping = self
            .by_external
            .get_mut(&(protocol, external))
            .ok_or(Refusal::Unmapped)?;
        if !mapping.lives(now) {
            return Err(Refusal::Unmapped);
        }
        if !mapping.admits(now, filtering, remote) {
            return Err(Refusal::Filtered);
        }
        if let Some(session) = mapping.sessions.get_mut(&remote) {
            session.arrive(now, protocol, tcp_flags, &timeouts);
            if session.closed() {
                mapping.shorten();
            }
        }
        Ok(mapping.key.inner)
    }

    /// Who inside sent a packet that an ICMP error from outside quotes. The quoted session must
    /// exist, whatever the filter, and is not prolonged (RFC 5508 REQ-4).
    pub(crate) fn quoted_inbound(
        &self,
        now: Instant,
        protocol: Protocol,
        external: u16,
        remote: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        let mapping = self.by_external.get(&(protocol, external))?;
        let session = mapping.sessions.get(&remote)?;
        (session.expires > now).then_some(mapping.key.inner)
    }

    /// The external port to which a packet came that an ICMP error from inside quotes.
    pub(crate) fn quoted_outbound(
        &self,
        now: Instant,
        protocol: Protocol,
        inner: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<u16> {
        self.live_external(now, &self.key(protocol, inner, remote))
    }

    /// Forgets what has expired. Lookups never see expired entries; this only frees memory.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.last_sweep = now;
        let by_inner = &mut self.by_inner;
        let mut left = 0;
        self.by_external.retain(|_, mapping| {
            mapping.sessions.retain(|_, session| session.expires > now);
            left += mapping.sessions.len();
            if mapping.sessions.is_empty() {
                by_inner.remove(&mapping.key);
            }
            !mapping.sessions.is_empty()
        });
        self.sessions = left;
    }

    fn key(&self, protocol: Protocol, inner: SocketAddrV4, remote: SocketAddrV4) -> Key {
        let remote = match self.behaviour.mapping {
            Dependence::EndpointIndependent => None,
            Dependence::AddressDependent => Some(SocketAddrV4::new(*remote.ip(), 0)),
            Dependence::AddressAndPortDependent => Some(remote),
        };
        Key {
            protocol,
            inner,
            remote,
        }
    }

    fn live_external(&self, now: Instant, key: &Key) -> Option<u16> {
        let external = *self.by_inner.get(key)?;
        let mapping = self.by_external.get(&(key.protocol, external))?;
        mapping.lives(now).then_some(external)
    }

    fn create(&mut self, now: Instant, key: Key) -> Result<u16, Refusal> {
        // A dead mapping of the same key is forgotten first: its filter must not live on.
        if let Some(external) = self.by_inner.remove(&key)
            && let Some(dead) = self.by_external.remove(&(key.protocol, external))
        {
            self.sessions -= dead.sessions.len();
        }
        let full = |table: &Table| {
            table.by_external.len() >= MAX_MAPPINGS || table.sessions >= MAX_SESSIONS
        };
        if full(self) && now - self.last_sweep >= MIN_SWEEP_INTERVAL {
            self.sweep(now);
        }
        if full(self) {
            return Err(Refusal::Full);
        }
        let external = self.allocate(now, key.protocol, key.inner.port());
        let mapping = Mapping {
            key,
            expires: now,
            sessions: BTreeMap::new(),
        };
        self.by_inner.insert(key, external);
        self.by_external.insert((key.protocol, external), mapping);
        Ok(external)
    }

    /// A free external port. [`MAX_MAPPINGS`] leaves most free, so the search ends.
    fn allocate(&mut self, now: Instant, protocol: Protocol, inner_port: u16) -> u16 {
        let mut candidate = match self.allocation {
            PortAllocation::Random => self.rng.random_range(FIRST_PORT..=u16::MAX),
            PortAllocation::Sequential => self.next_sequential,
            PortAllocation::Preserve if inner_port >= FIRST_PORT => inner_port,
            PortAllocation::Preserve => self.rng.random_range(FIRST_PORT..=u16::MAX),
        };
        let mut collided = false;
        while let Some(mapping) = self.by_external.get(&(protocol, candidate)) {
            if !mapping.lives(now) {
                self.by_inner.remove(&mapping.key);
                self.sessions -= mapping.sessions.len();
                self.by_external.remove(&(protocol, candidate));
                break;
            }
            candidate = match self.allocation {
                PortAllocation::Preserve if !collided => {
                    self.rng.random_range(FIRST_PORT..=u16::MAX)
                }
                _ => next_port(candidate),
            };
            collided = true;
        }
        self.next_sequential = next_port(candidate);
        candidate
    }
}

impl Mapping {
    fn lives(&self, now: Instant) -> bool {
        self.expires > now
    }

    /// A session ends earlier than it was to: so may the mapping.
    fn shorten(&mut self) {
        self.expires = self
            .sessions
            .values()
            .map(|session| session.expires)
            .max()
            .unwrap_or_default();
    }

    fn admits(&self, now: Instant, filtering: Dependence, remote: SocketAddrV4) -> bool {
        let lives = |session: &Session| session.expires > now;
        match filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self
                .sessions
                .range(all_ports(*remote.ip()))
                .any(|(_, session)| lives(session)),
            Dependence::AddressAndPortDependent => self.sessions.get(&remote).is_some_and(lives),
        }
    }
}

impl Session {
    fn new(now: Instant) -> Session {
        Session {
            expires: now,
            answered: false,
            closed_inside: false,
            closed_outside: false,
        }
    }

    fn leave(&mut self, now: Instant, protocol: Protocol, tcp_flags: u8, timeouts: &Timeouts) {
        if protocol == Protocol::Tcp {
            if tcp_flags & TCP_SYN != 0 && (self.closed() || self.expires <= now) {
                *self = Session::new(now);
            }
            self.closed_inside |= tcp_flags & TCP_FIN != 0;
            if tcp_flags & TCP_RST != 0 {
                (self.closed_inside, self.closed_outside) = (true, true);
            }
        }
        let timeout = match protocol {
            Protocol::Udp => timeouts.udp,
            Protocol::Echo => timeouts.icmp,
            Protocol::Tcp if self.closed() || !self.answered => timeouts.tcp_transitory,
            Protocol::Tcp => timeouts.tcp_established,
        };
        self.expires = now + timeout;
    }

    fn arrive(&mut self, now: Instant, protocol: Protocol, tcp_flags: u8, timeouts: &Timeouts) {
        if protocol != Protocol::Tcp {
            return;
        }
        self.answered |= tcp_flags & TCP_RST == 0;
        self.closed_outside |= tcp_flags & TCP_FIN != 0;
        if tcp_flags & TCP_RST != 0 {
            (self.closed_inside, self.closed_outside) = (true, true);
        }
        if self.closed() {
            self.expires = self.expires.min(now + timeouts.tcp_transitory);
        }
    }

    fn closed(&self) -> bool {
        self.closed_inside && self.closed_outside
    }
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(FIRST_PORT)
}

fn all_ports(ip: Ipv4Addr) -> (Bound<SocketAddrV4>, Bound<SocketAddrV4>) {
    (
        Bound::Included(SocketAddrV4::new(ip, 0)),
        Bound::Included(SocketAddrV4::new(ip, u16::MAX)),
    )
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
