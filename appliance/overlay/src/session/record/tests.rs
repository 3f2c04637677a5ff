//! Records under tampering, reordering, exhaustion and several threads.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::id::{ID_BYTES, NodeId};
use crate::session::WINDOW;
use crate::wire::frame::{Body, Delivery, RoutedHeader};

const KEY: [u8; 32] = [0x42; 32];
const INDEX: u32 = 0x0a0b_0c0d;
const SUITES: [CipherSuite; 2] = [CipherSuite::Aes256Gcm, CipherSuite::ChaCha20Poly1305];

fn pair(suite: CipherSuite) -> (Sealer, Opener) {
    (
        Sealer::new(suite, &KEY, INDEX),
        Opener::new(suite, &KEY, INDEX),
    )
}

fn seal(sealer: &Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    sealer.seal(&[plaintext], &mut datagram).unwrap();
    datagram
}

/// What opening a copy of `datagram` says.
fn open(opener: &mut Opener, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut copy = datagram.to_vec();
    opener.open(&mut copy).map(|plaintext| plaintext.to_vec())
}

#[test]
fn sealing_appends_the_parts_in_sequence() {
    for suite in SUITES {
        let (sealer, mut opener) = pair(suite);
        let mut out = b"before".to_vec();
        assert_eq!(sealer.seal(&[b"one ", b"", b"two"], &mut out), Ok(0));
        assert_eq!(out.len(), 6 + 7 + RECORD_OVERHEAD_BYTES);
        let (before, datagram) = out.split_at_mut(6);
        assert_eq!(before, b"before");
        assert_eq!(outer::record_receiver(datagram), Some(INDEX));
        assert_eq!(opener.open(datagram).unwrap(), b"one two");
    }
}

#[test]
fn sealing_into_a_large_enough_buffer_does_not_reallocate() {
    let (sealer, _) = pair(CipherSuite::Aes256Gcm);
    let mut out = Vec::with_capacity(1300 + RECORD_OVERHEAD_BYTES);
    let before = out.as_ptr();
    sealer.seal(&[&[1; 1300]], &mut out).unwrap();
    assert_eq!(
        (out.as_ptr(), out.capacity()),
        (before, 1300 + RECORD_OVERHEAD_BYTES)
    );
}

#[test]
fn every_bit_of_a_record_counts() {
    for suite in SUITES {
        let (sealer, mut opener) = pair(suite);
        let datagram = seal(&sealer, b"packet");
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut opener, &altered).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(
                open(&mut opener, &datagram[..length]).is_err(),
                "length {length}"
            );
        }
        assert_eq!(opener.highest(), None);
        assert_eq!(open(&mut opener, &datagram).unwrap(), b"packet");
    }
}

/// The head of a routed frame.
fn head() -> Vec<u8> {
    let header = RoutedHeader {
        delivery: Delivery::Exact,
        body: Body::Datagram,
        hops: 1,
        destination: NodeId([1; ID_BYTES]),
        source: NodeId([2; ID_BYTES]),
        agent: None,
        source_agent: Some(NodeId([3; ID_BYTES])),
    };
    let mut head = Vec::new();
    header.encode(&mut head);
    head
}

fn carry(sealer: &Sealer, head: &[u8], record: &[u8]) -> Vec<u8> {
    let mut carrier = Vec::new();
    let write = |out: &mut Vec<u8>| out.extend_from_slice(record);
    sealer.seal_carrier(head, &mut carrier, write).unwrap();
    carrier
}

#[test]
fn a_carrier_opens_as_the_frame_that_its_head_begins() {
    for suite in SUITES {
        let (sealer, mut opener) = pair(suite);
        let inner = seal(&sealer, b"of the two ends");
        let carrier = carry(&sealer, &head(), &inner);
        let frame = [&head()[..], &inner].concat();
        assert_eq!(carrier.len(), frame.len() + RECORD_OVERHEAD_BYTES);
        assert_eq!(open(&mut opener, &carrier).unwrap(), frame);
        let duplicate = OpenError::Replay(ReplayError::Duplicate);
        assert_eq!(open(&mut opener, &carrier), Err(duplicate));
    }
}

#[test]
fn every_bit_of_a_carrier_counts_but_those_of_what_it_carries() {
    for suite in SUITES {
        let (sealer, mut opener) = pair(suite);
        let inner = seal(&sealer, b"x");
        let carrier = carry(&sealer, &head(), &inner);
        let own = carrier.len() - inner.len();
        // That it is a record at all is looked at too.
        let start = 4;
        for bit in 0..(own + start) * 8 {
            let mut altered = carrier.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut opener, &altered).is_err(), "bit {bit}");
        }
        for length in 0..own + RECORD_OVERHEAD_BYTES {
            assert!(open(&mut opener, &carrier[..length]).is_err());
        }
        assert_eq!(opener.highest().filter(|highest| *highest > 0), None);
        let mut altered = carrier;
        *altered.last_mut().unwrap() ^= 1;
        let frame = open(&mut opener, &altered).unwrap();
        assert_eq!(frame, [&head()[..], &altered[own..]].concat());
    }
}

