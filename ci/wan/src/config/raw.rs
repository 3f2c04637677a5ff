//! The TOML form of a configuration: every key as it is written, unknown ones rejected, each
//! default with its reason, and the way from a fault back to its line.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::{
    Attachment, Config, ConfigError, Domain, Fault, Link, Mac, Matrix, Nat, Pair, Place, Port,
    Uplink,
};
use crate::nat::{Behaviour, Dependence, PortAllocation, Timeouts};

/// An hour: longer than a test, short enough that a renewal is seen in a long one.
pub(super) const DEFAULT_LEASE: Duration = Duration::from_secs(3600);
/// Any fixed number: two runs of one file make the same choices.
const DEFAULT_SEED: u64 = 1;

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default)]
    domain: Vec<RawDomain>,
    #[serde(default)]
    port: Vec<RawPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix: Option<RawMatrix>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pair: Vec<RawPair>,
}

/// One `[[domain]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDomain {
    name: String,
    subnet: Ipv4Net,
    #[serde(default, skip_serializing_if = "is_false")]
    public: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<Dependence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filtering: Option<Dependence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat_ports: Option<PortAllocation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ip: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "is_false")]
    hairpin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth_mbit: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    block_udp: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dns: Vec<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeouts: Option<RawTimeouts>,
}

/// `[domain.timeouts]`, in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimeouts {
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_established_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_transitory_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_s: Option<f64>,
}

/// One `[[port]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<Ipv4Addr>,
}

/// `[matrix]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatrix {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    round_trip_ms: [f64; 2],
}

/// One `[[pair]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPair {
    between: [String; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    cut: bool,
}

/// Parses and checks; a fault is reported with its line.
pub(super) fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
    let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: origin.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    Config::try_from(raw).map_err(|fault| ConfigError::Semantic {
        origin: origin.to_owned(),
        line: line_of(text, &fault.place),
        fault,
    })
}

/// The configuration as TOML.
pub(super) fn print(config: &Config) -> String {
    toml::to_string(&RawConfig::from(config.clone()))
        .expect("strings, numbers and tables only, tables last: always expressible in TOML")
}

impl TryFrom<RawConfig> for Config {
    type Error = Fault;

    fn try_from(raw: RawConfig) -> Result<Config, Fault> {
        let domains = raw
            .domain
            .into_iter()
            .enumerate()
            .map(|(index, domain)| domain.check(index))
            .collect::<Result<_, _>>()?;
        let ports = raw
            .port
            .into_iter()
            .enumerate()
            .map(|(index, port)| port.check(index))
            .collect::<Result<_, _>>()?;
        let seed = raw.seed.unwrap_or(DEFAULT_SEED);
        let pairs = raw
            .pair
            .into_iter()
            .enumerate()
            .map(|(index, pair)| pair.check(index))
            .collect::<Result<_, _>>()?;
        let config = Config::new(seed, domains, ports)?.with_pairs(pairs)?;
        match raw.matrix {
            Some(matrix) => config.with_matrix(matrix.check(seed)?),
            None => Ok(config),
        }
    }
}

impl RawMatrix {
    fn check(self, seed: u64) -> Result<Matrix, Fault> {
        let [shortest, longest] = self.round_trip_ms.map(|ms| {
            Duration::try_from_secs_f64(ms * 1e-3).map_err(|_| Fault {
                place: Place::Matrix("round_trip_ms"),
                message: format!("the matrix has a round trip of {ms} ms; take a time >= 0"),
            })
        });
        Ok(Matrix {
            seed: self.seed.unwrap_or(seed),
            round_trip: [shortest?, longest?],
        })
    }
}

impl RawPair {
    fn check(self, index: usize) -> Result<Pair, Fault> {
        let latency = |ms: f64| {
            Duration::try_from_secs_f64(ms * 1e-3).map_err(|_| Fault {
                place: Place::Pair(index, "latency_ms"),
                message: format!(
                    "the pair of \"{}\" and \"{}\" has latency_ms = {ms}; take a time >= 0",
                    self.between[0], self.between[1]
                ),
            })
        };
        Ok(Pair {
            latency: self.latency_ms.map(latency).transpose()?,
            between: self.between,
            cut: self.cut,
        })
    }
}

