//! Addresses, names and services: who holds them, and what becomes of them when nodes come and go.

use super::*;
use crate::wire::record::Key;

/// The addresses held by living members, one entry for each lease.
fn held(net: &Net) -> Vec<Ipv4Addr> {
    let alive = net.members.iter().filter(|member| member.alive);
    let leases = alive.flat_map(|member| member.node.leases(net.now));
    let held = leases.filter(|lease| lease.remaining.is_some());
    held.map(|lease| lease.address).collect()
}

fn are_distinct(addresses: &[Ipv4Addr]) -> bool {
    let distinct: BTreeSet<_> = addresses.iter().collect();
    distinct.len() == addresses.len()
}

/// Who is said to hold a key, by a given member.
fn look_up(net: &mut Net, asker: usize, key: Key) -> Result<RecordInfo, ResolveError> {
    let now = net.now;
    let asked = net.members[asker].node.look_up(now, key);
    let mut found = None;
    net.run_until("the answer", |net| {
        let events = net.members[asker].events.drain(..);
        let answers = events.filter_map(|event| match event {
            Event::Record { query, result } if query == asked => Some(result),
            _ => None,
        });
        found = answers.reduce(|_, last| last).or(found.take());
        found.is_some()
    });
    found.unwrap()
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

#[test]
fn a_name_is_its_first_holder_s_until_that_one_leaves() {
    let mut net = Net::with_members(43, 5);
    net.join_all();
    let second = net.add_named("node-2", None);
    net.run_until("the second is told", |net| {
        let told = |event: &Event| matches!(event, Event::NameTaken { .. });
        net.members[second].events.iter().any(told)
    });
    let key = Key::Name("node-2".into());
    let holder = look_up(&mut net, 4, key.clone()).unwrap();
    assert_eq!(holder.owner.node_id(), net.members[2].node.id());
    let now = net.now;
    net.members[2].node.leave(now);
    net.drain();
    net.members[2].alive = false;
    let heir = net.members[second].node.id();
    let left = net.now;
    net.run_until("the heir has the name", |net| {
        net.pass(Duration::from_secs(1));
        look_up(net, 4, key.clone()).is_ok_and(|found| found.owner.node_id() == heir)
    });
    let took = net.now - left;
    assert!(took < Duration::from_secs(20), "{took:?}");
    let holder = look_up(&mut net, 4, key).unwrap();
    let address = net.members[second].node.addresses().v4;
    assert_eq!(holder.claim.value, address.octets());
}

#[test]
fn the_name_of_a_node_that_died_is_free_long_before_its_record_ends() {
    let mut net = Net::with_members(44, 6);
    net.join_all();
    net.members[3].alive = false;
    let heir = net.add_named("node-3", None);
    let (id, died) = (net.members[heir].node.id(), net.now);
    net.run_until("the heir has the name", |net| {
        net.pass(Duration::from_secs(1));
        let found = look_up(net, 0, Key::Name("node-3".into()));
        found.is_ok_and(|found| found.owner.node_id() == id)
    });
    assert!(net.now < died + Duration::from_secs(60), "{}", net.now);
}

#[test]
fn records_outlive_the_nodes_that_keep_them() {
    let mut net = Net::with_members(45, 12);
    net.join_all();
    let now = net.now;
    assert!(
        net.members[0]
            .node
            .offer_service(now, "store", b"/shared".to_vec())
    );
    let key = Key::Service("store".into());
    net.run_until("the service is known", |net| {
        look_up(net, 5, key.clone()).is_ok()
    });
    let position = net.members[0].node.position_of(&key).unwrap();
    // Those who keep it die one after another.
    for _ in 0..3 {
        let others = (1..12).filter(|i| net.members[*i].alive);
        let keeper = others.min_by_key(|i| net.members[*i].node.id().distance(position));
        net.members[keeper.unwrap()].alive = false;
        net.run_until("the ring closes", |net| net.is_one_ring());
        let asker = (1..12).find(|i| net.members[*i].alive).unwrap();
        let found = look_up(&mut net, asker, key.clone()).unwrap();
        assert_eq!(found.claim.value, b"/shared");
    }
    let now = net.now;
    net.members[0].node.withdraw_service(now, "store");
    net.pass(Duration::from_secs(1));
    let asker = (1..12).find(|i| net.members[*i].alive).unwrap();
    assert!(look_up(&mut net, asker, key).is_err());
}

#[test]
fn a_service_that_is_called_like_a_role_needs_the_role() {
    let mut net = Net::with_members(46, 3);
    net.join_all();
    let now = net.now;
    assert!(net.members[1].node.offer_service(now, "head", Vec::new()));
    net.pass(Duration::from_secs(5));
    assert!(look_up(&mut net, 0, Key::Service("head".into())).is_err());
}

#[test]
fn a_node_leases_addresses_for_guests_behind_it() {
    let mut net = Net::with_members(47, 6);
    net.join_all();
    let now = net.now;
    for _ in 0..3 {
        net.members[2].node.lease(now).expect("there is room");
    }
    net.run_until("all are leased", |net| held(net).len() == 9);
    assert!(are_distinct(&held(&net)));
    let guest = net.members[2].node.leases(net.now)[2].clone();
    let mut packet = net.packet(2, 4, b"from a guest");
    packet[12..16].copy_from_slice(&guest.address.octets());
    net.run_until("the packet arrives", |net| {
        let now = net.now;
        net.members[2].node.handle_guest_packet(now, &packet);
        net.members[4].received.contains(&packet)
    });
    // And the answer, from a node that has heard nothing of the guest.
    let mut answer = net.packet(5, 2, b"to the guest");
    answer[16..20].copy_from_slice(&guest.address.octets());
    let now = net.now;
    net.members[5].node.handle_guest_packet(now, &answer);
    net.run_until("the answer arrives", |net| {
        net.members[2].received.contains(&answer)
    });
    let now = net.now;
    net.members[2].node.release(now, guest.id);
    net.pass(Duration::from_secs(1));
    assert_eq!(held(&net).len(), 8);
    assert!(look_up(&mut net, 0, Key::V4(guest.address)).is_err());
    let most = (0..2 * LEASES_MAX).filter(|_| net.members[2].node.lease(net.now).is_some());
    assert_eq!(most.count(), LEASES_MAX - 3);
}

#[test]
fn whoever_uses_an_address_that_is_leased_to_another_is_found_out() {
    let mut net = Net::with_members(48, 5);
    net.join_all();
    // Node 1 goes on to believe that the address is its own.
    let stolen = net.members[1].node.addresses().v4;
    let owner = net.add(Some(stolen));
    net.run_until("the owner joins", |net| net.members[owner].node.is_joined());
    let mut packet = net.packet(1, 3, b"stolen");
    packet[12..16].copy_from_slice(&stolen.octets());
    let victim = net.members[3].node.id();
    let now = net.now;
    net.members[1].node.ping(now, victim);
    net.pass(Duration::from_secs(1));
    for _ in 0..5 {
        let now = net.now;
        net.members[1]
            .node
            .send_traffic(now, victim, &[&[crate::wire::frame::GUEST], &packet]);
        net.pass(Duration::from_secs(1));
    }
    let received = net.members[3].received.len();
    assert!(
        received <= 1,
        "{received} packets from an address that is another's"
    );
    assert!(net.members[3].node.counters().drop_guest_invalid >= 4);
}
