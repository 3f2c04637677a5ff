//! The network as its users meet it: delay, loss, order, translators, partitions.

use super::*;
use rand::SeedableRng;

const DELAY: DelayRange = DelayRange {
    min: Duration::from_millis(5),
    max: Duration::from_millis(150),
};
const CLEAN: Conditions = Conditions {
    loss: Share::NONE,
    duplication: Share::NONE,
    jitter: Duration::ZERO,
};

fn network(hosts: usize, mix: &str, conditions: Conditions) -> Network {
    let mix = mix.parse().unwrap();
    Network::new(Rng::seed_from_u64(7), hosts, 2, &mix, DELAY, conditions)
}

fn first_pair(network: &Network, same_domain: bool) -> (HostId, HostId) {
    let hosts = network.places.len() as u32;
    for a in 2..hosts {
        for b in a + 1..hosts {
            let same = network.places[a as usize].domain == network.places[b as usize].domain;
            if same == same_domain {
                return (HostId(a), HostId(b));
            }
        }
    }
    panic!("no such pair among {hosts} hosts");
}

#[test]
fn public_hosts_reach_each_other_within_the_range_of_delays() {
    let mut net = network(40, "none", CLEAN);
    let mut delays = BTreeSet::new();
    for a in 0..40 {
        for b in 0..40 {
            if a == b {
                continue;
            }
            let to = net.local_address(HostId(b));
            let (flight, times) = net.send(Instant::ZERO, HostId(a), to).unwrap();
            assert_eq!(net.receive(times[0].unwrap(), &flight), Some(HostId(b)));
            assert_eq!(
                Remote::udp(flight.from.into()),
                net.local_address(HostId(a))
            );
            assert_eq!(times[1], None);
            delays.insert(times[0].unwrap() - Instant::ZERO);
        }
    }
    assert!(delays.contains(&LAN_DELAY));
    assert!(delays.iter().all(|delay| *delay <= DELAY.max));
    assert!(delays.iter().all(|d| *d == LAN_DELAY || *d >= DELAY.min));
    assert!(delays.len() > 20, "a matrix, not a constant");
}

#[test]
fn loss_and_duplication_happen_about_as_often_as_asked() {
    let conditions = Conditions {
        loss: Share::percent(5),
        duplication: Share::percent(10),
        jitter: Duration::from_millis(20),
    };
    let mut net = network(2, "none", conditions);
    let to = net.local_address(HostId(1));
    let mut times = Vec::new();
    for micros in 0..10_000 {
        if let Some((_, [first, _])) = net.send(Instant::from_micros(micros), HostId(0), to) {
            times.push(first);
        }
    }
    let tallies = net.tallies();
    assert!((400..600).contains(&tallies.lost), "{tallies:?}");
    assert!((800..1100).contains(&tallies.duplicated), "{tallies:?}");
    assert!(!times.is_sorted(), "jitter reorders");
}

#[test]
fn local_hosts_meet_by_private_addresses_and_strangers_do_not() {
    let mut net = network(30, "port-restricted", CLEAN);
    let (a, b) = first_pair(&net, true);
    let (flight, _) = net.send(Instant::ZERO, a, net.local_address(b)).unwrap();
    assert_eq!(net.receive(Instant::ZERO, &flight), Some(b));
    assert_eq!(Remote::udp(flight.from.into()), net.local_address(a));

    // Another domain's private address is nobody's, or a local host's: never the stranger's.
    let (a, b) = first_pair(&net, false);
    let reached = net
        .send(Instant::ZERO, a, net.local_address(b))
        .and_then(|(flight, _)| net.receive(Instant::ZERO, &flight));
    assert_ne!(reached, Some(b));
}

#[test]
fn hole_punching_opens_port_restricted_domains() {
    let mut net = network(30, "port-restricted", CLEAN);
    let (a, b) = first_pair(&net, false);
    let seed = net.local_address(HostId(0));
    let now = Instant::ZERO;
    let (from_a, _) = net.send(now, a, seed).unwrap();
    let (from_b, _) = net.send(now, b, seed).unwrap();
    let (reflexive_a, reflexive_b) = (from_a.from, from_b.from);
    assert_ne!(Remote::udp(reflexive_a.into()), net.local_address(a));

    let (first, _) = net.send(now, a, Remote::udp(reflexive_b.into())).unwrap();
    assert_eq!(net.receive(now, &first), None, "b has not sent to a yet");
    let (second, _) = net.send(now, b, Remote::udp(reflexive_a.into())).unwrap();
    assert_eq!(net.receive(now, &second), Some(a));
    assert_eq!(
        net.receive(now, &first),
        Some(b),
        "arrives after b's permit"
    );
}

#[test]
fn a_partition_cuts_both_ways_and_heals() {
    let mut net = network(2, "none", CLEAN);
    let (a, b) = (net.local_address(HostId(0)), net.local_address(HostId(1)));
    net.set_partition(BTreeSet::from([net.places[0].domain]));
    assert_eq!(net.send(Instant::ZERO, HostId(0), b), None);
    assert_eq!(net.send(Instant::ZERO, HostId(1), a), None);
    assert_eq!(net.tallies().partitioned, 2);
    net.set_partition(BTreeSet::new());
    assert!(net.send(Instant::ZERO, HostId(0), b).is_some());
}

#[test]
fn a_reset_translator_lets_nobody_in() {
    let mut net = network(30, "full-cone", CLEAN);
    let inside = HostId(5);
    let seed = net.local_address(HostId(0));
    let (flight, _) = net.send(Instant::ZERO, inside, seed).unwrap();
    let back = Remote::udp(flight.from.into());
    let (answer, _) = net.send(Instant::ZERO, HostId(0), back).unwrap();
    assert_eq!(net.receive(Instant::ZERO, &answer), Some(inside));
    net.reset_nat(net.places[inside.index()].domain);
    assert_eq!(net.receive(Instant::ZERO, &answer), None);
}
