//! Which gateway to ask for port mappings, and which addresses are worth one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::UdpSocket;

/// The kernel's routing table for IPv4.
const ROUTES: &str = "/proc/net/route";

/// Who is asked, and for which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway's address on our network.
    pub router: Ipv4Addr,
    /// Our own address toward it.
    pub own: Ipv4Addr,
}

impl Gateway {
    /// The default route's, if our address toward it is one behind a translator.
    pub async fn find() -> Option<Gateway> {
        let router = default_router(&fs::read_to_string(ROUTES).ok()?)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
        // Connecting sends nothing; it makes the kernel choose our address.
        socket.connect((router, 9)).await.ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(own) if is_translated(own) => Some(Gateway { router, own }),
            _ => None,
        }
    }
}

/// A gateway's own address is none that others reach.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's own address is {0}, which cannot be reached from outside")]
pub struct NotOutside(pub IpAddr);

/// The gateway's own address, if others may reach it.
pub fn outside(ip: Ipv4Addr) -> Result<Ipv4Addr, NotOutside> {
    match is_outside(ip) {
        true => Ok(ip),
        false => Err(NotOutside(ip.into())),
    }
}

/// Whether a gateway's outside address may be reached from the internet: a gateway that is itself
/// behind a translator has none, and one without a connection says 0.0.0.0.
fn is_outside(ip: Ipv4Addr) -> bool {
    let reserved = ip.octets()[0] >= 240;
    let special =
        ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast();
    !is_translated(ip) && !special && !reserved
}

/// Whether an address is of the blocks behind translators (RFC 1918, RFC 6598).
fn is_translated(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || (first == 100 && second & 0xc0 == 64)
}

/// The gateway of the default route with the lowest metric. Columns: interface, destination, gateway,
/// flags, two counts, metric, mask; addresses as the kernel holds them in memory.
fn default_router(table: &str) -> Option<Ipv4Addr> {
    const UP_BY_GATEWAY: u32 = 3;
    let routes = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, "00000000", gateway, flags, _, _, metric, "00000000", ..] = columns[..] else {
            return None;
        };
        let by_gateway = u32::from_str_radix(flags, 16).ok()? & UP_BY_GATEWAY == UP_BY_GATEWAY;
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        by_gateway.then_some((metric.parse::<u32>().ok()?, gateway))
    });
    let (_, gateway) = routes.min()?;
    Some(Ipv4Addr::from(gateway.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_leads_to_the_gateway() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth0 00000000 0102A8C0 0003 0 0 200 00000000 0 0 0\n\
                     wlan0 00000000 0103A8C0 0003 0 0 100 00000000 0 0 0\n\
                     ppp0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n\
                     eth0 0002A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                     rubbish\n";
        let found = default_router(table);
        assert_eq!(found, Some(Ipv4Addr::new(192, 168, 3, 1)));
        assert_eq!(default_router(""), None);
    }

    #[test]
    fn addresses_behind_translators_need_a_mapping_and_are_none() {
        for (ip, translated, outside) in [
            ("192.168.1.2", true, false),
            ("100.64.0.1", true, false),
            ("100.128.0.1", false, true),
            ("203.0.113.1", false, true),
            ("0.0.0.0", false, false),
            ("127.0.0.1", false, false),
            ("169.254.7.1", false, false),
            ("224.0.0.251", false, false),
            ("255.255.255.255", false, false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(
                (is_translated(ip), is_outside(ip)),
                (translated, outside),
                "{ip}"
            );
        }
    }
}
