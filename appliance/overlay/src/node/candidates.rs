//! Candidates: where this node may be reached as far as it knows, and which of a peer's addresses
//! are worth a try.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::wire::Remote;
use crate::wire::message::CANDIDATES_MAX;

/// Addresses under which others saw us that are remembered.
const REFLEXIVE_MAX: usize = 4;
/// Mapped ports: of both protocols, by two gateways.
const MAPPED_MAX: usize = 4;
/// TCP candidates among those offered, when there is a choice: they are for few.
const TCP_MAX: usize = 2;

/// The node's own candidates by how it knows them.
#[derive(Default)]
pub(super) struct Candidates {
    /// Sockets on the machine's own addresses.
    host: Vec<Remote>,
    /// Ports of the gateway that lead to the host's sockets.
    mapped: Vec<Remote>,
    /// What UDP peers saw our datagrams come from, newest first.
    reflexive: VecDeque<Remote>,
    /// The IP addresses that peers saw us under over any protocol, newest first.
    seen_at: VecDeque<IpAddr>,
}

impl Candidates {
    /// Replaces the machine's own sockets. Returns whether they changed; then all that others saw
    /// came from the old ones and is forgotten.
    pub(super) fn set_host(&mut self, mut host: Vec<Remote>) -> bool {
        host.truncate(2 * CANDIDATES_MAX);
        if host == self.host {
            return false;
        }
        self.host = host;
        self.reflexive.clear();
        self.seen_at.clear();
        true
    }

    /// Replaces the mapped ports. Returns whether they changed.
    pub(super) fn set_mapped(&mut self, mut mapped: Vec<Remote>) -> bool {
        mapped.truncate(MAPPED_MAX);
        let news = mapped != self.mapped;
        self.mapped = mapped;
        news
    }

    /// Remembers what a peer saw us as. The port of a TCP connection that we opened leads nowhere,
    /// so of that only the address counts.
    pub(super) fn learn(&mut self, observed: Remote) {
        remember(&mut self.seen_at, observed.ip());
        if observed.is_udp() && !self.host.contains(&observed) {
            remember(&mut self.reflexive, observed);
        }
    }

    /// Whether anybody has told where it sees us over UDP.
    pub(super) fn is_seen(&self) -> bool {
        !self.reflexive.is_empty()
    }

    /// The machine's own sockets.
    pub(super) fn host(&self) -> &[Remote] {
        &self.host
    }

    /// Whether a remote is this node itself.
    pub(super) fn is_own(&self, remote: Remote) -> bool {
        self.host.contains(&remote) || self.mapped.contains(&remote)
    }

    /// What to offer to others, at most `limit` of it, best first: mapped ports, what is seen from
    /// outside, then our own interfaces, and some of each protocol.
    pub(super) fn offer(&self, limit: usize) -> Vec<Remote> {
        let mut udp = Vec::new();
        let (host_udp, host_tcp): (Vec<Remote>, Vec<Remote>) =
            self.host.iter().partition(|remote| remote.is_udp());
        let (mapped_udp, mapped_tcp): (Vec<Remote>, Vec<Remote>) =
            self.mapped.iter().partition(|remote| remote.is_udp());
        for candidate in mapped_udp.iter().chain(&self.reflexive).chain(&host_udp) {
            push_new(&mut udp, *candidate);
        }
        let mut tcp = mapped_tcp;
        for ip in &self.seen_at {
            for listener in &host_tcp {
                if listener.ip().is_ipv4() == ip.is_ipv4() {
                    let outside = SocketAddr::new(*ip, listener.port());
                    push_new(&mut tcp, Remote::tcp(outside));
                }
            }
        }
        for listener in host_tcp {
            push_new(&mut tcp, listener);
        }
        let spare = limit.saturating_sub(udp.len());
        tcp.truncate(spare.max(TCP_MAX.min(limit / 4)));
        udp.truncate(limit - tcp.len());
        udp.append(&mut tcp);
        udp
    }

    /// Of a peer's candidates those that may lead to it from here.
    pub(super) fn worth_trying(&self, offered: &[Remote]) -> Vec<Remote> {
        let mut worth: Vec<Remote> = Vec::new();
        for candidate in offered {
            if self.is_plausible(*candidate, offered) && !self.is_own(*candidate) {
                push_new(&mut worth, *candidate);
            }
        }
        worth
    }

    fn is_plausible(&self, candidate: Remote, offered: &[Remote]) -> bool {
        let scope = Scope::of(candidate.ip());
        if candidate.port() == 0 || scope == Scope::Nowhere {
            return false;
        }
        if self.host.is_empty() {
            return true;
        }
        let mut own = self.host.iter().map(|remote| remote.ip());
        match scope {
            Scope::Nowhere => false,
            Scope::Global => own.any(|ip| ip.is_ipv4() == candidate.ip().is_ipv4()),
            Scope::Loopback => own.any(|ip| Scope::of(ip) == scope),
            Scope::Private(_) => {
                // The same private addresses are in use in many places: they are this place's only if
                // both ends are seen under one address from outside, or one is not seen at all.
                own.any(|ip| Scope::of(ip) == scope) && self.may_share_site(offered)
            }
        }
    }

    fn may_share_site(&self, offered: &[Remote]) -> bool {
        let is_global = |ip: &IpAddr| is_global(*ip) && ip.is_ipv4();
        let host = self.host.iter().map(|remote| remote.ip());
        let ours: Vec<IpAddr> = host
            .chain(self.seen_at.iter().copied())
            .filter(is_global)
            .collect();
        let theirs = offered.iter().map(|remote| remote.ip());
        let mut theirs = theirs.filter(is_global).peekable();
        ours.is_empty() || theirs.peek().is_none() || theirs.any(|ip| ours.contains(&ip))
    }
}

