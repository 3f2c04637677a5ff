//! What is emulated: domains and the ports on them, validated once. Text comes in and goes out as
//! TOML (module `raw`); this file holds the validated form and the rules. It opens no file but the
//! configuration itself.
//!
//! ```
//! let config = wow_wan::config::Config::parse(r#"
//! seed = 1                          # of NAT ports, loss and jitter; this is the default
//!
//! [[domain]]
//! name = "home"
//! subnet = "192.168.10.0/24"        # the gateway is the first host
//! nat = "port-restricted"           # full-cone, restricted, port-restricted, symmetric, none
//! # mapping, filtering              # endpoint-independent, address-dependent or
//! #                                 # address-and-port-dependent: alone or to refine `nat`
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
//! "#, "example").unwrap();
//! assert_eq!(config.domains().len(), 2);
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::nat::{Behaviour, PortAllocation, Timeouts};

mod raw;
#[cfg(test)]
mod tests;

/// Most domains in one emulator: a domain's index is two bytes of its gateway's MAC address.
pub const MAX_DOMAINS: usize = 1024;
/// Most ports in one emulator, each a file descriptor.
pub const MAX_PORTS: usize = 1024;
/// Most DNS servers a DHCP reply of ours carries.
pub const MAX_DNS_SERVERS: usize = 3;
/// Longest one-way latency plus jitter; beyond it packets in flight would outgrow their bound.
pub const MAX_LATENCY: Duration = Duration::from_secs(10);
/// Longest subnet prefix: a gateway and at least one host must fit.
const MAX_PREFIX: u8 = 30;
/// Shortest subnet prefix; a shorter one is a slip of the pen.
const MIN_PREFIX: u8 = 8;
/// Longest interface name Linux takes (IFNAMSIZ without its NUL).
const MAX_TAP_NAME: usize = 15;
/// Longest path of a Unix socket (`sun_path` without its NUL).
const MAX_UNIX_PATH: usize = 107;

/// A validated configuration: names resolve, subnets and public addresses do not overlap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "raw::RawConfig", into = "raw::RawConfig")]
pub struct Config {
    seed: u64,
    domains: Vec<Domain>,
    ports: Vec<Port>,
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
}

