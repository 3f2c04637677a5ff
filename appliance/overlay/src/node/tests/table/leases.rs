//! Leases of addresses, and contests for them.

use super::super::*;
use super::{are_distinct, held, source_of};

#[test]
fn what_a_guest_sends_while_its_node_joins_is_under_way_as_soon_as_its_address_is_leased() {
    for seed in 60..66 {
        let mut net = Net::with_members(seed, 24);
        net.join_all();
        let newcomer = net.add(None);
        let packet = net.send(newcomer, 7, b"early");
        net.run_until("the newcomer has joined", |net| {
            assert!(
                net.members[7].received.is_empty(),
                "its address is not leased yet"
            );
            net.members[newcomer].node.is_joined()
        });
        let joined = net.now;
        net.run_until("the packet arrives", |net| {
            !net.members[7].received.is_empty()
        });
        assert_eq!(net.members[7].received, [packet]);
        // The target had been reached before.
        assert!(net.now - joined <= LATENCY * 3, "{:?}", net.now - joined);
    }
}

#[test]
fn what_was_sent_from_an_address_that_somebody_else_holds_is_dropped() {
    let mut net = Net::with_range(67, "10.1.2.0/28");
    net.add(None);
    let mut conflicts = 0;
    for newcomer in 1..10 {
        net.add(None);
        let address = net.members[newcomer].node.addresses().v4;
        let taken = held(&net).contains(&address);
        net.send(newcomer, 0, b"early");
        net.run_until("it joins", |net| net.is_one_ring());
        net.pass(Duration::from_secs(3));
        let mut received = net
            .members
            .iter_mut()
            .flat_map(|member| member.received.drain(..));
        assert!(!received.any(|packet| taken && source_of(&packet) == address));
        conflicts += usize::from(taken);
    }
    assert!(conflicts > 0, "a test without a conflict shows nothing");
}

#[test]
fn nodes_that_derive_one_address_lease_different_ones_and_talk() {
    // Thirteen addresses for ten nodes.
    let mut net = Net::with_range(40, "10.1.2.0/28");
    for _ in 0..10 {
        net.add(None);
    }
    let derived: BTreeSet<_> = net.members.iter().map(|m| m.node.addresses().v4).collect();
    assert!(
        derived.len() < 10,
        "a test without a collision shows nothing"
    );
    net.run_until("all join", |net| {
        assert!(are_distinct(&held(net)));
        net.is_one_ring()
    });
    for from in 0..10 {
        for to in (0..10).filter(|to| *to != from) {
            let packet = net.send(from, to, b"hello");
            net.run_until("the packet arrives", |net| {
                if !net.members[to].received.contains(&packet) {
                    return false;
                }
                net.members[to].received.clear();
                true
            });
        }
    }
    let refuted = net.members.iter().map(|m| m.node.counters().leases_refuted);
    assert_eq!(refuted.sum::<u64>(), 0);
}

/// Ten nodes that contend for thirteen addresses.
struct Contest {
    net: Net,
    /// An address that two of them derive.
    address: Ipv4Addr,
    /// The one that holds it.
    holder: usize,
    /// The one that derives it and holds another.
    loser: usize,
}

fn contest() -> Contest {
    let mut net = Net::with_range(40, "10.1.2.0/28");
    for _ in 0..10 {
        net.add(None);
    }
    net.join_all();
    let deprived = |member: &Member| member.node.addresses().v4 != member.node.certified.v4;
    let loser = net.members.iter().position(deprived);
    let loser = loser.expect("a test without a collision shows nothing");
    let address = net.members[loser].node.certified.v4;
    let holds = |member: &Member| member.node.addresses().v4 == address;
    let holder = net.members.iter().position(holds).unwrap();
    Contest {
        net,
        address,
        holder,
        loser,
    }
}

/// What is left at one member when all that a peer told it of its addresses was lost.
fn forget_told(net: &mut Net, at: usize, of: usize) {
    let (now, id) = (net.now, net.members[of].node.id());
    net.members[at].node.ping(now, id);
    net.run_until("they are linked", |net| net.members[at].node.is_linked(id));
    net.pass(Duration::from_secs(1));
    let certified = net.members[of].node.certified;
    let node = &mut net.members[at].node;
    let peer = node.peers.get_mut(&id).unwrap();
    let known: Vec<_> = peer.holdings.iter().collect();
    peer.holdings = holders::Holdings::new(certified);
    for address in known {
        node.forget_holder(id, address);
    }
    node.note_holdings(id);
}

#[test]
fn packets_from_an_address_that_a_peer_could_not_tell_come_in() {
    let Contest {
        mut net,
        loser: sender,
        ..
    } = contest();
    for receiver in (0..10).filter(|receiver| *receiver != sender) {
        forget_told(&mut net, receiver, sender);
        let packet = net.send(sender, receiver, b"from elsewhere");
        net.run_until("the packet arrives", |net| {
            net.members[receiver].received.contains(&packet)
        });
    }
}

