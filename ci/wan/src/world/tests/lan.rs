//! Inside one domain: switching, ARP, DHCP, the gateway's own address.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};

use super::hosts::{MS, Net, Received, S, arp_frame, ipv4_frame, udp};
use crate::{
    config::{Config, Domain, Mac, Port},
    counters::DropReason,
    wire::{BROADCAST, ETHERNET_HEADER, PROTOCOL_UDP, be16, icmp, mac},
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

fn domain() -> Domain {
    let mut domain = Domain::public("lan", "198.18.0.0/24".parse().unwrap());
    domain.dns = vec![Ipv4Addr::new(9, 9, 9, 9)];
    domain
}

fn lan(hosts: usize) -> Net {
    let all: Vec<_> = (0..hosts)
        .map(|n| ("lan", [198, 18, 0, 10 + n as u8]))
        .collect();
    Net::new(vec![domain()], &all)
}

#[test]
fn arp_is_answered_for_the_gateway_and_no_other_address() {
    let mut net = lan(2);
    let (mac0, ip) = (net.hosts[0].mac, net.hosts[0].ip);
    net.send_frame(0, &arp_frame(1, mac0, ip, Mac([0; 6]), &GATEWAY.octets()));
    net.run(MS);
    let [reply] = &net.hosts[0].frames[..] else {
        panic!("one reply")
    };
    assert_eq!(
        (be16(reply, 20), mac(reply, 22), &reply[28..32]),
        (2, net.hosts[0].gateway, &GATEWAY.octets()[..])
    );
    net.hosts[0].frames.clear();
    net.send_frame(0, &arp_frame(1, mac0, ip, Mac([0; 6]), &[198, 18, 0, 99]));
    net.run(MS);
    assert!(net.hosts[0].frames.is_empty());
    // The neighbour heard both broadcasts, not the reply.
    assert_eq!(net.hosts[1].frames.len(), 2);
}

#[test]
fn frames_are_flooded_until_their_receiver_is_known() {
    let mut net = lan(3);
    let [a, b] = [net.hosts[0].mac, net.hosts[1].mac];
    let frame = |to: Mac, from: Mac| {
        let mut frame = vec![0x5a; 60];
        crate::wire::write_ethernet_header(&mut frame, to, from, 0x88b5);
        frame
    };
    let got = |net: &Net| [0, 1, 2].map(|host: usize| net.hosts[host].frames.len());
    net.send_frame(0, &frame(b, a));
    net.run(MS);
    assert_eq!(got(&net), [0, 1, 1]);
    net.send_frame(1, &frame(a, b));
    net.run(MS);
    assert_eq!(got(&net), [1, 1, 1]);
    net.send_frame(0, &frame(b, a));
    net.run(MS);
    assert_eq!(got(&net), [1, 2, 1]);
    // Once its port is down, it is looked for again.
    net.world.handle_port_down(net.hosts[1].port);
    net.send_frame(0, &frame(b, a));
    net.run(MS);
    assert_eq!(got(&net), [1, 3, 2]);
}

#[test]
fn the_gateway_answers_ping_and_refuses_udp() {
    let mut net = lan(1);
    net.ping(0, GATEWAY, 77, 64);
    net.run(MS);
    let reply = net.take_one(0);
    assert_eq!(
        (
            reply.header.source,
            reply.payload[0],
            be16(&reply.payload, 4)
        ),
        (GATEWAY, 0, 77)
    );
    net.send_udp(0, 4000, SocketAddrV4::new(GATEWAY, 53), b"?");
    net.run(MS);
    let error = net.take_one(0);
    assert_eq!(error.payload[..2], [icmp::UNREACHABLE, 3]);
    assert_eq!(be16(error.quoted().1, 2), 53);
}

/// A DHCP message of a host, asking for replies by unicast.
fn request(
    mac: Mac,
    kind: DhcpMessageType,
    wish: Option<Ipv4Addr>,
    server: bool,
) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: wish,
        client_identifier: None,
        server_identifier: server.then_some(GATEWAY),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn send_dhcp(net: &mut Net, host: usize, repr: &DhcpRepr<'_>) {
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut message[..]))
        .unwrap();
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let datagram = udp(Ipv4Addr::UNSPECIFIED, 68, to, &message);
    let mac = Mac(repr.client_hardware_address.0);
    let from = Ipv4Addr::UNSPECIFIED;
    let frame = ipv4_frame(mac, BROADCAST, from, *to.ip(), PROTOCOL_UDP, 64, &datagram);
    net.send_frame(host, &frame);
    net.run(MS);
}

