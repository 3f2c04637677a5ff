//! NAT between domains, as the applications behind it meet it: hole punching, filters, expiry,
//! hairpin, TCP and translated errors.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::hosts::{MS, Net, S};
use crate::{
    config::{Domain, Uplink},
    counters::DropReason,
    nat::Behaviour,
    wire::{
        Ipv4Header, be16, checksum, icmp, pseudo_header,
        transport::{TCP_RST, TCP_SYN},
    },
};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 6000);
const OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 6001);
/// Hosts by index: two behind NATs, a third beside the first, the server.
const HOSTS: [(&str, [u8; 4]); 4] = [
    ("a", [192, 168, 10, 20]),
    ("b", [192, 168, 10, 20]),
    ("a", [192, 168, 10, 21]),
    ("net", [203, 0, 113, 5]),
];

fn home(name: &str, public: u8, behaviour: Behaviour) -> Domain {
    let public = Ipv4Addr::new(198, 51, 100, public);
    Domain::nat(name, "192.168.10.0/24".parse().unwrap(), public, behaviour).with_latency(10 * MS)
}

fn net(a: Behaviour, b: Behaviour) -> Net {
    let core = Domain::public("net", "203.0.113.0/24".parse().unwrap()).with_latency(5 * MS);
    Net::new(vec![home("a", 10, a), home("b", 11, b), core], &HOSTS)
}

/// The external endpoint of a host's port 5000, as `server` sees it.
fn reflexive(net: &mut Net, host: usize, server: SocketAddrV4) -> SocketAddrV4 {
    net.send_udp(host, 5000, server, b"who am I?");
    net.run(S);
    net.take_one(3).source()
}

/// Both sides learn their reflexive endpoints from the server and send there `rounds` times at
/// once. True if both then have a packet of the other's.
fn punch(a: Behaviour, b: Behaviour) -> bool {
    let mut net = net(a, b);
    let [ra, rb] = [
        reflexive(&mut net, 0, SERVER),
        reflexive(&mut net, 1, SERVER),
    ];
    // A side that hears from elsewhere than it was told answers there, as ICE does.
    let mut targets = [rb, ra];
    for _ in 0..4 {
        for host in [0, 1] {
            net.send_udp(host, 5000, targets[host], b"punch");
        }
        net.run(S);
        for host in [0, 1] {
            if let Some(packet) = net.hosts[host].packets.last() {
                targets[host] = packet.source();
            }
        }
    }
    [0, 1].map(|host| !net.take(host).is_empty()) == [true, true]
}

#[test]
fn hole_punching_works_where_theory_says_so() {
    for (name_a, a) in Behaviour::NAMED {
        for (name_b, b) in Behaviour::NAMED {
            let hard = |x: Behaviour, y: Behaviour| {
                x == Behaviour::SYMMETRIC
                    && (y == Behaviour::SYMMETRIC || y == Behaviour::PORT_RESTRICTED)
            };
            let expected = !hard(a, b) && !hard(b, a);
            assert_eq!(punch(a, b), expected, "{name_a} to {name_b}");
        }
    }
}

#[test]
fn one_sided_sending_stays_outside() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    reflexive(&mut net, 0, SERVER);
    let rb = reflexive(&mut net, 1, SERVER);
    for _ in 0..10 {
        net.send_udp(0, 5000, rb, b"let me in");
        net.run(S);
    }
    assert!(net.take(1).is_empty());
    assert_eq!(net.drops(DropReason::NatFiltered), 10);
}

#[test]
fn unsolicited_packets_are_dropped_whatever_they_are() {
    let mut net = net(Behaviour::FULL_CONE, Behaviour::FULL_CONE);
    let nat = Ipv4Addr::new(198, 51, 100, 10);
    net.send_udp(3, 6000, SocketAddrV4::new(nat, 5000), b"hello?");
    net.send_tcp(3, 6000, SocketAddrV4::new(nat, 22), TCP_SYN);
    net.ping(3, nat, 5000, 64);
    net.run(S);
    assert!(net.take(0).is_empty() && net.take(2).is_empty() && net.take(3).is_empty());
    assert_eq!(net.drops(DropReason::NatUnmapped), 3);
}