impl Config {
    /// Checks the parts against each other. A port with an empty name is given one.
    pub fn new(seed: u64, domains: Vec<Domain>, mut ports: Vec<Port>) -> Result<Config, Fault> {
        check_domains(&domains)?;
        name_ports(&mut ports);
        check_ports(&domains, &ports)?;
        Ok(Config {
            seed,
            domains,
            ports,
        })
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

fn check_domains(domains: &[Domain]) -> Result<(), Fault> {
    if domains.is_empty() {
        return Err(Fault {
            place: Place::Whole,
            message: "no [[domain]]; add at least one with name, subnet and nat or public = true"
                .to_owned(),
        });
    }
    if domains.len() > MAX_DOMAINS {
        return Err(Fault {
            place: Place::Whole,
            message: format!(
                "{} domains; at most {MAX_DOMAINS} are possible",
                domains.len()
            ),
        });
    }
    let mut names = BTreeSet::new();
    for (index, domain) in domains.iter().enumerate() {
        if !names.insert(domain.name.as_str()) {
            return Err(domain_fault(
                index,
                domain,
                "name",
                "is the second of this name; rename it",
            ));
        }
        check_domain(index, domain)?;
    }
    check_overlaps(domains)
}

fn check_domain(index: usize, domain: &Domain) -> Result<(), Fault> {
    let fault = |key, message: &str| Err(domain_fault(index, domain, key, message));
    if !is_name(&domain.name) {
        return fault(
            "name",
            "needs a name of 1 to 64 letters, digits, '-', '_' or '.'",
        );
    }
    let prefix = domain.subnet.prefix_len();
    if !(MIN_PREFIX..=MAX_PREFIX).contains(&prefix) {
        return fault(
            "subnet",
            &format!("has a /{prefix} subnet; take /{MIN_PREFIX} to /{MAX_PREFIX}"),
        );
    }
    if domain.subnet.addr() != domain.subnet.network() {
        return fault(
            "subnet",
            &format!(
                "has subnet {} with host bits; write {}",
                domain.subnet,
                domain.subnet.trunc()
            ),
        );
    }
    if !is_unicast(domain.subnet.network()) || !is_unicast(domain.subnet.broadcast()) {
        return fault(
            "subnet",
            "has a subnet outside unicast addresses; take e.g. 192.168.10.0/24",
        );
    }
    if domain.dns.len() > MAX_DNS_SERVERS {
        return fault(
            "dns",
            &format!("names more than {MAX_DNS_SERVERS} DNS servers"),
        );
    }
    if domain.lease < Duration::from_secs(10) || domain.lease.as_secs() > u32::MAX.into() {
        return fault("lease_s", "has a lease time below 10 s or above 2^32 s");
    }
    let link = &domain.link;
    if link
        .latency
        .checked_add(link.jitter)
        .is_none_or(|delay| delay > MAX_LATENCY)
    {
        return fault(
            "latency_ms",
            &format!("delays by more than {} s", MAX_LATENCY.as_secs()),
        );
    }
    if !(0.0..=100.0).contains(&link.loss_percent) {
        return fault("loss_percent", "has a loss outside 0 to 100 percent");
    }
    if link
        .bandwidth_mbit
        .is_some_and(|rate| !(0.001..=1e6).contains(&rate))
    {
        return fault(
            "bandwidth_mbit",
            "has a bandwidth outside 0.001 to 1000000 Mbit/s",
        );
    }
    if let Uplink::Nat(nat) = &domain.uplink {
        if !is_unicast(nat.public_ip) {
            return fault("public_ip", "has a public_ip that is no unicast address");
        }
        if nat.timeouts.all().iter().any(|timeout| timeout.is_zero()) {
            return fault("nat", "has a mapping timeout of zero; take at least 1 s");
        }
    }
    Ok(())
}

/// Addresses of the emulated internet must be unique; private subnets may repeat, as at homes.
fn check_overlaps(domains: &[Domain]) -> Result<(), Fault> {
    let external = |domain: &Domain| match &domain.uplink {
        Uplink::Public => domain.subnet,
        Uplink::Nat(nat) => Ipv4Net::from(nat.public_ip),
    };
    // Sorted by network, an overlap always shows between two neighbours.
    let mut sorted: Vec<(usize, Ipv4Net)> = domains.iter().map(external).enumerate().collect();
    sorted.sort_by_key(|(index, net)| (net.network(), net.prefix_len(), *index));
    for pair in sorted.windows(2) {
        let [(first, a), (second, b)] = pair else {
            continue;
        };
        if a.contains(&b.network()) {
            let (early, late) = (first.min(second), first.max(second));
            let key = match domains[*late].uplink {
                Uplink::Public => "subnet",
                Uplink::Nat(_) => "public_ip",
            };
            let message = format!(
                "and domain \"{}\" share addresses of the emulated internet ({a} and {b}); \
                 give each its own",
                domains[*early].name
            );
            return Err(domain_fault(*late, &domains[*late], key, &message));
        }
    }
    for (index, domain) in domains.iter().enumerate() {
        if let Uplink::Nat(nat) = &domain.uplink
            && domain.subnet.contains(&nat.public_ip)
        {
            let message = "has its public_ip inside its own private subnet; take another";
            return Err(domain_fault(index, domain, "public_ip", message));
        }
    }
    Ok(())
}

fn name_ports(ports: &mut [Port]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for port in ports {
        let count = counts.entry(port.domain.clone()).or_default();
        if port.name.is_empty() {
            port.name = format!("{}.{count}", port.domain);
        }
        *count += 1;
    }
}

fn check_ports(domains: &[Domain], ports: &[Port]) -> Result<(), Fault> {
    if ports.len() > MAX_PORTS {
        return Err(Fault {
            place: Place::Whole,
            message: format!("{} ports; at most {MAX_PORTS} are possible", ports.len()),
        });
    }
    let (mut names, mut attached, mut macs, mut ips) = (
        BTreeSet::new(),
        BTreeSet::new(),
        BTreeSet::new(),
        BTreeSet::new(),
    );
    for (index, port) in ports.iter().enumerate() {
        let fault = |key, message: String| {
            Err(Fault {
                place: Place::Port(index, key),
                message: format!("port \"{}\" {message}", port.name),
            })
        };
        if !is_name(&port.name) {
            return fault(
                "name",
                "needs a name of 1 to 64 letters, digits, '-', '_' or '.'".into(),
            );
        }
        if !names.insert(port.name.as_str()) {
            return fault("name", "is the second of this name; rename it".into());
        }
        let Some(domain) = domains.iter().find(|domain| domain.name == port.domain) else {
            let known: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
            let message = format!(
                "is on domain \"{}\", but there are only: {}",
                port.domain,
                known.join(", ")
            );
            return fault("domain", message);
        };
        check_attachment(&port.attachment).or_else(|(key, message)| fault(key, message))?;
        if !attached.insert(port.attachment.to_string()) {
            return fault(
                "domain",
                format!("repeats {}; a port needs its own", port.attachment),
            );
        }
        if let Some(mac) = port.mac {
            if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
                return fault("mac", format!("has mac {mac}, which is no unicast address"));
            }
            if !macs.insert(mac) {
                return fault("mac", format!("repeats mac {mac}; machines need their own"));
            }
        }
        if let Some(ip) = port.ip {
            let subnet = domain.subnet;
            if !subnet.contains(&ip) || ip == subnet.network() || ip == subnet.broadcast() {
                return fault("ip", format!("reserves {ip}, which is no host of {subnet}"));
            }
            if ip == domain.gateway() {
                return fault("ip", format!("reserves {ip}, which is the gateway's"));
            }
            if !ips.insert((domain.name.as_str(), ip)) {
                return fault(
                    "ip",
                    format!("reserves {ip}, which another port has reserved"),
                );
            }
        }
    }
    Ok(())
}

fn check_attachment(attachment: &Attachment) -> Result<(), (&'static str, String)> {
    match attachment {
        Attachment::Unix(path) => {
            let bytes = path.as_os_str().len();
            if bytes == 0 || bytes > MAX_UNIX_PATH {
                let message = format!(
                    "has a socket path of {bytes} bytes; Linux takes 1 to {MAX_UNIX_PATH}, use a \
                     shorter directory"
                );
                return Err(("unix", message));
            }
        }
        Attachment::Tap(name) => {
            let fits = (1..=MAX_TAP_NAME).contains(&name.len());
            if !fits || !is_name(name) || name == "." || name == ".." {
                let message = format!(
                    "has tap name \"{name}\"; take 1 to {MAX_TAP_NAME} letters, digits, '-', '_' \
                     or '.'"
                );
                return Err(("tap", message));
            }
        }
    }
    Ok(())
}

fn domain_fault(index: usize, domain: &Domain, key: &'static str, message: &str) -> Fault {
    Fault {
        place: Place::Domain(index, key),
        message: format!("domain \"{}\" {message}", domain.name),
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_unicast(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified()
        && ip.octets()[0] != 0
        && !ip.is_loopback()
        && !ip.is_multicast()
        && ip.octets()[0] < 240
}
