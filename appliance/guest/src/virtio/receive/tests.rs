use super::super::twin::{Flat, Twin, data};
use super::*;
use crate::offload::{ChecksumAt, Offload, Segments, Transport as Kind};

fn pair() -> (Receive<Flat>, Twin) {
    let mut card = Twin::new(0);
    // SAFETY: the data is fresh and never freed.
    let receive = unsafe { Receive::new(&mut card, data()) }.unwrap();
    (receive, card)
}

fn superpacket() -> Offload {
    Offload {
        checksum: Some(ChecksumAt {
            start: 34,
            offset: 16,
        }),
        segments: Some(Segments {
            transport: Kind::TcpV4,
            header_bytes: 66,
            payload_bytes: 1448,
        }),
    }
}

/// A frame whose every byte depends on its number.
fn frame(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number * 31 + at) as u8).collect()
}

#[test]
fn frames_of_all_lengths_arrive_whole_and_in_order_past_many_wraps_of_the_index() {
    let (mut receive, mut card) = pair();
    let mut batch = PacketBatch::new();
    let lengths = [14, 60, 66, BUFFER_BYTES - HEADER_BYTES, 100, 1514, 60];
    // One in many is a long superpacket.
    let length = |number: usize| match number % 101 {
        0 => 65_000,
        1 => BUFFER_BYTES,
        _ => lengths[number % lengths.len()],
    };
    let (mut sent, mut got, mut buffers) = (0_usize, 0_usize, 0_usize);
    // Three wraps of the 16-bit index; batches of every size.
    while buffers < 3 * 65_536 + 1_000 {
        let mut free = QUEUE;
        for _ in 0..sent % 29 + 1 {
            let bytes = length(sent);
            let needed = (bytes + HEADER_BYTES).div_ceil(BUFFER_BYTES);
            if needed > free {
                break;
            }
            free -= needed;
            buffers += needed;
            assert!(card.deliver(Header::encode(superpacket()), &frame(sent, bytes)));
            sent += 1;
        }
        while got < sent {
            batch.clear();
            receive.take(&mut batch).unwrap();
            assert!(!batch.is_empty(), "it stalls at frame {got}");
            for at in 0..batch.len() {
                let (offload, packet) = batch.packet_mut(at);
                assert_eq!(offload, superpacket());
                assert!(*packet == frame(got, length(got)), "{got}");
                got += 1;
            }
        }
    }
    assert_eq!(receive.malformed(), 0);
    let lent = std::iter::from_fn(|| card.take(NUMBER)).count();
    assert_eq!(lent, QUEUE, "every buffer is the card's again");
}

#[test]
fn a_frame_whose_last_buffer_comes_later_is_waited_for() {
    let (mut receive, mut card) = pair();
    let mut batch = PacketBatch::new();
    let buffers = [card.take(NUMBER).unwrap(), card.take(NUMBER).unwrap()];
    let mut header = Header::encode(Offload::default());
    header[HEADER_BYTES - 2] = 2;
    card.fill(buffers[0], &[&header[..], &[7; 1000]].concat());
    card.fill(buffers[1], &[8; 500]);
    card.give(NUMBER, buffers[0].id.into(), 1012);
    assert!(!receive.take(&mut batch).unwrap());
    assert!(batch.is_empty());
    card.give(NUMBER, buffers[1].id.into(), 500);
    assert!(receive.take(&mut batch).unwrap());
    assert_eq!(
        *batch.packet_mut(0).1,
        [vec![7; 1000], vec![8; 500]].concat()
    );
}