impl RawDomain {
    pub(super) fn check(self, index: usize) -> Result<Domain, Fault> {
        let fault = |key, message: String| Fault {
            place: Place::Domain(index, key),
            message: format!("domain \"{}\" {message}", self.name),
        };
        let duration = |key: &'static str, unit_s: f64, value: Option<f64>| {
            let seconds = value.unwrap_or(0.0) * unit_s;
            Duration::try_from_secs_f64(seconds).map_err(|_| {
                fault(
                    key,
                    format!("has {key} = {}; take a time >= 0", seconds / unit_s),
                )
            })
        };
        let link = Link {
            latency: duration("latency_ms", 1e-3, self.latency_ms)?,
            jitter: duration("jitter_ms", 1e-3, self.jitter_ms)?,
            loss_percent: self.loss_percent.unwrap_or(0.0),
            bandwidth_mbit: self.bandwidth_mbit,
            block_udp: self.block_udp,
        };
        let timeouts = self.timeouts.clone().unwrap_or_default();
        let timeout = |value: Option<f64>, default: Duration| match value {
            Some(_) => duration("timeouts", 1.0, value),
            None => Ok(default),
        };
        let standard = Timeouts::default();
        let timeouts = Timeouts {
            udp: timeout(timeouts.udp_s, standard.udp)?,
            tcp_established: timeout(timeouts.tcp_established_s, standard.tcp_established)?,
            tcp_transitory: timeout(timeouts.tcp_transitory_s, standard.tcp_transitory)?,
            icmp: timeout(timeouts.icmp_s, standard.icmp)?,
        };
        let uplink = match self
            .behaviour()
            .map_err(|(key, message)| fault(key, message))?
        {
            Some(behaviour) => {
                let public_ip = self.public_ip.ok_or_else(|| {
                    fault("name", "has a NAT but no public_ip; give it one".to_owned())
                })?;
                Uplink::Nat(Nat {
                    public_ip,
                    behaviour,
                    ports: self.nat_ports.unwrap_or_default(),
                    hairpin: self.hairpin,
                    timeouts,
                })
            }
            None => {
                let needless = [
                    ("public_ip", self.public_ip.is_some()),
                    ("nat_ports", self.nat_ports.is_some()),
                    ("hairpin", self.hairpin),
                    ("timeouts", self.timeouts.is_some()),
                ];
                if let Some((key, _)) = needless.iter().find(|(_, given)| *given) {
                    let message = format!("is public and has no NAT: remove {key}");
                    return Err(fault(key, message));
                }
                Uplink::Public
            }
        };
        Ok(Domain {
            subnet: self.subnet,
            uplink,
            link,
            lease: self.lease_s.map_or(DEFAULT_LEASE, Duration::from_secs),
            dns: self.dns,
            name: self.name,
        })
    }

    /// The NAT's behaviour, or `None` for a public domain.
    fn behaviour(&self) -> Result<Option<Behaviour>, (&'static str, String)> {
        let named = match self.nat.as_deref() {
            None | Some("none") => None,
            Some(name) => Some(Behaviour::by_name(name).ok_or_else(|| {
                let known: Vec<_> = Behaviour::NAMED.iter().map(|(name, _)| *name).collect();
                (
                    "nat",
                    format!("has nat = \"{name}\"; known are none, {}", known.join(", ")),
                )
            })?),
        };
        let refined = match (named, self.mapping, self.filtering) {
            (None, None, None) => None,
            (Some(base), mapping, filtering) => Some(Behaviour {
                mapping: mapping.unwrap_or(base.mapping),
                filtering: filtering.unwrap_or(base.filtering),
            }),
            (None, Some(mapping), Some(filtering)) => Some(Behaviour { mapping, filtering }),
            (None, Some(_), None) => {
                return Err(("mapping", "has mapping but no filtering".into()));
            }
            (None, None, Some(_)) => {
                return Err(("filtering", "has filtering but no mapping".into()));
            }
        };
        match (refined, self.public) {
            (Some(_), true) => Err((
                "public",
                "is public and has a NAT; remove public or the NAT's keys".into(),
            )),
            (None, false) => Err((
                "name",
                "is neither public nor behind a NAT; add public = true, or nat and public_ip"
                    .into(),
            )),
            (refined, _) => Ok(refined),
        }
    }
}

impl RawPort {
    fn check(self, index: usize) -> Result<Port, Fault> {
        let fault = |key, message: &str| Fault {
            place: Place::Port(index, key),
            message: format!(
                "port {} {message}",
                self.name
                    .as_ref()
                    .map_or(format!("number {}", index + 1), |name| format!(
                        "\"{name}\""
                    ))
            ),
        };
        let attachment = match (self.unix.clone(), self.tap.clone()) {
            (Some(path), None) => Attachment::Unix(path),
            (None, Some(name)) => Attachment::Tap(name),
            (Some(_), Some(_)) => {
                return Err(fault("tap", "has both unix and tap; keep one"));
            }
            (None, None) => {
                return Err(fault(
                    "domain",
                    "has no attachment; add unix = \"PATH\" or tap = \"NAME\"",
                ));
            }
        };
        let mac = match &self.mac {
            Some(text) => Some(parse_mac(text).ok_or_else(|| {
                fault(
                    "mac",
                    &format!("has mac \"{text}\"; write it like 52:54:00:12:34:56"),
                )
            })?),
            None => None,
        };
        Ok(Port {
            name: self.name.unwrap_or_default(),
            domain: self.domain,
            attachment,
            mac,
            ip: self.ip,
        })
    }
}

