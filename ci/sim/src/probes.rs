//! What a converged pool must do for random pairs: find addresses and names, echo, carry guest packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use wow_overlay::id::NodeId;

use crate::machine::{Machine, Notice, Population, Sought};
use crate::network::HostId;
use crate::world::World;

/// Tries of each probe: a datagram network may lose any of them, hardly all.
pub const ATTEMPTS: usize = 10;
/// Tries of a lookup. A record that was lost together with all who kept it is back when its holder
/// renews it, within 80 s.
const LOOKUPS: usize = 45;
/// Time between tries.
const INTERVAL: Duration = Duration::from_secs(2);
/// Payloads run from a number alone to what fills the guest's MTU of 1280 bytes over IPv6.
const PAYLOAD_MIN: usize = 8;
const PAYLOAD_MAX: usize = 1232;
/// Revoked nodes that are looked for.
const REVOKED_MAX: usize = 20;
/// Longer than a question is asked for.
const QUESTION: Duration = Duration::from_secs(10);

/// What probing found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// Lookups, with those repeated.
    pub lookups: u64,
    /// Lookups beyond the first of a pair.
    pub lookups_repeated: u64,
    /// Pings beyond the first of a pair.
    pub pings_repeated: u64,
    /// Guest packets beyond the first of a pair.
    pub packets_repeated: u64,
    /// Nodes that forwarded each first answered ping.
    #[serde(skip)]
    pub hops: Vec<f64>,
    /// Round trips of each answered ping.
    #[serde(skip)]
    pub rtt_ms: Vec<f64>,
}

#[derive(Clone, Default)]
struct Pair {
    resolved: bool,
    answered: bool,
    packet_numbers: Vec<u64>,
    delivered: bool,
}

/// Probes `pairs`, trying again what fails, and records what stays failed as violations. In a ring that
/// is not `settled` records may be missing or old, and an address lead to another node for a while.
pub fn probe<P: Population>(
    world: &mut World<P>,
    pairs: &[(HostId, HostId)],
    settled: bool,
    findings: &mut Findings,
) {
    let mut states = vec![Pair::default(); pairs.len()];
    let mut lookups: BTreeMap<(HostId, u64), (usize, Sought)> = BTreeMap::new();
    let mut pings: BTreeMap<(HostId, u64), usize> = BTreeMap::new();
    world.take_notices();
    let lookup_attempts = if settled { ATTEMPTS } else { LOOKUPS };
    for attempt in 0..lookup_attempts {
        let again = u64::from(attempt > 0);
        for (n, (state, &(from, to))) in states.iter_mut().zip(pairs).enumerate() {
            if !state.resolved
                && let Some(sought) = sought(world, to, n)
            {
                findings.lookups += 1;
                findings.lookups_repeated += again;
                if let Some(token) = world.lookup(from, sought.clone()) {
                    lookups.insert((from, token), (n, sought));
                }
            }
            if !state.answered && attempt < ATTEMPTS {
                findings.pings_repeated += again;
                if let Some(token) = world.ping(from, to) {
                    pings.insert((from, token), n);
                }
            }
            // One family of addresses and the other, and all lengths. Packets to an IPv4 address go
            // where looking it up leads.
            let v6 = n % 2 == 1;
            if !state.delivered && (attempt < ATTEMPTS || !v6) {
                findings.packets_repeated += again;
                let length = PAYLOAD_MIN + n * 37 % (PAYLOAD_MAX - PAYLOAD_MIN + 1);
                state
                    .packet_numbers
                    .extend(world.send_guest(from, to, v6, length));
            }
        }
        world.run_until(world.now() + INTERVAL);
        for (host, notice) in world.take_notices() {
            match notice {
                Notice::Resolved { token, result } => {
                    let Some((n, sought)) = lookups.remove(&(host, token)) else {
                        continue;
                    };
                    if let Ok(found) = result {
                        states[n].resolved |= found == world.id(pairs[n].1);
                        let may_err = !settled && matches!(sought, Sought::Address(IpAddr::V4(_)));
                        if !may_err {
                            check_found(world, pairs[n], &sought, found);
                        }
                    }
                }
                Notice::Pong { token, rtt, hops } => {
                    let Some(n) = pings.remove(&(host, token)) else {
                        continue;
                    };
                    if !states[n].answered {
                        states[n].answered = true;
                        findings.hops.push(f64::from(hops));
                        findings.rtt_ms.push(rtt.as_secs_f64() * 1e3);
                    }
                }
                Notice::PingTimeout { token } => {
                    pings.remove(&(host, token));
                }
            }
        }
        for state in &mut states {
            state.delivered |= state.packet_numbers.iter().any(|n| world.has_arrived(*n));
        }
        let late = attempt + 1 >= ATTEMPTS;
        let done = |n: usize, s: &Pair| {
            s.resolved && (s.answered || late) && (s.delivered || late && n % 2 == 1)
        };
        if states.iter().enumerate().all(|(n, s)| done(n, s)) {
            break;
        }
    }
    for (state, (from, to)) in states.iter().zip(pairs) {
        let (from_id, to_id) = (world.id(*from).short(), world.id(*to).short());
        let pair = format!("from host {} ({from_id}) to {} ({to_id})", from.0, to.0);
        if !state.resolved {
            world.violate("addresses resolve", pair.clone());
        }
        if !state.answered {
            world.violate("nodes answer pings", pair.clone());
        }
        if !state.delivered {
            world.violate("guest packets arrive", pair);
        }
    }
}

