//! The world changed while it runs, by the lines that the control socket takes.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};

use super::hosts::{MS, Net, S, gateway_mac};
use crate::{
    config::{Config, Domain, Matrix},
    control,
    counters::DropReason,
    nat::Behaviour,
};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const SERVER: SocketAddrV4 = SocketAddrV4::new(PUBLIC, 6000);
const HOSTS: [(&str, [u8; 4]); 3] = [
    ("a", [192, 168, 10, 20]),
    ("net", [203, 0, 113, 5]),
    ("b", [192, 168, 20, 20]),
];

fn domains() -> Vec<Domain> {
    let nat = |name, third: u8| {
        let subnet = format!("192.168.{third}.0/24").parse().unwrap();
        let public = Ipv4Addr::new(198, 51, 100, third);
        Domain::nat(name, subnet, public, Behaviour::PORT_RESTRICTED).with_latency(10 * MS)
    };
    let net = Domain::public("net", "203.0.113.0/24".parse().unwrap()).with_latency(5 * MS);
    vec![nat("a", 10), net, nat("b", 20)]
}

fn order(net: &mut Net, request: Value) -> control::Reply {
    let line = serde_json::to_vec(&request).unwrap();
    control::handle(&mut net.world, &line, |_| json!("the report"))
}

/// Carries an order out that must be obeyed.
fn obey(net: &mut Net, request: Value) {
    let reply = order(net, request);
    assert_eq!((reply.error, reply.ok), (None, Some(json!({}))));
}

/// Who sent the only datagram that the server got.
fn seen(net: &mut Net, host: usize) -> SocketAddrV4 {
    net.send_udp(host, 5000, SERVER, b"hello");
    net.run(S);
    net.take_one(1).source()
}

#[test]
fn a_moved_host_is_heard_from_its_new_domain_and_no_longer_from_the_old() {
    let mut net = Net::new(domains(), &HOSTS);
    let before = seen(&mut net, 0);
    obey(
        &mut net,
        json!({"id": 1, "op": "move", "port": "a.0", "domain": "b"}),
    );
    net.hosts[0].ip = Ipv4Addr::new(192, 168, 20, 21);
    net.hosts[0].gateway = gateway_mac(2);
    let after = seen(&mut net, 0);
    assert_eq!([before.ip().octets()[3], after.ip().octets()[3]], [10, 20]);
    net.send_udp(1, 6000, after, b"found");
    net.send_udp(1, 6000, before, b"lost");
    net.run(5 * S);
    assert_eq!(net.take_one(0).payload[8..], *b"found");
    assert_eq!(net.drops(DropReason::NoHost), 1);
    assert_eq!(net.world.config().ports()[0].domain, "b");
}

#[test]
fn cut_domains_do_not_meet_until_they_are_healed() {
    let mut net = Net::new(domains(), &HOSTS);
    let mapped = seen(&mut net, 0);
    obey(&mut net, json!({"op": "cut", "between": ["net", "a"]}));
    net.send_udp(0, 5000, SERVER, b"no");
    net.send_udp(1, 6000, mapped, b"neither");
    seen(&mut net, 2);
    assert!(net.take(0).is_empty());
    assert_eq!(net.drops(DropReason::Cut), 2);
    obey(&mut net, json!({"op": "heal", "between": ["a", "net"]}));
    assert_eq!(seen(&mut net, 0), mapped, "the NAT forgot nothing");
}

#[test]
fn latency_between_two_domains_adds_to_their_own_and_leaves_others_alone() {
    let matrix = Matrix {
        seed: 3,
        round_trip: [40 * MS, 40 * MS],
    };
    let ports = [("a", "t0"), ("net", "t1"), ("b", "t2")]
        .map(|(domain, tap)| crate::config::Port::tap(domain, tap));
    let config = Config::new(1, domains(), ports.into()).unwrap();
    let mut net = Net::with_config(&config.with_matrix(matrix).unwrap(), &HOSTS);
    let delay = |net: &mut Net, host| {
        let begun = net.now;
        net.send_udp(host, 5000, SERVER, b"x");
        net.run(S);
        net.take_one(1).at - begun
    };
    // The first time, the gateway asks for the server's MAC address, which takes no time here.
    assert_eq!([delay(&mut net, 0), delay(&mut net, 2)], [35 * MS; 2]);
    let latency = json!({"op": "latency", "between": ["a", "net"], "latency_ms": 100});
    obey(&mut net, latency);
    assert_eq!(
        [delay(&mut net, 0), delay(&mut net, 2)],
        [115 * MS, 35 * MS]
    );
    obey(&mut net, json!({"op": "latency", "between": ["a", "net"]}));
    assert_eq!(delay(&mut net, 0), 35 * MS);
}

