//! The kernel back end against real sockets on the loopback interface.

use std::future::poll_fn;
use std::time::Duration;

use super::*;
use crate::DATAGRAM_MAX_BYTES;

const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> UdpUnderlay {
    UdpUnderlay::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), true).unwrap()
}

async fn receive(underlay: &mut UdpUnderlay, expected: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut batch = match underlay.receives_joined() {
        true => ReceiveBatch::for_joined(),
        false => ReceiveBatch::new(),
    };
    while all.len() < expected {
        tokio::time::timeout(
            PATIENCE,
            poll_fn(|cx| underlay.poll_receive(cx, &mut batch)),
        )
        .await
        .expect("datagrams arrive")
        .unwrap();
        all.extend(batch.iter_mut().map(|(from, data)| (from, data.to_vec())));
    }
    all
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_order() {
    let (mut a, mut b) = (loopback(), loopback());
    let to = b.bound()[0];
    let batch: Vec<_> = (0u8..100)
        .map(|i| Outgoing::one(to, vec![i; 1 + usize::from(i)]))
        .collect();
    let sent = a.send(&batch);
    assert_eq!(sent.taken, 100);
    assert!(sent.failures.is_empty());
    let received = receive(&mut b, 100).await;
    for (outgoing, (from, data)) in batch.iter().zip(&received) {
        assert_eq!(*from, a.bound()[0]);
        assert_eq!(*data, outgoing.payload);
    }
}

#[tokio::test]
async fn one_bad_destination_fails_alone() {
    let (mut a, mut b) = (loopback(), loopback());
    let good = |text: &[u8]| Outgoing::one(b.bound()[0], text.to_vec());
    let batch = [
        good(b"before"),
        // No socket of that family is open.
        Outgoing::one("[::1]:9".parse().unwrap(), b"lost".to_vec()),
        // Bound to the loopback address, the kernel refuses to send elsewhere.
        Outgoing::one("192.0.2.1:9".parse().unwrap(), b"lost".to_vec()),
        // A datagram no UDP header can describe.
        Outgoing::one(b.bound()[0], vec![0; 70_000]),
        good(b"after"),
    ];
    let sent = a.send(&batch);
    assert_eq!(sent.taken, 5);
    let failed: Vec<_> = sent.failures.iter().map(|(i, _)| *i).collect();
    assert_eq!(failed, [1, 2, 3]);
    assert!(matches!(sent.failures[0].1, SendError::NoSocket));
    assert!(matches!(sent.failures[2].1, SendError::TooBig));
    let received: Vec<_> = receive(&mut b, 2).await.into_iter().map(|r| r.1).collect();
    assert_eq!(received, [b"before".to_vec(), b"after".to_vec()]);
}

#[tokio::test]
async fn a_batch_whose_datagrams_are_too_long_fails_whole_and_is_no_reason_against_batches() {
    let (mut a, mut b) = (loopback(), loopback());
    let to = b.bound()[0];
    // Longer than UDP itself takes, since the loopback's own bound lies above.
    let batch = Outgoing {
        to,
        payload: vec![0; 65_500 * 2],
        datagram_bytes: 65_510,
    };
    let sent = a.send(&[batch]);
    assert_eq!(sent.taken, 1);
    assert!(matches!(sent.failures[..], [(0, SendError::TooBig)]));
    assert!(a.one_by_one.is_empty());
    check_batch(&mut a, &mut b).await;
}

#[tokio::test]
async fn an_oversized_datagram_is_counted_and_passed_over() {
    let (mut a, mut b) = (loopback(), loopback());
    let to = b.bound()[0];
    let payloads = [vec![1; DATAGRAM_MAX_BYTES + 1], b"fits".to_vec()];
    let sent = a.send(&payloads.map(|payload| Outgoing::one(to, payload)));
    assert_eq!(sent.taken, 2);
    assert_eq!(receive(&mut b, 1).await[0].1, b"fits");
    assert_eq!(b.oversized(), 1);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let a = loopback();
    let address = a.bound()[0];
    let error = UdpUnderlay::bind(address, true)
        .err()
        .expect("the port is taken")
        .to_string();
    assert!(error.contains(&address.port().to_string()), "{error}");
    assert!(error.contains("in use"), "{error}");
    assert!(matches!(
        UdpUnderlay::bind("192.0.2.1:0".parse().unwrap(), true),
        Err(BindError::NotLocal(_))
    ));
}

#[tokio::test]
async fn both_families_share_a_port() {
    let underlay = UdpUnderlay::bind("[::]:0".parse().unwrap(), true).unwrap();
    let bound = underlay.bound();
    assert!(bound[0].is_ipv4());
    assert!(bound.iter().all(|a| a.port() == bound[0].port()));
    assert!(bound[0].port() != 0);
}

/// Several datagrams as one batch, after which nothing is left.
async fn check_batch(a: &mut UdpUnderlay, b: &mut UdpUnderlay) {
    let payload: Vec<u8> = (0..=255u8).cycle().take(20 * 1000 + 7).collect();
    let batch = Outgoing {
        to: b.bound()[0],
        payload: payload.clone(),
        datagram_bytes: 1000,
    };
    let last = Outgoing::one(b.bound()[0], b"last".to_vec());
    let sent = a.send(&[batch.clone(), last, batch]);
    assert_eq!((sent.taken, sent.failures.len()), (3, 0));
    let received = receive(b, 21 + 1 + 21).await;
    let received: Vec<_> = received.into_iter().map(|(_, data)| data).collect();
    let expected: Vec<&[u8]> = payload.chunks(1000).collect();
    assert_eq!(received[..21], expected);
    assert_eq!(received[21], b"last");
    assert_eq!(received[22..], expected);
}

#[tokio::test]
async fn a_batch_comes_apart_whoever_cuts_and_joins_it() {
    for (cuts, joins) in [(true, true), (true, false), (false, true), (false, false)] {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut a = UdpUnderlay::bind(at, cuts).unwrap();
        let mut b = UdpUnderlay::bind(at, joins).unwrap();
        check_batch(&mut a, &mut b).await;
    }
}

#[tokio::test]
async fn a_destination_that_takes_no_batches_gets_datagrams() {
    let (mut a, mut b) = (loopback(), loopback());
    let to = b.bound()[0];
    // No kernel cuts so finely: it is refused whole, and goes one by one.
    let payload: Vec<u8> = (0..200u8).collect();
    let batch = Outgoing {
        to,
        payload: payload.clone(),
        datagram_bytes: 1,
    };
    let sent = a.send(&[batch]);
    assert_eq!((sent.taken, sent.failures.len()), (1, 0));
    let received = receive(&mut b, 200).await;
    let received: Vec<_> = received.into_iter().flat_map(|(_, data)| data).collect();
    assert_eq!(received, payload);
    assert!(a.one_by_one.contains(&to.ip()));
    check_batch(&mut a, &mut b).await;
}
