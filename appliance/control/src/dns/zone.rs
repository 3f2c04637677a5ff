//! What a name of the pool stands for, by its form alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Names;
use crate::question::Lookup;

/// The names that the server answers for.
pub struct Zone {
    pub names: Names,
    /// The pool's control addresses, which the suffix itself stands for.
    pub control: (Ipv4Addr, Ipv6Addr),
}

/// What kind of answer a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node's addresses.
    Addresses,
    /// A node's name, by an address.
    Pointer,
    /// Where a service is.
    Service,
}

/// What has to be asked about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// It is the suffix itself.
    Apex,
    /// It is one of the suffix's addresses, reversed.
    PointsAtApex,
    /// The router knows.
    LookUp(Lookup, Kind),
    /// There is such a name, with nothing under it that could be asked for.
    NoData,
    /// There can be no such name.
    NoName,
    /// It is not the pool's.
    Outside,
}

impl Zone {
    pub fn new(names: Names) -> Self {
        let v4 = network_v4(names.v4) | 1;
        let v6 = network_v6(names.v6) | 1;
        Zone {
            control: (Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6)),
            names,
        }
    }

    /// What `name` asks for: in lower case, without a dot at its end.
    pub fn ask(&self, name: &str) -> Ask {
        if let Some(before) = name.strip_suffix(self.names.suffix.as_str()) {
            return match before.strip_suffix('.') {
                _ if before.is_empty() => Ask::Apex,
                Some(before) => below(before),
                None => Ask::Outside,
            };
        }
        if let Some(v4) = name.strip_suffix(".in-addr.arpa").and_then(reversed_v4) {
            let own = network_v4((v4, self.names.v4.1)) == network_v4(self.names.v4);
            return match own {
                true if v4 == self.control.0 => Ask::PointsAtApex,
                true => Ask::LookUp(Lookup::V4(v4), Kind::Pointer),
                false => Ask::Outside,
            };
        }
        if let Some(v6) = name.strip_suffix(".ip6.arpa").and_then(reversed_v6) {
            let own = network_v6((v6, self.names.v6.1)) == network_v6(self.names.v6);
            return match own {
                true if v6 == self.control.1 => Ask::PointsAtApex,
                true => Ask::LookUp(Lookup::V6(v6), Kind::Pointer),
                false => Ask::Outside,
            };
        }
        Ask::Outside
    }
}

/// What the labels before the suffix ask for.
fn below(labels: &str) -> Ask {
    let protocol = |label| matches!(label, "_tcp" | "_udp");
    match labels.split_once('.') {
        None if protocol(labels) => Ask::NoData,
        None if is_label(labels) => Ask::LookUp(Lookup::Name(labels.to_owned()), Kind::Addresses),
        Some((service, last)) if protocol(last) => match service.strip_prefix('_') {
            Some(name) if is_label(name) => {
                Ask::LookUp(Lookup::Service(name.to_owned()), Kind::Service)
            }
            _ => Ask::NoName,
        },
        _ => Ask::NoName,
    }
}

/// Whether a node or a service can be called so.
fn is_label(label: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty() && label.bytes().all(known)
}

fn reversed_v4(labels: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut labels = labels.split('.');
    for octet in octets.iter_mut().rev() {
        let label = labels.next()?;
        let plain = label.bytes().all(|byte| byte.is_ascii_digit());
        *octet = label.parse().ok().filter(|_| plain)?;
    }
    labels.next().is_none().then(|| octets.into())
}

fn reversed_v6(labels: &str) -> Option<Ipv6Addr> {
    let mut bits = 0u128;
    let mut labels = labels.split('.');
    for place in 0..32 {
        let [digit] = labels.next()?.as_bytes() else {
            return None;
        };
        let digit = char::from(*digit).to_digit(16)?;
        bits |= u128::from(digit) << (4 * place);
    }
    labels.next().is_none().then(|| Ipv6Addr::from_bits(bits))
}

fn network_v4((address, length): (Ipv4Addr, u8)) -> u32 {
    let host_bits = 32 - u32::from(length.min(32));
    address.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)
}

fn network_v6((address, length): (Ipv6Addr, u8)) -> u128 {
    let host_bits = 128 - u32::from(length.min(128));
    address.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new(Names {
            suffix: "lab.internal".into(),
            v4: (Ipv4Addr::new(10, 200, 3, 4), 9),
            v6: ("fd01:203:405::9".parse().unwrap(), 48),
            forwards: false,
        })
    }

    #[test]
    fn names_are_told_apart_by_their_form() {
        let zone = zone();
        let check = |name: &str, expected: Ask| assert_eq!(zone.ask(name), expected, "{name}");
        let look_up = |lookup, kind| Ask::LookUp(lookup, kind);
        check("lab.internal", Ask::Apex);
        check(
            "n1.lab.internal",
            look_up(Lookup::Name("n1".into()), Kind::Addresses),
        );
        check(
            "_head._tcp.lab.internal",
            look_up(Lookup::Service("head".into()), Kind::Service),
        );
        check("_tcp.lab.internal", Ask::NoData);
        for none in [
            "a.b.lab.internal",
            "_head.lab.internal",
            "head._tcp.lab.internal",
            "__x._tcp.lab.internal",
            "_a._b._tcp.lab.internal",
            "a\\046b.lab.internal",
            ".lab.internal",
        ] {
            check(none, Ask::NoName);
        }
        for outside in [
            "",
            "internal",
            "notlab.internal",
            "example.org",
            "lab.internal.org",
        ] {
            check(outside, Ask::Outside);
        }
    }

    #[test]
    fn addresses_of_the_pool_are_reversed() {
        let zone = zone();
        let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert_eq!(
            zone.ask("9.2.1.10.in-addr.arpa"),
            Ask::Outside,
            "10.1.2.9 is below the range"
        );
        assert_eq!(
            zone.ask("9.2.129.10.in-addr.arpa"),
            Ask::LookUp(Lookup::V4(v4("10.129.2.9")), Kind::Pointer)
        );
        assert_eq!(zone.ask("1.0.128.10.in-addr.arpa"), Ask::PointsAtApex);
        for outside in [
            "2.129.10.in-addr.arpa",
            "+9.2.129.10.in-addr.arpa",
            "256.2.129.10.in-addr.arpa",
        ] {
            assert_eq!(zone.ask(outside), Ask::Outside, "{outside}");
        }
        let name = |address: &str| {
            let bits = address.parse::<Ipv6Addr>().unwrap().to_bits();
            let nibbles = (0..32).map(|place| format!("{:x}.", (bits >> (4 * place)) & 15));
            nibbles.collect::<String>() + "ip6.arpa"
        };
        let v6 = "fd01:203:405::77".parse().unwrap();
        assert_eq!(
            zone.ask(&name("fd01:203:405::77")),
            Ask::LookUp(Lookup::V6(v6), Kind::Pointer)
        );
        assert_eq!(zone.ask(&name("fd01:203:405::1")), Ask::PointsAtApex);
        assert_eq!(zone.ask(&name("fd01:203:406::77")), Ask::Outside);
    }
}