#[test]
fn packets_to_an_address_that_a_peer_only_derives_reach_its_holder() {
    let Contest {
        mut net,
        holder,
        loser,
        ..
    } = contest();
    for sender in (0..10).filter(|sender| ![loser, holder].contains(sender)) {
        forget_told(&mut net, sender, loser);
        // The first ones may be lost.
        let packet = net.send(sender, holder, b"to the holder");
        net.run_until("a packet arrives", |net| {
            net.pass(Duration::from_millis(500));
            let arrived = net.members[holder].received.contains(&packet);
            if !arrived {
                net.send(sender, holder, b"to the holder");
            }
            arrived
        });
        net.members[holder].received.clear();
    }
}

#[test]
fn an_address_that_a_peer_only_derives_resolves_to_its_holder() {
    let Contest {
        mut net,
        address,
        holder,
        loser,
    } = contest();
    let holder_id = net.members[holder].node.id();
    for asker in (0..10).filter(|asker| ![loser, holder].contains(asker)) {
        forget_told(&mut net, asker, loser);
        let now = net.now;
        let node = &mut net.members[asker].node;
        let asked = node.resolve(now, Target::V4(address));
        net.run_until("the answer", |net| {
            net.members[asker].events.iter().any(|event| match event {
                Event::Resolved { query, result } if *query == asked => {
                    let found = result.as_ref().expect("somebody holds it");
                    assert_eq!(found.certificate.node_id(), holder_id);
                    true
                }
                _ => false,
            })
        });
    }
}

#[test]
fn of_two_rings_that_meet_one_holder_of_an_address_takes_another() {
    let mut net = Net::with_range(41, "10.1.2.0/28");
    for _ in 0..8 {
        net.add(None);
    }
    // The even ones and the odd ones do not hear each other.
    let seed = net.members[1].address;
    for from in 0..8 {
        for to in 0..8 {
            if from % 2 != to % 2 {
                net.cut.push((from, to));
            }
        }
        if from % 2 == 1 {
            let now = net.now;
            net.members[from].node.set_seeds(now, vec![seed]);
        }
    }
    net.run_until("both rings are up", |net| {
        net.members.iter().all(|member| member.node.is_joined())
    });
    assert!(
        !are_distinct(&held(&net)),
        "a test without a conflict shows nothing"
    );
    net.cut.clear();
    let (now, seed) = (net.now, net.members[0].address);
    net.members[1].node.set_seeds(now, vec![seed]);
    net.run_until("one ring, every address once", |net| {
        let joined = net.members.iter().all(|member| member.node.is_joined());
        joined && are_distinct(&held(net)) && net.is_one_ring()
    });
    let lost = |event: &Event| matches!(event, Event::LeaseLost { to: Some(_), .. });
    let told = net
        .members
        .iter()
        .any(|member| member.events.iter().any(lost));
    assert!(told, "the loser says so");
    // Longer than a lease that nobody renews.
    net.pass(Duration::from_secs(100));
    net.pass(Duration::from_secs(100));
    assert!(are_distinct(&held(&net)));
}

#[test]
fn conflicts_end_soon_after_a_cut_has_healed() {
    let mut net = Net::with_range(51, "10.1.2.0/28");
    for _ in 0..8 {
        net.add(None);
    }
    net.join_all();
    // The even ones and the odd ones lose each other for longer than records live.
    let halves = |net: &mut Net, count: usize| {
        let pairs = (0..count).flat_map(|a| (0..a).map(move |b| (a, b)));
        net.cut = pairs.filter(|(a, b)| a % 2 != b % 2).collect();
    };
    halves(&mut net, 12);
    net.pass(Duration::from_secs(100));
    net.pass(Duration::from_secs(100));
    for n in 8..12 {
        net.add(None);
        let (now, seed) = (net.now, net.members[n % 2].address);
        net.members[n].node.set_seeds(now, vec![seed]);
    }
    net.run_until("the newcomers join", |net| {
        net.members.iter().all(|member| member.node.is_joined())
    });
    net.pass(Duration::from_secs(30));
    assert!(
        !are_distinct(&held(&net)),
        "a test without a conflict shows nothing"
    );
    net.cut.clear();
    net.run_until("one ring", |net| net.is_one_ring());
    let healed = net.now;
    net.run_until("every address once", |net| are_distinct(&held(net)));
    let took = net.now - healed;
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_fixed_address_is_taken_from_whoever_leases_it() {
    let mut net = Net::with_members(42, 5);
    net.join_all();
    let wanted = net.members[3].node.addresses().v4;
    let owner = net.add(Some(wanted));
    net.run_until("the owner joins", |net| net.members[owner].node.is_joined());
    assert_eq!(net.members[owner].node.addresses().v4, wanted);
    net.run_until("the other one moves", |net| {
        net.members[3].node.addresses().v4 != wanted && net.members[3].node.is_joined()
    });
    assert!(are_distinct(&held(&net)));
}