#[test]
fn cones_keep_one_port_and_symmetric_changes_it() {
    for (name, behaviour) in Behaviour::NAMED {
        let mut net = net(behaviour, behaviour);
        let first = reflexive(&mut net, 0, SERVER);
        let second = reflexive(&mut net, 0, OTHER_PORT);
        assert_eq!(first == second, behaviour != Behaviour::SYMMETRIC, "{name}");
        assert_eq!(*first.ip(), Ipv4Addr::new(198, 51, 100, 10));
    }
}

#[test]
fn a_mapping_expires_after_silence_from_inside() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    let mapped = reflexive(&mut net, 0, SERVER);
    net.run(100 * S);
    net.send_udp(3, 6000, mapped, b"in time");
    net.run(S);
    net.take_one(0);
    net.run(30 * S);
    net.send_udp(3, 6000, mapped, b"too late");
    net.run(S);
    assert!(net.take(0).is_empty());
    assert_eq!(net.drops(DropReason::NatUnmapped), 1);
    assert_eq!(net.world.domain_reports(net.now)[0].nat_mappings, Some(0));
    assert!(net.world.next_deadline().is_none(), "an idle world sleeps");
    assert_ne!(reflexive(&mut net, 0, SERVER), mapped);
}

#[test]
fn tcp_passes_both_ways_and_a_reset_reaches_the_inner_host() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    net.send_tcp(0, 5000, SERVER, TCP_SYN);
    net.run(S);
    let syn = net.take_one(3);
    assert_eq!((syn.destination(), syn.payload[13]), (SERVER, TCP_SYN));
    net.send_tcp(3, 6000, syn.source(), TCP_RST);
    net.run(S);
    let reset = net.take_one(0);
    assert_eq!(
        (
            reset.source(),
            reset.destination().port(),
            reset.payload[13]
        ),
        (SERVER, 5000, TCP_RST)
    );
}

#[test]
fn tcp_opened_from_both_sides_at_once_passes_where_udp_does() {
    for (behaviour, expected) in [
        (Behaviour::PORT_RESTRICTED, true),
        (Behaviour::SYMMETRIC, false),
    ] {
        let mut net = net(behaviour, behaviour);
        let [ra, rb] = [0, 1].map(|host| {
            net.send_tcp(host, 5000, SERVER, TCP_SYN);
            net.run(S);
            net.take_one(3).source()
        });
        net.send_tcp(0, 5000, rb, TCP_SYN);
        net.run(S);
        assert!(net.take(1).is_empty(), "nobody asked for it");
        // The second side's goes through the way that the first side's has opened; then TCP repeats.
        for _ in 0..2 {
            net.send_tcp(1, 5000, ra, TCP_SYN);
            net.send_tcp(0, 5000, rb, TCP_SYN);
            net.run(S);
        }
        let met = [0, 1].map(|host| !net.take(host).is_empty());
        assert_eq!(met, [expected; 2], "{behaviour:?}");
    }
}

#[test]
fn hairpin_lets_neighbours_meet_at_the_public_address_only_if_on() {
    for hairpin in [false, true] {
        let mut a = home("a", 10, Behaviour::PORT_RESTRICTED);
        let Uplink::Nat(nat) = &mut a.uplink else {
            panic!("a NAT")
        };
        nat.hairpin = hairpin;
        let core = Domain::public("net", "203.0.113.0/24".parse().unwrap());
        let b = home("b", 11, Behaviour::PORT_RESTRICTED);
        let mut net = Net::new(vec![a, b, core], &HOSTS);
        let [first, second] = [
            reflexive(&mut net, 0, SERVER),
            reflexive(&mut net, 2, SERVER),
        ];
        net.send_udp(0, 5000, second, b"filtered at first");
        net.send_udp(2, 5000, first, b"through");
        net.send_udp(0, 5000, second, b"and back");
        net.run(S);
        if hairpin {
            assert_eq!(net.take_one(0).source(), second);
            assert_eq!(net.take_one(2).source(), first);
        } else {
            assert!(net.take(0).is_empty() && net.take(2).is_empty());
            assert_eq!(net.drops(DropReason::HairpinOff), 3);
        }
    }
}

