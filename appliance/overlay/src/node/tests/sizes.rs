//! Packets of all lengths over paths that carry some: they arrive, or their sender is told.

use std::net::IpAddr;

use super::*;
use crate::node::guest::addresses_of;
use crate::node::path_mtu::PathMtu;

/// What a path of 1280 bytes carries over IPv4, and a guest's packet in it.
const NARROW: usize = 1280 - 28;
const NARROW_MTU: usize = NARROW - 33;

/// An IPv4 packet so long that its sender forbids to fragment, or does not.
fn v4(net: &Net, [from, to]: [usize; 2], length: usize, is_whole: bool) -> Vec<u8> {
    let mut packet = net.packet(from, to, &vec![7; length - 20]);
    packet[6] = if is_whole { 0x40 } else { 0 };
    packet[9] = 17;
    packet
}

fn v6(net: &Net, [from, to]: [usize; 2], length: usize) -> Vec<u8> {
    let mut packet = vec![7; length];
    packet[0] = 0x60;
    packet[6] = 17;
    let address = |member: usize| net.members[member].node.addresses().v6.octets();
    packet[8..24].copy_from_slice(&address(from));
    packet[24..40].copy_from_slice(&address(to));
    packet
}

impl Net {
    /// The guest that a packet is from sends it; the datagrams that its node makes of it.
    fn give(&mut self, packet: &[u8]) -> usize {
        let now = self.now;
        let (source, _) = addresses_of(packet).unwrap();
        let is_from = |member: &&mut Member| {
            let own = member.node.addresses();
            [IpAddr::from(own.v4), own.v6.into()].contains(&source)
        };
        let from = self.members.iter_mut().find(is_from);
        let node = &mut from.expect("it is a member's").node;
        node.handle_guest_packet(now, packet);
        let made = node.transmits.iter();
        let made = made.filter(|sent| sent.datagram.len() > 200).count();
        self.drain();
        made
    }

    fn arrives(&mut self, at: usize, packet: &[u8]) {
        let came = |net: &mut Net| net.members[at].received.iter().any(|got| got == packet);
        self.run_until("a packet arrives", came);
    }

    /// What the first member's guest was told last.
    fn told(&mut self) -> Option<usize> {
        self.told_to(0)
    }

    fn told_to(&mut self, member: usize) -> Option<usize> {
        let told = self.members[member].received.pop()?;
        Some(match told[0] >> 4 {
            4 => {
                assert_eq!(told[20..22], [3, 4]);
                usize::from(u16::from_be_bytes([told[26], told[27]]))
            }
            _ => {
                assert_eq!(told[40..42], [2, 0]);
                usize::from(u16::from_be_bytes([told[46], told[47]]))
            }
        })
    }

    fn is_settled(&self, to: usize) -> bool {
        let peer = &self.members[0].node.peers[&self.members[to].node.id()];
        let mtu = peer.active().and_then(|path| path.mtu.as_ref());
        mtu.is_some_and(PathMtu::is_settled)
    }

    fn settle(&mut self, to: usize) {
        self.run_until("the path's MTU is found", |net| net.is_settled(to));
    }
}

#[test]
fn a_long_packet_goes_in_parts_at_first_and_whole_when_the_path_is_known() {
    let mut net = Net::with_members(81, 2);
    net.join_all();
    let long = v4(&net, [0, 1], GUEST_MTU_DEFAULT, true);
    assert_eq!(net.give(&long), 2);
    net.arrives(1, &long);
    net.settle(1);
    net.members[1].received.clear();
    assert_eq!(net.give(&long), 1);
    net.arrives(1, &long);
    assert_eq!(net.told(), None);
}

#[test]
fn a_wide_path_carries_jumbo_frames() {
    let mut net = Net::new(82);
    net.guest_mtu = GUEST_MTU_MAX;
    net.carries = 8972;
    for _ in 0..2 {
        net.add(None);
    }
    net.join_all();
    let long = v4(&net, [0, 1], GUEST_MTU_MAX, true);
    assert!(net.give(&long) > 1);
    net.arrives(1, &long);
    net.settle(1);
    assert_eq!(net.give(&long), 1);
}

