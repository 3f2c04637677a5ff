//! Programs' connections between two stacks in the place of guests.

use super::*;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ONE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);

/// Two stacks with their packets' ports, and the time of both.
struct Pair {
    stacks: [Control; 2],
    ports: [PacketPort; 2],
    now: Duration,
}

impl Pair {
    fn new() -> Self {
        let mut stacks = [ONE, OTHER].map(|v4| Control::new(config(v4, false), Duration::ZERO));
        let ports = stacks.each_mut().map(Control::packet_port);
        Pair {
            stacks,
            ports,
            now: Duration::ZERO,
        }
    }

    fn carry(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut busy = false;
        for (from, to) in [(0, 1), (1, 0)] {
            self.stacks[from].handle_deadline(self.now);
            while let Poll::Ready(packet) = self.ports[from].poll_packet(&mut cx) {
                assert!(packet.len() <= 1280);
                self.ports[to].push(&packet);
                busy = true;
            }
        }
        busy
    }

    /// Runs `work` to its end while packets go to and fro; time passes when nothing else happens.
    fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100_000 {
            if let Poll::Ready(done) = work.as_mut().poll(&mut cx) {
                return done;
            }
            if !self.carry() {
                self.now += Duration::from_millis(10);
            }
        }
        panic!("it never ends");
    }
}

fn at(v4: Ipv4Addr, port: u16) -> SocketAddr {
    (v4, port).into()
}

#[test]
fn a_stream_carries_bytes_both_ways_and_ends_in_order() {
    let mut pair = Pair::new();
    let [one, other] = pair.stacks.each_ref().map(Control::streams);
    let mut listener = other.listen(7000).unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let (came, back) = pair.run(async {
        let client = async {
            let mut stream = one.connect(at(OTHER, 7000)).await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            back
        };
        let server = async {
            let mut stream = listener.accept().await;
            assert_eq!(stream.peer().unwrap().ip(), ONE);
            let mut came = Vec::new();
            stream.read_to_end(&mut came).await.unwrap();
            stream.write_all(b"got it").await.unwrap();
            stream.shutdown().await.unwrap();
            came
        };
        let (back, came) = tokio::join!(client, server);
        (came, back)
    });
    assert!(came == sent, "{} bytes came", came.len());
    assert_eq!(back, b"got it");
    drop(listener);
    for _ in 0..100 {
        pair.carry();
        pair.now += Duration::from_secs(1);
    }
    assert_eq!([one.open(), other.open()], [0, 0]);
}

#[test]
fn nobody_there_is_an_error_and_leaves_nothing() {
    let mut pair = Pair::new();
    let one = pair.stacks[0].streams();
    let refused = pair.run(one.connect(at(OTHER, 7000))).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // Nobody answers at all.
    let silent = pair.run(one.connect(at(Ipv4Addr::new(10, 200, 0, 9), 1)));
    assert!(silent.is_err());
    for _ in 0..100 {
        pair.carry();
        pair.now += Duration::from_secs(1);
    }
    assert_eq!(one.open(), 0);
}

#[test]
fn streams_are_bounded_and_a_dropped_one_is_reset() {
    let mut pair = Pair::new();
    let [one, other] = pair.stacks.each_ref().map(Control::streams);
    let mut listener = other.listen(7000).unwrap();
    let mut both = Vec::new();
    // The listener's waiting ones count too.
    while other.open() < STREAMS_MAX {
        let ends =
            pair.run(async { tokio::join!(one.connect(at(OTHER, 7000)), listener.accept()) });
        both.push((ends.0.unwrap(), ends.1));
    }
    assert!(one.open() <= STREAMS_MAX && both.len() > STREAMS_MAX / 2);
    let error = other.listen(7001).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    let (client, mut server) = both.pop().unwrap();
    drop(client);
    let read = pair.run(async move { server.read_u8().await });
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // There is room again.
    let again = pair.run(async { tokio::join!(one.connect(at(OTHER, 7000)), listener.accept()) });
    again.0.unwrap();
}

#[test]
fn a_stack_follows_its_address() {
    let mut pair = Pair::new();
    let moved = Ipv4Addr::new(10, 200, 0, 77);
    pair.ports[1].set_v4(moved);
    let [one, other] = pair.stacks.each_ref().map(Control::streams);
    let mut listener = other.listen(7000).unwrap();
    let ends = pair.run(async { tokio::join!(one.connect(at(moved, 7000)), listener.accept()) });
    assert_eq!(ends.0.unwrap().peer().unwrap().ip(), moved);
    assert_eq!(pair.stacks[1].addresses()[0], moved);
}
