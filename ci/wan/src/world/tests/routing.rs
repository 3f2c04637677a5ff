//! Between domains: delay, TTL, unreachable networks and hosts, loss, moves, determinism.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::hosts::{MS, Net, S, gateway_mac};
use crate::{
    config::{Config, Domain, Port},
    counters::DropReason,
    nat::Behaviour,
    wire::{PROTOCOL_ICMP, icmp},
};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

fn domains() -> Vec<Domain> {
    vec![
        Domain::nat(
            "a",
            "192.168.10.0/24".parse().unwrap(),
            NAT,
            Behaviour::PORT_RESTRICTED,
        )
        .with_latency(10 * MS),
        Domain::public("net", "203.0.113.0/24".parse().unwrap()).with_latency(5 * MS),
    ]
}

const HOSTS: [(&str, [u8; 4]); 2] = [("a", [192, 168, 10, 20]), ("net", [203, 0, 113, 5])];

#[test]
fn ping_crosses_domains_in_exactly_the_configured_time() {
    let mut net = Net::new(domains(), &HOSTS);
    net.ping(0, PUBLIC, 9, 64);
    net.run(29 * MS);
    assert!(net.take(0).is_empty());
    net.run(MS);
    let reply = net.take_one(0);
    assert_eq!(reply.at.as_nanos(), 30_000_000);
    assert_eq!(
        (reply.payload[0], &reply.payload[4..6]),
        (icmp::ECHO_REPLY, &[0, 9][..])
    );
    // Two gateways each way.
    assert_eq!(reply.header.ttl, 62);
}

#[test]
fn ttl_runs_out_at_each_gateway_in_turn() {
    let mut net = Net::new(domains(), &HOSTS);
    for (ttl, hop) in [
        (1, Ipv4Addr::new(192, 168, 10, 1)),
        (2, Ipv4Addr::new(203, 0, 113, 1)),
    ] {
        net.ping(0, PUBLIC, 9, ttl);
        net.run(S);
        let error = net.take_one(0);
        assert_eq!(
            (error.header.source, error.payload[0]),
            (hop, icmp::TIME_EXCEEDED)
        );
        let (quoted, payload) = error.quoted();
        assert_eq!(
            quoted.source,
            Ipv4Addr::new(192, 168, 10, 20),
            "translated back"
        );
        assert_eq!((quoted.destination, &payload[4..6]), (PUBLIC, &[0, 9][..]));
    }
    net.send_udp(0, 5000, SocketAddrV4::new(PUBLIC, 6000), b"arrives");
    net.run(S);
    let mapped = net.take_one(1).source();
    // From outside, the NAT's public address is the last hop.
    let datagram = super::hosts::udp(PUBLIC, 6000, mapped, b"too far");
    net.send(1, NAT, 17, 2, &datagram);
    net.run(S);
    let error = net.take_one(1);
    assert_eq!(
        (error.header.source, error.payload[0]),
        (NAT, icmp::TIME_EXCEEDED)
    );
}

#[test]
fn unknown_networks_and_absent_hosts_are_reported_unreachable() {
    let mut net = Net::new(domains(), &HOSTS);
    net.send_udp(0, 5000, "8.8.8.8:53".parse().unwrap(), b"?");
    net.run(S);
    let error = net.take_one(0);
    assert_eq!(error.payload[..2], [icmp::UNREACHABLE, 0]);
    assert_eq!(net.world.domain_reports(net.now)[0].nat_mappings, Some(0));

    net.send_udp(0, 5000, "203.0.113.77:53".parse().unwrap(), b"?");
    net.run(2 * S);
    assert!(net.take(0).is_empty(), "three questions take three seconds");
    net.run(2 * S);
    let error = net.take_one(0);
    assert_eq!(error.payload[..2], [icmp::UNREACHABLE, 1]);
    assert_eq!(error.quoted().0.source, Ipv4Addr::new(192, 168, 10, 20));
    assert_eq!(net.drops(DropReason::NoHost), 1);
}

#[test]
fn an_absent_host_behind_a_nat_is_reported_without_giving_its_address_away() {
    let mut net = Net::new(domains(), &HOSTS);
    net.send_udp(0, 5000, SocketAddrV4::new(PUBLIC, 6000), b"first");
    net.run(S);
    let mapped = net.take_one(1).source();
    net.hosts[0].on = false;
    net.run(70 * S);
    net.send_udp(1, 6000, mapped, b"anybody home?");
    net.run(4 * S);
    let error = net.take_one(1);
    assert_eq!(
        (error.header.source, error.payload[..2].to_vec()),
        (NAT, vec![icmp::UNREACHABLE, 1])
    );
    let (quoted, payload) = error.quoted();
    assert_eq!(quoted.destination, NAT);
    assert_eq!(payload[2..4], mapped.port().to_be_bytes());
}