impl From<Config> for RawConfig {
    fn from(config: Config) -> RawConfig {
        RawConfig {
            seed: Some(config.seed),
            domain: config.domains.into_iter().map(RawDomain::from).collect(),
            port: config.ports.into_iter().map(RawPort::from).collect(),
            matrix: config.matrix.map(|matrix| RawMatrix {
                seed: Some(matrix.seed),
                round_trip_ms: matrix.round_trip.map(|time| time.as_secs_f64() * 1e3),
            }),
            pair: config.pairs.into_iter().map(RawPair::from).collect(),
        }
    }
}

impl From<Pair> for RawPair {
    fn from(pair: Pair) -> RawPair {
        RawPair {
            between: pair.between,
            latency_ms: pair.latency.map(|time| time.as_secs_f64() * 1e3),
            cut: pair.cut,
        }
    }
}

impl From<Domain> for RawDomain {
    fn from(domain: Domain) -> RawDomain {
        let millis = |time: Duration| (!time.is_zero()).then_some(time.as_secs_f64() * 1e3);
        let nat = match domain.uplink {
            Uplink::Nat(nat) => Some(nat),
            Uplink::Public => None,
        };
        let behaviour = nat.as_ref().map(|nat| nat.behaviour);
        let name = behaviour.and_then(Behaviour::name);
        let unnamed = behaviour.filter(|_| name.is_none());
        RawDomain {
            name: domain.name,
            subnet: domain.subnet,
            public: nat.is_none(),
            nat: name.map(str::to_owned),
            mapping: unnamed.map(|behaviour| behaviour.mapping),
            filtering: unnamed.map(|behaviour| behaviour.filtering),
            nat_ports: nat.as_ref().map(|nat| nat.ports),
            public_ip: nat.as_ref().map(|nat| nat.public_ip),
            hairpin: nat.as_ref().is_some_and(|nat| nat.hairpin),
            latency_ms: millis(domain.link.latency),
            jitter_ms: millis(domain.link.jitter),
            loss_percent: (domain.link.loss_percent != 0.0).then_some(domain.link.loss_percent),
            bandwidth_mbit: domain.link.bandwidth_mbit,
            block_udp: domain.link.block_udp,
            dns: domain.dns,
            lease_s: Some(domain.lease.as_secs()),
            timeouts: nat.map(|nat| RawTimeouts {
                udp_s: Some(nat.timeouts.udp.as_secs_f64()),
                tcp_established_s: Some(nat.timeouts.tcp_established.as_secs_f64()),
                tcp_transitory_s: Some(nat.timeouts.tcp_transitory.as_secs_f64()),
                icmp_s: Some(nat.timeouts.icmp.as_secs_f64()),
            }),
        }
    }
}

impl From<Port> for RawPort {
    fn from(port: Port) -> RawPort {
        let (unix, tap) = match port.attachment {
            Attachment::Unix(path) => (Some(path), None),
            Attachment::Tap(name) => (None, Some(name)),
        };
        RawPort {
            name: Some(port.name),
            domain: port.domain,
            unix,
            tap,
            mac: port.mac.map(|mac| mac.to_string()),
            ip: port.ip,
        }
    }
}

/// Line (from 1) of the faulty key, or of its table when the key is absent.
fn line_of(text: &str, place: &Place) -> Option<usize> {
    let (list, index, key) = match place {
        Place::Whole => return None,
        Place::Domain(index, key) => ("domain", *index, *key),
        Place::Port(index, key) => ("port", *index, *key),
        Place::Pair(index, key) => ("pair", *index, *key),
        Place::Matrix(key) => ("matrix", 0, *key),
    };
    let document = DeTable::parse(text).ok()?;
    let found = document.get_ref().get(list)?;
    let entry = match place {
        Place::Matrix(_) => found,
        _ => found.get_ref().get(index)?,
    };
    let offset = match entry.get_ref().get(key) {
        Some(value) => value.span().start,
        None => entry.span().start,
    };
    Some(text.get(..offset)?.matches('\n').count() + 1)
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

fn is_false(value: &bool) -> bool {
    !value
}