/// Whether an IP address means the same everywhere.
pub(super) fn is_global(ip: IpAddr) -> bool {
    Scope::of(ip) == Scope::Global
}

/// Where an IP address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Nobody has it: unspecified, multicast, broadcast; or it means another node on each link.
    Nowhere,
    /// In this machine.
    Loopback,
    /// On sites that use this block.
    Private(Block),
    /// Everywhere.
    Global,
}

/// Blocks of addresses that many sites use at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// 10/8, 172.16/12 and 192.168/16 (RFC 1918), by their first byte.
    Rfc1918(u8),
    /// 100.64/10 behind carrier-grade translators (RFC 6598).
    Carrier,
    /// A unique local /48 (RFC 4193).
    UniqueLocal([u8; 6]),
}

impl Scope {
    fn of(ip: IpAddr) -> Scope {
        match ip {
            IpAddr::V4(ip) => {
                let octets = ip.octets();
                if ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_broadcast()
                    || ip.is_link_local()
                {
                    Scope::Nowhere
                } else if ip.is_loopback() {
                    Scope::Loopback
                } else if ip.is_private() {
                    Scope::Private(Block::Rfc1918(octets[0]))
                } else if octets[0] == 100 && octets[1] & 0xc0 == 64 {
                    Scope::Private(Block::Carrier)
                } else {
                    Scope::Global
                }
            }
            IpAddr::V6(ip) => {
                if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
                    Scope::Nowhere
                } else if ip.is_loopback() {
                    Scope::Loopback
                } else if ip.is_unique_local() {
                    let mut prefix = [0; 6];
                    prefix.copy_from_slice(&ip.octets()[..6]);
                    Scope::Private(Block::UniqueLocal(prefix))
                } else {
                    Scope::Global
                }
            }
        }
    }
}

fn remember<T: PartialEq>(list: &mut VecDeque<T>, item: T) {
    list.retain(|known| *known != item);
    list.push_front(item);
    list.truncate(REFLEXIVE_MAX);
}

fn push_new(list: &mut Vec<Remote>, remote: Remote) {
    if !list.contains(&remote) {
        list.push(remote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(texts: &[&str]) -> Vec<Remote> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn candidates(host: &[&str], seen: &[&str]) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.set_host(remotes(host));
        for observed in remotes(seen) {
            candidates.learn(observed);
        }
        candidates
    }

    #[test]
    fn what_is_seen_from_outside_is_offered_first_and_tcp_keeps_a_place() {
        let own = candidates(
            &["192.168.1.2:4001", "tcp:192.168.1.2:443"],
            &["198.51.100.9:1024", "198.51.100.9:1025"],
        );
        let all = [
            "198.51.100.9:1025",
            "198.51.100.9:1024",
            "192.168.1.2:4001",
            "tcp:198.51.100.9:443",
            "tcp:192.168.1.2:443",
        ];
        assert_eq!(own.offer(8), remotes(&all));
        assert_eq!(own.offer(4), remotes(&all[..4]));
        let own = candidates(
            &["tcp:192.168.1.2:443"],
            &[
                "198.51.100.9:1",
                "198.51.100.9:2",
                "198.51.100.9:3",
                "198.51.100.9:4",
            ],
        );
        assert_eq!(
            own.offer(4)[3..],
            remotes(&["tcp:198.51.100.9:443"]),
            "four UDP ones would fit"
        );
    }

    #[test]
    fn a_mapped_port_is_offered_before_all_others() {
        let mut own = candidates(
            &["192.168.1.2:4001", "tcp:192.168.1.2:443"],
            &["198.51.100.9:1024"],
        );
        let mapped = remotes(&["198.51.100.9:4001", "tcp:198.51.100.9:1443"]);
        assert!(own.set_mapped(mapped.clone()));
        assert!(!own.set_mapped(mapped));
        let offered = [
            "198.51.100.9:4001",
            "198.51.100.9:1024",
            "192.168.1.2:4001",
            "tcp:198.51.100.9:1443",
        ];
        assert_eq!(own.offer(4), remotes(&offered));
    }

    #[test]
    fn the_port_of_an_opened_connection_is_not_offered() {
        let own = candidates(&["192.168.1.2:4001"], &["tcp:198.51.100.9:55555"]);
        assert_eq!(own.offer(8), remotes(&["192.168.1.2:4001"]));
    }

    #[test]
    fn private_addresses_are_tried_on_their_own_site_alone() {
        let check = |seen: &[&str], offered: &[&str], tried: &[&str]| {
            let own = candidates(&["192.168.1.2:4001"], seen);
            assert_eq!(own.worth_trying(&remotes(offered)), remotes(tried));
        };
        let neighbour = ["198.51.100.9:2000", "192.168.1.3:4001"];
        check(&["198.51.100.9:1024"], &neighbour, &neighbour);
        check(&["198.51.100.8:1024"], &neighbour, &neighbour[..1]);
        // Without a way out nobody is seen from outside.
        check(&[], &neighbour, &neighbour);
        check(&["198.51.100.8:1024"], &neighbour[1..], &neighbour[1..]);
        check(&[], &["10.0.0.1:4001", "100.64.0.1:4001"], &[]);
    }

    #[test]
    fn addresses_that_lead_nowhere_are_not_tried() {
        let own = candidates(&["198.51.100.7:4001"], &[]);
        let offered = [
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "127.0.0.1:1",
            "169.254.0.1:1",
            "[fe80::1]:1",
            "[2001:db8::1]:1",
            "[fd00::1]:1",
            "203.0.113.1:0",
            "198.51.100.7:4001",
            "203.0.113.1:1",
        ];
        assert_eq!(
            own.worth_trying(&remotes(&offered)),
            remotes(&["203.0.113.1:1"])
        );
    }
}
