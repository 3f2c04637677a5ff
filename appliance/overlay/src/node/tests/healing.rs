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

/// The longest time without a packet at either of two members that send to each other every 5 ms.
fn longest_gap(net: &mut Net, pair: (usize, usize), span: Duration) -> Duration {
    let (a, b) = pair;
    let end = net.now + span;
    let (mut last, mut longest) = ([net.now; 2], Duration::ZERO);
    while net.now < end {
        net.send(a, b, b"there");
        net.send(b, a, b"and back");
        net.pass(Duration::from_millis(5));
        for (at, member) in [a, b].into_iter().enumerate() {
            if !std::mem::take(&mut net.members[member].received).is_empty() {
                last[at] = net.now;
            }
            longest = longest.max(net.now - last[at]);
        }
    }
    longest
}

#[test]
fn traffic_whose_direct_path_is_cut_goes_on_by_a_relay_that_was_ready() {
    for seed in 44..47 {
        let mut net = Net::with_members(seed, 24);
        net.join_all();
        let pair = (5, 17);
        longest_gap(&mut net, pair, Duration::from_secs(5));
        let [a, b] = [pair.0, pair.1].map(|member| net.members[member].node.id());
        for (one, other) in [(pair.0, b), (pair.1, a)] {
            let node = &net.members[one].node;
            assert!(
                !node.common_relays(other).is_empty(),
                "seed {seed}: {one} has none"
            );
        }
        let calm = longest_gap(&mut net, pair, Duration::from_secs(1));
        assert!(calm <= LATENCY, "{calm:?}");
        net.cut = vec![pair];
        let gap = longest_gap(&mut net, pair, Duration::from_secs(5));
        // Silence is noticed after 40 ms, and a probe's answer missed a round trip later; the way by the
        // relay takes another.
        assert!(gap <= Duration::from_millis(150), "seed {seed}: {gap:?}");
    }
}

/// Lets packets arrive until `deadline`; when each of the pair first got one.
fn first_arrivals(net: &mut Net, pair: [usize; 2], span: Duration) -> [Option<Duration>; 2] {
    let begin = net.now;
    let mut first = [None; 2];
    while net.now < begin + span {
        net.pass(Duration::from_millis(5));
        for (first, member) in first.iter_mut().zip(pair) {
            if !std::mem::take(&mut net.members[member].received).is_empty() {
                first.get_or_insert(net.now - begin);
            }
        }
    }
    first
}

#[test]
fn what_was_sent_into_a_cut_last_arrives_by_the_relay_without_another_packet() {
    for seed in 44..47 {
        let mut net = Net::with_members(seed, 24);
        net.join_all();
        let (a, b) = (5, 17);
        longest_gap(&mut net, (a, b), Duration::from_secs(5));
        // A transfer whose window is full: nothing more goes out.
        net.cut = vec![(a, b)];
        net.pass(LATENCY);
        net.members[a].received.clear();
        net.members[b].received.clear();
        net.send(a, b, b"there");
        net.send(b, a, b"and back");
        let first = first_arrivals(&mut net, [a, b], Duration::from_secs(2));
        for first in first {
            let first = first.unwrap_or_else(|| panic!("seed {seed}: never"));
            assert!(first < Duration::from_millis(100), "seed {seed}: {first:?}");
        }
    }
}

#[test]
fn nothing_is_repeated_while_answers_come_as_they_use_to() {
    let mut net = Net::with_members(48, 24);
    net.join_all();
    let (a, b) = (5, 17);
    longest_gap(&mut net, (a, b), Duration::from_secs(5));
    net.pass(Duration::from_secs(2));
    for member in [a, b] {
        net.members[member].received.clear();
    }
    // Packets by themselves, some answered and some not.
    for round in 0..20 {
        net.send(a, b, b"a question");
        net.pass(Duration::from_millis(500));
        if round % 2 == 0 {
            net.send(b, a, b"an answer");
            net.pass(Duration::from_millis(500));
        }
    }
    assert_eq!(net.members[b].received.len(), 20);
    assert_eq!(net.members[a].received.len(), 10);
}
