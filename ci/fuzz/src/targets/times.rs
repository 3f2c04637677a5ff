//! The control address's time server, and the questions that leave from there: packets of a hostile guest.

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};
use wow_control::{Reading, Standing, TIME_PACKET_BYTES, TIME_PORT};

use super::stack::{self, CONTROL, GUEST};
use crate::Target;
use crate::script::{Script, Writer};

const MEMBER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 9);
const PACKET_BYTES_MAX: usize = 1200;
const HEADER_BYTES: usize = 40;

pub(super) const TIMES: Target = Target {
    name: "times",
    input_bytes_max: 2048,
    run: times,
    seeds: || {
        let mut question = [0; TIME_PACKET_BYTES];
        question[0] = 4 << 3 | 3;
        question[40..].copy_from_slice(b"a number");
        let mut answer = question;
        answer[0] = 4 << 3 | 4;
        answer[24..32].copy_from_slice(b"a number");
        let step = |w: Writer, way: u8, packet: &[u8]| w.byte(way).slice(packet);
        let asked = step(Writer::default(), 0, &question);
        let answered = step(step(Writer::default(), 1, &question), 2, &answer);
        vec![asked.0, answered.0]
    },
};

/// Steps: a packet of the guest's, a question of this node's, or a packet of the member's that was asked.
fn times(input: &[u8]) {
    let mut script = Script::new(input);
    let mut control = stack::control(false);
    let client = control.serve_time(Box::new(|| Reading {
        time: Duration::from_secs(1_800_000_000),
        standing: Some(Standing {
            stratum: 3,
            reference: [127, 0, 0, 1],
            compared: Duration::from_secs(1_800_000_000),
            error: Duration::from_millis(1),
        }),
    }));
    while !script.is_empty() {
        let way = script.byte() % 3;
        let packet = script.slice(PACKET_BYTES_MAX);
        match way {
            0 => control.handle_packet(Duration::ZERO, &from_guest(packet)),
            1 => {
                let mut question = [0; TIME_PACKET_BYTES];
                let length = packet.len().min(TIME_PACKET_BYTES);
                question[..length].copy_from_slice(&packet[..length]);
                client.send(MEMBER, question);
                control.handle_deadline(Duration::ZERO);
            }
            _ => control.handle_packet(Duration::ZERO, &from_member(packet)),
        }
        let mut sent = 0;
        while let Some(out) = control.poll_packet() {
            sent += 1;
            match way {
                0 => look_at(&out, packet),
                // A question, or an answer to the member's own.
                _ => assert!(out.len() <= HEADER_BYTES + 8 + TIME_PACKET_BYTES),
            }
        }
        assert!(sent <= 1, "one packet for one");
    }
}

/// It is the answer to this question, and no longer.
fn look_at(packet: &[u8], question: &[u8]) {
    let ip = Ipv4Packet::new_checked(packet).expect("the stack sends sound packets");
    assert_eq!((ip.src_addr(), ip.dst_addr()), (CONTROL, GUEST));
    let udp = UdpPacket::new_checked(ip.payload()).expect("the stack sends sound datagrams");
    let answer = udp.payload();
    assert_eq!(udp.src_port(), TIME_PORT);
    assert_eq!(answer.len(), TIME_PACKET_BYTES);
    assert!(answer.len() <= question.len());
    assert_eq!(answer[24..32], question[40..48]);
    assert_eq!((question[0] & 7, answer[0] & 7), (3, 4));
}

fn datagram(payload: &[u8], ends: [smoltcp::wire::IpAddress; 2], port: u16) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: port,
        dst_port: TIME_PORT,
    };
    let mut bytes = vec![0; 8 + payload.len()];
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &ends[0],
        &ends[1],
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    bytes
}

fn from_guest(payload: &[u8]) -> Vec<u8> {
    let bytes = datagram(payload, [GUEST.into(), CONTROL.into()], 40_000);
    stack::packet(IpProtocol::Udp, &bytes)
}

fn from_member(payload: &[u8]) -> Vec<u8> {
    let ends = [MEMBER, Ipv6Addr::LOCALHOST];
    let payload = datagram(payload, ends.map(Into::into), TIME_PORT);
    let ip = Ipv6Repr {
        src_addr: ends[0],
        dst_addr: ends[1],
        next_header: IpProtocol::Udp,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; HEADER_BYTES];
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    bytes.extend_from_slice(&payload);
    bytes
}
