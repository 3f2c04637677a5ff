//! What the key `net` asks for: DHCP, fixed addresses, or no network set up at all.

use std::net::Ipv4Addr;

/// Name servers taken at most; resolvers ignore more than three.
pub(crate) const MAX_DNS: usize = 3;
/// Prefixes an interface may have; a wider one would swallow much of the internet.
pub(crate) const PREFIXES: std::ops::RangeInclusive<u8> = 8..=32;

/// How the underlay gets its address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Plan {
    /// Ask on every Ethernet interface; the first one that gets a lease is the underlay.
    #[default]
    Dhcp,
    /// This address, on the first Ethernet interface with a carrier.
    Static(StaticAddress),
    /// Only the loopback comes up.
    None,
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    /// The interface's address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// What is wrong with a value of `net`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{complaint}; write dhcp, none, or static:ADDRESS/PREFIX,GATEWAY[,DNS…], such as static:192.0.2.5/24,192.0.2.1"
)]
pub struct PlanError {
    complaint: String,
}

impl std::str::FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("static:") {
                Some(rest) => parse_static(rest).map(Self::Static),
                None => Err(error("is none of the known kinds")),
            },
        }
    }
}

fn parse_static(text: &str) -> Result<StaticAddress, PlanError> {
    let mut parts = text.split(',').map(str::trim);
    let own = parts.next().unwrap_or_default();
    let (address, prefix) = own
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)))
        .ok_or_else(|| error("ADDRESS/PREFIX is malformed"))?;
    if !PREFIXES.contains(&prefix) {
        return Err(error("the prefix length is not 8 to 32"));
    }
    if !is_host(address, prefix) {
        return Err(error("ADDRESS is not a host's address in its network"));
    }
    let gateway = match parts.next() {
        None | Some("") => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| error("GATEWAY is no IPv4 address"))?,
        ),
    };
    if gateway.is_some_and(|gateway| gateway == address || !is_reachable(gateway, address, prefix))
    {
        return Err(error("GATEWAY is not another host of ADDRESS's network"));
    }
    let dns: Vec<Ipv4Addr> = parts
        .map(|text| text.parse().ok().filter(|dns| is_unicast(*dns)))
        .collect::<Option<_>>()
        .ok_or_else(|| error("a DNS server is no IPv4 address"))?;
    if dns.len() > MAX_DNS {
        return Err(error("there are more than three DNS servers"));
    }
    Ok(StaticAddress {
        address,
        prefix,
        gateway,
        dns,
    })
}

fn error(complaint: &str) -> PlanError {
    PlanError {
        complaint: complaint.to_owned(),
    }
}

/// Whether some host could have this address: unicast, not of this host, not reserved (class E).
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// Whether a host of a network with this prefix could have it: unicast, and neither the network's own
/// address nor its broadcast address.
pub(crate) fn is_host(address: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let host = address.to_bits() & host_bits;
    is_unicast(address) && (prefix >= 31 || (host != 0 && host != host_bits))
}

/// Whether `gateway` can be reached from `address` without a router: it lies in the same network, or
/// the network is the single address that clouds hand out with a gateway outside of it.
pub(crate) fn is_reachable(gateway: Ipv4Addr, address: Ipv4Addr, prefix: u8) -> bool {
    if prefix == 32 {
        return is_unicast(gateway);
    }
    let mask = u32::MAX << (32 - u32::from(prefix));
    is_host(gateway, prefix) && (gateway.to_bits() ^ address.to_bits()) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        assert_eq!("dhcp".parse(), Ok(Plan::Dhcp));
        assert_eq!("none".parse(), Ok(Plan::None));
        let address = |last| Ipv4Addr::new(192, 0, 2, last);
        let fixed = |gateway, dns| {
            Ok(Plan::Static(StaticAddress {
                address: address(5),
                prefix: 24,
                gateway,
                dns,
            }))
        };
        assert_eq!("static:192.0.2.5/24".parse(), fixed(None, vec![]));
        assert_eq!(
            "static:192.0.2.5/24,192.0.2.1".parse(),
            fixed(Some(address(1)), vec![])
        );
        let both = vec![address(2), address(3)];
        assert_eq!(
            "static:192.0.2.5/24,192.0.2.1,192.0.2.2, 192.0.2.3".parse(),
            fixed(Some(address(1)), both)
        );
        assert_eq!(
            "static:192.0.2.5/24,,192.0.2.2".parse(),
            fixed(None, vec![address(2)])
        );
        assert!("static:192.0.2.5/32,198.51.100.1".parse::<Plan>().is_ok());
    }

    #[test]
    fn nonsense_is_refused_with_the_form_expected() {
        for text in [
            "",
            "DHCP",
            "static",
            "static:",
            "static:192.0.2.5",
            "static:192.0.2.5/33",
            "static:192.0.2.5/0",
            "static:192.0.2.0/24",
            "static:192.0.2.255/24",
            "static:127.0.0.1/8",
            "static:224.0.0.1/24",
            "static:192.0.2.5/24,198.51.100.1",
            "static:192.0.2.5/24,192.0.2.5",
            "static:192.0.2.5/24,192.0.2.1,x",
            "static:192.0.2.5/24,192.0.2.1,1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4",
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains("static:ADDRESS/PREFIX"), "{text}: {error}");
        }
    }
}