#[test]
fn descriptions_without_sense_are_counted_and_their_buffers_lent_again() {
    let (mut receive, mut card) = pair();
    let mut batch = PacketBatch::new();
    let mut wrong = |count: u16, kind: u8, bytes: u32| {
        let buffer = card.take(NUMBER).unwrap();
        let mut header = Header::encode(Offload::default());
        header[HEADER_BYTES - 2..].copy_from_slice(&count.to_le_bytes());
        header[1] = kind;
        card.fill(buffer, &header);
        card.give(NUMBER, buffer.id.into(), bytes);
    };
    wrong(0, 0, 100);
    wrong(BUFFERS_MAX + 1, 0, 100);
    wrong(u16::MAX, 0, 100);
    wrong(1, 5, 100);
    wrong(1, 0, 3);
    wrong(1, 0, HEADER_BYTES as u32 + 13);
    assert!(receive.take(&mut batch).unwrap());
    assert!(batch.is_empty());
    assert_eq!(receive.malformed(), 6);
    assert!(card.deliver(Header::encode(Offload::default()), &[1; 60]));
    receive.take(&mut batch).unwrap();
    assert_eq!(batch.len(), 1, "the queue works on");
    assert_eq!(std::iter::from_fn(|| card.take(NUMBER)).count(), QUEUE);
}

#[test]
fn a_superpacket_that_somebody_else_has_joined_is_given_its_checksums_place() {
    let (mut receive, mut card) = pair();
    let mut batch = PacketBatch::new();
    let joined = Offload {
        checksum: None,
        ..superpacket()
    };
    let mut tcp = vec![0; 3000];
    tcp[14] = 0x45;
    tcp[23] = 6;
    let mut header = Header::encode(joined);
    // With the mark of congestion notification.
    header[1] |= 0x80;
    assert!(card.deliver(header, &tcp));
    tcp[23] = 1;
    assert!(card.deliver(header, &tcp));
    receive.take(&mut batch).unwrap();
    assert_eq!(batch.len(), 1);
    assert_eq!(batch.packet_mut(0).0, superpacket());
    assert_eq!(receive.malformed(), 1, "neither TCP nor UDP");
}

#[test]
fn a_frame_that_fits_no_batch_is_passed_over() {
    let (mut receive, mut card) = pair();
    let mut batch = PacketBatch::new();
    // As much as so many buffers hold, which is more than an IP packet is long.
    let longest = usize::from(BUFFERS_MAX) * BUFFER_BYTES - HEADER_BYTES;
    for bytes in [
        longest, longest, longest, longest, longest, 55_000, longest, 60,
    ] {
        assert!(card.deliver(Header::encode(Offload::default()), &vec![3; bytes]));
    }
    receive.take(&mut batch).unwrap();
    assert_eq!((batch.len(), receive.malformed()), (7, 1));
    assert_eq!(batch.packet_mut(6).1.len(), 60);
}

#[test]
fn a_corrupt_ring_is_an_error_and_no_panic() {
    let check = |id: u32, bytes: u32| {
        let (mut receive, mut card) = pair();
        card.give(NUMBER, id, bytes);
        let mut batch = PacketBatch::new();
        assert!(receive.take(&mut batch).is_err(), "{id} {bytes}");
    };
    check(QUEUE as u32, 100);
    check(65_535, 100);
    check(0, BUFFER_BYTES as u32 + 1);
    check(0, u32::MAX);
    let (mut receive, mut card) = pair();
    let buffer = card.take(NUMBER).unwrap();
    let mut header = Header::encode(Offload::default());
    header[HEADER_BYTES - 2] = 2;
    card.fill(buffer, &header);
    card.give(NUMBER, buffer.id.into(), 100);
    card.give(NUMBER, buffer.id.into(), 100);
    let twice = receive.take(&mut PacketBatch::new());
    assert!(twice.is_err(), "a buffer that is handed back twice");
}

#[test]
fn interrupts_are_asked_for_and_declined_and_a_small_queue_is_refused() {
    let (mut receive, mut card) = pair();
    assert!(card.no_interrupts(NUMBER));
    receive.set_interrupts(true);
    assert!(!card.no_interrupts(NUMBER));
    card.set_no_notify(NUMBER, true);
    assert!(!receive.wants_doorbell());
    card.set_no_notify(NUMBER, false);
    assert!(receive.wants_doorbell());
    let mut small = Twin::new(0);
    small.queue_size = 128;
    // SAFETY: the data is fresh and never freed.
    assert!(unsafe { Receive::<Flat>::new(&mut small, data()) }.is_err());
}
