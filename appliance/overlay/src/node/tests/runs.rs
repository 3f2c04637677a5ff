//! Datagrams that come together are judged each by itself, whatever came before.

use super::batches::many;
use super::*;
use crate::node::Run;
use crate::wire::frame::{self, Body};
use crate::wire::outer::{Outer, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES};

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

/// A pool whose members 1 and 2 meet by member 0 alone, and have found how long their datagrams may be.
fn relayed(seed: u64) -> Net {
    let mut net = Net::with_members(seed, 3);
    net.cut = vec![(1, 2)];
    net.join_all();
    net.send(1, 2, &[7; 1200]);
    net.run_until("the first packet arrives", |net| {
        !net.members[2].received.is_empty()
    });
    net.pass(Duration::from_secs(2));
    // The first long batch carries a probe, and those that soon follow do not.
    let first = many(&net, 1, 2, 120);
    let now = net.now;
    net.members[1].node.handle_guest_packets(now, &first);
    net.pass(Duration::from_millis(100));
    net.drain();
    net
}

/// What a member has to send, datagram by datagram, and of how many batches.
fn waiting(net: &mut Net, member: usize) -> (Vec<Vec<u8>>, usize) {
    let node = &mut net.members[member].node;
    let batches: Vec<_> = std::iter::from_fn(|| node.poll_transmit()).collect();
    let datagrams = batches.iter().flat_map(|batch| {
        let datagrams = batch.datagram.chunks(batch.datagram_bytes);
        datagrams.map(<[u8]>::to_vec)
    });
    (datagrams.collect(), batches.len())
}

/// What `to` makes of datagrams from `from` that come together.
fn take(net: &mut Net, from: usize, to: usize, datagrams: &mut [Vec<u8>]) -> Vec<Vec<u8>> {
    let (now, from) = (net.now, net.members[from].address);
    let node = &mut net.members[to].node;
    let mut run = Run::default();
    let opened = datagrams.iter_mut().filter_map(|datagram| {
        let packet = node.open_next(&mut run, now, from, datagram)?;
        Some(packet.bytes.to_vec())
    });
    opened.collect()
}

#[test]
fn relayed_packets_are_sealed_passed_on_and_opened_together() {
    let mut net = relayed(94);
    let packets = many(&net, 1, 2, 120);
    let now = net.now;
    net.members[1].node.handle_guest_packets(now, &packets);
    let (mut datagrams, batches) = waiting(&mut net, 1);
    assert!(batches <= 4, "{batches}");
    let before = net.members[0].node.counters().clone();
    assert!(take(&mut net, 1, 0, &mut datagrams).is_empty());
    let after = net.members[0].node.counters().clone();
    assert_eq!(after.forwarded - before.forwarded, 120);
    let to = net.members[2].address;
    let node = &net.members[0].node;
    let onward = node.transmits.iter().filter(|sent| sent.to == to);
    assert!(onward.count() <= 5, "the first goes by itself");
    let (mut datagrams, _) = waiting(&mut net, 0);
    assert_eq!(take(&mut net, 0, 2, &mut datagrams), packets.0);
    assert_eq!(net.members[2].node.counters().drop_record, 0);
}

#[test]
fn a_relay_and_the_far_end_judge_each_frame_by_itself() {
    let mut net = relayed(95);
    let packets = many(&net, 1, 2, 9);
    let now = net.now;
    net.members[1].node.handle_guest_packets(now, &packets);
    let (mut datagrams, _) = waiting(&mut net, 1);
    datagrams.retain(|datagram| datagram.len() > RECORD_OVERHEAD_BYTES + 1200);
    let packets: Vec<_> = packets.0.into_iter().filter(|p| p.len() > 1200).collect();
    assert_eq!(datagrams.len(), packets.len());
    // On the first link: one's way is damaged, one comes twice, one is for the relay itself.
    datagrams[2][RECORD_HEADER_BYTES] ^= 1;
    datagrams.insert(5, datagrams[4].clone());
    let id = net.members[0].node.id();
    net.members[1].node.ping(now, id);
    datagrams.insert(7, waiting(&mut net, 1).0.remove(0));
    let before = net.members[0].node.counters().clone();
    take(&mut net, 1, 0, &mut datagrams);
    let after = net.members[0].node.counters().clone();
    assert_eq!(after.drop_record - before.drop_record, 2);
    assert_eq!(after.forwarded - before.forwarded, packets.len() as u64 - 1);
    // On the second one's way is damaged, and of the last what it carries.
    let (mut datagrams, _) = waiting(&mut net, 0);
    datagrams.retain(|datagram| datagram.len() > RECORD_OVERHEAD_BYTES + 1200);
    datagrams[1][RECORD_HEADER_BYTES] ^= 1;
    *datagrams.last_mut().unwrap().last_mut().unwrap() ^= 1;
    let before = net.members[2].node.counters().clone();
    let arrived = take(&mut net, 0, 2, &mut datagrams);
    let after = net.members[2].node.counters().clone();
    assert_eq!(after.drop_record - before.drop_record, 2);
    let mut expected = packets;
    expected.pop();
    expected.remove(2);
    expected.remove(1);
    assert_eq!(arrived, expected);
}

