//! The network as its users meet it: delay, loss, order, translators, partitions.

use super::*;
use rand::SeedableRng;
use wow_overlay::time::Instant;

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

fn send(net: &mut Network, now: Instant, host: HostId, to: Remote) -> Option<Sent> {
    let domain = net.map.domain_of(host);
    net.edges[domain].send(&net.map, now, host, to)
}

fn receive(net: &mut Network, now: Instant, sent: &Sent) -> Option<HostId> {
    let received = net.edges[sent.domain].receive(&net.map, now, &sent.flight);
    received.map(|(host, _)| host)
}

fn first_pair(network: &Network, same_domain: bool) -> (HostId, HostId) {
    let hosts = network.map.places.len() as u32;
    for a in 2..hosts {
        for b in a + 1..hosts {
            let same =
                network.map.places[a as usize].domain == network.map.places[b as usize].domain;
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
            let sent = send(&mut net, Instant::ZERO, HostId(a), to).unwrap();
            let arrival = sent.arrivals[0].unwrap();
            assert_eq!(receive(&mut net, arrival, &sent), Some(HostId(b)));
            assert_eq!(
                Remote::udp(sent.flight.from.into()),
                net.local_address(HostId(a))
            );
            assert_eq!(sent.arrivals[1], None);
            delays.insert(arrival - Instant::ZERO);
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
        if let Some(sent) = send(&mut net, Instant::from_micros(micros), HostId(0), to) {
            times.push(sent.arrivals[0]);
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
    let to = net.local_address(b);
    let sent = send(&mut net, Instant::ZERO, a, to).unwrap();
    assert_eq!(receive(&mut net, Instant::ZERO, &sent), Some(b));
    assert_eq!(Remote::udp(sent.flight.from.into()), net.local_address(a));

    // Another domain's private address is nobody's, or a local host's: never the stranger's.
    let (a, b) = first_pair(&net, false);
    let to = net.local_address(b);
    let reached = send(&mut net, Instant::ZERO, a, to)
        .and_then(|sent| receive(&mut net, Instant::ZERO, &sent));
    assert_ne!(reached, Some(b));
}

#[test]
fn hole_punching_opens_port_restricted_domains() {
    let mut net = network(30, "port-restricted", CLEAN);
    let (a, b) = first_pair(&net, false);
    let seed = net.local_address(HostId(0));
    let now = Instant::ZERO;
    let from_a = send(&mut net, now, a, seed).unwrap();
    let from_b = send(&mut net, now, b, seed).unwrap();
    let (reflexive_a, reflexive_b) = (from_a.flight.from, from_b.flight.from);
    assert_ne!(Remote::udp(reflexive_a.into()), net.local_address(a));

    let first = send(&mut net, now, a, Remote::udp(reflexive_b.into())).unwrap();
    assert_eq!(
        receive(&mut net, now, &first),
        None,
        "b has not sent to a yet"
    );
    let second = send(&mut net, now, b, Remote::udp(reflexive_a.into())).unwrap();
    assert_eq!(receive(&mut net, now, &second), Some(a));
    assert_eq!(
        receive(&mut net, now, &first),
        Some(b),
        "arrives after b's permit"
    );
}

#[test]
fn a_partition_cuts_both_ways_and_heals() {
    let mut net = network(2, "none", CLEAN);
    let (a, b) = (net.local_address(HostId(0)), net.local_address(HostId(1)));
    net.set_partition(BTreeSet::from([net.map.places[0].domain]));
    assert_eq!(send(&mut net, Instant::ZERO, HostId(0), b), None);
    assert_eq!(send(&mut net, Instant::ZERO, HostId(1), a), None);
    assert_eq!(net.tallies().partitioned, 2);
    net.set_partition(BTreeSet::new());
    assert!(send(&mut net, Instant::ZERO, HostId(0), b).is_some());
}

#[test]
fn a_reset_translator_lets_nobody_in() {
    let mut net = network(30, "full-cone", CLEAN);
    let inside = HostId(5);
    let seed = net.local_address(HostId(0));
    let out = send(&mut net, Instant::ZERO, inside, seed).unwrap();
    let back = Remote::udp(out.flight.from.into());
    let answer = send(&mut net, Instant::ZERO, HostId(0), back).unwrap();
    assert_eq!(receive(&mut net, Instant::ZERO, &answer), Some(inside));
    net.reset_nat(net.map.domain_of(inside));
    assert_eq!(receive(&mut net, Instant::ZERO, &answer), None);
}

#[test]
fn a_connection_ends_with_its_host_and_with_a_move() {
    let mut net = network(30, "none,udp-blocked=9", CLEAN);
    let is_inside = |host: &u32| !net.map.listens(HostId(*host));
    let inside = HostId((2..30).find(is_inside).unwrap());
    let server = Remote::tcp(net.local_address(HostId(0)).address());
    let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
    let ask = |net: &mut Network, now| {
        let asked = send(net, now, inside, server).unwrap();
        assert_eq!(receive(net, now, &asked), Some(HostId(0)));
        Remote::tcp(asked.flight.from.into())
    };

    let client = ask(&mut net, at(1));
    let answer = send(&mut net, at(2), HostId(0), client).unwrap();
    assert_eq!(receive(&mut net, at(2), &answer), Some(inside));
    net.close(HostId(0));
    assert_eq!(receive(&mut net, at(3), &answer), None);
    assert_eq!(send(&mut net, at(3), HostId(0), client), None);

    // At the same moment there may be a new one.
    let client = ask(&mut net, at(3));
    assert!(send(&mut net, at(62), HostId(0), client).is_some());
    assert_eq!(send(&mut net, at(123), HostId(0), client), None, "idle");

    let client = ask(&mut net, at(125));
    net.move_host(&mut Rng::seed_from_u64(1), inside);
    assert_eq!(send(&mut net, at(127), HostId(0), client), None);
}
