//! What is emulated: domains and the ports on them, validated once. Text comes in and goes out as
//! TOML (module `raw`), module `rules` has what must hold, and this file the validated form. It
//! opens no file but the configuration itself.
//!
//! Every key there is, but `mapping` and `filtering`: `endpoint-independent`, `address-dependent` or
//! `address-and-port-dependent`, both instead of `nat` or either to refine it.
//!
//! ```
//! let config = wow_wan::config::Config::parse(r#"
//! seed = 1                          # of NAT ports, loss and jitter; this is the default
//!
//! [[domain]]
//! name = "home"
//! subnet = "192.168.10.0/24"        # the gateway is the first host
//! nat = "port-restricted"           # full-cone, restricted, port-restricted, symmetric, none
//! nat_ports = "random"              # external ports: random (default), sequential, preserve
//! public_ip = "198.51.100.10"       # the NAT's address on the emulated internet
//! hairpin = false                   # whether hosts meet at the public address
//! latency_ms = 10                   # one way, between the domain and the core
//! jitter_ms = 2                     # up to so much more, keeping order
//! loss_percent = 0.5                # each way
//! bandwidth_mbit = 100              # each way; unlimited if absent
//! block_udp = false                 # between domain and core
//! dns = ["9.9.9.9"]                 # told by DHCP
//! lease_s = 3600
//! timeouts = { udp_s = 120, tcp_established_s = 7440, tcp_transitory_s = 240, icmp_s = 60 }
//!
//! [[domain]]
//! name = "net"
//! subnet = "203.0.113.0/24"
//! public = true                     # hosts hold addresses of the emulated internet themselves
//!
//! [[port]]
//! domain = "home"
//! unix = "/run/vm.sock"             # QEMU: -netdev stream,server=on,addr.type=unix,addr.path=...
//! mac = "52:54:00:12:34:56"         # with ip: a DHCP reservation for this machine
//! ip = "192.168.10.20"              # without mac: for whoever asks through this port
//!
//! [[port]]
//! name = "seed"                     # for reports; by default "net.0"
//! domain = "net"
//! tap = "wan0"                      # created here; move it with `ip link set wan0 netns ...`
//!
//! [matrix]                          # latency between every two domains, besides their own
//! seed = 1                          # of where the domains lie on the map
//! round_trip_ms = [20, 200]         # of the nearest and the farthest possible two
//!
//! [[pair]]                          # what two domains have otherwise
//! between = ["home", "net"]
//! latency_ms = 30                   # one way, instead of the matrix's
//! cut = false                       # whether nothing passes
//! "#, "example").unwrap();
//! assert_eq!(config.domains().len(), 2);
//! ```

use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::nat::{Behaviour, PortAllocation, Timeouts};

pub use between::{Matrix, Pair};

mod between;
mod change;
mod raw;
mod rules;
#[cfg(test)]
mod tests;

/// Most domains in one emulator: a domain's index is two bytes of its gateway's MAC address.
pub const MAX_DOMAINS: usize = 1024;
/// Most ports in one emulator, each a file descriptor.
pub const MAX_PORTS: usize = 1024;
/// Most pairs of domains with settings of their own.
pub const MAX_PAIRS: usize = 65_536;
/// Most DNS servers a DHCP reply of ours carries.
pub const MAX_DNS_SERVERS: usize = 3;
/// Longest one-way latency plus jitter; beyond it packets in flight would outgrow their bound.
pub const MAX_LATENCY: Duration = Duration::from_secs(10);

/// A validated configuration: names resolve, subnets and public addresses do not overlap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "raw::RawConfig", into = "raw::RawConfig")]
pub struct Config {
    seed: u64,
    domains: Vec<Domain>,
    ports: Vec<Port>,
    matrix: Option<Matrix>,
    pairs: Vec<Pair>,
}

/// One Ethernet segment with a gateway on the first host address of its subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// Unique name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The addresses of its hosts; the gateway holds the first.
    pub subnet: Ipv4Net,
    /// How it meets the emulated internet.
    pub uplink: Uplink,
    /// What happens to packets between this domain and the core, each way.
    pub link: Link,
    /// DNS servers told by DHCP, at most [`MAX_DNS_SERVERS`].
    pub dns: Vec<Ipv4Addr>,
    /// Lease time told by DHCP.
    pub lease: Duration,
}

/// How a domain meets the emulated internet.
#[derive(Clone, Debug, PartialEq)]
pub enum Uplink {
    /// Hosts hold addresses of the emulated internet themselves and are routed.
    Public,
    /// Hosts hold private addresses behind a NAT.
    Nat(Nat),
}

/// A NAT between a domain and the emulated internet.
#[derive(Clone, Debug, PartialEq)]
pub struct Nat {
    /// Its one address on the emulated internet.
    pub public_ip: Ipv4Addr,
    /// Mapping and filtering behaviour.
    pub behaviour: Behaviour,
    /// How external ports are chosen.
    pub ports: PortAllocation,
    /// Whether hosts reach each other through the public address.
    pub hairpin: bool,
    /// When idle mappings go.
    pub timeouts: Timeouts,
}

/// The line between a domain and the core. Inside a domain nothing is delayed or lost.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Link {
    /// One-way delay.
    pub latency: Duration,
    /// Further delay, uniform between zero and this; packets keep their order.
    pub jitter: Duration,
    /// Chance in percent that a packet is lost, each way.
    pub loss_percent: f64,
    /// Rate each way in Mbit/s; `None` is unlimited.
    pub bandwidth_mbit: Option<f64>,
    /// Drop UDP between domain and core.
    pub block_udp: bool,
}

