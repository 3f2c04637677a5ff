//! What other tasks may ask of the daemon's loop, and who waits for answers of the node.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::sync::oneshot;
use wow_overlay::id::NodeId;
use wow_overlay::membership::{NodeName, RevocationError};
use wow_overlay::node::{PingId, QueryId, ResolveError, Route, Target, TraceId};
use wow_overlay::wire::record::Key;

use crate::api::{Lease, NodeLinks, Path, Peer, Record, Resolved, RevocationReport, Status};

/// Waiting askers of one kind, at most; the next one is turned away.
const WAITING_MAX: usize = 256;

/// A question to the loop. A dropped sender means "busy or stopping".
#[derive(Debug)]
pub enum Command {
    /// How the node is.
    Status(oneshot::Sender<Box<Status>>),
    /// Its sessions.
    Peers(oneshot::Sender<Vec<Peer>>),
    /// How the node is, once it has joined.
    Joined(oneshot::Sender<Box<Status>>),
    /// Who holds an address, as far as sessions tell.
    Whois(Ipv6Addr, oneshot::Sender<Option<Resolved>>),
    /// A service to offer; whether there is room.
    Offer(NodeName, String, oneshot::Sender<bool>),
    /// A service to offer no longer.
    Withdraw(NodeName, oneshot::Sender<()>),
    /// Another program's trouble; whether there is room.
    Trouble(NodeName, Vec<String>, oneshot::Sender<bool>),
    /// A revocation to spread, in its text form.
    Revoke(
        String,
        oneshot::Sender<Result<RevocationReport, RevocationError>>,
    ),
    /// The node behind a target.
    Resolve(Target, oneshot::Sender<Result<Resolved, ResolveError>>),
    /// The node's leases.
    Leases(oneshot::Sender<Vec<Lease>>),
    /// A record of the pool's table.
    LookUp(Key, oneshot::Sender<Result<Record, ResolveError>>),
    /// An overlay echo; `None` is no answer.
    Echo(NodeId, oneshot::Sender<Option<Pong>>),
    /// The path in use to a node.
    Path(NodeId, oneshot::Sender<Path>),
    /// The way that frames take to a node.
    Trace(NodeId, oneshot::Sender<Route>),
    /// The links of a node, reached by way of another.
    Links(NodeId, Option<NodeId>, oneshot::Sender<NodeLinks>),
}

/// An answered overlay echo.
#[derive(Debug)]
pub struct Pong {
    /// From request to answer.
    pub rtt: Duration,
    /// Nodes that forwarded it.
    pub hops: u8,
}

/// Those who wait.
#[derive(Default)]
pub struct Waiting {
    joined: Vec<oneshot::Sender<Box<Status>>>,
    resolving: BTreeMap<QueryId, oneshot::Sender<Result<Resolved, ResolveError>>>,
    looking_up: BTreeMap<QueryId, oneshot::Sender<Result<Record, ResolveError>>>,
    echoes: BTreeMap<PingId, oneshot::Sender<Option<Pong>>>,
    traces: BTreeMap<TraceId, oneshot::Sender<Route>>,
    links: BTreeMap<QueryId, (NodeId, oneshot::Sender<NodeLinks>)>,
}

impl Waiting {
    /// Waits for the node to join.
    pub fn join(&mut self, asker: oneshot::Sender<Box<Status>>) {
        self.joined.retain(|asker| !asker.is_closed());
        if self.joined.len() < WAITING_MAX {
            self.joined.push(asker);
        }
    }

    /// The node has joined.
    pub fn joined(&mut self) -> impl Iterator<Item = oneshot::Sender<Box<Status>>> + use<> {
        std::mem::take(&mut self.joined).into_iter()
    }

    /// Waits for a lookup.
    pub fn resolve(
        &mut self,
        query: QueryId,
        asker: oneshot::Sender<Result<Resolved, ResolveError>>,
    ) {
        self.resolving.retain(|_, asker| !asker.is_closed());
        if self.resolving.len() < WAITING_MAX {
            self.resolving.insert(query, asker);
        }
    }

    /// A lookup ended.
    pub fn resolved(&mut self, query: QueryId, result: Result<Resolved, ResolveError>) {
        if let Some(asker) = self.resolving.remove(&query) {
            // Who no longer waits needs no answer; the same below.
            let _ = asker.send(result);
        }
    }

    /// Waits for a record.
    pub fn look_up(
        &mut self,
        query: QueryId,
        asker: oneshot::Sender<Result<Record, ResolveError>>,
    ) {
        self.looking_up.retain(|_, asker| !asker.is_closed());
        if self.looking_up.len() < WAITING_MAX {
            self.looking_up.insert(query, asker);
        }
    }

    /// A record was found, or not.
    pub fn looked_up(&mut self, query: QueryId, result: Result<Record, ResolveError>) {
        if let Some(asker) = self.looking_up.remove(&query) {
            let _ = asker.send(result);
        }
    }

    /// Waits for an echo.
    pub fn echo(&mut self, ping: PingId, asker: oneshot::Sender<Option<Pong>>) {
        self.echoes.retain(|_, asker| !asker.is_closed());
        if self.echoes.len() < WAITING_MAX {
            self.echoes.insert(ping, asker);
        }
    }

    /// An echo ended.
    pub fn echoed(&mut self, ping: PingId, pong: Option<Pong>) {
        if let Some(asker) = self.echoes.remove(&ping) {
            let _ = asker.send(pong);
        }
    }

    /// Waits for a way to be followed.
    pub fn trace(&mut self, trace: TraceId, asker: oneshot::Sender<Route>) {
        self.traces.retain(|_, asker| !asker.is_closed());
        if self.traces.len() < WAITING_MAX {
            self.traces.insert(trace, asker);
        }
    }

    /// A way was followed to its end.
    pub fn traced(&mut self, trace: TraceId, route: Route) {
        if let Some(asker) = self.traces.remove(&trace) {
            let _ = asker.send(route);
        }
    }

    /// Waits for a node's links.
    pub fn ask_links(&mut self, query: QueryId, of: NodeId, asker: oneshot::Sender<NodeLinks>) {
        self.links.retain(|_, (_, asker)| !asker.is_closed());
        if self.links.len() < WAITING_MAX {
            self.links.insert(query, (of, asker));
        }
    }

    /// A node told its links, or did not.
    pub fn told_links(&mut self, query: QueryId, links: impl FnOnce(NodeId) -> NodeLinks) {
        if let Some((of, asker)) = self.links.remove(&query) {
            let _ = asker.send(links(of));
        }
    }
}
