//! Connections over the loopback, friendly and hostile.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::table::{ACCEPTED_PER_IP_MAX, UNPROVEN_MAX};
use super::*;
use crate::DATAGRAM_MAX_BYTES;

const PATIENCE: Duration = Duration::from_secs(30);

fn underlay() -> TcpUnderlay {
    TcpUnderlay::bind(Ipv4Addr::LOCALHOST.into(), &[0]).unwrap()
}

/// What comes next together.
async fn receive_all(underlay: &mut TcpUnderlay) -> (SocketAddr, Vec<Vec<u8>>) {
    let next = poll_fn(|cx| underlay.poll_receive(cx));
    let mut received = tokio::time::timeout(PATIENCE, next)
        .await
        .expect("a datagram in time");
    let datagrams = received.iter_mut().map(|bytes| bytes.to_vec()).collect();
    (received.from, datagrams)
}

/// One datagram that comes alone.
async fn receive(underlay: &mut TcpUnderlay) -> (SocketAddr, Vec<u8>) {
    let (from, mut datagrams) = receive_all(underlay).await;
    assert_eq!(datagrams.len(), 1);
    (from, datagrams.remove(0))
}

fn send(underlay: &TcpUnderlay, to: SocketAddr, datagram: &[u8]) -> Result<(), Refusal> {
    underlay.send(to, datagram, datagram.len())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_connection_serves_both_directions() {
    let (mut a, mut b) = (underlay(), underlay());
    let to_b = b.listening()[0];
    let large = vec![7; DATAGRAM_MAX_BYTES];
    send(&a, to_b, &large).unwrap();
    let (from_a, first) = receive(&mut b).await;
    assert_eq!(first, large);
    send(&a, to_b, &[1]).unwrap();
    assert_eq!(receive(&mut b).await, (from_a, vec![1]));
    send(&b, from_a, &[2]).unwrap();
    assert_eq!(receive(&mut a).await, (to_b, vec![2]));
    assert_eq!(a.tallies().connections, 1);
    assert_eq!(b.tallies().connections, 1);
}

#[tokio::test]
async fn many_datagrams_arrive_in_order_whole_or_not_at_all() {
    const LENGTH: usize = 1400;
    let (a, mut b) = (underlay(), underlay());
    let to_b = b.listening()[0];
    let datagram = |number: u32| {
        let mut bytes = vec![number.to_le_bytes()[0]; LENGTH];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let batch: Vec<u8> = (0..1000).flat_map(datagram).collect();
    let Err(Refusal::Full { lost }) = a.send(to_b, &batch, LENGTH) else {
        panic!("so much finds no room at once");
    };
    assert!((1..1000).contains(&lost), "{lost}");
    let mut arrived = Vec::new();
    while arrived.len() < 1000 - lost {
        arrived.extend(receive_all(&mut b).await.1);
    }
    for (number, bytes) in (0..).zip(arrived) {
        assert_eq!(bytes, datagram(number));
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_opened_anew() {
    let (a, mut b) = (underlay(), underlay());
    let to_b = b.listening()[0];
    send(&a, to_b, &[1]).unwrap();
    receive(&mut b).await;
    drop(b);
    until("the end is noticed", || a.tallies().connections == 0).await;
    let mut again = TcpUnderlay::bind(to_b.ip(), &[to_b.port()]).unwrap();
    send(&a, to_b, &[2]).unwrap();
    assert_eq!(receive(&mut again).await.1, vec![2]);
}

#[tokio::test]
async fn a_far_end_that_refuses_is_left_alone_for_a_while() {
    let a = underlay();
    let nobody = {
        let gone = underlay();
        gone.listening()[0]
    };
    // The listener's task ends with its runtime's next turn.
    until("it is refused", || {
        send(&a, nobody, &[1]) == Err(Refusal::Failed)
    })
    .await;
}

#[tokio::test]
async fn hostile_lengths_end_the_connection() {
    let b = underlay();
    for hostile in [[0, 0], [0xff, 0xff]] {
        let mut stream = TcpStream::connect(b.listening()[0]).await.unwrap();
        stream.write_all(&hostile).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    }
    until("both are counted", || b.tallies().malformed == 2).await;
    assert_eq!(b.tallies().connections, 0);
}

#[tokio::test]
async fn strangers_that_earn_no_answer_are_closed_and_bounded() {
    let mut b = underlay();
    let mut strangers = Vec::new();
    for _ in 0..ACCEPTED_PER_IP_MAX + 3 {
        strangers.push(TcpStream::connect(b.listening()[0]).await.unwrap());
    }
    until("those too many are refused", || b.tallies().refused >= 3).await;
    assert!(b.tallies().connections <= ACCEPTED_PER_IP_MAX);
    assert!(b.tallies().connections <= UNPROVEN_MAX);
    // The first sends something that is answered, and stays.
    strangers[0].write_all(&[0, 1, 9]).await.unwrap();
    let (from, _) = receive(&mut b).await;
    send(&b, from, &[8]).unwrap();
    until("the others are closed", || b.tallies().connections == 1).await;
    let mut answer = [0; 3];
    strangers[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0, 1, 8]);
}

#[tokio::test]
async fn a_connection_that_nobody_reads_loses_the_newest() {
    const FULL_TIMES: usize = 64;
    let a = underlay();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let mut full = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while full < FULL_TIMES {
        if send(&a, to, &[0; DATAGRAM_MAX_BYTES]) == (Err(Refusal::Full { lost: 1 })) {
            full += 1;
        }
        tokio::task::yield_now().await;
        assert!(
            tokio::time::Instant::now() < deadline,
            "it takes everything"
        );
    }
    assert_eq!(a.tallies().connections, 1);
}
