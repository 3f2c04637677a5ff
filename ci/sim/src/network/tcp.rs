//! TCP connections between hosts, as far as the overlay notices them: they are opened from inside
//! translators only, keep order, turn loss into delay, and end with their hosts or translators.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use wow_overlay::time::Instant;

use super::HostId;

/// A silent connection is closed by its ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// Ports of the ends that connect begin here.
const FIRST_PORT: u16 = 32768;
const PORTS: u32 = 28000;

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

/// One end's view.
#[derive(Clone, Copy, Debug)]
struct End {
    host: HostId,
    /// The far end as this one sees it.
    remote: SocketAddrV4,
    /// When the last datagram towards this end arrives: the next one does not before.
    arrival: Instant,
}

#[derive(Debug)]
struct Stream {
    /// The end that connected, and the one that accepted.
    ends: [End; 2],
    domains: [usize; 2],
    /// When the connection is made: nothing is sent before.
    ready: Instant,
    used: Instant,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    by_end: BTreeMap<(HostId, SocketAddrV4), StreamId>,
    opened: u64,
}

/// A datagram's way through a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) stream: StreamId,
    pub(super) to: HostId,
    /// The sender as the receiver sees it.
    pub(super) from: SocketAddrV4,
    pub(super) domains: (usize, usize),
}

impl Streams {
    /// The connection that `host` has with `remote`, if it has one.
    pub(super) fn find(&mut self, now: Instant, host: HostId, remote: SocketAddrV4) -> Option<Way> {
        let id = *self.by_end.get(&(host, remote))?;
        let stream = self.streams.get_mut(&id)?;
        if now > stream.used + IDLE {
            self.remove(id);
            return None;
        }
        let near = usize::from(stream.ends[0].host != host || stream.ends[0].remote != remote);
        let far = stream.ends[1 - near];
        Some(Way {
            stream: id,
            to: far.host,
            from: far.remote,
            domains: (stream.domains[near], stream.domains[1 - near]),
        })
    }

    /// Opens a connection that is made at `ready`; `outside` is the address that the client has for
    /// the server.
    pub(super) fn open(
        &mut self,
        client: (HostId, usize, std::net::Ipv4Addr),
        server: (HostId, usize, SocketAddrV4),
        now: Instant,
        ready: Instant,
    ) {
        self.opened += 1;
        let id = StreamId(self.opened);
        let port = FIRST_PORT + (self.opened as u32 % PORTS) as u16;
        let seen = SocketAddrV4::new(client.2, port);
        let end = |host, remote| End {
            host,
            remote,
            arrival: ready,
        };
        let stream = Stream {
            ends: [end(client.0, server.2), end(server.0, seen)],
            domains: [client.1, server.1],
            ready,
            used: now,
        };
        self.by_end.insert((client.0, server.2), id);
        self.by_end.insert((server.0, seen), id);
        self.streams.insert(id, stream);
    }

    /// When a datagram sent now arrives, if it travels for `travel`: after those before it.
    pub(super) fn arrival(&mut self, now: Instant, way: &Way, travel: Duration) -> Option<Instant> {
        let stream = self.streams.get_mut(&way.stream)?;
        stream.used = now;
        let sent = now.max(stream.ready);
        let far = usize::from(stream.ends[0].host != way.to);
        let end = &mut stream.ends[far];
        end.arrival = end.arrival.max(sent + travel);
        Some(end.arrival)
    }

    pub(super) fn is_open(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// Ends the connections of a host.
    pub(super) fn close_host(&mut self, host: HostId) {
        self.close(|stream| stream.ends.iter().any(|end| end.host == host));
    }

    /// Ends the connections into and out of a domain.
    pub(super) fn close_domain(&mut self, domain: usize) {
        self.close(|stream| {
            stream.domains.contains(&domain) && stream.domains[0] != stream.domains[1]
        });
    }

    fn close(&mut self, ends: impl Fn(&Stream) -> bool) {
        let ended = self.streams.iter().filter(|(_, stream)| ends(stream));
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            for end in stream.ends {
                self.by_end.remove(&(end.host, end.remote));
            }
        }
    }
}
