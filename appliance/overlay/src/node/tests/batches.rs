//! Packets that are handed over together: sealed side by side where they can be, and all of them arriving.

use std::net::IpAddr;

use super::*;
use crate::node::GuestPackets;
use crate::node::guest::addresses_of;

pub(super) struct Many(pub Vec<Vec<u8>>);

impl GuestPackets for Many {
    fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        addresses_of(&self.0[0])
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn length(&self, index: usize) -> usize {
        self.0[index].len()
    }

    fn lacks_checksum(&self) -> bool {
        true
    }

    fn write(&self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0[index]);
    }
}

pub(super) fn many(net: &Net, from: usize, to: usize, count: u16) -> Many {
    let packet = |number: u16| {
        let short = if number + 1 == count { 600 } else { 1200 };
        let text = [&number.to_be_bytes()[..], &vec![7; short]].concat();
        net.packet(from, to, &text)
    };
    Many((0..count).map(packet).collect())
}

#[test]
fn packets_for_a_direct_peer_leave_together_and_arrive_in_order() {
    let mut net = Net::with_members(61, 2);
    net.join_all();
    // The path's MTU is looked for with the first that is long.
    net.send(0, 1, &[7; 1300]);
    net.run_until("the first packet arrives", |net| {
        !net.members[1].received.is_empty()
    });
    net.pass(Duration::from_secs(1));
    // The first long batch carries a probe, and those that soon follow do not.
    let first = many(&net, 0, 1, 120);
    let now = net.now;
    net.members[0].node.handle_guest_packets(now, &first);
    net.pass(Duration::from_millis(100));
    net.members[1].received.clear();
    let packets = many(&net, 0, 1, 120);
    let now = net.now;
    let node = &mut net.members[0].node;
    let before = node.counters().clone();
    node.handle_guest_packets(now, &packets);
    let sizes: Vec<_> = node
        .transmits
        .iter()
        .map(|sent| sent.datagram.len().div_ceil(sent.datagram_bytes))
        .collect();
    assert_eq!(
        sizes,
        [52, 52, 16],
        "as many as one datagram's header describes"
    );
    let after = node.counters();
    assert_eq!(after.guest_out - before.guest_out, 120);
    assert_eq!(after.datagrams_out - before.datagrams_out, 120);
    let bytes: usize = node.transmits.iter().map(|sent| sent.datagram.len()).sum();
    assert_eq!(after.bytes_out - before.bytes_out, bytes as u64);
    net.drain();
    net.run_until("all have arrived", |net| {
        net.members[1].received.len() == 120
    });
    assert_eq!(net.members[1].received, packets.0);
}

#[test]
fn packets_before_there_is_a_session_arrive_all_the_same() {
    let mut net = Net::with_members(62, 2);
    net.join_all();
    let far = net.add(None);
    net.run_until("it joins", |net| net.members[far].node.is_joined());
    let packets = many(&net, 0, far, 20);
    let now = net.now;
    net.members[0].node.handle_guest_packets(now, &packets);
    net.run_until("all have arrived", |net| {
        net.members[far].received.len() == 20
    });
    assert_eq!(net.members[far].received, packets.0);
}

#[test]
fn packets_together_are_judged_as_one_is() {
    let mut net = Net::with_members(63, 2);
    net.join_all();
    let mut packets = many(&net, 0, 1, 3);
    packets.0[0].resize(GUEST_MTU_DEFAULT + 1, 0);
    let now = net.now;
    let node = &mut net.members[0].node;
    let before = node.counters().drop_guest_invalid;
    node.handle_guest_packets(now, &packets);
    packets.0[0].resize(1000, 0);
    packets.0[0][15] ^= 1;
    node.handle_guest_packets(now, &packets);
    assert_eq!(node.counters().drop_guest_invalid - before, 2);
}

/// Sends batches to the second member until something is so.
fn send_until(net: &mut Net, what: &str, done: impl Fn(&Net) -> bool) {
    let deadline = net.now + Duration::from_secs(60);
    while !done(net) {
        assert!(net.now < deadline, "never: {what}");
        let packets = many(net, 0, 1, 10);
        let now = net.now;
        net.members[0].node.handle_guest_packets(now, &packets);
        net.members[1].received.clear();
        net.pass(Duration::from_millis(50));
    }
}

#[test]
fn where_batches_never_arrive_datagrams_go_one_by_one() {
    let mut net = Net::with_members(64, 2);
    net.join_all();
    net.send(0, 1, b"first");
    net.pass(Duration::from_secs(1));
    net.together_bytes = 0;
    send_until(&mut net, "batches are given up", given_up);
    let events = net.members[0].events.iter();
    let told = events.filter(|event| matches!(event, Event::BatchesHarm { .. }));
    assert_eq!(told.count(), 1);
    let packets = many(&net, 0, 1, 20);
    net.members[1].received.clear();
    let now = net.now;
    let node = &mut net.members[0].node;
    node.handle_guest_packets(now, &packets);
    assert!(node.transmits.iter().all(|sent| !sent.may_join));
    net.run_until("all have arrived", |net| {
        net.members[1].received.len() == 20
    });
    assert_eq!(net.members[1].received, packets.0);
}

fn given_up(net: &Net) -> bool {
    net.members[0].node.counters().batches_given_up == 1
}

#[test]
fn short_batches_that_arrive_prove_nothing_of_long_ones() {
    let mut net = Net::with_members(66, 2);
    net.join_all();
    net.send(0, 1, b"first");
    net.together_bytes = 1600;
    let acknowledgements = |net: &mut Net| {
        let text = |number: u8| net.packet(0, 1, &[number; 40]);
        let packets = Many(vec![text(1), text(2)]);
        for _ in 0..10 {
            net.members[0].node.handle_guest_packets(net.now, &packets);
            net.pass(Duration::from_millis(5));
        }
    };
    let deadline = net.now + Duration::from_secs(5);
    while !given_up(&net) {
        assert!(net.now < deadline, "long batches are never given up");
        acknowledgements(&mut net);
        let (now, packets) = (net.now, many(&net, 0, 1, 10));
        net.members[0].node.handle_guest_packets(now, &packets);
        acknowledgements(&mut net);
    }
}

#[test]
fn packets_that_come_by_themselves_and_leave_together_are_watched_too() {
    let mut net = Net::with_members(67, 2);
    net.join_all();
    net.send(0, 1, b"first");
    net.together_bytes = 0;
    let deadline = net.now + Duration::from_secs(60);
    while !given_up(&net) {
        assert!(net.now < deadline, "batches are never given up");
        for _ in 0..2 {
            let (now, packet) = (net.now, many(&net, 0, 1, 1));
            net.members[0].node.handle_guest_packets(now, &packet);
        }
        net.pass(Duration::from_millis(50));
    }
}

#[test]
fn batches_that_arrive_are_watched_and_go_on() {
    let mut net = Net::with_members(65, 2);
    net.join_all();
    net.loss = 0.1;
    net.send(0, 1, b"first");
    let start = net.now;
    let a_while = |net: &Net| net.now - start > Duration::from_secs(30);
    send_until(&mut net, "time passes", a_while);
    let counters = net.members[0].node.counters();
    assert_eq!(counters.batches_given_up, 0);
    assert!(counters.bytes_probes > 30 * 1000, "they were watched");
}