#[test]
fn an_inner_hosts_port_unreachable_is_translated_on_its_way_out() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    let mapped = reflexive(&mut net, 0, SERVER);
    net.send_udp(3, 6000, mapped, b"to a port just closed");
    net.run(S);
    let got = net.take_one(0);
    // The inner host quotes what it got, from its first byte.
    let about = super::hosts::ipv4_frame(
        net.hosts[0].mac,
        net.hosts[0].gateway,
        *got.source().ip(),
        net.hosts[0].ip,
        17,
        got.header.ttl,
        &got.payload,
    );
    let mut error = vec![icmp::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
    error.extend_from_slice(&about[14..]);
    icmp::refresh_checksum(&mut error);
    net.send(0, *SERVER.ip(), 1, 64, &error);
    net.run(S);
    let error = net.take_one(3);
    assert_eq!(error.header.source, *mapped.ip());
    let (quoted, payload) = error.quoted();
    assert_eq!(
        (quoted.source, quoted.destination),
        (*SERVER.ip(), *mapped.ip())
    );
    assert_eq!((be16(payload, 0), be16(payload, 2)), (6000, mapped.port()));
    assert_eq!(net.drops(DropReason::NatUnmapped), 0);
}

#[test]
fn a_udp_checksum_of_none_stays_none() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    let mut datagram = super::hosts::udp(net.hosts[0].ip, 5000, SERVER, b"bare");
    datagram[6..8].fill(0);
    net.send(0, *SERVER.ip(), 17, 64, &datagram);
    net.run(S);
    assert_eq!(be16(&net.take_one(3).payload, 6), 0);
}

#[test]
fn a_damaged_checksum_stays_damaged() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    reflexive(&mut net, 0, SERVER);
    net.hosts[3].on = false;
    for damage in [0, 0x40] {
        let mut datagram = super::hosts::udp(net.hosts[0].ip, 5000, SERVER, b"payload");
        datagram[10] ^= damage;
        net.send(0, *SERVER.ip(), 17, 64, &datagram);
        net.run(S);
        let frame = net.hosts[3].frames.last().unwrap();
        let header = Ipv4Header::parse(&frame[14..]).unwrap();
        let pseudo = pseudo_header(header.source, header.destination, 17, datagram.len());
        assert_eq!(
            checksum(&frame[34..], pseudo) == 0,
            damage == 0,
            "{frame:02x?} {header:?}"
        );
    }
}

#[test]
fn fragments_are_dropped_at_a_nat_and_pass_between_public_hosts() {
    let mut net = net(Behaviour::PORT_RESTRICTED, Behaviour::PORT_RESTRICTED);
    let fragment = |net: &Net, host: usize, to: Ipv4Addr, offset: u16| {
        let host = &net.hosts[host];
        let mut frame =
            super::hosts::ipv4_frame(host.mac, host.gateway, host.ip, to, 17, 64, &[7; 64]);
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        super::hosts::seal_header(&mut frame[14..]);
        frame
    };
    for offset in [0x2000, 0x0008] {
        let out = fragment(&net, 0, *SERVER.ip(), offset);
        net.send_frame(0, &out);
        let inward = fragment(&net, 3, Ipv4Addr::new(198, 51, 100, 10), offset);
        net.send_frame(3, &inward);
    }
    net.run(S);
    assert!(net.take(3).is_empty() && net.take(0).is_empty());
    assert_eq!(net.drops(DropReason::Fragment), 4);

    let public = |name: &str, subnet: &str| Domain::public(name, subnet.parse().unwrap());
    let hosts = [("x", [198, 18, 0, 2]), ("y", [198, 19, 0, 2])];
    let mut net = Net::new(
        vec![public("x", "198.18.0.0/24"), public("y", "198.19.0.0/24")],
        &hosts,
    );
    for offset in [0x2000, 0x0008] {
        let frame = fragment(&net, 0, Ipv4Addr::new(198, 19, 0, 2), offset);
        net.send_frame(0, &frame);
    }
    net.run(S);
    assert_eq!(net.take(1).len(), 2);
}
