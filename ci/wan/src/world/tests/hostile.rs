//! Frames made to break it: nothing panics, nothing grows without bound, and honest traffic goes
//! on afterwards.

use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::hosts::{MS, Net, S, arp_frame, echo, gateway_mac, ipv4_frame, seal_header, udp};
use crate::{
    config::{Domain, Mac, Uplink},
    nat::Behaviour,
    wire::{BROADCAST, icmp},
};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

fn net() -> Net {
    let public_ip = Ipv4Addr::new(198, 51, 100, 10);
    let subnet = "192.168.10.0/24".parse().unwrap();
    let mut a = Domain::nat("a", subnet, public_ip, Behaviour::FULL_CONE);
    let Uplink::Nat(nat) = &mut a.uplink else {
        panic!("a NAT")
    };
    nat.hairpin = true;
    let core = Domain::public("net", "203.0.113.0/24".parse().unwrap());
    let hosts = [("a", [192, 168, 10, 20]), ("net", PUBLIC.octets())];
    let mut net = Net::new(vec![a, core], &hosts);
    // Learn who is where; from then on hosts are silent, lest their own checks panic.
    ping(&mut net);
    net
}

fn ping(net: &mut Net) {
    net.ping(0, PUBLIC, 4711, 64);
    net.run(S);
    assert_eq!(net.take_one(0).payload[4..6], 4711u16.to_be_bytes());
}

/// Sound frames of every kind, to be damaged.
fn sound(net: &Net) -> Vec<(usize, Vec<u8>)> {
    let [a, b] = [&net.hosts[0], &net.hosts[1]];
    let nat = Ipv4Addr::new(198, 51, 100, 10);
    let from_a = |to, protocol, payload: &[u8]| {
        (
            0,
            ipv4_frame(a.mac, a.gateway, a.ip, to, protocol, 64, payload),
        )
    };
    let from_b = |to, protocol, payload: &[u8]| {
        (
            1,
            ipv4_frame(b.mac, b.gateway, b.ip, to, protocol, 64, payload),
        )
    };
    let error_about = |frame: &[u8]| {
        let mut message = vec![icmp::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&frame[14..]);
        icmp::refresh_checksum(&mut message);
        message
    };
    let to = |ip, port| SocketAddrV4::new(ip, port);
    let out = from_a(PUBLIC, 17, &udp(a.ip, 5000, to(PUBLIC, 6000), b"data"));
    let inward = from_b(nat, 17, &udp(b.ip, 6000, to(nat, 5000), b"data"));
    let mut dhcp = vec![1, 1, 6, 0];
    dhcp.resize(236, 0);
    dhcp[28..34].copy_from_slice(&a.mac.0);
    dhcp.extend_from_slice(&[
        0x63, 0x82, 0x53, 0x63, 53, 1, 1, 50, 4, 192, 168, 10, 30, 255,
    ]);
    let asking = udp(
        Ipv4Addr::UNSPECIFIED,
        68,
        to(Ipv4Addr::BROADCAST, 67),
        &dhcp,
    );
    let (none, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let mut tcp = vec![0; 24];
    tcp[12] = 6 << 4;
    vec![
        from_a(PUBLIC, 6, &tcp),
        from_a(PUBLIC, 1, &echo(icmp::ECHO_REQUEST, 1)),
        from_b(nat, 1, &echo(icmp::ECHO_REPLY, 1)),
        from_a(nat, 17, &udp(a.ip, 5000, to(nat, 5000), b"hairpin")),
        from_a(PUBLIC, 1, &error_about(&inward.1)),
        from_b(nat, 1, &error_about(&out.1)),
        (0, ipv4_frame(a.mac, BROADCAST, none, all, 17, 64, &asking)),
        (
            0,
            arp_frame(1, a.mac, a.ip, Mac([0; 6]), &[192, 168, 10, 1]),
        ),
        out,
        inward,
    ]
}

fn check_survives(net: &mut Net, frames: &[(usize, Vec<u8>)]) {
    for host in &mut net.hosts {
        host.on = false;
    }
    for (host, frame) in frames {
        net.send_frame(*host, frame);
    }
    net.run(10 * S);
    for host in &mut net.hosts {
        host.on = true;
    }
    // ARP replies of liars may have displaced the hosts: they announce themselves.
    for host in [0, 1] {
        let Net { hosts, .. } = &*net;
        let (mac, ip) = (hosts[host].mac, hosts[host].ip);
        net.send_frame(host, &arp_frame(1, mac, ip, Mac([0; 6]), &ip.octets()));
    }
    net.run(60 * S);
    ping(net);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_is_survived(
        frames in prop::collection::vec((0..2usize, prop::collection::vec(any::<u8>(), 0..200)), 0..50),
    ) {
        let mut net = net();
        check_survives(&mut net, &frames);
    }

    /// Sound frames cut, extended or changed in a few bytes; with the header's checksum put right
    /// again every other time, so that the damage gets further.
    #[test]
    fn damaged_frames_are_survived(
        damages in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
             any::<prop::sample::Index>(), any::<bool>(), any::<bool>()),
            1..50,
        ),
    ) {
        let mut net = net();
        let sound = sound(&net);
        let frames: Vec<_> = damages
            .into_iter()
            .map(|(which, changes, length, cut, sealed)| {
                let (host, mut frame) = sound[which.index(sound.len())].clone();
                for (at, value) in changes {
                    // Not the addresses of the Ethernet header: those are tested elsewhere.
                    let at = 12 + at.index(frame.len() - 12);
                    frame[at] = value;
                }
                if cut {
                    frame.truncate(length.index(frame.len() + 1));
                }
                let header_bytes = frame.get(14).map_or(0, |byte| usize::from(byte & 15) * 4);
                if sealed && header_bytes >= 20 && frame.len() >= 14 + header_bytes {
                    seal_header(&mut frame[14..]);
                }
                (host, frame)
            })
            .collect();
        check_survives(&mut net, &frames);
    }
}

