//! The emulated internet of a testbed: domains, and the machines in them.
//!
//! Only what testbeds vary is here; the emulator's other settings keep their defaults.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

/// The port that appliances listen on.
pub const ROUTER_PORT: u16 = 4001;

/// The domain of public addresses.
pub const CORE: &str = "core";

/// Most domains behind NATs that a topology of this kind has: each takes ten numbers of a byte.
pub const NATED_MAX: u8 = 25;

/// The first machine's number in its domain.
const FIRST_HOST: usize = 10;

/// One domain.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// The addresses of its hosts; the gateway has the first.
    pub subnet: Ipv4Net,
    /// The NAT's address and kind; `None` for a domain of public addresses.
    pub nat: Option<(Ipv4Addr, &'static str)>,
    /// One-way latency between the domain and the core, in milliseconds.
    pub latency_ms: u32,
    /// Loss between the domain and the core, each way, in percent.
    pub loss_percent: f64,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node's name.
    pub name: String,
    /// Its domain's name.
    pub domain: String,
    /// Its address in the domain.
    pub address: Ipv4Addr,
}

/// A map that gives every two domains their latency.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    /// Of the domains' places on it.
    pub seed: u64,
    /// Round trips between the nearest and the farthest two there can be.
    pub round_trip_ms: [u32; 2],
}

/// The whole: the first places are the pool's seeds.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The domains.
    pub domains: Vec<Domain>,
    /// The machines, the seeds first.
    pub places: Vec<Place>,
    /// How many are seeds.
    pub seeds: usize,
    /// Latencies between domains, besides their own.
    pub map: Option<Map>,
}

/// How one machine is attached to the emulator.
#[derive(Debug, Clone)]
pub enum Attachment {
    /// QEMU's Unix socket.
    Unix(String),
    /// A TAP device of this name.
    Tap(String),
}

impl Topology {
    /// A public seed and `domains` NATed domains with one machine each: `a`, `b`, `c`, …
    pub fn seed_and_nated(domains: u8) -> Self {
        let mut topology = Self::seed_and_empty(domains);
        for domain in nated_names(domains) {
            topology.add(&domain, &domain);
        }
        topology
    }

    /// A public seed in `core`, and `domains` NATed domains without machines: `a`, `b`, `c`, …
    pub fn seed_and_empty(domains: u8) -> Self {
        let core = Domain {
            name: CORE.into(),
            subnet: net(203, 0, 113),
            nat: None,
            latency_ms: 5,
            loss_percent: 0.0,
        };
        let mut topology = Self {
            domains: vec![core],
            places: Vec::new(),
            seeds: 1,
            map: None,
        };
        for (index, name) in (1..).zip(nated_names(domains)) {
            topology.domains.push(Domain {
                name,
                subnet: net(192, 168, index * 10),
                nat: Some((Ipv4Addr::new(198, 51, 100, index * 10), "port-restricted")),
                latency_ms: 5 + 5 * u32::from(index),
                loss_percent: 0.0,
            });
        }
        topology.add("seed", CORE);
        topology
    }

    /// Adds a machine to a domain that is there, with the next address after those of its others.
    pub fn add(&mut self, name: &str, domain: &str) {
        let others = self.places.iter().filter(|place| place.domain == domain);
        let number = FIRST_HOST + others.count();
        let subnet = self.domains.iter().find(|known| known.name == domain);
        let address = subnet.and_then(|known| known.subnet.hosts().nth(number - 1));
        if let Some(address) = address {
            self.places.push(Place {
                name: name.to_owned(),
                domain: domain.to_owned(),
                address,
            });
        }
    }

    /// The seeds as the pool names them.
    pub fn seeds(&self) -> Result<Vec<String>> {
        let seeds = self
            .places
            .get(..self.seeds)
            .context("a topology with fewer machines than seeds")?;
        Ok(seeds
            .iter()
            .map(|seed| format!("{}:{ROUTER_PORT}", seed.address))
            .collect())
    }

