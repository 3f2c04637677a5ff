//! Addresses of seeds: where a node that knows nobody asks first. Resolving them is left to others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire::{Protocol, Remote};

/// What a seed begins with that is reached over TCP.
const TCP: &str = "tcp:";
/// Longest DNS name in text (RFC 1035, 2.3.4, less the root).
const HOST_BYTES_MAX: usize = 253;

/// Where a seed of the pool is reached: `HOST:PORT` by UDP or `tcp:HOST:PORT`, HOST a DNS name, an
/// IPv4 address or an IPv6 address in brackets. Kept in one spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeedAddr(String);

/// A text that is no seed address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no seed address: {problem}; write HOST:PORT, for example seed.example.org:4001, \
     192.0.2.7:4001 or [2001:db8::7]:4001, or tcp:HOST:PORT for a node that listens on TCP"
)]
pub struct SeedAddrError {
    text: String,
    problem: &'static str,
}

impl SeedAddr {
    /// The DNS name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.split().0
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.split().1
    }

    /// What carries datagrams to it.
    pub fn protocol(&self) -> Protocol {
        if self.0.starts_with(TCP) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    /// The remote, when the host is an address and needs no resolving.
    pub fn remote(&self) -> Option<Remote> {
        self.host().parse().ok().map(|ip| self.remote_at(ip))
    }

    /// The remote, when `ip` is what the host resolves to.
    pub fn remote_at(&self, ip: IpAddr) -> Remote {
        Remote::new(self.protocol(), SocketAddr::new(ip, self.port()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&str, u16) {
        let text = self.0.strip_prefix(TCP).unwrap_or(&self.0);
        let (host, port) = text
            .rsplit_once(':')
            .expect("a seed address was checked to have a colon before its port");
        let port = port.parse().expect("a seed address's port was checked");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host, port)
    }
}

impl FromStr for SeedAddr {
    type Err = SeedAddrError;

    fn from_str(text: &str) -> Result<Self, SeedAddrError> {
        let refuse = |problem| SeedAddrError {
            text: text.chars().take(80).collect(),
            problem,
        };
        let (prefix, place) = match text.strip_prefix(TCP) {
            Some(place) => (TCP, place),
            None => ("", text),
        };
        let (host, port) = place.rsplit_once(':').ok_or(refuse("it has no port"))?;
        let port = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port != 0)
            .ok_or(refuse("its port is not a number from 1 to 65535"))?;
        if let Some(host) = host.strip_prefix('[') {
            let host = host
                .strip_suffix(']')
                .and_then(|host| host.parse::<Ipv6Addr>().ok())
                .ok_or(refuse("its brackets hold no IPv6 address"))?;
            return Ok(SeedAddr(format!("{prefix}[{host}]:{port}")));
        }
        if host.contains(':') {
            return Err(refuse("an IPv6 address needs brackets"));
        }
        if host.parse::<Ipv4Addr>().is_err() && !is_dns_name(host) {
            return Err(refuse("its host is neither a DNS name nor an IP address"));
        }
        let host = host.to_ascii_lowercase();
        Ok(SeedAddr(format!("{prefix}{host}:{port}")))
    }
}

/// Whether `host` is a host name; one whose last label is a number would be a broken IPv4 address.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= HOST_BYTES_MAX
        && host.split('.').all(is_label)
        && !host.rsplit('.').next().is_none_or(is_number)
}

impl TryFrom<String> for SeedAddr {
    type Error = SeedAddrError;

    fn try_from(text: String) -> Result<Self, SeedAddrError> {
        text.parse()
    }
}

impl From<SeedAddr> for String {
    fn from(seed: SeedAddr) -> String {
        seed.0
    }
}

impl fmt::Display for SeedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SeedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seed_addresses_are_understood_and_kept_in_one_spelling() {
        for (text, kept, host, port, is_address) in [
            (
                "seed.Example.org:4001",
                "seed.example.org:4001",
                "seed.example.org",
                4001,
                false,
            ),
            ("localhost:1", "localhost:1", "localhost", 1, false),
            (
                "192.0.2.7:65535",
                "192.0.2.7:65535",
                "192.0.2.7",
                65535,
                true,
            ),
            (
                "[2001:DB8:0::7]:04001",
                "[2001:db8::7]:4001",
                "2001:db8::7",
                4001,
                true,
            ),
            (
                "tcp:192.0.2.7:443",
                "tcp:192.0.2.7:443",
                "192.0.2.7",
                443,
                true,
            ),
        ] {
            let seed: SeedAddr = text.parse().unwrap();
            assert_eq!(
                (seed.as_str(), seed.host(), seed.port()),
                (kept, host, port)
            );
            assert_eq!(seed.remote().is_some(), is_address, "{text}");
            assert_eq!(kept.parse::<SeedAddr>().unwrap(), seed);
            let is_tcp = seed.protocol() == Protocol::Tcp;
            assert_eq!(is_tcp, text.starts_with("tcp:"), "{text}");
        }
    }

    #[test]
    fn other_seed_addresses_are_refused_with_the_reason() {
        let long = format!("{}example.org:1", "abcdefg.".repeat(40));
        for (text, problem) in [
            ("", "it has no port"),
            ("seed.example.org", "it has no port"),
            ("tcp:4001", "it has no port"),
            ("tcp:seed:0", "its port is not"),
            ("seed:0", "its port is not"),
            ("seed:+1", "its port is not"),
            ("seed:65536", "its port is not"),
            ("seed:", "its port is not"),
            ("2001:db8::7:4001", "an IPv6 address needs brackets"),
            ("[seed]:4001", "its brackets hold no IPv6"),
            ("[::1:4001", "its brackets hold no IPv6"),
            (":4001", "neither a DNS name"),
            ("10.0.0:4001", "neither a DNS name"),
            ("10.0.0.256:4001", "neither a DNS name"),
            ("a..b:1", "neither a DNS name"),
            ("-a.b:1", "neither a DNS name"),
            ("seed example:1", "neither a DNS name"),
            (long.as_str(), "neither a DNS name"),
        ] {
            let error = text.parse::<SeedAddr>().unwrap_err().to_string();
            assert!(
                error.contains(problem) && error.contains("HOST:PORT"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_a_seed_address_in_one_spelling_or_refused(text in "[ -~]{0,40}(:[0-9]{0,6})?") {
            if let Ok(seed) = text.parse::<SeedAddr>() {
                prop_assert_eq!(seed.as_str().parse::<SeedAddr>().unwrap(), seed.clone());
                prop_assert!(seed.port() != 0 && !seed.host().is_empty());
            }
        }
    }
}