#[test]
fn lying_lengths_are_dropped() {
    let mut net = net();
    let mut frames = Vec::new();
    for (host, frame) in sound(&net) {
        for (offset, value) in [
            (16, [0xff, 0xff]),
            (16, [0, 19]),
            (16, [0, 20]),
            (16, [0, 27]),
            (14, [0x4f, 0]),
            (14, [0x44, 0]),
            (38, [0xff, 0xff]),
            (38, [0, 7]),
            (46, [0xff, 0x02]),
        ] {
            let mut lying = frame.clone();
            if lying.len() < offset + 2 {
                continue;
            }
            lying[offset..offset + 2].copy_from_slice(&value);
            let header_bytes = usize::from(lying[14] & 15) * 4;
            if lying.len() >= 14 + header_bytes {
                seal_header(&mut lying[14..]);
            }
            frames.push((host, lying));
        }
    }
    check_survives(&mut net, &frames);
    let drops = net
        .world
        .domain_reports(net.now)
        .iter()
        .map(|d| d.counters.drops.total())
        .sum::<u64>();
    assert!(
        drops as usize > frames.len() / 2,
        "{drops} of {}",
        frames.len()
    );
}

#[test]
fn ip_options_pass_through_the_nat_untouched() {
    let mut net = net();
    let host = &net.hosts[0];
    let to = SocketAddrV4::new(PUBLIC, 6000);
    let datagram = udp(host.ip, 5000, to, b"optional");
    let mut frame = ipv4_frame(host.mac, host.gateway, host.ip, PUBLIC, 17, 64, &datagram);
    let options = [1, 1, 1, 0];
    frame.splice(34..34, options);
    frame[14] = 0x46;
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    seal_header(&mut frame[14..]);
    net.send_frame(0, &frame);
    net.run(S);
    let got = net.take_one(1);
    assert_eq!(
        (got.header.header_bytes, &got.payload[8..]),
        (24, &b"optional"[..])
    );
    assert_ne!(got.source().port(), 5000);
}

#[test]
fn ethernet_padding_is_cut_off() {
    let mut net = net();
    let host = &net.hosts[0];
    let datagram = udp(host.ip, 5000, SocketAddrV4::new(PUBLIC, 6000), b"x");
    let mut frame = ipv4_frame(host.mac, host.gateway, host.ip, PUBLIC, 17, 64, &datagram);
    frame.resize(60, 0xee);
    net.send_frame(0, &frame);
    net.run(S);
    assert_eq!(net.hosts[1].frames.last().unwrap().len(), 14 + 20 + 9);
}

#[test]
fn a_flood_of_senders_and_absent_receivers_stays_bounded() {
    let mut net = net();
    for n in 0..20_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let mac = Mac([2, 4, 4, b, c, d]);
        let to = Ipv4Addr::new(203, 0, 113, 10 + (n % 200) as u8);
        let from = net.hosts[1].ip;
        net.send_frame(
            1,
            &ipv4_frame(mac, gateway_mac(1), from, to, 17, 64, &[0; 100]),
        );
    }
    net.run(MS);
    let held: u64 = net.drops(crate::counters::DropReason::HeldFull);
    assert_eq!(held, 20_000 - 200 * 32);
    net.run(10 * S);
    net.hosts[1].packets.clear();
    let (mac, ip) = (net.hosts[1].mac, net.hosts[1].ip);
    net.send_frame(1, &arp_frame(1, mac, ip, Mac([0; 6]), &ip.octets()));
    ping(&mut net);
}