/// Sends a DHCP message and gives the reply's type, address and packet.
fn dhcp(
    net: &mut Net,
    host: usize,
    repr: &DhcpRepr<'_>,
) -> Option<(DhcpMessageType, Ipv4Addr, Received)> {
    send_dhcp(net, host, repr);
    let reply = net.take(host).pop()?;
    let message = reply.payload[8..].to_vec();
    let packet = DhcpPacket::new_checked(&message[..]).unwrap();
    let parsed = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(parsed.transaction_id, 0x1234);
    assert_eq!(parsed.server_identifier, Some(GATEWAY));
    if parsed.message_type != DhcpMessageType::Nak {
        assert_eq!(parsed.router, Some(GATEWAY));
        assert_eq!(parsed.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(parsed.lease_duration, Some(3600));
        assert_eq!(parsed.dns_servers.unwrap()[..], [Ipv4Addr::new(9, 9, 9, 9)]);
    }
    Some((parsed.message_type, parsed.your_ip, reply))
}

/// Goes through the whole exchange.
fn obtain(net: &mut Net, host: usize, mac: Mac, wish: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let (kind, offered, _) = dhcp(
        net,
        host,
        &request(mac, DhcpMessageType::Discover, wish, false),
    )?;
    assert_eq!(kind, DhcpMessageType::Offer);
    let ask = request(mac, DhcpMessageType::Request, Some(offered), true);
    let (kind, given, reply) = dhcp(net, host, &ask)?;
    assert_eq!((kind, given), (DhcpMessageType::Ack, offered));
    assert_eq!(reply.source(), SocketAddrV4::new(GATEWAY, 67));
    Some(given)
}

#[test]
fn dhcp_gives_each_client_an_address_and_the_same_one_again() {
    let mut net = lan(2);
    let [a, b] = [net.hosts[0].mac, net.hosts[1].mac];
    let first = obtain(&mut net, 0, a, None).unwrap();
    let second = obtain(&mut net, 1, b, None).unwrap();
    assert_eq!(
        (first, second),
        (Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 3))
    );
    assert_eq!(
        obtain(&mut net, 0, a, Some(second)),
        Some(first),
        "another's address is not given"
    );
    let leases = &net.world.domain_reports(net.now)[0].leases;
    assert_eq!(leases.len(), 2);
    // After the lease, another may have it.
    net.run(3601 * S);
    assert_eq!(
        obtain(&mut net, 1, b, Some(first)),
        Some(second),
        "its own is preferred"
    );
    assert_eq!(
        obtain(&mut net, 0, Mac([2, 9, 9, 9, 9, 9]), None),
        Some(first)
    );
}

#[test]
fn dhcp_refuses_an_address_of_elsewhere_and_renews_one_it_forgot() {
    let mut net = lan(1);
    let mac = net.hosts[0].mac;
    let ask = |ip| request(mac, DhcpMessageType::Request, Some(ip), false);
    let (kind, ..) = dhcp(&mut net, 0, &ask(Ipv4Addr::new(192, 168, 7, 7))).unwrap();
    assert_eq!(kind, DhcpMessageType::Nak);
    let (kind, ip, _) = dhcp(&mut net, 0, &ask(Ipv4Addr::new(198, 18, 0, 77))).unwrap();
    assert_eq!(
        (kind, ip),
        (DhcpMessageType::Ack, Ipv4Addr::new(198, 18, 0, 77))
    );
    let (kind, ..) = dhcp(&mut net, 0, &ask(GATEWAY)).unwrap();
    assert_eq!(kind, DhcpMessageType::Nak);
}

