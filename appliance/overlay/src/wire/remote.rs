//! Remotes: where the other end of a direct path is, and by which protocol it is reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What carries outer datagrams to a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Each in a UDP datagram.
    Udp,
    /// Each behind its length, two bytes big-endian, in a TCP connection.
    Tcp,
}

impl Protocol {
    /// As written in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
    }
}

/// The other end of a direct path, possible or actual. UDP sorts before TCP.
///
/// As text `192.0.2.1:4001` or `tcp:192.0.2.1:443`; eight bytes on the wire for IPv4. An IPv6
/// address that maps an IPv4 one is never kept as such. The lane is this node's own affair and in
/// neither.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    protocol: Protocol,
    address: SocketAddr,
    lane: u16,
}

/// A text that is no remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no remote: write ADDRESS:PORT for UDP or tcp:ADDRESS:PORT")]
pub struct RemoteError;

impl Remote {
    /// A UDP socket.
    pub fn udp(address: SocketAddr) -> Self {
        Remote::new(Protocol::Udp, address)
    }

    /// A TCP socket.
    pub fn tcp(address: SocketAddr) -> Self {
        Remote::new(Protocol::Tcp, address)
    }

    /// A socket of `protocol`.
    pub fn new(protocol: Protocol, mut address: SocketAddr) -> Self {
        address.set_ip(address.ip().to_canonical());
        Remote {
            protocol,
            address,
            lane: 0,
        }
    }

    /// The same far end, spoken with from another UDP socket of this node: 0 is the one that it
    /// listens on, the others are opened when something is sent by them.
    pub fn on_lane(self, lane: u16) -> Self {
        Remote { lane, ..self }
    }

    /// Which socket of this node speaks with it.
    pub fn lane(self) -> u16 {
        self.lane
    }

    /// What carries datagrams to it.
    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// Its socket address.
    pub fn address(self) -> SocketAddr {
        self.address
    }

    /// Its IP address.
    pub fn ip(self) -> IpAddr {
        self.address.ip()
    }

    /// Its port.
    pub fn port(self) -> u16 {
        self.address.port()
    }

    /// Whether it is reached over UDP.
    pub fn is_udp(self) -> bool {
        self.protocol == Protocol::Udp
    }

    /// Whether it is reached over TCP.
    pub fn is_tcp(self) -> bool {
        self.protocol == Protocol::Tcp
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Udp => write!(f, "{}", self.address),
            Protocol::Tcp => write!(f, "tcp:{}", self.address),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let (protocol, address) = match text.strip_prefix("tcp:") {
            Some(address) => (Protocol::Tcp, address),
            None => (Protocol::Udp, text),
        };
        let address = address.parse().map_err(|_| RemoteError)?;
        Ok(Remote::new(protocol, address))
    }
}

/// The encoding: one tag for protocol and family.
#[derive(Serialize, Deserialize)]
enum Packed {
    UdpV4(Ipv4Addr, u16),
    UdpV6(Ipv6Addr, u16),
    TcpV4(Ipv4Addr, u16),
    TcpV6(Ipv6Addr, u16),
}

impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let port = self.port();
        let packed = match (self.protocol, self.ip()) {
            (Protocol::Udp, IpAddr::V4(ip)) => Packed::UdpV4(ip, port),
            (Protocol::Udp, IpAddr::V6(ip)) => Packed::UdpV6(ip, port),
            (Protocol::Tcp, IpAddr::V4(ip)) => Packed::TcpV4(ip, port),
            (Protocol::Tcp, IpAddr::V6(ip)) => Packed::TcpV6(ip, port),
        };
        packed.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(serde::de::Error::custom);
        }
        Ok(match Packed::deserialize(deserializer)? {
            Packed::UdpV4(ip, port) => Remote::udp((ip, port).into()),
            Packed::UdpV6(ip, port) => Remote::udp((ip, port).into()),
            Packed::TcpV4(ip, port) => Remote::tcp((ip, port).into()),
            Packed::TcpV6(ip, port) => Remote::tcp((ip, port).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn remote() -> impl Strategy<Value = Remote> {
        (any::<bool>(), any::<IpAddr>(), any::<u16>()).prop_map(|(tcp, ip, port)| {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            Remote::new(protocol, SocketAddr::new(ip, port))
        })
    }

    #[test]
    fn texts_are_the_documented_ones() {
        for text in [
            "192.0.2.1:4001",
            "tcp:192.0.2.1:443",
            "[2001:db8::1]:4001",
            "tcp:[2001:db8::1]:443",
        ] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        for text in ["", "tcp:", "udp:192.0.2.1:1", "192.0.2.1", "tcp:x:1"] {
            assert_eq!(text.parse::<Remote>(), Err(RemoteError), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        let mapped: Remote = "[::ffff:192.0.2.1]:4001".parse().unwrap();
        assert_eq!(mapped, "192.0.2.1:4001".parse().unwrap());
    }

    proptest! {
        #[test]
        fn remotes_round_trip(remote in remote()) {
            let bytes = postcard::to_allocvec(&remote).unwrap();
            let most = if remote.ip().is_ipv4() { 8 } else { 20 };
            prop_assert!(bytes.len() <= most, "{} bytes", bytes.len());
            prop_assert_eq!(postcard::from_bytes::<Remote>(&bytes), Ok(remote));
            prop_assert_eq!(remote.to_string().parse::<Remote>(), Ok(remote));
        }
    }
}
