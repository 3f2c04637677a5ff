//! Port mappings: the gateway is asked to pass a port on to this machine, by PCP or, where that is
//! not spoken, NAT-PMP; and asked again before it forgets.
//!
//! IPv4 only. A machine whose own address is valid everywhere asks for nothing. UPnP is left out.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp,
};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Asked for; the gateway may grant less.
const LIFETIME_S: u32 = 1200;
/// A mapping is renewed after this at the earliest, whatever the gateway grants.
const RENEW_MIN: Duration = Duration::from_secs(30);
/// A gateway that maps nothing is asked again after this.
const RETRY: Duration = Duration::from_secs(600);
/// The first wait for an answer; it doubles with each of the retries. Gateways are near.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: None,
};
/// The longest that one port may take, all protocols together.
const PORT_MAX: Duration = Duration::from_secs(20);
/// The kernel's routing table for IPv4.
const ROUTES: &str = "/proc/net/route";

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// A port of this machine that is to be reachable from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub transport: Transport,
    /// Its number.
    pub port: NonZeroU16,
}

/// A port of the gateway that leads to one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What it is for.
    pub transport: Transport,
    /// Where others reach it.
    pub external: SocketAddrV4,
}

/// Keeps mappings of some ports for as long as it lives.
pub struct PortMapper {
    mapped: watch::Receiver<Vec<Mapped>>,
    moved: Arc<Notify>,
    task: AbortHandle,
}

impl PortMapper {
    /// Begins to ask for `wanted`. Must be called inside a tokio runtime with I/O and time.
    pub fn start(wanted: Vec<Wanted>) -> Self {
        let (sender, mapped) = watch::channel(Vec::new());
        let moved = Arc::new(Notify::new());
        let task = tokio::spawn(keep(wanted, sender, Arc::clone(&moved)));
        PortMapper {
            mapped,
            moved,
            task: task.abort_handle(),
        }
    }

    /// The machine's addresses have changed: asks anew, perhaps another gateway.
    pub fn network_changed(&self) {
        self.moved.notify_one();
    }

    /// Waits until the mappings differ from those last returned, and returns them. Cancelling it
    /// loses nothing.
    pub async fn changed(&mut self) -> Vec<Mapped> {
        match self.mapped.changed().await {
            Ok(()) => self.mapped.borrow_and_update().clone(),
            // The task lives as long as this value does.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(wanted: Vec<Wanted>, found: watch::Sender<Vec<Mapped>>, moved: Arc<Notify>) {
    loop {
        let mut mapped = Vec::new();
        let mut rest = RETRY;
        if let Some((gateway, client)) = gateway().await {
            for port in &wanted {
                match timeout(PORT_MAX, map(gateway, client, *port)).await {
                    Ok(Ok((mapping, lifetime))) => {
                        mapped.push(mapping);
                        rest = rest.min((lifetime / 2).max(RENEW_MIN));
                    }
                    Ok(Err(error)) => tracing::debug!(%gateway, ?port, %error, "no port mapping"),
                    Err(_) => tracing::debug!(%gateway, ?port, "no port mapping in time"),
                }
            }
        }
        found.send_if_modified(|known| {
            let news = *known != mapped;
            *known = mapped;
            news
        });
        tokio::select! {
            () = sleep(rest) => {}
            () = moved.notified() => {}
        }
    }
}

/// Asks `gateway` to map one port; the mapping and how long it holds.
async fn map(
    gateway: Ipv4Addr,
    client: Ipv4Addr,
    wanted: Wanted,
) -> Result<(Mapped, Duration), MappingFailure> {
    let protocol = match wanted.transport {
        Transport::Udp => InternetProtocol::Udp,
        Transport::Tcp => InternetProtocol::Tcp,
    };
    let options = PortMappingOptions {
        external_port: Some(wanted.port),
        lifetime_seconds: Some(LIFETIME_S),
        timeout_config: Some(TIMEOUTS),
    };
    let client = IpAddr::V4(client);
    let mapping =
        match PortMapping::new(gateway.into(), client, protocol, wanted.port, options).await {
            Ok(mapping) => mapping,
            // Many gateways speak NAT-PMP alone and do not say so.
            Err(MappingFailure::Pcp(_)) => {
                natpmp::port_mapping(gateway.into(), protocol, wanted.port, options).await?
            }
            Err(error) => return Err(error),
        };
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp {
            external_ip: IpAddr::V4(ip),
            ..
        } => ip,
        PortMappingType::Pcp { .. } | PortMappingType::NatPmp => {
            natpmp::external_address(gateway.into(), Some(TIMEOUTS)).await?
        }
    };
    let mapped = Mapped {
        transport: wanted.transport,
        external: SocketAddrV4::new(ip, mapping.external_port().get()),
    };
    Ok((mapped, Duration::from_secs(mapping.lifetime().into())))
}

/// The gateway to ask and our address toward it, where that address is one behind a translator.
async fn gateway() -> Option<(Ipv4Addr, Ipv4Addr)> {
    let gateway = default_gateway(&fs::read_to_string(ROUTES).ok()?)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    // Connecting sends nothing; it makes the kernel choose our address.
    socket.connect((gateway, 9)).await.ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(own) if is_translated(own) => Some((gateway, own)),
        _ => None,
    }
}

