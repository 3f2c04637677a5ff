//! What a converged pool must do for random pairs: find addresses, echo, carry guest packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use wow_overlay::id::NodeId;

use crate::machine::{Notice, Population};
use crate::network::HostId;
use crate::world::World;

/// Tries of each probe: a datagram network may lose any of them, hardly all.
pub const ATTEMPTS: usize = 10;
/// Time between tries.
const INTERVAL: Duration = Duration::from_secs(2);
/// Payloads run from a number alone to what fills the guest's MTU of 1280 bytes over IPv6.
const PAYLOAD_MIN: usize = 8;
const PAYLOAD_MAX: usize = 1232;

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

#[derive(Default)]
struct Pair {
    resolved: bool,
    answered: bool,
    packet_numbers: Vec<u64>,
    delivered: bool,
}

/// Probes `pairs`, trying again what fails, and records what stays failed as violations.
pub fn probe<P: Population>(
    world: &mut World<P>,
    pairs: &[(HostId, HostId)],
    findings: &mut Findings,
) {
    let mut states: Vec<Pair> = pairs.iter().map(|_| Pair::default()).collect();
    let mut lookups: BTreeMap<(HostId, u64), usize> = BTreeMap::new();
    let mut pings: BTreeMap<(HostId, u64), usize> = BTreeMap::new();
    world.take_notices();
    for attempt in 0..ATTEMPTS {
        let again = u64::from(attempt > 0);
        for (n, (state, &(from, to))) in states.iter_mut().zip(pairs).enumerate() {
            // One family of addresses and then the other, and all lengths.
            let v6 = (n + attempt) % 2 == 1;
            if !state.resolved {
                let addresses = world.addresses(to);
                let address = match v6 {
                    false => IpAddr::V4(addresses.v4),
                    true => IpAddr::V6(addresses.v6),
                };
                findings.lookups += 1;
                findings.lookups_repeated += again;
                if let Some(token) = world.lookup(from, address) {
                    lookups.insert((from, token), n);
                }
            }
            if !state.answered {
                findings.pings_repeated += again;
                if let Some(token) = world.ping(from, to) {
                    pings.insert((from, token), n);
                }
            }
            if !state.delivered {
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
                    let Some(n) = lookups.remove(&(host, token)) else {
                        continue;
                    };
                    if let Ok(found) = result {
                        states[n].resolved = true;
                        check_found(world, pairs[n], found);
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
        if states
            .iter()
            .all(|s| s.resolved && s.answered && s.delivered)
        {
            return;
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

fn check_found<P: Population>(world: &mut World<P>, pair: (HostId, HostId), found: NodeId) {
    let (from, to) = pair;
    if found != world.id(to) {
        let (from, to, found) = (from.0, to.0, found.short());
        let detail = format!("host {from} looked up host {to} and was told of {found}");
        world.violate("addresses resolve to their holder", detail);
    }
}