#[test]
fn what_is_too_long_for_a_narrow_path_is_answered_or_goes_in_parts() {
    let mut net = Net::with_members(83, 2);
    net.carries = NARROW;
    net.join_all();
    let (long, fits) = (
        v4(&net, [0, 1], 1400, true),
        v4(&net, [0, 1], NARROW_MTU, true),
    );
    assert_eq!(net.give(&long), 2);
    net.arrives(1, &long);
    net.settle(1);
    net.members[1].received.clear();
    assert_eq!(net.give(&long), 0);
    assert_eq!(net.told(), Some(NARROW_MTU));
    assert_eq!(net.give(&fits), 1);
    net.arrives(1, &fits);
    let divisible = v4(&net, [0, 1], 1400, false);
    assert_eq!(net.give(&divisible), 2);
    net.arrives(1, &divisible);
    // IPv6 hosts take no word for less than 1280.
    let long = v6(&net, [0, 1], 1281);
    assert_eq!(net.give(&long), 0);
    assert_eq!(net.told(), Some(1280));
    let least = v6(&net, [0, 1], 1280);
    assert_eq!(net.give(&least), 2);
    net.arrives(1, &least);
    assert_eq!(net.told(), None);
    assert_eq!(net.members[0].node.counters().drop_guest_too_big, 2);
}

#[test]
fn answers_are_bounded() {
    let mut net = Net::with_members(84, 2);
    net.carries = NARROW;
    net.join_all();
    let long = v4(&net, [0, 1], 1400, true);
    net.give(&long);
    net.settle(1);
    net.members[0].received.clear();
    for _ in 0..1000 {
        net.give(&long);
    }
    assert_eq!(net.members[0].received.len(), 200);
}

#[test]
fn a_path_that_becomes_narrow_without_a_word_is_noticed_and_its_users_are_told() {
    let mut net = Net::with_members(85, 2);
    net.join_all();
    let long = v4(&net, [0, 1], 1400, true);
    net.give(&long);
    net.settle(1);
    net.carries = NARROW;
    net.members[1].received.clear();
    let deadline = net.now + Duration::from_secs(10);
    while net.members[0].received.is_empty() {
        net.give(&long);
        // Something comes back as well, as in a transfer.
        net.send(1, 0, b"acknowledged");
        net.pass(Duration::from_millis(20));
        let answers = |packet: &Vec<u8>| packet[9] == 1;
        net.members[0].received.retain(answers);
        assert!(net.now < deadline, "it is swallowed for ever");
    }
    assert_eq!(net.told(), Some(NARROW_MTU));
    assert!(!net.members[1].received.is_empty(), "it went in parts");
    assert_eq!(net.members[0].node.counters().black_holes, 1);
}

#[test]
fn what_the_machine_cannot_send_is_learned_at_once() {
    let mut net = Net::with_members(86, 2);
    net.join_all();
    let long = v4(&net, [0, 1], 1400, true);
    net.give(&long);
    net.settle(1);
    net.carries = NARROW;
    let (now, to) = (net.now, net.members[1].address);
    net.members[0].node.handle_too_long(now, to, 1433);
    net.members[1].received.clear();
    assert_eq!(net.give(&long), 2);
    net.arrives(1, &long);
}

#[test]
fn over_a_relay_1280_bytes_arrive_and_more_is_answered() {
    let mut net = Net::with_members(87, 3);
    net.cut.push((1, 2));
    // The relay's two links differ.
    net.narrow.push((0, 2, NARROW));
    net.join_all();
    let least = v6(&net, [1, 2], 1280);
    net.give(&least);
    net.arrives(2, &least);
    let long = v4(&net, [1, 2], 1400, true);
    net.run_until("no direct path is looked for", |net| {
        net.give(&long);
        !net.members[1].received.is_empty()
    });
    assert_eq!(net.told_to(1), Some(1280));
    // What may be fragmented arrives all the same.
    let divisible = v4(&net, [1, 2], 1400, false);
    net.give(&divisible);
    net.arrives(2, &divisible);
}