/// Whether an address is of the blocks behind translators (RFC 1918, RFC 6598).
fn is_translated(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || (first == 100 && second & 0xc0 == 64)
}

/// The gateway of the default route with the lowest metric. Columns: interface, destination, gateway,
/// flags, two counts, metric, mask; addresses as the kernel holds them in memory.
fn default_gateway(table: &str) -> Option<Ipv4Addr> {
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
        let found = default_gateway(table);
        assert_eq!(found, Some(Ipv4Addr::new(192, 168, 3, 1)));
        assert_eq!(default_gateway(""), None);
    }

    #[test]
    fn only_addresses_behind_translators_need_a_mapping() {
        for (ip, translated) in [
            ("192.168.1.2", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("203.0.113.1", false),
        ] {
            assert_eq!(is_translated(ip.parse().unwrap()), translated, "{ip}");
        }
    }

    /// A gateway that speaks NAT-PMP alone (RFC 6886), at an address of the loopback.
    async fn natpmp_gateway(socket: UdpSocket) {
        let mut room = [0; 1100];
        loop {
            let (length, from) = socket.recv_from(&mut room).await.unwrap();
            let answer = match room[..length] {
                // The external address.
                [0, 0] => vec![0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 5],
                // A mapping: granted on another port, for ten minutes.
                [0, operation, _, _, high, low, ..] => {
                    let mut answer = vec![0, 128 + operation, 0, 0, 0, 0, 0, 9, high, low];
                    answer.extend(5000u16.to_be_bytes());
                    answer.extend(600u32.to_be_bytes());
                    answer
                }
                // Anything newer: unsupported version.
                _ => vec![0, 128, 0, 1, 0, 0, 0, 9],
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_is_mapped_by_a_gateway_that_speaks_natpmp_alone() {
        // The port is the protocol's; the address is nobody else's.
        let address = Ipv4Addr::new(127, 87, 79, 1);
        let gateway = UdpSocket::bind((address, 5351)).await.unwrap();
        tokio::spawn(natpmp_gateway(gateway));
        for transport in [Transport::Udp, Transport::Tcp] {
            let wanted = Wanted {
                transport,
                port: NonZeroU16::new(4001).unwrap(),
            };
            let (mapped, lifetime) = map(address, Ipv4Addr::LOCALHOST, wanted).await.unwrap();
            let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 5000);
            assert_eq!(
                mapped,
                Mapped {
                    transport,
                    external
                }
            );
            assert_eq!(lifetime, Duration::from_secs(600));
        }
    }
}
