//! Joining: only what belongs together, in order, and exactly what was cut.

use proptest::prelude::*;
use wow_overlay::node::GuestPackets;

use super::*;
use crate::fixtures::{Shape, Super, superpacket};
use crate::segment::Outbound;

fn pieces(given: &Super) -> Vec<Vec<u8>> {
    let mut packet = given.packet.clone();
    let packets = Outbound::new(given.offload, &mut packet).unwrap();
    let write = |index| {
        let mut piece = Vec::new();
        packets.write(index, &mut piece);
        piece
    };
    (0..packets.count()).map(write).collect()
}

fn taken(coalescer: &mut Coalescer) -> Vec<(Offload, Vec<u8>)> {
    let mut all = Vec::new();
    coalescer.take(|offload, packet| all.push((offload, packet.to_vec())));
    all
}

/// How many packets come out, and the pieces that each was joined from.
fn check(packets: &[Vec<u8>], lacks_checksum: bool, expected: &[usize]) {
    let mut coalescer = Coalescer::default();
    for packet in packets {
        coalescer.push(packet, lacks_checksum).unwrap();
    }
    let counts: Vec<usize> = taken(&mut coalescer)
        .into_iter()
        .map(|(offload, mut packet)| Outbound::new(offload, &mut packet).unwrap().count())
        .collect();
    assert_eq!(counts, expected);
    assert!(coalescer.is_empty());
}

fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let id = (sequence / 100) as u16;
    let mut packet = Shape {
        sequence,
        ..Shape::TCP_V4
    }
    .packet(payload);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let layout = Layout::of(&packet).unwrap();
    let length = packet.len();
    layout.set_lengths(&mut packet, length);
    packet
}

fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    Layout::of(&packet).unwrap().set_checksum(&mut packet);
    packet
}

#[test]
fn what_follows_is_joined_until_a_short_one_and_gaps_are_kept() {
    let (full, short) = (&[1; 100][..], &[2; 30][..]);
    let packets = [
        tcp(100, full),
        tcp(200, full),
        tcp(300, short),
        tcp(330, short),
    ];
    check(&packets, true, &[3, 1]);
    check(
        &[tcp(100, full), tcp(300, full), tcp(200, full)],
        true,
        &[1, 1, 1],
    );
    // One that is longer than the first would be cut elsewhere.
    check(&[tcp(100, short), tcp(130, full)], true, &[1, 1]);
}

#[test]
fn an_acknowledgement_between_two_keeps_them_apart() {
    let full = &[1; 100][..];
    check(
        &[tcp(100, full), tcp(200, &[]), tcp(200, full)],
        true,
        &[1, 1, 1],
    );
    // One of another flow does not.
    let mut other = tcp(9, &[]);
    other[21] ^= 1;
    check(&[tcp(100, full), other, tcp(200, full)], true, &[2, 1]);
}

#[test]
fn headers_that_differ_keep_packets_apart() {
    let full = &[1; 100][..];
    // Service, identification, time to live, acknowledgement, window, an option.
    for at in [1, 5, 8, 31, 34, 45] {
        let mut second = tcp(200, full);
        second[at] ^= 0x10;
        let layout = Layout::of(&second).unwrap();
        let length = second.len();
        layout.set_lengths(&mut second, length);
        check(&[tcp(100, full), second], true, &[1, 1]);
    }
    for flags in [0x02, 0x04, 0x20, 0x40, 0x80] {
        let mut second = tcp(200, full);
        second[33] |= flags;
        check(&[tcp(100, full), second], true, &[1, 1]);
    }
}

#[test]
fn complete_packets_are_joined_if_their_checksums_are_right() {
    let full = &[1; 100][..];
    let good = [summed(tcp(100, full)), summed(tcp(200, full))];
    check(&good, false, &[2]);
    let mut bad = summed(tcp(200, full));
    bad[60] ^= 1;
    check(&[summed(tcp(100, full)), bad.clone()], false, &[1, 1]);
    // It goes on as it came, for its receiver to find.
    let mut coalescer = Coalescer::default();
    coalescer.push(&bad, false).unwrap();
    assert_eq!(taken(&mut coalescer), [(Offload::default(), bad)]);
}

#[test]
fn what_cannot_lack_a_checksum_is_refused() {
    let mut coalescer = Coalescer::default();
    let mut icmp = tcp(1, &[1; 9]);
    icmp[9] = 1;
    let mut longer = tcp(1, &[1; 9]);
    longer.push(0);
    for packet in [&[][..], &[0x45; 12], &icmp, &longer] {
        assert_eq!(coalescer.push(packet, true), Err(Malformed));
        assert_eq!(coalescer.push(packet, false), Ok(()));
    }
    assert_eq!(taken(&mut coalescer).len(), 4);
}

#[test]
fn a_superpacket_ends_with_what_ipv4_can_describe() {
    let pieces: Vec<_> = (0..50)
        .map(|number| tcp(1400 * number, &[1; 1400]))
        .collect();
    let numbered = pieces.into_iter().enumerate().map(|(number, mut packet)| {
        packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
        let layout = Layout::of(&packet).unwrap();
        let length = packet.len();
        layout.set_lengths(&mut packet, length);
        packet
    });
    check(&numbered.collect::<Vec<_>>(), true, &[46, 4]);
}

#[test]
fn no_more_datagrams_are_joined_than_a_kernel_takes() {
    let shape = Shape {
        protocol: UDP,
        ..Shape::TCP_V4
    };
    check(&vec![shape.packet(&[1; 64]); 100], true, &[64, 36]);
}

proptest! {
    #[test]
    fn what_was_cut_is_joined_to_the_same_bytes(given in superpacket()) {
        let mut coalescer = Coalescer::default();
        for piece in pieces(&given) {
            coalescer.push(&piece, true).unwrap();
        }
        let all = taken(&mut coalescer);
        prop_assert_eq!(all, [(given.offload, given.packet)]);
    }

    #[test]
    fn flows_keep_their_order(given in proptest::collection::vec(superpacket(), 1..4), mix: u64) {
        let mut queues: Vec<_> = given.iter().map(pieces).collect();
        let mut coalescer = Coalescer::default();
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        let mut mix = mix;
        while queues.iter().any(|queue| !queue.is_empty()) {
            mix = mix.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (mix >> 33) as usize % queues.len();
            if queues[index].is_empty() {
                continue;
            }
            let piece = queues[index].remove(0);
            if coalescer.is_full() {
                came.extend(taken(&mut coalescer));
            }
            coalescer.push(&piece, true).unwrap();
            sent.push(piece);
        }
        came.extend(taken(&mut coalescer));
        let came: Vec<Vec<u8>> = came
            .into_iter()
            .flat_map(|(offload, packet)| pieces(&Super { offload, packet }))
            .collect();
        let port = |packet: &[u8]| {
            let layout = Layout::of(packet).unwrap();
            (layout.is_v4, layout.protocol, packet[layout.transport + 1])
        };
        for flow in sent.iter().map(|packet| port(packet)) {
            let of = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
                let own = all.iter().filter(|packet| port(packet) == flow);
                own.map(|packet| packet[Layout::of(packet).unwrap().payload..].to_vec()).collect()
            };
            prop_assert_eq!(of(&sent), of(&came));
        }
    }

    #[test]
    fn arbitrary_packets_never_panic(packets in proptest::collection::vec(any::<(Vec<u8>, bool)>(), 0..20)) {
        let mut coalescer = Coalescer::default();
        for (packet, lacks_checksum) in packets {
            let _ = coalescer.push(&packet, lacks_checksum);
        }
        coalescer.take(|_, _| ());
    }
}
