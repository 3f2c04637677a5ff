//! What the node learns of the networks around it: addresses, links, mapped ports, announcements, seeds.

use std::net::SocketAddr;
use std::time::Duration;

use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;
use wow_underlay::portmap::{Mapped, Transport};
use wow_underlay::{InterfaceAddress, TcpUnderlay};

use super::super::host;
use super::super::seeds::Seeds;
use super::Core;
use crate::random;

/// Paths are not questioned because of links more often than this.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);

/// How often local networks are told of this node: by one that has peers, and by one that has none.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);
const ANNOUNCE_ALONE: Duration = Duration::from_secs(4);

/// How long after a change of the machine's addresses at most.
const ANNOUNCE_SPREAD: Duration = Duration::from_millis(200);

impl Core {
    /// Reads the machine's addresses anew.
    pub fn interfaces_changed(&mut self) {
        let own = wow_underlay::interfaces::list().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the machine's addresses");
            Vec::new()
        });
        let pool = self.settings.ticket.facts();
        let tcp = self.tcp.as_ref().map_or(&[][..], TcpUnderlay::listening);
        let bound = self.underlay.bound().into_iter().map(Remote::udp);
        let bound: Vec<_> = bound.chain(tcp.iter().copied().map(Remote::tcp)).collect();
        let prefix = pool.summary().v6_prefix;
        let candidates = host::candidates(&bound, &own, pool.range, prefix);
        let offered = |ip| candidates.iter().any(|candidate| candidate.ip() == ip);
        let carriers = own.iter().filter(|address| offered(address.ip));
        self.carriers = carriers.map(|address| address.index).collect();
        tracing::debug!(?candidates, "own underlay addresses");
        let now = self.now();
        if let Some(lan) = &mut self.lan {
            let usable = |address: &InterfaceAddress| {
                let udp = candidates.iter().filter(|candidate| candidate.is_udp());
                udp.map(|candidate| candidate.ip())
                    .any(|ip| ip == address.ip)
            };
            let mut networks = own.clone();
            networks.retain(usable);
            lan.set_networks(&networks);
            // Many machines of one network may have woken up at once.
            self.announce_due = now + ANNOUNCE_SPREAD.mul_f64(random::share(0.0, 1.0));
        }
        if let Some(tun) = &self.settings.tun {
            let pool = self.settings.ticket.facts();
            self.trouble.routes_changed(pool, tun);
        }
        if self.node.set_host_candidates(now, candidates) {
            self.questioned = Some(now);
        }
        self.drain_node();
    }

    /// Links changed or announced themselves: one with an address of ours may lead elsewhere now, as
    /// after the migration of a virtual machine.
    pub fn links_changed(&mut self, links: &[u32]) {
        let now = self.now();
        let ours = links.iter().any(|link| self.carriers.contains(link));
        let lately = |last: Instant| now - last < QUESTION_PAUSE;
        if ours && !self.questioned.is_some_and(lately) {
            tracing::debug!(?links, "a link announced itself: probing every path");
            self.questioned = Some(now);
            self.node.question_paths(now);
            self.drain_node();
        }
    }

    pub fn mappings_changed(&mut self, mapped: &[Mapped]) {
        tracing::info!(?mapped, "ports mapped by the gateway");
        let remote = |mapped: &Mapped| match mapped.transport {
            Transport::Udp => Remote::udp(mapped.external.into()),
            Transport::Tcp => Remote::tcp(mapped.external.into()),
        };
        let now = self.now();
        let mapped = mapped.iter().map(remote).collect();
        self.node.set_mapped_candidates(now, mapped);
        self.drain_node();
    }

    pub fn handle_announcement(&mut self, from: SocketAddr, bytes: &mut [u8]) {
        let now = self.now();
        self.node.handle_announcement(now, from, bytes);
        self.drain_node();
    }

    /// Tells the local networks of this node: often while it knows nobody.
    pub(super) fn announce(&mut self, now: Instant) {
        let span = match self.node.has_peers() {
            true => ANNOUNCE_INTERVAL,
            false => ANNOUNCE_ALONE,
        };
        self.announce_due = now + span.mul_f64(random::share(0.75, 1.25));
        let announcement = self.node.announcement();
        if let Some(lan) = &self.lan {
            lan.announce(&announcement);
        }
    }

    pub fn seeds_changed(&mut self, seeds: Seeds) {
        tracing::debug!(?seeds, "seeds");
        let now = self.now();
        self.trouble.seeds_changed(seeds.unknown);
        self.node.set_seeds(now, seeds.remotes);
        self.drain_node();
    }
}
