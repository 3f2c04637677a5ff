//! The data plane: what a device says of a superpacket, and what packets of peers are joined to.

use wow_dataplane::{Coalescer, Outbound};
use wow_guest::Offload;
use wow_guest::offload::{ChecksumAt, OFFLOAD_BYTES, Segments, Transport};
use wow_overlay::node::GuestPackets;

use crate::Target;
use crate::script::{Script, Writer};

/// Longest packet of a script.
const PACKET_BYTES_MAX: usize = 2048;

pub(super) const SEGMENT: Target = Target {
    name: "segment",
    input_bytes_max: 4096,
    run: segment,
    seeds: segment_seeds,
};

pub(super) const COALESCE: Target = Target {
    name: "coalesce",
    input_bytes_max: 8192,
    run: coalesce,
    seeds: coalesce_seeds,
};

/// The pieces of a packet; none where it is refused.
fn cut(offload: Offload, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut packet = packet.to_vec();
    let packets = Outbound::new(offload, &mut packet).ok()?;
    let pieces = (0..packets.count()).map(|index| {
        let mut piece = Vec::new();
        packets.write(index, &mut piece);
        assert_eq!(piece.len(), packets.length(index), "as announced");
        assert!(piece.len() <= packets.length(0), "the first is the longest");
        piece
    });
    Some(pieces.collect())
}

/// Joins packets and cuts them again: nothing is lost, nothing is added.
fn join_and_cut(packets: &[(Vec<u8>, bool)]) {
    let mut coalescer = Coalescer::default();
    let (mut taken, mut bytes) = (0, 0);
    let (mut came, mut bytes_came) = (0, 0);
    let mut take = |coalescer: &mut Coalescer| {
        coalescer.take(|offload, packet| {
            let pieces = cut(offload, packet).expect("what was joined makes sense");
            came += pieces.len();
            bytes_came += pieces.iter().map(Vec::len).sum::<usize>();
        });
    };
    for (packet, lacks_checksum) in packets {
        if coalescer.is_full() {
            take(&mut coalescer);
        }
        if coalescer.push(packet, *lacks_checksum).is_ok() {
            taken += 1;
            bytes += packet.len();
        }
    }
    take(&mut coalescer);
    assert_eq!((taken, bytes), (came, bytes_came));
}

fn segment(input: &[u8]) {
    let Some((header, packet)) = input.split_first_chunk::<OFFLOAD_BYTES>() else {
        return;
    };
    let Ok(offload) = Offload::parse(header) else {
        return;
    };
    if let Some(pieces) = cut(offload, packet) {
        let lacks = offload.segments.is_some();
        let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece, lacks)).collect();
        join_and_cut(&pieces);
    }
    let mut packet = packet.to_vec();
    let _ = wow_dataplane::segment::fill_checksum(&mut packet);
}

fn coalesce(input: &[u8]) {
    let mut script = Script::new(input);
    let mut packets = Vec::new();
    while !script.is_empty() {
        let lacks_checksum = script.byte() & 1 == 1;
        packets.push((script.slice(PACKET_BYTES_MAX).to_vec(), lacks_checksum));
    }
    join_and_cut(&packets);
}

/// TCP over IPv4 with a payload of such a length.
fn tcp_v4(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0];
    packet.extend([10, 128, 0, 2, 10, 128, 0, 3]);
    packet.extend([
        4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    packet.resize(packet.len() + payload, 7);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// UDP over IPv6, likewise.
fn udp_v6(payload: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8 + payload, 17, 64];
    packet.extend([0xfd; 32]);
    packet.extend([4, 0, 0, 80, 0, 8 + payload, 0, 0]);
    packet.resize(packet.len() + usize::from(payload), 7);
    packet
}

fn described(packet: &[u8], checksum: (u16, u16), cut: Option<(Transport, u16)>) -> Vec<u8> {
    let (start, offset) = checksum;
    let offload = Offload {
        checksum: Some(ChecksumAt { start, offset }),
        segments: cut.map(|(transport, payload_bytes)| Segments {
            transport,
            header_bytes: 0,
            payload_bytes,
        }),
    };
    [&offload.encode()[..], packet].concat()
}

fn segment_seeds() -> Vec<Vec<u8>> {
    vec![
        [&[0; OFFLOAD_BYTES][..], &tcp_v4(9)].concat(),
        described(&tcp_v4(9), (20, 16), None),
        described(&tcp_v4(250), (20, 16), Some((Transport::TcpV4, 100))),
        described(&udp_v6(90), (40, 6), Some((Transport::Udp, 30))),
        // A checksum of another protocol, at a place that is only told.
        described(&tcp_v4(9), (20, 2), None),
    ]
}

fn coalesce_seeds() -> Vec<Vec<u8>> {
    let script = |packets: &[(u8, Vec<u8>)]| {
        let packets = packets.iter();
        packets
            .fold(Writer::default(), |writer, (flags, packet)| {
                writer.byte(*flags).slice(packet)
            })
            .0
    };
    let mut second = tcp_v4(30);
    second[5] += 1;
    second[27] += 50;
    vec![
        script(&[(1, tcp_v4(50)), (1, second.clone()), (0, second)]),
        script(&[
            (1, udp_v6(40)),
            (1, udp_v6(40)),
            (1, udp_v6(9)),
            (0, vec![1]),
        ]),
    ]
}
