//! Datagrams that come together are judged each by itself, whatever came before.

use super::*;
use crate::node::Run;

/// What the second member makes of datagrams that the first sent, in one run.
fn open(net: &mut Net, datagrams: &mut [Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let (now, from) = (net.now, net.members[0].address);
    let node = &mut net.members[1].node;
    let mut run = Run::default();
    let opened = datagrams.iter_mut().map(|datagram| {
        let packet = node.open_next(&mut run, now, from, datagram);
        packet.map(|packet| packet.bytes.to_vec())
    });
    opened.collect()
}

/// The datagrams that the first member makes of packets for the second.
fn sealed(net: &mut Net, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let now = net.now;
    let node = &mut net.members[0].node;
    while node.poll_transmit().is_some() {}
    for packet in packets {
        node.handle_guest_packet(now, packet);
    }
    std::iter::from_fn(|| node.poll_transmit())
        .map(|transmit| transmit.datagram)
        .collect()
}

fn meeting(seed: u64) -> Net {
    let mut net = Net::with_members(seed, 3);
    net.join_all();
    net.send(0, 1, b"first");
    net.run_until("the first packet arrives", |net| {
        !net.members[1].received.is_empty()
    });
    net.drain();
    net
}

#[test]
fn neighbours_of_one_session_come_in_and_are_counted_each() {
    let mut net = meeting(91);
    let packets: Vec<_> = (0..50u8).map(|n| net.packet(0, 1, &[n; 9])).collect();
    let mut datagrams = sealed(&mut net, &packets);
    let bytes: usize = datagrams.iter().map(Vec::len).sum();
    let before = net.members[1].node.counters().clone();
    let of_sender = |net: &Net| {
        let peers = net.members[1].node.peers();
        let sender = net.members[0].node.id();
        peers
            .iter()
            .find(|peer| peer.id == sender)
            .unwrap()
            .received
    };
    let peer_before = of_sender(&net);
    let opened = open(&mut net, &mut datagrams);
    assert_eq!(opened, packets.into_iter().map(Some).collect::<Vec<_>>());
    let after = net.members[1].node.counters();
    assert_eq!(after.guest_in - before.guest_in, 50);
    assert_eq!(after.datagrams_in - before.datagrams_in, 50);
    assert_eq!(after.bytes_in - before.bytes_in, bytes as u64);
    let peer_after = of_sender(&net);
    assert_eq!(peer_after.packets - peer_before.packets, 50);
    assert_eq!(peer_after.bytes - peer_before.bytes, bytes as u64);
}

#[test]
fn another_source_a_repetition_and_damage_get_nothing_from_those_before() {
    let mut net = meeting(92);
    let good = net.packet(0, 1, b"good");
    let mut datagrams = sealed(&mut net, &vec![good.clone(); 5]);
    // From an address that the sender does not have, though its node seals it.
    let forged = net.packet(2, 1, b"forged");
    let (to, id) = (net.members[1].address, net.members[1].node.id());
    let node = &mut net.members[0].node;
    node.send_whole(id, to, &[&[crate::wire::frame::GUEST], &forged]);
    let forged = node.poll_transmit().unwrap().datagram;
    datagrams.insert(2, forged);
    datagrams.insert(4, datagrams[3].clone());
    *datagrams[5].last_mut().unwrap() ^= 1;
    let before = net.members[1].node.counters().clone();
    let opened: Vec<_> = open(&mut net, &mut datagrams)
        .iter()
        .map(Option::is_some)
        .collect();
    assert_eq!(opened, [true, true, false, true, false, false, true]);
    let after = net.members[1].node.counters();
    assert_eq!(after.drop_record - before.drop_record, 2);
    assert_eq!(after.guest_in - before.guest_in, 4);
}

#[test]
fn a_message_among_packets_is_taken() {
    let mut net = meeting(93);
    let good = net.packet(0, 1, b"good");
    let mut datagrams = sealed(&mut net, &vec![good; 2]);
    let (now, id) = (net.now, net.members[1].node.id());
    net.members[0].node.ping(now, id);
    let echo = net.members[0].node.poll_transmit().unwrap().datagram;
    datagrams.insert(1, echo);
    let opened = open(&mut net, &mut datagrams);
    assert!(opened[0].is_some() && opened[1].is_none() && opened[2].is_some());
    net.run_until("it is answered", |net| {
        let events = &net.members[0].events;
        events
            .iter()
            .any(|event| matches!(event, Event::Pong { .. }))
    });
}
