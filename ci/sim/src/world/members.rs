//! Who runs, who is a member, and the end of memberships.

use std::net::Ipv4Addr;

use wow_overlay::time::Instant;

use super::World;
use crate::machine::{Machine, Population};
use crate::network::HostId;

impl<P: Population> World<P> {
    /// The hosts whose nodes run and are members, in order.
    pub fn live(&self) -> impl Iterator<Item = HostId> + '_ {
        self.machines().map(|(host, _)| host)
    }

    /// The members that run.
    pub fn machines(&self) -> impl Iterator<Item = (HostId, &P::Machine)> + '_ {
        self.hosts().filter_map(|id| {
            let host = self.host(id);
            let machine = host.machine.as_ref()?;
            host.revoked.is_none().then_some((id, machine))
        })
    }

    /// The node of `host`, if it runs.
    pub fn machine(&self, host: HostId) -> Option<&P::Machine> {
        self.host(host).machine.as_ref()
    }

    /// Whether `host`'s node runs and is a member.
    pub fn is_live(&self, host: HostId) -> bool {
        let host = self.host(host);
        host.machine.is_some() && host.revoked.is_none()
    }

    /// Whether `host`'s node is stopped for a while.
    pub fn is_paused(&self, host: HostId) -> bool {
        self.host(host).is_paused()
    }

    /// When `host`'s node was last started, or went on after a pause.
    pub fn woke_at(&self, host: HostId) -> Instant {
        self.host(host).woke
    }

    /// Members no longer, and since when.
    pub fn revoked(&self) -> impl Iterator<Item = (HostId, Instant)> + '_ {
        let hosts = self.hosts();
        hosts.filter_map(|host| Some((host, self.host(host).revoked?)))
    }

    /// When the membership of `host`'s node was ended, if it was.
    pub fn revoked_at(&self, host: HostId) -> Option<Instant> {
        self.host(host).revoked
    }

    /// Ends memberships: `by`'s owner tells its node the authority's words. The struck nodes run on,
    /// and do what they can.
    pub fn revoke(&mut self, by: HostId, struck: &[HostId]) {
        for host in struck {
            let word = self.population.revocation(*host);
            let now = self.now;
            self.host_mut(*host).revoked.get_or_insert(now);
            self.trace.word(0x65);
            self.trace.word(u64::from(host.0));
            self.touch(by, |machine, now| machine.revoke(now, &word));
        }
    }

    /// The name of `host`'s node.
    pub fn name(&self, host: HostId) -> String {
        self.population.name(host)
    }
}

/// Whether an IPv4 packet goes to one of these addresses.
pub(super) fn is_for(packet: &[u8], leases: &[Ipv4Addr]) -> bool {
    let target = packet.get(16..20).filter(|_| packet[0] >> 4 == 4);
    let target = target.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    target.is_some_and(|target| leases.contains(&Ipv4Addr::from(target)))
}
