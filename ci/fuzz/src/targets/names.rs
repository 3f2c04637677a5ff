//! The control address's DNS server: queries of a hostile guest, and whatever the router and other
//! servers say to them.

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket, UdpRepr};
use wow_control::{Answer, Found, Question};

use super::stack::{self, CONTROL, GUEST};
use crate::Target;
use crate::script::{Script, Writer};

const PORT: u16 = 40_000;
const QUERY_BYTES_MAX: usize = 1200;
/// The longest answer over UDP: 1232 bytes behind the headers.
const PACKET_BYTES_MAX: usize = 20 + 8 + 1232;

pub(super) const NAMES: Target = Target {
    name: "names",
    input_bytes_max: 4096,
    run: names,
    seeds: || {
        let query = |name: &[u8], kind: u8| {
            let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            query.extend(name);
            query.extend([0, kind, 0, 1, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
            query
        };
        let ask = |w: Writer, query: &[u8], answer: u8| w.slice(query).byte(answer);
        let node = query(b"\x02n1\x03lab\x08internal\0", 1);
        let service = query(b"\x04_web\x04_tcp\x03lab\x08internal\0", 33);
        let pointer = query(b"\x019\x012\x03129\x0210\x07in-addr\x04arpa\0", 12);
        let other = query(b"\x07example\x03org\0", 1);
        let first = ask(Writer::default(), &node, 0);
        let second = ask(first, &service, 1);
        let third = ask(ask(second, &pointer, 0), &node, 2);
        let forwarded = ask(Writer::default(), &other, 3);
        vec![third.0, forwarded.0, ask(Writer::default(), &other, 2).0]
    },
};

/// Steps: a query, and what the router says to what it is asked about it.
fn names(input: &[u8]) {
    let mut script = Script::new(input);
    let mut control = stack::control(true);
    while !script.is_empty() {
        let query = script.slice(QUERY_BYTES_MAX);
        let says = script.byte();
        control.handle_packet(Duration::ZERO, &datagram(query));
        while let Some(question) = control.poll_question() {
            answer(question, says);
            control.handle_deadline(Duration::ZERO);
        }
        let mut answers = 0;
        while let Some(packet) = control.poll_packet() {
            answers += 1;
            look_at(&packet, query);
        }
        assert!(answers <= 1, "one query has one answer");
    }
}

fn answer(question: Question, says: u8) {
    // Who asked may have given up.
    match question {
        Question::Document(_, asker) => drop(asker.send(Answer(Vec::new()))),
        Question::LookUp(_, asker) => drop(asker.send(match says % 4 {
            0 | 1 => Found::Node {
                name: "n1".into(),
                v4: GUEST,
                v6: Ipv6Addr::LOCALHOST,
                port: (says % 4 == 1).then_some(8080),
            },
            2 => Found::Nothing,
            _ => Found::Unavailable,
        })),
        Question::Forward(mut query, _, asker) => {
            if says % 4 == 3 {
                query[2] |= 0x80;
                query.resize(query.len() + usize::from(says) * 16, says);
            }
            drop(asker.send(query));
        }
    }
}

/// It is the answer to this query, and no longer than its sender takes.
fn look_at(packet: &[u8], query: &[u8]) {
    assert!(packet.len() <= PACKET_BYTES_MAX, "{} bytes", packet.len());
    let ip = Ipv4Packet::new_checked(packet).expect("the stack sends sound packets");
    assert_eq!((ip.src_addr(), ip.dst_addr()), (CONTROL, GUEST));
    if ip.next_header() != IpProtocol::Udp {
        return;
    }
    let udp = UdpPacket::new_checked(ip.payload()).expect("the stack sends sound datagrams");
    let answer = udp.payload();
    assert_eq!((udp.src_port(), udp.dst_port()), (53, PORT));
    assert!(answer.len() >= 12, "a header at least");
    assert_eq!(answer[..2], query[..2]);
    assert!(answer[2] & 0x80 != 0, "an answer");
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: PORT,
        dst_port: 53,
    };
    let mut bytes = vec![0; 8 + payload.len()];
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &GUEST.into(),
        &CONTROL.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    stack::packet(IpProtocol::Udp, &bytes)
}