#[test]
fn a_carrier_brings_nothing_in_but_a_routed_record() {
    let (sealer, mut opener) = pair(CipherSuite::Aes256Gcm);
    let inner = seal(&sealer, b"x");
    let whole = [&head()[..], &inner].concat();
    let mut query = head();
    query[1] |= 0x10;
    for other in [
        &[][..],
        &[0x01],
        &[0x04, 0x45],
        &head()[1..],
        &whole,
        &query,
    ] {
        let carrier = carry(&sealer, other, &inner);
        assert_eq!(open(&mut opener, &carrier), Err(OpenError::Headless));
    }
}

#[test]
fn records_open_once_in_any_order_within_the_window() {
    let (sealer, mut opener) = pair(CipherSuite::Aes256Gcm);
    let datagrams: Vec<_> = (0..=WINDOW)
        .map(|n| seal(&sealer, &n.to_be_bytes()))
        .collect();
    for (number, datagram) in datagrams.iter().enumerate().skip(1).rev() {
        let plaintext = open(&mut opener, datagram).unwrap();
        assert_eq!(plaintext, (number as u64).to_be_bytes());
    }
    let too_old = OpenError::Replay(ReplayError::TooOld);
    assert_eq!(open(&mut opener, &datagrams[0]), Err(too_old));
    let duplicate = OpenError::Replay(ReplayError::Duplicate);
    assert!(
        datagrams[1..]
            .iter()
            .all(|d| open(&mut opener, d) == Err(duplicate))
    );
}

#[test]
fn a_forged_counter_does_not_move_the_window() {
    let (sealer, mut opener) = pair(CipherSuite::ChaCha20Poly1305);
    let datagrams = [seal(&sealer, b"0"), seal(&sealer, b"1")];
    assert_eq!(open(&mut opener, &datagrams[1]).unwrap(), b"1");
    let mut forged = datagrams[0].clone();
    forged[8..16].copy_from_slice(&(RECORD_LIMIT - 1).to_be_bytes());
    assert_eq!(open(&mut opener, &forged), Err(OpenError::Forged));
    assert_eq!(opener.highest(), Some(1));
    assert_eq!(open(&mut opener, &datagrams[0]).unwrap(), b"0");
}

#[test]
fn the_last_number_is_sealed_and_opened_and_none_after_it() {
    let (sealer, mut opener) = pair(CipherSuite::Aes256Gcm);
    sealer.next.store(RECORD_LIMIT - 1, Ordering::Relaxed);
    assert_eq!(open(&mut opener, &seal(&sealer, b"last")).unwrap(), b"last");
    let mut out = b"kept".to_vec();
    for _ in 0..3 {
        assert_eq!(sealer.seal(&[b"x"], &mut out), Err(SealError::Exhausted));
    }
    assert_eq!(out, b"kept");
    assert_eq!(sealer.sealed_count(), RECORD_LIMIT);
    let mut beyond = seal(&pair(CipherSuite::Aes256Gcm).0, b"x");
    beyond[8..16].copy_from_slice(&RECORD_LIMIT.to_be_bytes());
    assert_eq!(open(&mut opener, &beyond), Err(OpenError::CounterLimit));
}

#[test]
fn threads_share_a_sealer_without_sharing_a_number() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let (sealer, mut opener) = pair(CipherSuite::Aes256Gcm);
    let work = || (0..EACH).map(|_| seal(&sealer, b"x")).collect::<Vec<_>>();
    let datagrams: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let numbers: BTreeSet<_> = datagrams.iter().map(|d| d[8..16].to_vec()).collect();
    assert_eq!(numbers.len(), THREADS * EACH);
    assert_eq!(sealer.sealed_count(), (THREADS * EACH) as u64);
    assert!(datagrams.iter().all(|d| open(&mut opener, d).is_ok()));
}

#[test]
fn another_kind_or_session_is_told_apart() {
    let (sealer, _) = pair(CipherSuite::Aes256Gcm);
    let datagram = seal(&sealer, b"x");
    let mut other = Opener::new(CipherSuite::Aes256Gcm, &KEY, INDEX + 1);
    assert_eq!(open(&mut other, &datagram), Err(OpenError::WrongReceiver));
    let cookie = [&outer::cookie_header(INDEX)[..], &[0; 2 * MAC_BYTES]].concat();
    assert_eq!(open(&mut other, &cookie), Err(OpenError::NotARecord));
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..4),
        aes: bool,
    ) {
        let (sealer, mut opener) = pair(SUITES[usize::from(aes)]);
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut datagram = Vec::new();
        sealer.seal(&slices, &mut datagram).unwrap();
        prop_assert_eq!(open(&mut opener, &datagram), Ok(parts.concat()));
    }

    #[test]
    fn arbitrary_records_neither_open_nor_panic(
        counter: u64, tail in proptest::collection::vec(any::<u8>(), 0..100), aes: bool,
    ) {
        let (_, mut opener) = pair(SUITES[usize::from(aes)]);
        let datagram = [&outer::record_header(INDEX, counter)[..], &tail].concat();
        prop_assert!(open(&mut opener, &datagram).is_err());
        prop_assert_eq!(opener.highest(), None);
    }
}