#[test]
fn dhcp_does_not_hand_out_addresses_in_use_or_declined() {
    let mut net = lan(2);
    let taken = Ipv4Addr::new(198, 18, 0, 2);
    // A host with a static address makes itself known.
    let announce = arp_frame(1, net.hosts[1].mac, taken, Mac([0; 6]), &taken.octets());
    net.send_frame(1, &announce);
    let mac = net.hosts[0].mac;
    let given = obtain(&mut net, 0, mac, None).unwrap();
    assert_eq!(given, Ipv4Addr::new(198, 18, 0, 3));
    dhcp(
        &mut net,
        0,
        &request(mac, DhcpMessageType::Decline, Some(given), true),
    );
    assert_eq!(
        obtain(&mut net, 0, mac, None),
        Some(Ipv4Addr::new(198, 18, 0, 4))
    );
}

#[test]
fn dhcp_keeps_reservations_by_mac_and_by_port() {
    let [by_port, by_mac] = [Ipv4Addr::new(198, 18, 0, 50), Ipv4Addr::new(198, 18, 0, 51)];
    let mut with_mac = Port::tap("lan", "t1").with_ip(by_mac);
    with_mac.mac = Some(Mac([2, 7, 7, 7, 7, 7]));
    let config = Config::new(
        1,
        vec![domain()],
        vec![Port::tap("lan", "t0").with_ip(by_port), with_mac],
    );
    let hosts = [("lan", [198, 18, 0, 10]), ("lan", [198, 18, 0, 11])];
    let mut net = Net::with_config(&config.unwrap(), &hosts);
    let [a, b] = [net.hosts[0].mac, net.hosts[1].mac];
    assert_eq!(obtain(&mut net, 0, a, None), Some(by_port));
    assert_eq!(
        obtain(&mut net, 0, Mac([2, 6, 6, 6, 6, 6]), Some(by_port)),
        Some(Ipv4Addr::new(198, 18, 0, 2))
    );
    assert_eq!(
        obtain(&mut net, 1, b, Some(by_mac)),
        Some(Ipv4Addr::new(198, 18, 0, 3))
    );
    assert_eq!(
        obtain(&mut net, 0, Mac([2, 7, 7, 7, 7, 7]), None),
        Some(by_mac)
    );
}

#[test]
fn dhcp_runs_dry_without_harm() {
    let mut small = domain();
    small.subnet = "198.18.0.0/29".parse().unwrap();
    let mut net = Net::new(vec![small], &[("lan", [198, 18, 0, 6])]);
    let client = |n: u8| Mac([2, 5, 5, 5, 5, n]);
    for n in 0..5 {
        let discover = request(client(n), DhcpMessageType::Discover, None, false);
        send_dhcp(&mut net, 0, &discover);
        assert_eq!(net.take(0).len(), 1, "client {n}");
    }
    send_dhcp(
        &mut net,
        0,
        &request(client(5), DhcpMessageType::Discover, None, false),
    );
    assert!(net.take(0).is_empty());
    net.run(31 * S);
    send_dhcp(
        &mut net,
        0,
        &request(client(5), DhcpMessageType::Discover, None, false),
    );
    assert_eq!(
        net.take(0).len(),
        1,
        "offers that nobody took up are given to others"
    );
}

#[test]
fn frames_from_impossible_senders_are_dropped() {
    let mut net = lan(1);
    let mut frame = vec![0; ETHERNET_HEADER + 46];
    for from in [Mac([0xff; 6]), net.hosts[0].gateway] {
        crate::wire::write_ethernet_header(&mut frame, BROADCAST, from, 0x0800);
        net.send_frame(0, &frame);
    }
    assert_eq!(net.drops(DropReason::Spoofed), 2);
}
