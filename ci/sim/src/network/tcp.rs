//! TCP connections between hosts, as far as the overlay notices them: they are opened from inside
//! translators only, keep order, turn loss into delay, and end with their hosts or translators.
//!
//! Each domain knows the ends at its own hosts. What ends a connection at once, everywhere, is on the
//! map; for the rest the ends are as far apart in time as they are on a network.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use wow_overlay::time::Instant;

use super::{Flight, HostId, Map};

/// A silent connection is closed by its ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// Ports of the ends that connect begin here.
const FIRST_PORT: u16 = 32768;
const PORTS: u32 = 28000;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// Who connected.
    pub client: HostId,
    /// Who accepted.
    pub server: HostId,
    pub opened: Instant,
    /// The map's epoch then.
    pub epoch: u64,
}

impl Stream {
    /// The other end.
    pub(super) fn peer_of(self, host: HostId) -> HostId {
        match host == self.client {
            true => self.server,
            false => self.client,
        }
    }

    /// Whether neither end's node nor a translator on the way has gone since it was opened.
    fn is_open(self, map: &Map) -> bool {
        let kept = |ended: u64| ended <= self.epoch;
        let places = [self.client, self.server].map(|host| &map.places[host.index()]);
        let crosses = places[0].domain != places[1].domain;
        places
            .into_iter()
            .all(|place| kept(place.closed) && (!crosses || kept(map.domains[place.domain].reset)))
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub stream: Stream,
    /// This end as the far one sees it.
    pub seen: SocketAddrV4,
    /// When the connection is made: nothing is sent before.
    ready: Instant,
    /// When the last datagram towards the far end arrives: the next one does not before.
    arrival: Instant,
    /// When something was last sent or received.
    used: Instant,
}

impl End {
    /// When a datagram sent now arrives, if it travels for `travel`: after those before it.
    pub(super) fn send(&mut self, now: Instant, travel: Duration) -> Instant {
        self.used = now;
        self.arrival = self.arrival.max(now.max(self.ready) + travel);
        self.arrival
    }
}

/// The ends at one domain's hosts, by the host and the far end as it sees it.
#[derive(Debug, Default)]
pub(super) struct Streams {
    ends: BTreeMap<(HostId, SocketAddrV4), End>,
    opened: u32,
}

impl Streams {
    /// The connection that `host` has with `remote`, if it has one.
    pub(super) fn find(
        &mut self,
        map: &Map,
        now: Instant,
        host: HostId,
        remote: SocketAddrV4,
    ) -> Option<&mut End> {
        let key = (host, remote);
        let end = self.ends.get(&key)?;
        if now > end.used + IDLE || !end.stream.is_open(map) {
            self.ends.remove(&key);
            return None;
        }
        self.ends.get_mut(&key)
    }

    /// Opens a connection to `remote` that is made at `ready`; `outside` is the address that the client
    /// has for the server.
    pub(super) fn open(
        &mut self,
        stream: Stream,
        remote: SocketAddrV4,
        outside: Ipv4Addr,
        ready: Instant,
    ) {
        self.opened += 1;
        let port = FIRST_PORT + (self.opened % PORTS) as u16;
        let end = End {
            stream,
            seen: SocketAddrV4::new(outside, port),
            ready,
            arrival: ready,
            used: stream.opened,
        };
        self.ends.insert((stream.client, remote), end);
    }

    /// A datagram has arrived in a connection: whom it is for, if the connection still is. The server
    /// learns of the connection by the first.
    pub(super) fn receive(
        &mut self,
        map: &Map,
        now: Instant,
        stream: Stream,
        to: HostId,
        flight: &Flight,
    ) -> Option<HostId> {
        if !stream.is_open(map) {
            return None;
        }
        let key = (to, flight.from);
        match self.ends.get_mut(&key) {
            Some(end) if end.stream == stream => end.used = now,
            // A port may be used again.
            Some(end) if end.stream.opened > stream.opened => return None,
            _ if to == stream.server => {
                let end = End {
                    stream,
                    seen: flight.to,
                    ready: now,
                    arrival: now,
                    used: now,
                };
                self.ends.insert(key, end);
            }
            _ => return None,
        }
        Some(to)
    }

    /// Ends the connections of a host.
    pub(super) fn close(&mut self, host: HostId) {
        self.ends.retain(|(end, _), _| *end != host);
    }
}
