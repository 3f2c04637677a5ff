use super::super::twin::{Flat, Twin, data};
use super::*;
use crate::offload::{ChecksumAt, Segments, Transport as Kind};
use proptest::prelude::*;

fn pair() -> (Transmit<Flat>, Twin) {
    let mut card = Twin::new(0);
    // SAFETY: the data is fresh and never freed.
    let transmit = unsafe { Transmit::new(&mut card, data()) }.unwrap();
    (transmit, card)
}

fn frame(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number * 37 + at) as u8).collect()
}

#[test]
fn frames_leave_whole_and_in_order_past_many_wraps_of_the_index() {
    let (mut transmit, mut card) = pair();
    let offload = Offload {
        checksum: Some(ChecksumAt {
            start: 34,
            offset: 16,
        }),
        segments: Some(Segments {
            transport: Kind::TcpV4,
            header_bytes: 66,
            payload_bytes: 1448,
        }),
    };
    let lengths = [60, 61, 1514, 64, 14, 60, 60];
    // One in many is a long superpacket.
    let length = |number: usize| match number % 101 {
        0 => 65_000,
        1 => 9_000,
        _ => lengths[number % lengths.len()],
    };
    let (mut put, mut left, mut round) = (0_usize, 0_usize, 0_usize);
    while put < 3 * 65_536 + 1_000 {
        round += 1;
        for _ in 0..round % 300 {
            let whole = frame(put, length(put));
            let (header, rest) = whole.split_at(14);
            if !transmit.put(offload, [header, rest]) {
                break;
            }
            put += 1;
        }
        // Some of them wait.
        for _ in 0..round % 250 {
            let Some((header, bytes)) = card.send() else {
                break;
            };
            assert_eq!(header, Header::encode(offload));
            assert!(bytes == frame(left, length(left)), "{left}");
            left += 1;
        }
        transmit.reclaim().unwrap();
    }
    assert!(left > 2 * 65_536);
}

#[test]
fn a_full_queue_refuses_and_goes_on_when_the_card_has_sent() {
    let (mut transmit, mut card) = pair();
    let put = |transmit: &mut Transmit<Flat>, bytes| {
        transmit.put(Offload::default(), [&[1; 14], &vec![2; bytes - 14]])
    };
    for _ in 0..QUEUE {
        assert!(put(&mut transmit, 60));
    }
    assert!(!put(&mut transmit, 60), "no descriptor is left");
    card.send().unwrap();
    assert!(!put(&mut transmit, 60), "nobody has looked");
    transmit.reclaim().unwrap();
    assert!(put(&mut transmit, 60));
    while card.send().is_some() {}
    transmit.reclaim().unwrap();
    let mut long = 0;
    while put(&mut transmit, FRAME_MAX_BYTES) {
        long += 1;
    }
    assert_eq!(
        long,
        DATA_BYTES / (FRAME_MAX_BYTES + HEADER_BYTES),
        "no byte is left"
    );
}

#[test]
fn what_was_never_put_in_cannot_come_back() {
    for id in [0, 255, 256, 65_535] {
        let (mut transmit, mut card) = pair();
        card.give(NUMBER, id, 0);
        assert!(transmit.reclaim().is_err(), "{id}");
    }
    let (mut transmit, mut card) = pair();
    for _ in 0..2 {
        assert!(transmit.put(Offload::default(), [&[0; 14], &[0; 46]]));
    }
    let buffer = card.take(NUMBER).unwrap();
    card.give(NUMBER, buffer.id.into(), 0);
    card.give(NUMBER, buffer.id.into(), 0);
    assert!(transmit.reclaim().is_err(), "twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A card may send in any order; no frame is overwritten before it is sent.
    #[test]
    fn frames_survive_a_card_that_sends_out_of_order(
        steps in prop::collection::vec((1_usize..20, 14_usize..20_000, any::<prop::sample::Index>()), 1..40),
    ) {
        let (mut transmit, mut card) = pair();
        let mut waiting = Vec::new();
        let mut number = 0;
        for (count, bytes, pick) in steps {
            for _ in 0..count {
                let whole = frame(number, bytes);
                if transmit.put(Offload::default(), [&whole, &[]]) {
                    let buffer = card.take(NUMBER).unwrap();
                    waiting.push((buffer, number, bytes));
                    number += 1;
                }
            }
            for _ in 0..count {
                if waiting.is_empty() {
                    break;
                }
                let (buffer, number, bytes) = waiting.swap_remove(pick.index(waiting.len()));
                prop_assert!(card.read(buffer)[HEADER_BYTES..] == frame(number, bytes));
                card.give(NUMBER, buffer.id.into(), 0);
            }
            transmit.reclaim().unwrap();
        }
    }
}
