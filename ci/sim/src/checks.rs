//! What must hold, looked at from outside: one ring, bounded tables, one holder for each address, no
//! session with the dead or the revoked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use wow_overlay::id::NodeId;

use crate::machine::{Machine, Population};
use crate::network::HostId;
use crate::world::World;

/// Neighbours on each side that a ring must know to survive the loss of one.
pub const NEAR_PER_SIDE: usize = 2;

/// How far a pool is from being one consistent ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFault {
    /// Nodes that are not joined or have other neighbours than the ring has.
    pub wrong: usize,
    /// Nodes that run.
    pub live: usize,
    /// The first of the wrong ones, in particular.
    pub first: String,
}

impl std::fmt::Display for RingFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} nodes wrong; {}",
            self.wrong, self.live, self.first
        )
    }
}

/// Every node that runs is joined and has precisely the ring's nearest neighbours.
pub fn ring<P: Population>(world: &World<P>) -> Result<(), RingFault> {
    let mut positions: Vec<(NodeId, HostId)> =
        world.live().map(|host| (world.id(host), host)).collect();
    positions.sort();
    let mut order = vec![usize::MAX; world.hosts().count()];
    for (place, (_, host)) in positions.iter().enumerate() {
        order[host.index()] = place;
    }
    let count = positions.len();
    let near = NEAR_PER_SIDE.min(count.saturating_sub(1));
    let mut fault = RingFault {
        wrong: 0,
        live: count,
        first: String::new(),
    };
    for (host, machine) in world.machines() {
        let place = order[host.index()];
        let right = (1..=near).map(|n| positions[(place + n) % count].0);
        let left = (1..=near).map(|n| positions[(place + count - n) % count].0);
        let (found_left, found_right) = machine.neighbours();
        // A node alone has nobody to be joined to.
        let complaint = if count > 1 && !machine.is_joined() {
            Some("is not joined".to_owned())
        } else if !right.clone().eq(found_right.iter().copied()) {
            Some(differ("right", right, &found_right))
        } else if !left.clone().eq(found_left.iter().copied()) {
            Some(differ("left", left, &found_left))
        } else {
            None
        };
        if let Some(complaint) = complaint {
            if fault.wrong == 0 {
                let id = world.id(host).short();
                fault.first = format!("host {} (node {id}) {complaint}", host.0);
            }
            fault.wrong += 1;
        }
    }
    if fault.wrong > 0 {
        return Err(fault);
    }
    Ok(())
}

fn differ(side: &str, expected: impl Iterator<Item = NodeId>, found: &[NodeId]) -> String {
    let names = |ids: &mut dyn Iterator<Item = NodeId>| {
        let names: Vec<String> = ids.map(NodeId::short).collect();
        names.join(" ")
    };
    format!(
        "has {side} neighbours [{}], the ring has [{}]",
        names(&mut found.iter().copied()),
        names(&mut { expected })
    )
}

/// No table is above its limit; the first that is, in words.
pub fn tables<P: Population>(world: &World<P>) -> Result<(), String> {
    for (host, machine) in world.machines() {
        for table in machine.occupancies() {
            if table.entries > table.limit {
                return Err(format!(
                    "host {}: {} holds {} entries, limit {}",
                    host.0, table.table, table.entries, table.limit
                ));
            }
        }
    }
    Ok(())
}

/// No node keeps a session with one that does not run; the first that does, in words.
pub fn sessions<P: Population>(world: &World<P>) -> Result<(), String> {
    for (host, machine) in world.machines() {
        for peer in machine.peers() {
            match world.host_of(peer) {
                Some(peer) if world.is_live(peer) => {}
                Some(dead) => {
                    return Err(format!(
                        "host {} still has a session with dead host {}",
                        host.0, dead.0
                    ));
                }
                None => {
                    let peer = peer.short();
                    return Err(format!(
                        "host {} has a session with stranger {peer}",
                        host.0
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The addresses that several nodes take for their own at this moment, and these nodes. Whoever is
/// stopped takes nothing for its own.
pub fn disputes<P: Population>(world: &World<P>) -> BTreeMap<Ipv4Addr, Vec<HostId>> {
    let mut holders: BTreeMap<Ipv4Addr, Vec<HostId>> = BTreeMap::new();
    for (host, machine) in world.machines() {
        if !world.is_paused(host) {
            for address in machine.leases() {
                holders.entry(address).or_default().push(host);
            }
        }
    }
    holders.retain(|_, hosts| hosts.len() > 1);
    holders
}

/// The members that have a session with a revoked node at this moment, and that node. Whoever is
/// stopped has none.
pub fn links_to_revoked<P: Population>(world: &World<P>) -> Vec<(HostId, HostId)> {
    let mut links = Vec::new();
    if world.revoked().next().is_none() {
        return links;
    }
    for (host, machine) in world.machines() {
        if world.is_paused(host) {
            continue;
        }
        let peers = machine.peers().into_iter();
        let peers = peers.filter_map(|peer| world.host_of(peer));
        let revoked = peers.filter(|peer| world.revoked_at(*peer).is_some());
        links.extend(revoked.map(|revoked| (host, revoked)));
    }
    links
}

/// How many nodes forward a frame that goes greedily, from peer to peer, from one host's node to
/// another's; none if it gets stuck on the way. Peers that are dead and not yet known to be are
/// passed over, as a frame is that was sent again when they were found out.
pub fn greedy_hops<P: Population>(world: &World<P>, from: HostId, to: HostId) -> Option<usize> {
    let target = world.id(to);
    let mut here = from;
    let mut forwarders = 0;
    loop {
        let position = world.id(here);
        let peers = world.machine(here)?.peers();
        let is_live = |id: &NodeId| world.host_of(*id).is_some_and(|host| world.is_live(host));
        let next = peers
            .into_iter()
            .filter(is_live)
            .min_by_key(|id| id.distance(target))?;
        if next == target {
            return Some(forwarders);
        }
        if next.distance(target) >= position.distance(target) {
            return None;
        }
        here = world.host_of(next)?;
        forwarders += 1;
    }
}
