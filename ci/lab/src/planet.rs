//! The testbed of the WOW paper: public routers at many places, as on PlanetLab, and nodes in six
//! domains behind NATs of differing kinds.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;

use crate::topology::{Domain, Map, Place, Topology};

/// Routers and nodes of the paper.
pub const ROUTERS: u16 = 118;
/// See [`ROUTERS`].
pub const NODES: u16 = 33;

/// The NATs before the six domains.
pub const KINDS: [&str; 6] = [
    "full-cone",
    "restricted",
    "port-restricted",
    "port-restricted",
    "symmetric",
    "symmetric",
];

/// Round trips between domains, in milliseconds.
const ROUND_TRIP_MS: [u32; 2] = [20, 200];

/// Of a domain's line each way: 0.5% from one domain to another.
const LOSS_PERCENT: f64 = 0.25;

/// How many routers are seeds: two may be far away and one of them down.
const SEEDS_MAX: usize = 4;

/// Most of each kind, for their addresses to fit.
const MANY: u16 = 1000;

/// How places are called where fresh nodes start, one in each of the six domains.
const FRESH: &str = "fresh";

/// The testbed with so many routers and nodes; `seed` places them on the map. Routers come first, then
/// nodes, then the places for fresh nodes.
pub fn topology(routers: u16, nodes: u16, seed: u64) -> Result<Topology> {
    ensure!(
        (1..=MANY).contains(&routers) && (1..=MANY).contains(&nodes),
        "there can be 1 to {MANY} routers and as many nodes"
    );
    let mut topology = Topology {
        domains: Vec::new(),
        places: Vec::new(),
        seeds: SEEDS_MAX.min(routers.into()),
        map: Some(Map {
            seed,
            round_trip_ms: ROUND_TRIP_MS,
        }),
    };
    for number in 1..=routers {
        let [high, low] = number.to_be_bytes();
        let name = format!("r{number}");
        topology.domains.push(Domain {
            name: name.clone(),
            subnet: net(20, high, low),
            nat: None,
            latency_ms: 0,
            loss_percent: LOSS_PERCENT,
        });
        topology.places.push(Place {
            name: name.clone(),
            domain: name,
            address: Ipv4Addr::new(20, high, low, 10),
        });
    }
    for (number, kind) in (1u8..).zip(KINDS) {
        topology.domains.push(Domain {
            name: format!("d{number}"),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(172, 16 + number, 0, 0), 16),
            nat: Some((Ipv4Addr::new(198, 51, 100, number), kind)),
            latency_ms: 0,
            loss_percent: LOSS_PERCENT,
        });
    }
    for number in 0..nodes {
        let [high, low] = (number / KINDS.len() as u16 + 256).to_be_bytes();
        let domain = (number % KINDS.len() as u16 + 1) as u8;
        topology.places.push(Place {
            name: format!("n{}", number + 1),
            domain: format!("d{domain}"),
            address: Ipv4Addr::new(172, 16 + domain, high, low),
        });
    }
    for domain in 1..=KINDS.len() as u8 {
        topology.places.push(Place {
            name: format!("{FRESH}{domain}"),
            domain: format!("d{domain}"),
            address: Ipv4Addr::new(172, 16 + domain, 0, 10),
        });
    }
    Ok(topology)
}

/// Whether a place is for fresh nodes.
pub fn is_fresh(place: &Place) -> bool {
    place.name.starts_with(FRESH)
}

/// Whether two nodes behind NATs of these kinds, in different domains, can have a direct UDP path by
/// simultaneous sending: at least one side must be able to guess where the other will come from.
pub fn can_meet(a: &str, b: &str) -> bool {
    let hard = |x: &str, y: &str| x == "symmetric" && (y == "symmetric" || y == "port-restricted");
    !hard(a, b) && !hard(b, a)
}

fn net(a: u8, b: u8, c: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_papers_testbed_is_118_public_domains_and_33_nodes_in_six_more() {
        let topology = topology(ROUTERS, NODES, 1).unwrap();
        assert_eq!((topology.domains.len(), topology.places.len()), (124, 157));
        assert_eq!(topology.seeds().unwrap().len(), 4);
        let mut addresses = BTreeSet::new();
        for place in &topology.places {
            let domain = topology.domain(place).unwrap();
            assert!(domain.subnet.contains(&place.address), "{place:?}");
            assert_ne!(domain.gateway(), Some(place.address));
            assert!(addresses.insert((domain.name.clone(), place.address)));
        }
        let crowd = |name: &str| topology.places.iter().filter(|p| p.domain == name).count();
        assert_eq!((crowd("d1"), crowd("d3"), crowd("d4")), (7, 7, 6));
        let fresh = topology.places.iter().filter(|place| is_fresh(place));
        assert_eq!(fresh.count(), KINDS.len());
        assert!(super::topology(0, 1, 1).is_err() && super::topology(1, 2000, 1).is_err());
    }

    #[test]
    fn theory_knows_which_kinds_meet() {
        let meet = KINDS.map(|kind| can_meet(kind, "symmetric"));
        assert_eq!(meet, [true, true, false, false, false, false]);
        assert!(can_meet("port-restricted", "port-restricted"));
    }
}