#[test]
fn forged_senders_and_misdirected_packets_are_dropped() {
    let mut net = Net::new(domains(), &HOSTS);
    net.hosts[1].ip = Ipv4Addr::new(1, 2, 3, 4);
    net.ping(1, NAT, 1, 64);
    net.hosts[1].ip = PUBLIC;
    for to in ["224.0.0.5", "127.0.0.1", "255.255.255.255", "169.254.1.1"] {
        net.ping(1, to.parse().unwrap(), 1, 64);
    }
    net.run(S);
    assert_eq!(net.drops(DropReason::Spoofed), 1);
    assert_eq!(net.drops(DropReason::NotForwarded), 4);
    assert!(net.take(0).is_empty());
}

#[test]
fn errors_are_never_sent_about_errors_and_are_rate_limited() {
    let mut net = Net::new(domains(), &HOSTS);
    // Later errors need not wait for ARP.
    net.ping(1, "203.0.113.1".parse().unwrap(), 1, 64);
    net.run(MS);
    net.take_one(1);
    let mut error = vec![icmp::UNREACHABLE, 1, 0, 0, 0, 0, 0, 0];
    icmp::refresh_checksum(&mut error);
    net.send(1, "8.8.8.8".parse().unwrap(), PROTOCOL_ICMP, 64, &error);
    net.run(MS);
    assert!(net.take(1).is_empty());
    for _ in 0..1000 {
        net.ping(1, "8.8.8.8".parse().unwrap(), 1, 64);
    }
    net.run(MS);
    let answered = net.take(1).len();
    assert!((90..=110).contains(&answered), "{answered}");
}

#[test]
fn loss_jitter_and_blocked_udp_apply_between_domains() {
    let mut lossy = domains();
    lossy[0].link.loss_percent = 30.0;
    lossy[0].link.jitter = 3 * MS;
    lossy[1].link.block_udp = true;
    let mut net = Net::new(lossy, &HOSTS);
    for id in 0..1000 {
        net.ping(0, PUBLIC, id, 64);
        net.run(40 * MS);
    }
    let replies = net.take(0);
    // Both ways: 0.7 squared.
    assert!((430..550).contains(&replies.len()), "{}", replies.len());
    let delays: Vec<_> = replies
        .iter()
        .map(|r| r.at.as_nanos() % 40_000_000)
        .collect();
    assert!(
        delays
            .iter()
            .all(|delay| (30_000_000..=36_000_000).contains(delay))
    );
    net.send_udp(0, 5000, SocketAddrV4::new(PUBLIC, 6000), b"no");
    net.send_udp(1, 5000, SocketAddrV4::new(NAT, 6000), b"no");
    net.run(S);
    assert!(net.take(0).is_empty() && net.take(1).is_empty());
}

#[test]
fn a_port_moves_to_another_domain_at_once() {
    let mut net = Net::new(domains(), &HOSTS);
    net.ping(0, PUBLIC, 1, 64);
    net.run(S);
    net.take_one(0);
    net.world.move_port("a.0", "net").unwrap();
    assert!(net.world.move_port("a.0", "nowhere").is_err());
    assert!(net.world.move_port("nobody", "net").is_err());
    net.ping(0, PUBLIC, 2, 64);
    net.run(S);
    assert!(net.take(0).is_empty(), "its old address means nothing here");
    net.hosts[0].ip = Ipv4Addr::new(203, 0, 113, 6);
    net.hosts[0].gateway = gateway_mac(1);
    net.ping(0, Ipv4Addr::new(203, 0, 113, 1), 3, 64);
    net.run(MS);
    assert_eq!(net.take_one(0).payload[5], 3);
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let run = |seed| {
        let mut jittery = domains();
        jittery[0].link.jitter = 5 * MS;
        jittery[0].link.loss_percent = 10.0;
        let ports = vec![Port::tap("a", "t0"), Port::tap("net", "t1")];
        let mut net = Net::with_config(&Config::new(seed, jittery, ports).unwrap(), &HOSTS);
        for n in 0..50 {
            net.send_udp(0, 5000 + n, SocketAddrV4::new(PUBLIC, 6000), b"x");
            net.run(MS);
        }
        net.run(S);
        net.take(1)
            .iter()
            .map(|p| (p.at, p.source().port()))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