#[test]
fn a_slow_pair_does_not_hold_up_a_fast_one_on_the_same_line() {
    let mut net = Net::new(domains(), &HOSTS);
    let latency = json!({"op": "latency", "between": ["a", "net"], "latency_ms": 500});
    obey(&mut net, latency);
    net.send_udp(0, 5000, SERVER, b"slow");
    net.run(50 * MS);
    net.send_udp(2, 5000, SERVER, b"fast");
    net.run(50 * MS);
    assert_eq!(net.take_one(1).payload[8..], *b"fast");
    net.run(S);
    assert_eq!(net.take_one(1).payload[8..], *b"slow");
}

#[test]
fn a_changed_nat_begins_anew_and_a_changed_line_leaves_it_be() {
    let mut net = Net::new(domains(), &HOSTS);
    let first = seen(&mut net, 0);
    let set = |net: &mut Net, set: Value| {
        obey(net, json!({"op": "domain", "name": "a", "set": set}));
    };
    set(&mut net, json!({"latency_ms": 50, "loss_percent": null}));
    assert_eq!(seen(&mut net, 0), first);
    set(&mut net, json!({"nat": "symmetric"}));
    let second = seen(&mut net, 0);
    assert_ne!(second.port(), first.port());
    set(&mut net, json!({"public_ip": "198.51.100.99"}));
    assert_eq!(*seen(&mut net, 0).ip(), Ipv4Addr::new(198, 51, 100, 99));
    set(&mut net, json!({"block_udp": true}));
    net.send_udp(0, 5000, SERVER, b"blocked");
    net.run(S);
    assert!(net.take(1).is_empty());
    set(&mut net, json!({"block_udp": false}));
    let third = seen(&mut net, 0);
    obey(&mut net, json!({"op": "forget", "domain": "a"}));
    assert_ne!(seen(&mut net, 0), third);
}

#[test]
fn what_cannot_be_is_refused_in_words_and_changes_nothing() {
    let mut net = Net::new(domains(), &HOSTS);
    let before = net.world.config().clone();
    let set = |name: &str, set: Value| json!({"id": 5, "op": "domain", "name": name, "set": set});
    for (request, hint) in [
        (json!({"id": 5, "op": "fly"}), "fly"),
        (
            json!({"id": 5, "op": "move", "port": "x", "domain": "a"}),
            "no port",
        ),
        (
            json!({"id": 5, "op": "move", "port": "a.0", "domain": "x"}),
            "no domain",
        ),
        (
            json!({"id": 5, "op": "cut", "between": ["a", "x"]}),
            "no domain",
        ),
        (
            json!({"id": 5, "op": "heal", "between": ["a", "a"]}),
            "one domain",
        ),
        (
            json!({"id": 5, "op": "latency", "between": ["a", "b"], "latency_ms": -1}),
            "latency_ms",
        ),
        (
            json!({"id": 5, "op": "latency", "between": ["a", "b"], "latency_ms": 1e6}),
            "10 s",
        ),
        (json!({"id": 5, "op": "forget", "domain": "net"}), "no NAT"),
        (set("a", json!({"nat": "conical"})), "port-restricted"),
        (set("a", json!({"colour": "red"})), "colour"),
        (set("a", json!({"subnet": "10.0.0.0/8"})), "subnet"),
        (
            set(
                "a",
                json!({"nat": null, "public": true, "public_ip": null, "nat_ports": null, "timeouts": null}),
            ),
            "public",
        ),
        (set("a", json!({"public_ip": "198.51.100.20"})), "own"),
        (set("x", json!({})), "no domain"),
    ] {
        let error = order(&mut net, request.clone()).error.unwrap();
        assert!(error.contains(hint), "{request}: {error}");
    }
    assert_eq!(*net.world.config(), before);
    let reply = control::handle(&mut net.world, b"\xff{", |_| json!(0));
    assert_eq!(reply.id, 0);
    assert!(reply.error.is_some());
}