/// What to look a node up by: its addresses by turns, and its name.
fn sought<P: Population>(world: &World<P>, host: HostId, turn: usize) -> Option<Sought> {
    let addresses = world.machine(host)?.addresses();
    Some(match turn % 3 {
        0 => Sought::Address(IpAddr::V4(addresses.v4)),
        1 => Sought::Address(IpAddr::V6(addresses.v6)),
        _ => Sought::Name(world.name(host)),
    })
}

fn check_found<P: Population>(
    world: &mut World<P>,
    pair: (HostId, HostId),
    sought: &Sought,
    found: NodeId,
) {
    let (from, to) = pair;
    if found != world.id(to) {
        let (from, to, found) = (from.0, to.0, found.short());
        let detail = format!("host {from} looked up host {to} by {sought:?}, was told of {found}");
        world.violate("addresses resolve to their holder", detail);
    }
}

/// Looks for the revoked by their addresses and names, and lets them send: nobody is to find or hear
/// them.
pub fn probe_revoked<P: Population>(world: &mut World<P>) {
    let revoked: Vec<HostId> = world.revoked().map(|(host, _)| host).collect();
    if revoked.is_empty() {
        return;
    }
    let mut lookups: BTreeMap<(HostId, u64), HostId> = BTreeMap::new();
    let mut packets = Vec::new();
    world.take_notices();
    for host in revoked.into_iter().take(REVOKED_MAX) {
        for (turn, (from, _)) in world.draw_pairs(3).into_iter().enumerate() {
            if let Some(sought) = sought(world, host, turn)
                && let Some(token) = world.lookup(from, sought)
            {
                lookups.insert((from, token), host);
            }
            let number = world.send_guest(host, from, true, 64);
            packets.extend(number.map(|number| (number, host, from)));
        }
    }
    world.run_until(world.now() + QUESTION);
    for (from, notice) in world.take_notices() {
        if let Notice::Resolved {
            token,
            result: Ok(found),
        } = notice
            && let Some(host) = lookups.remove(&(from, token))
            && found == world.id(host)
        {
            let detail = format!("host {} found host {}", from.0, host.0);
            world.violate("nobody finds the revoked", detail);
        }
    }
    for (number, host, to) in packets {
        if world.has_arrived(number) {
            let detail = format!("host {} got a packet of host {}", to.0, host.0);
            world.violate("nobody hears the revoked", detail);
        }
    }
}
