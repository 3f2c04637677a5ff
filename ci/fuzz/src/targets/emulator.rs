//! The WAN emulator: frames of hostile hosts through its switches, NATs and servers, and its
//! configuration.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use wow_wan::config::{Config, Domain, Port, Uplink};
use wow_wan::nat::Behaviour;
use wow_wan::time::Instant;
use wow_wan::wire::checksum;
use wow_wan::world::{PortId, World};

use super::{TEXT_BYTES_MAX, text, texts};
use crate::Target;
use crate::script::{Script, Writer};

/// Longest frame of a script, a little more than Ethernet's.
const FRAME_BYTES_MAX: usize = 1600;
/// Frames that one frame may set off: one to every port, and answers.
const ANSWERS_MAX: usize = 64;

const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 20);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const MACS: [EthernetAddress; 2] = [
    EthernetAddress([2, 0, 0, 0, 0, 1]),
    EthernetAddress([2, 0, 0, 0, 0, 2]),
];

pub(super) const WAN: Target = Target {
    name: "wan",
    input_bytes_max: 8192,
    run: wan,
    seeds: wan_seeds,
};

pub(super) const WAN_CONFIG: Target = Target {
    name: "wan-config",
    input_bytes_max: TEXT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input)
            && let Ok(config) = Config::parse(text, "fuzzed")
        {
            let again = Config::parse(&config.to_toml(), "written").expect("reads itself");
            assert_eq!(again.to_toml(), config.to_toml());
        }
    },
    seeds: || texts(&[&config().to_toml()]),
};

fn config() -> Config {
    let subnet = "192.168.10.0/24".parse().expect("a network");
    let mut inside = Domain::nat("a", subnet, NAT, Behaviour::FULL_CONE);
    if let Uplink::Nat(nat) = &mut inside.uplink {
        nat.hairpin = true;
    }
    let outside = Domain::public("net", "203.0.113.0/24".parse().expect("a network"));
    let ports = vec![
        Port::unix("a", "/nowhere/a").named("a"),
        Port::unix("net", "/nowhere/net").named("net"),
    ];
    Config::new(1, vec![inside, outside], ports).expect("a sound configuration")
}

/// Steps: a byte (port, whether the header's checksum is put right, whether time passes), then a
/// frame, or a pause in milliseconds.
fn wan(input: &[u8]) {
    let mut script = Script::new(input);
    let mut world = World::new(&config());
    let mut now = Instant::default();
    while !script.is_empty() {
        let step = script.byte();
        if step & 4 != 0 {
            let until = now + Duration::from_millis(u64::from(script.short()));
            while let Some((due, _)) = world.next_deadline().filter(|(due, _)| *due <= until) {
                now = now.max(due);
                world.handle_deadline(now);
                drain(&mut world);
            }
            now = until;
        } else {
            let mut frame = script.slice(FRAME_BYTES_MAX).to_vec();
            if step & 2 != 0 {
                seal(&mut frame);
            }
            world.handle_frame(now, PortId(usize::from(step & 1)), &frame);
            drain(&mut world);
        }
    }
    for report in world.domain_reports(now) {
        let mappings = report.nat_mappings.unwrap_or(0);
        assert!(mappings <= 1000, "a script has fewer frames than this");
    }
}

fn drain(world: &mut World) {
    let mut sent = 0;
    while let Some(transmit) = world.poll_transmit() {
        sent += 1;
        world.recycle(transmit.frame);
    }
    assert!(sent <= ANSWERS_MAX, "{sent} frames for one");
}

/// Puts an IPv4 header's checksum right.
fn seal(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(14..) else {
        return;
    };
    let header_bytes = ip.first().map_or(0, |byte| usize::from(byte & 15) * 4);
    if (20..=ip.len()).contains(&header_bytes) {
        ip[10..12].fill(0);
        let sum = checksum(&ip[..header_bytes], 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn wan_seeds() -> Vec<Vec<u8>> {
    let udp = |from, to, port: u16| {
        let repr = UdpRepr {
            src_port: 5000,
            dst_port: port,
        };
        let mut bytes = vec![0; 12];
        let mut packet = UdpPacket::new_unchecked(&mut bytes);
        let fill = |payload: &mut [u8]| payload.copy_from_slice(b"data");
        let (from, to) = (Ipv4Addr::into(from), Ipv4Addr::into(to));
        repr.emit(
            &mut packet,
            &from,
            &to,
            4,
            fill,
            &ChecksumCapabilities::default(),
        );
        bytes
    };
    let echo = |data: &[u8]| {
        let repr = Icmpv4Repr::EchoRequest {
            ident: 1,
            seq_no: 1,
            data,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        let mut packet = Icmpv4Packet::new_unchecked(&mut bytes);
        repr.emit(&mut packet, &ChecksumCapabilities::default());
        bytes
    };
    let out = ip(
        0,
        INSIDE,
        PUBLIC,
        IpProtocol::Udp,
        &udp(INSIDE, PUBLIC, 6000),
    );
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(&out[14..]);
    let mut tcp = vec![0; 20];
    tcp[..4].copy_from_slice(&[0x13, 0x88, 0x17, 0x70]);
    tcp[12..14].copy_from_slice(&[0x50, 2]);
    let mut discover = vec![1, 1, 6, 0];
    discover.resize(236, 0);
    discover[28..34].copy_from_slice(&MACS[0].0);
    discover.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut dhcp = vec![0, 68, 0, 67, 0, 0, 0, 0];
    let length = u16::try_from(8 + discover.len()).expect("it is short");
    dhcp[4..6].copy_from_slice(&length.to_be_bytes());
    dhcp.extend(discover);
    let frames = [
        (0, arp(0, INSIDE, ROUTER)),
        (1, arp(1, PUBLIC, Ipv4Addr::new(203, 0, 113, 1))),
        (0, out),
        (0, ip(0, INSIDE, PUBLIC, IpProtocol::Icmp, &echo(b"ping"))),
        (0, ip(0, INSIDE, PUBLIC, IpProtocol::Tcp, &tcp)),
        (
            0,
            ip(0, INSIDE, NAT, IpProtocol::Udp, &udp(INSIDE, NAT, 5000)),
        ),
        (
            1,
            ip(1, PUBLIC, NAT, IpProtocol::Udp, &udp(PUBLIC, NAT, 5000)),
        ),
        (1, ip(1, PUBLIC, NAT, IpProtocol::Icmp, &error)),
        (
            0,
            ip(
                0,
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::BROADCAST,
                IpProtocol::Udp,
                &dhcp,
            ),
        ),
    ];
    let step =
        |w: Writer, (port, frame): &(u8, Vec<u8>)| w.byte(port | 2).slice(frame).byte(4).short(50);
    let all = frames.iter().fold(Writer::default(), step).0;
    let each = frames.iter().map(|frame| step(Writer::default(), frame).0);
    each.chain([all]).collect()
}

fn arp(host: usize, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MACS[host],
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: to,
    };
    let mut frame = ethernet(host, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
    frame
}

fn ip(host: usize, from: Ipv4Addr, to: Ipv4Addr, kind: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: kind,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut frame = ethernet(host, EthernetProtocol::Ipv4, 20 + payload.len());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    frame
}

/// A broadcast frame, which the gateway takes too.
fn ethernet(host: usize, kind: EthernetProtocol, payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + payload_bytes];
    let mut header = EthernetFrame::new_unchecked(&mut frame);
    header.set_dst_addr(EthernetAddress::BROADCAST);
    header.set_src_addr(MACS[host]);
    header.set_ethertype(kind);
    frame
}
