//! Cutting: what comes out is sound, and what makes no sense is refused.

use proptest::prelude::*;
use wow_guest::offload::{ChecksumAt, Segments};

use super::*;
use crate::fixtures::{Shape, Super, superpacket};
use crate::header::ACK;

fn pieces(offload: Offload, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut packet = packet.to_vec();
    let packets = Outbound::new(offload, &mut packet)?;
    let all = (0..packets.count()).map(|index| {
        let mut piece = vec![0xee];
        packets.write(index, &mut piece);
        assert_eq!(piece.len(), 1 + packets.length(index));
        piece.split_off(1)
    });
    Ok(all.collect())
}

fn completed(offload: Offload, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let packets = Outbound::new(offload, &mut packet).unwrap();
    let mut all = Vec::new();
    packets.each_complete(|piece| all.push(piece.to_vec()));
    all
}

#[test]
fn a_burst_is_cut_as_a_card_would() {
    let shape = Shape {
        flags: ACK | PSH | FIN,
        ..Shape::TCP_V4
    };
    let Super { offload, packet } = shape.superpacket(&[7; 250], 100);
    let pieces = completed(offload, &packet);
    assert_eq!(pieces.len(), 3);
    let mut expected = 7;
    for (index, piece) in pieces.iter().enumerate() {
        let layout = Layout::of(piece).expect("headers");
        assert!(layout.states_length(piece) && layout.has_checksum(piece));
        assert_eq!(checksum::finish(checksum::add(0, &piece[..20])), 0);
        assert_eq!(piece[4..6], (0xfff0u16 + index as u16).to_be_bytes());
        assert_eq!(piece[24..28], u32::to_be_bytes(expected));
        let flags = if index == 2 { ACK | PSH | FIN } else { ACK };
        assert_eq!(piece[33], flags);
        expected += 100;
    }
}

#[test]
fn a_whole_packet_passes_untouched() {
    let packet = Shape::TCP_V4.packet(b"hello");
    assert_eq!(pieces(Offload::default(), &packet).unwrap(), [packet]);
    // Even one that is none: the node counts it.
    assert_eq!(pieces(Offload::default(), &[]).unwrap(), [[0; 0]]);
}

#[test]
fn any_protocols_checksum_is_computed_where_its_place_is_known() {
    // ICMPv6's would stand there; the pseudo-header's sum is zero here.
    let mut packet = vec![0x60, 0, 0, 0, 0, 9, 58, 64];
    packet.resize(40, 0);
    packet.extend([128, 0, 0, 0, 1, 2, 3, 4, 5]);
    let offload = Offload {
        checksum: Some(ChecksumAt {
            start: 40,
            offset: 2,
        }),
        segments: None,
    };
    let pieces = pieces(offload, &packet).unwrap();
    assert_eq!(checksum::finish(checksum::add(0, &pieces[0][40..])), 0);
    let packets = Outbound::new(offload, &mut packet).unwrap();
    assert!(!packets.lacks_checksum());
}

#[test]
fn descriptions_that_lie_are_refused() {
    let Super { offload, packet } = Shape::TCP_V4.superpacket(&[1; 300], 100);
    let segments = offload.segments.unwrap();
    let check = |offload: Offload, packet: &[u8]| assert!(pieces(offload, packet).is_err());
    let with = |segments: Segments| Offload {
        segments: Some(segments),
        ..offload
    };
    check(
        Offload {
            checksum: None,
            ..offload
        },
        &packet,
    );
    for transport in [Transport::TcpV6, Transport::Udp] {
        check(
            with(Segments {
                transport,
                ..segments
            }),
            &packet,
        );
    }
    check(
        with(Segments {
            payload_bytes: 0,
            ..segments
        }),
        &packet,
    );
    for length in 0..=52 {
        check(offload, &packet[..length]);
    }
    for (start, offset) in [(0, 16), (20, 6), (u16::MAX, 16), (20, u16::MAX)] {
        let checksum = Some(ChecksumAt { start, offset });
        check(
            Offload {
                checksum,
                ..offload
            },
            &packet,
        );
    }
    let outside = Some(ChecksumAt {
        start: 351,
        offset: 0,
    });
    check(
        Offload {
            checksum: outside,
            segments: None,
        },
        &packet,
    );
    // A fragment has no transport's header of its own.
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    check(offload, &fragment);
}

#[test]
fn what_a_peer_left_out_is_filled_in_or_refused() {
    let mut packet = Shape::TCP_V4.packet(b"abc");
    fill_checksum(&mut packet).unwrap();
    assert!(Layout::of(&packet).unwrap().has_checksum(&packet));
    packet.push(0);
    assert_eq!(fill_checksum(&mut packet), Err(Malformed), "a false length");
    assert_eq!(fill_checksum(&mut []), Err(Malformed));
    let mut other = packet;
    other[9] = 1;
    assert_eq!(fill_checksum(&mut other), Err(Malformed), "not TCP or UDP");
}

proptest! {
    #[test]
    fn pieces_are_sound_and_hold_the_whole_payload(given in superpacket()) {
        let Super { offload, packet } = given;
        let layout = Layout::of(&packet).expect("headers");
        let mut payload = Vec::new();
        for piece in completed(offload, &packet) {
            let own = Layout::of(&piece).expect("headers");
            prop_assert!(own.states_length(&piece) && own.has_checksum(&piece));
            payload.extend_from_slice(&piece[own.payload..]);
        }
        prop_assert_eq!(payload, &packet[layout.payload..]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(header: [u8; 10], mut packet: Vec<u8>) {
        if let Ok(offload) = Offload::parse(&header)
            && let Ok(packets) = Outbound::new(offload, &mut packet)
        {
            packets.each_complete(|_| ());
        }
        let _ = fill_checksum(&mut packet);
    }
}
