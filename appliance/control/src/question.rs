//! What the stack cannot know by itself, and asks the router.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::sync::oneshot;

/// A question for the router. Dropping its sender answers "unavailable".
#[derive(Debug)]
pub enum Question {
    /// A document of the HTTP server's.
    Document(Document, oneshot::Sender<Answer>),
    /// Who has a name or an address, or offers a service.
    LookUp(Lookup, oneshot::Sender<Found>),
    /// A DNS query about a name outside the pool, with whether it came over TCP; the answer is another
    /// server's message to it.
    Forward(Vec<u8>, bool, oneshot::Sender<Vec<u8>>),
}

/// What the HTTP server serves out of the router's knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// How the node is.
    Status,
    /// Every session.
    Peers,
    /// The nearest nodes of the ring.
    Neighbours,
    /// The addresses that the node leases.
    Leases,
    /// Packets, bytes and losses.
    Traffic,
    /// The last lines of the log, from a line on.
    Log {
        /// Lines before this one are left out.
        from: u64,
    },
    /// The ring as the node sees it.
    Ring,
    /// All of these at once.
    Overview {
        /// As in [`Document::Log`].
        from: u64,
    },
    /// Everything that can be counted, in Prometheus' text format.
    Metrics,
}

/// A document's bytes: JSON, or text for [`Document::Metrics`].
#[derive(Debug)]
pub struct Answer(pub Vec<u8>);

/// What a DNS query is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A node by its name, in lower case.
    Name(String),
    /// A node by its IPv4 address.
    V4(Ipv4Addr),
    /// A node by its IPv6 address.
    V6(Ipv6Addr),
    /// The node that offers a service, in lower case.
    Service(String),
}

/// What the router found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A node, and where the service that was asked for listens.
    Node {
        /// Its name.
        name: String,
        /// Its IPv4 address.
        v4: Ipv4Addr,
        /// Its IPv6 address; unspecified for a guest behind a node.
        v6: Ipv6Addr,
        /// The service's port, if its value tells one.
        port: Option<u16>,
    },
    /// There is none.
    Nothing,
    /// The pool does not answer.
    Unavailable,
}
