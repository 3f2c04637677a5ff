//! What the ring does about cuts, and how little it says while nothing happens.

use super::*;

/// Cuts the members below `count` off from the others.
fn cut_off(net: &mut Net, count: usize) {
    for near in 0..count {
        for far in count..net.members.len() {
            net.cut.push((near, far));
        }
    }
}

fn members_with_peers_in(net: &Net, range: std::ops::Range<usize>) -> usize {
    let ids: Vec<_> = range.map(|index| net.members[index].node.id()).collect();
    let knows = |member: &&Member| {
        member
            .node
            .peers()
            .iter()
            .any(|peer| ids.contains(&peer.id))
    };
    net.members.iter().filter(knows).count()
}

#[test]
fn two_halves_are_one_ring_again_soon_after_a_cut_heals_however_long_it_lasted() {
    for minutes in [1, 10] {
        let mut net = Net::with_members(40, 16);
        net.join_all();
        cut_off(&mut net, 8);
        for _ in 0..minutes {
            net.pass(Duration::from_secs(60));
        }
        assert_eq!(members_with_peers_in(&net, 0..8), 8, "the halves are apart");
        net.cut.clear();
        let healed = net.now;
        net.run_until("one ring again", |net| net.is_one_ring());
        let took = net.now - healed;
        assert!(
            took < Duration::from_secs(10),
            "{took:?} after {minutes} min"
        );
    }
}

#[test]
fn a_node_that_stays_dead_is_tried_ever_more_seldom() {
    let mut net = Net::with_members(41, 6);
    net.join_all();
    net.members[3].alive = false;
    let spent = |net: &Net| -> u64 {
        let living = net.members.iter().filter(|member| member.alive);
        living.map(|m| m.node.counters().bytes_handshakes).sum()
    };
    net.pass(Duration::from_secs(60));
    let first = spent(&net);
    net.pass(Duration::from_secs(60));
    let second = spent(&net) - first;
    net.pass(Duration::from_secs(60));
    let third = spent(&net) - first - second;
    // Five nodes, each a try of two messages a minute, and rekeys.
    assert!(third < 60_000, "{first} {second} {third} bytes");
}

#[test]
fn neighbours_repeat_no_list_that_has_not_changed() {
    let mut net = Net::with_members(42, 12);
    net.join_all();
    net.pass(Duration::from_secs(60));
    let spent = |net: &Net| -> u64 {
        let all = net.members.iter();
        all.map(|member| member.node.counters().bytes_neighbours)
            .sum()
    };
    let before = spent(&net);
    net.pass(Duration::from_secs(60));
    let spent = spent(&net) - before;
    // A full list has more than 600 bytes, and goes out four times a minute to each of four.
    let per_message = spent / (12 * 4 * 4);
    assert!((1..300).contains(&per_message), "{per_message} bytes");
}

#[test]
fn a_list_that_was_lost_is_asked_for() {
    let mut net = Net::with_members(43, 5);
    net.join_all();
    net.pass(Duration::from_secs(20));
    // As if the last list had not arrived.
    let from = net.members[1].node.id();
    let peer = net.members[0].node.peers.get_mut(&from).unwrap();
    let list = std::mem::replace(&mut peer.heard_list, 7);
    net.pass(Duration::from_secs(20));
    let peer = net.members[0].node.peers.get(&from).unwrap();
    assert_eq!(peer.heard_list, list);
}
