use super::*;
use crate::offload::{Segments, Transport};

fn described(header: Offload, ecn: bool, frame: &[u8]) -> Option<Offload> {
    let mut whole = header.encode().to_vec();
    if ecn {
        whole[1] |= 0x80;
    }
    whole.extend_from_slice(frame);
    describe(&whole)
}

fn tcp_frame() -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_BYTES + 24 + 20 + 3000];
    // A header with an option, so that its length counts.
    frame[ETHERNET_BYTES] = 0x46;
    frame[ETHERNET_BYTES + 9] = 6;
    frame
}

#[test]
fn superpackets_with_ecn_are_taken_as_those_without() {
    let offload = Offload {
        checksum: Some(ChecksumAt {
            start: 38,
            offset: 16,
        }),
        segments: Some(Segments {
            transport: Transport::TcpV4,
            header_bytes: 58,
            payload_bytes: 1000,
        }),
    };
    assert_eq!(described(offload, false, &tcp_frame()), Some(offload));
    assert_eq!(described(offload, true, &tcp_frame()), Some(offload));
}

#[test]
fn a_card_that_joined_and_checked_segments_leaves_a_checksum_to_compute() {
    let segments = Some(Segments {
        transport: Transport::TcpV4,
        header_bytes: 58,
        payload_bytes: 1000,
    });
    let joined = Offload {
        checksum: None,
        segments,
    };
    let checksum = Some(ChecksumAt {
        start: 38,
        offset: 16,
    });
    let whole = Offload { checksum, segments };
    assert_eq!(described(joined, false, &tcp_frame()), Some(whole));
    // Of what cannot be found no place is made up.
    assert_eq!(described(joined, false, &tcp_frame()[..20]), None);
    assert_eq!(described(joined, false, &[0; 60]), None);
}

#[test]
fn frames_without_a_description_are_refused() {
    assert_eq!(describe(&[0; OFFLOAD_BYTES - 1]), None);
    assert_eq!(describe(&[0xff; 60]), None);
}

#[tokio::test]
async fn what_is_no_ethernet_interface_is_refused_by_name() {
    let missing = PacketPort::open("no-such-card", true).err().unwrap();
    assert!(missing.to_string().contains("no-such-card"), "{missing}");
    assert!(matches!(missing, PacketError::Missing(_)));
    for name in ["", "much-too-long-a-name"] {
        let error = PacketPort::open(name, true).err().unwrap();
        assert!(matches!(error, PacketError::Missing(_)), "{error}");
    }
    let loopback = PacketPort::open("lo", true).err().unwrap();
    assert!(
        matches!(loopback, PacketError::NotEthernet(_)),
        "{loopback}"
    );
}
