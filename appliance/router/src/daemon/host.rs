//! What the daemon asks of the host: its addresses, routes, memory and processor.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use wow_overlay::session::CipherPreference;
use wow_overlay::wire::Remote;
use wow_underlay::InterfaceAddress;

/// A route of the host's main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// The interface.
    pub interface: String,
}

/// The host's routes whose destinations overlap `range`, except default routes and those of the
/// interface `own`.
pub fn overlapping_routes(range: Ipv4Net, own: Option<&str>) -> Vec<Route> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    parse_routes(&table)
        .into_iter()
        .filter(|route| {
            let overlaps = range.contains(&route.destination) || route.destination.contains(&range);
            overlaps && route.destination.prefix_len() > 0 && Some(&*route.interface) != own
        })
        .collect()
}

/// The lines of /proc/net/route: interface, then destination, gateway, flags, three numbers, mask.
fn parse_routes(table: &str) -> Vec<Route> {
    const UP: u32 = 1;
    let address = |text: &str| {
        Some(Ipv4Addr::from(
            u32::from_str_radix(text, 16).ok()?.to_le_bytes(),
        ))
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let [interface, destination, _, flags, _, _, _, mask, ..] = columns[..] else {
                return None;
            };
            if u32::from_str_radix(flags, 16).ok()? & UP == 0 {
                return None;
            }
            Some(Route {
                destination: Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?,
                interface: interface.to_owned(),
            })
        })
        .collect()
}

/// The underlay addresses to offer to other nodes: where the sockets listen, on addresses that are
/// not the pool's own.
pub fn candidates(
    bound: &[Remote],
    own: &[InterfaceAddress],
    range: Ipv4Net,
    v6_prefix: Ipv6Net,
) -> Vec<Remote> {
    let mut found = Vec::new();
    for socket in bound {
        if !socket.ip().is_unspecified() {
            found.push(*socket);
            continue;
        }
        let offered = own.iter().filter(|address| {
            let usable = match address.ip {
                IpAddr::V4(ip) => !ip.is_link_local() && !range.contains(&ip),
                IpAddr::V6(ip) => !ip.is_unicast_link_local() && !v6_prefix.contains(&ip),
            };
            usable && !address.loopback && address.ip.is_ipv4() == socket.ip().is_ipv4()
        });
        let offered = offered.map(|address| SocketAddr::new(address.ip, socket.port()));
        found.extend(offered.map(|address| Remote::new(socket.protocol(), address)));
    }
    found
}

/// Resident memory of this process.
pub fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The ciphers to offer: AES first where the processor has instructions for it.
pub fn ciphers() -> CipherPreference {
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    if aes {
        CipherPreference::aes_first()
    } else {
        CipherPreference::chacha_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_in_the_kernels_byte_order() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\n\
                     eth0\t0000820A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n\
                     eth1\t0000820A\t00000000\t0000\t0\t0\t0\t0000FFFF\t0\n\
                     rubbish\n";
        let routes = parse_routes(table);
        let shown: Vec<_> = routes
            .iter()
            .map(|route| format!("{} {}", route.destination, route.interface))
            .collect();
        assert_eq!(shown, ["0.0.0.0/0 eth0", "10.130.0.0/16 eth0"]);
    }

    #[test]
    fn candidates_leave_out_what_no_other_node_can_use() {
        let own = |ip: &str, loopback| InterfaceAddress {
            interface: "x".into(),
            index: 1,
            ip: ip.parse().unwrap(),
            loopback,
        };
        let all = [
            own("127.0.0.1", true),
            own("192.0.2.1", false),
            own("169.254.1.1", false),
            own("10.130.0.1", false),
            own("2001:db8::1", false),
            own("fe80::1", false),
            own("fd01:203:405::9", false),
        ];
        let range = "10.128.0.0/9".parse().unwrap();
        let prefix = "fd01:203:405::/48".parse().unwrap();
        let check = |bound: &[&str], expected: &[&str]| {
            let bound: Vec<_> = bound.iter().map(|text| text.parse().unwrap()).collect();
            let found = candidates(&bound, &all, range, prefix);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check(
            &["0.0.0.0:4001", "[::]:4001", "tcp:0.0.0.0:443"],
            &["192.0.2.1:4001", "[2001:db8::1]:4001", "tcp:192.0.2.1:443"],
        );
        check(&["127.0.0.1:5"], &["127.0.0.1:5"]);
    }

    #[test]
    fn a_running_process_has_memory() {
        assert!(rss_bytes() > 100_000);
    }
}