    /// The domain of a place.
    pub fn domain(&self, place: &Place) -> Result<&Domain> {
        self.domain_called(&place.domain)
            .with_context(|| format!("{} has no domain", place.name))
    }

    /// The domain of this name.
    pub fn domain_called(&self, name: &str) -> Result<&Domain> {
        self.domains
            .iter()
            .find(|domain| domain.name == name)
            .with_context(|| format!("there is no domain called {name}"))
    }

    /// The emulator's configuration, given how each place is attached (in order).
    pub fn to_toml(&self, attachments: &[Attachment]) -> String {
        let mut text = String::new();
        if let Some(map) = &self.map {
            let [shortest, longest] = map.round_trip_ms;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "[matrix]\nseed = {}\nround_trip_ms = [{shortest}.0, {longest}.0]\n\n",
                map.seed
            );
        }
        for domain in &self.domains {
            let _ = write!(
                text,
                "[[domain]]\nname = {}\nsubnet = {}\nlatency_ms = {}.0\nloss_percent = {:?}\n",
                quoted(&domain.name),
                quoted(&domain.subnet.to_string()),
                domain.latency_ms,
                domain.loss_percent,
            );
            let _ = match &domain.nat {
                Some((public, kind)) => write!(
                    text,
                    "nat = {}\npublic_ip = {}\n\n",
                    quoted(kind),
                    quoted(&public.to_string())
                ),
                None => write!(text, "public = true\n\n"),
            };
        }
        for (place, attachment) in self.places.iter().zip(attachments) {
            let (key, value) = match attachment {
                Attachment::Unix(path) => ("unix", path),
                Attachment::Tap(name) => ("tap", name),
            };
            let _ = write!(
                text,
                "[[port]]\nname = {}\ndomain = {}\nip = {}\n{key} = {}\n\n",
                quoted(&place.name),
                quoted(&place.domain),
                quoted(&place.address.to_string()),
                quoted(value),
            );
        }
        text
    }
}

impl Domain {
    /// The gateway's address: the first host of the subnet.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.subnet.hosts().next()
    }

    /// Arguments of `ip` that give the network card `card` an address here.
    pub fn configure(&self, address: Ipv4Addr, card: &str) -> Result<[String; 3]> {
        let gateway = self.gateway().context("the domain has no gateway")?;
        let prefix = self.subnet.prefix_len();
        Ok([
            format!("address add {address}/{prefix} dev {card}"),
            format!("link set {card} up"),
            format!("route replace default via {gateway}"),
        ])
    }
}

/// The names of domains behind NATs.
fn nated_names(domains: u8) -> impl Iterator<Item = String> {
    (0..domains.min(NATED_MAX)).map(|index| char::from(b'a' + index).to_string())
}

fn net(a: u8, b: u8, c: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_with_every_domain_and_machine() {
        let topology = Topology::seed_and_nated(3);
        let attachments: Vec<_> = topology
            .places
            .iter()
            .map(|place| Attachment::Unix(format!("/r/\"{}\".net", place.name)))
            .collect();
        let text = topology.to_toml(&attachments);
        let value: toml::Table = text.parse().unwrap();
        let domains = value["domain"].as_array().unwrap();
        let ports = value["port"].as_array().unwrap();
        assert_eq!((domains.len(), ports.len()), (4, 4));
        assert_eq!(domains[0]["public"].as_bool(), Some(true));
        assert_eq!(domains[3]["public_ip"].as_str(), Some("198.51.100.30"));
        assert_eq!(ports[1]["unix"].as_str(), Some("/r/\"a\".net"));
        assert_eq!(ports[1]["ip"].as_str(), Some("192.168.10.10"));
    }

    #[test]
    fn every_machine_lives_in_its_domain_and_is_not_its_gateway() {
        let topology = Topology::seed_and_nated(3);
        assert_eq!(topology.seeds().unwrap(), ["203.0.113.10:4001"]);
        for place in &topology.places {
            let domain = topology.domain(place).unwrap();
            assert!(domain.subnet.contains(&place.address));
            assert_ne!(domain.gateway(), Some(place.address));
        }
    }
}