#[test]
fn what_is_damaged_while_it_is_carried_is_lost_at_its_end() {
    let mut net = relayed(97);
    let packets = many(&net, 1, 2, 9);
    let now = net.now;
    net.members[1].node.handle_guest_packets(now, &packets);
    let (mut datagrams, _) = waiting(&mut net, 1);
    datagrams.retain(|datagram| datagram.len() > RECORD_OVERHEAD_BYTES + 1200);
    *datagrams[3].last_mut().unwrap() ^= 1;
    // The head's 16 bytes of a record that is carried: now it is none.
    let carried = datagrams[4].len() - inner_length(&datagrams[4]);
    datagrams[4][carried] ^= 1;
    let relay = net.members[0].node.counters().clone();
    take(&mut net, 1, 0, &mut datagrams);
    let after = net.members[0].node.counters().clone();
    assert_eq!(after.drop_malformed - relay.drop_malformed, 1);
    let before = net.members[2].node.counters().clone();
    let (mut datagrams, _) = waiting(&mut net, 0);
    let arrived = take(&mut net, 0, 2, &mut datagrams);
    let after = net.members[2].node.counters().clone();
    assert_eq!(after.drop_record - before.drop_record, 1);
    let mut expected: Vec<_> = packets.0.into_iter().filter(|p| p.len() > 1200).collect();
    expected.remove(4);
    expected.remove(3);
    assert_eq!(arrived, expected);
}

/// Bytes of the record in a carrier.
fn inner_length(carrier: &[u8]) -> usize {
    let Ok(Outer::Record(record)) = Outer::parse(carrier) else {
        panic!("a carrier");
    };
    assert!(record.carries());
    carrier.len() - RECORD_HEADER_BYTES - record.sealed_bytes()
}

#[test]
fn what_a_relay_makes_up_gets_nothing_from_what_it_passed_on() {
    for as_carriers in [false, true] {
        check_made_up(as_carriers);
    }
}

/// A relay sends records of its own choice, sealed once more or carried.
fn check_made_up(as_carriers: bool) {
    let mut net = relayed(96);
    let [source, destination] = [1, 2].map(|member: usize| net.members[member].node.id());
    let good = net.packet(1, 2, b"good");
    let of_another = net.packet(0, 2, b"of another");
    let mut inner = |packet: &[u8]| {
        let node = &mut net.members[1].node;
        node.seal(destination, &[&[frame::GUEST], packet]).unwrap()
    };
    let mut bodies: Vec<_> = (0..4).map(|_| inner(&good)).collect();
    bodies.push(inner(&of_another));
    bodies.push(inner(&good));
    *bodies[2].last_mut().unwrap() ^= 1;
    bodies[3] = bodies[1].clone();
    let header = net.members[1]
        .node
        .header_to(destination, None, Body::Datagram);
    assert_eq!(header.source, source);
    let mut head = Vec::new();
    header.encode(&mut head);
    let address = net.members[2].address;
    let relay = &mut net.members[0].node;
    let mut carriers = Vec::new();
    for body in &bodies {
        if as_carriers {
            let link = relay.peers.get(&destination).unwrap().sending().unwrap();
            let mut carrier = Vec::new();
            let write = |out: &mut Vec<u8>| out.extend_from_slice(body);
            let sealed = link.session.sealer.seal_carrier(&head, &mut carrier, write);
            sealed.unwrap();
            carriers.push(carrier);
        } else {
            relay.send_whole(destination, address, &[&head, body]);
        }
    }
    let mut datagrams = match as_carriers {
        true => carriers,
        false => waiting(&mut net, 0).0,
    };
    let before = net.members[2].node.counters().clone();
    let arrived = take(&mut net, 0, 2, &mut datagrams);
    assert_eq!(arrived, vec![good; 3]);
    let after = net.members[2].node.counters();
    assert_eq!(after.drop_record - before.drop_record, 2);
    assert_eq!(after.guest_in - before.guest_in, 3);
}
