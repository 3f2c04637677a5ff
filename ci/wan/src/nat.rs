//! Network address translation as RFC 4787, 5382 and 5508 describe it: what a mapping depends on
//! and what a filter lets in are two separate choices, and the classical names are pairs of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) mod table;
pub(crate) mod translate;

/// On what part of the remote endpoint a mapping or a filter depends (RFC 4787 §4.1 and §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On nothing: one mapping serves all remotes; anyone may send to it.
    EndpointIndependent,
    /// On the remote address.
    AddressDependent,
    /// On the remote address and port.
    AddressAndPortDependent,
}

/// A NAT's mapping and filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behaviour {
    /// When an inner endpoint gets another external port.
    pub mapping: Dependence,
    /// Whose packets a mapping lets in.
    pub filtering: Dependence,
}

impl Behaviour {
    /// One external port; anyone may send to it.
    pub const FULL_CONE: Behaviour = Behaviour {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::EndpointIndependent,
    };
    /// One external port; addresses that were sent to may answer.
    pub const RESTRICTED: Behaviour = Behaviour {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressDependent,
    };
    /// One external port; endpoints that were sent to may answer.
    pub const PORT_RESTRICTED: Behaviour = Behaviour {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressAndPortDependent,
    };
    /// An external port for each remote endpoint, which alone may answer.
    pub const SYMMETRIC: Behaviour = Behaviour {
        mapping: Dependence::AddressAndPortDependent,
        filtering: Dependence::AddressAndPortDependent,
    };
    /// The classical names.
    pub const NAMED: [(&'static str, Behaviour); 4] = [
        ("full-cone", Behaviour::FULL_CONE),
        ("restricted", Behaviour::RESTRICTED),
        ("port-restricted", Behaviour::PORT_RESTRICTED),
        ("symmetric", Behaviour::SYMMETRIC),
    ];

    /// The behaviour of this classical name.
    pub fn by_name(name: &str) -> Option<Behaviour> {
        Behaviour::NAMED
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, behaviour)| *behaviour)
    }

    /// Its classical name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Behaviour::NAMED
            .iter()
            .find(|(_, known)| *known == self)
            .map(|(name, _)| *name)
    }
}

/// How a NAT chooses external ports. Every choice follows from the seed and the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortAllocation {
    /// At random: the default, so that nothing comes to rely on guessing.
    #[default]
    Random,
    /// Counting up, which a peer can predict.
    Sequential,
    /// The inner port when it is free, else at random.
    Preserve,
}

/// How long a mapping lives after the last packet from inside. Packets from outside do not
/// prolong it (RFC 4787 REQ-6 leaves that open; this is the harder case for applications).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP.
    pub udp: Duration,
    /// TCP, once both sides have spoken.
    pub tcp_established: Duration,
    /// TCP while opening, and after FIN or RST.
    pub tcp_transitory: Duration,
    /// ICMP echo.
    pub icmp: Duration,
}

impl Timeouts {
    /// All four.
    pub fn all(&self) -> [Duration; 4] {
        [
            self.udp,
            self.tcp_established,
            self.tcp_transitory,
            self.icmp,
        ]
    }
}

impl Default for Timeouts {
    /// The least that the RFCs allow: 2 minutes for UDP (4787 REQ-5), 2 h 4 min and 4 min for TCP
    /// (5382 REQ-5), 60 s for ICMP (5508 REQ-2).
    fn default() -> Timeouts {
        Timeouts {
            udp: Duration::from_secs(120),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
        }
    }
}