/// One machine's attachment to a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Unique name, for reports; by default made of the domain's name and a number.
    pub name: String,
    /// Name of the domain.
    pub domain: String,
    /// Where the frames come from.
    pub attachment: Attachment,
    /// The machine's MAC address, to which a DHCP reservation is tied.
    pub mac: Option<Mac>,
    /// DHCP reservation: for `mac` if given, else for whoever asks through this port.
    pub ip: Option<Ipv4Addr>,
}

/// Where a port's frames come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Attachment {
    /// A Unix socket on which QEMU listens (`-netdev stream,server=on`).
    Unix(PathBuf),
    /// A TAP device the emulator creates.
    Tap(String),
}

/// A unicast MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the WAN configuration {path}: {source}; check the path and its permissions"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, or not of this shape. The message shows line and column.
    #[error("{origin}: {message}")]
    Syntax {
        /// File name.
        origin: String,
        /// The parser's message with an excerpt.
        message: String,
    },
    /// Well-formed, but it makes no sense.
    #[error("{origin}{}: {fault}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
    Semantic {
        /// File name.
        origin: String,
        /// Line, when it is known.
        line: Option<usize>,
        /// What is wrong and what to do.
        fault: Fault,
    },
}

/// What is wrong with a well-formed configuration, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// What is wrong and what to do.
    pub message: String,
}

/// A place in a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// The file as a whole.
    Whole,
    /// A key of the n-th `[[domain]]`.
    Domain(usize, &'static str),
    /// A key of the n-th `[[port]]`.
    Port(usize, &'static str),
    /// A key of the n-th `[[pair]]`.
    Pair(usize, &'static str),
    /// A key of `[matrix]`.
    Matrix(&'static str),
}

impl Config {
    /// Checks the parts against each other. A port with an empty name is given one.
    pub fn new(seed: u64, domains: Vec<Domain>, mut ports: Vec<Port>) -> Result<Config, Fault> {
        if i64::try_from(seed).is_err() {
            let message = format!("seed {seed} is more than TOML can express; take one below 2^63");
            return Err(Fault {
                place: Place::Whole,
                message,
            });
        }
        rules::check_domains(&domains)?;
        rules::name_ports(&mut ports);
        rules::check_ports(&domains, &ports)?;
        Ok(Config {
            seed,
            domains,
            ports,
            matrix: None,
            pairs: Vec::new(),
        })
    }

    /// The same with latencies from a map.
    pub fn with_matrix(mut self, matrix: Matrix) -> Result<Config, Fault> {
        matrix.check()?;
        self.matrix = Some(matrix);
        Ok(self)
    }

    /// The same with these pairs' own settings, instead of those it had.
    pub fn with_pairs(mut self, pairs: Vec<Pair>) -> Result<Config, Fault> {
        between::check_pairs(&self.domains, &pairs)?;
        self.pairs = pairs;
        Ok(self)
    }

    /// Reads and checks a TOML file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Checks TOML text; `origin` is its name in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
        raw::parse(text, origin)
    }

    /// The same as TOML text, which [`Config::parse`] reads back.
    pub fn to_toml(&self) -> String {
        raw::print(self)
    }

    /// Seed of every random choice: NAT ports, loss, jitter.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The domains, in order.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The ports, in order.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The map of the domains, if there is one.
    pub fn matrix(&self) -> Option<Matrix> {
        self.matrix
    }

    /// Pairs of domains with settings of their own.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Index of the domain with this name.
    pub fn domain_index(&self, name: &str) -> Option<usize> {
        self.domains.iter().position(|domain| domain.name == name)
    }
}

impl Domain {
    /// A domain whose hosts hold addresses of the emulated internet.
    pub fn public(name: impl Into<String>, subnet: Ipv4Net) -> Domain {
        Domain {
            name: name.into(),
            subnet,
            uplink: Uplink::Public,
            link: Link::default(),
            dns: Vec::new(),
            lease: raw::DEFAULT_LEASE,
        }
    }

    /// A private domain behind a NAT of this behaviour.
    pub fn nat(
        name: impl Into<String>,
        subnet: Ipv4Net,
        public_ip: Ipv4Addr,
        behaviour: Behaviour,
    ) -> Domain {
        let nat = Nat {
            public_ip,
            behaviour,
            ports: PortAllocation::Random,
            hairpin: false,
            timeouts: Timeouts::default(),
        };
        Domain {
            uplink: Uplink::Nat(nat),
            ..Domain::public(name, subnet)
        }
    }

    /// The same with this one-way latency.
    pub fn with_latency(mut self, latency: Duration) -> Domain {
        self.link.latency = latency;
        self
    }

    /// The gateway's address: the first host of the subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        first_host(self.subnet)
    }
}

impl Port {
    /// A QEMU machine behind this Unix socket.
    pub fn unix(domain: impl Into<String>, path: impl Into<PathBuf>) -> Port {
        Port::new(domain.into(), Attachment::Unix(path.into()))
    }

    /// A TAP device of this name.
    pub fn tap(domain: impl Into<String>, name: impl Into<String>) -> Port {
        Port::new(domain.into(), Attachment::Tap(name.into()))
    }

    /// The same with this name.
    pub fn named(mut self, name: impl Into<String>) -> Port {
        self.name = name.into();
        self
    }

    /// The same with this DHCP reservation.
    pub fn with_ip(mut self, ip: Ipv4Addr) -> Port {
        self.ip = Some(ip);
        self
    }

    fn new(domain: String, attachment: Attachment) -> Port {
        Port {
            name: String::new(),
            domain,
            attachment,
            mac: None,
            ip: None,
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attachment::Unix(path) => write!(f, "unix:{}", path.display()),
            Attachment::Tap(name) => write!(f, "tap:{name}"),
        }
    }
}

fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}
