//! Addresses, names and services: who holds them, and what becomes of them when nodes come and go.

use super::*;
use crate::membership::addresses::twin_v6;
use crate::wire::message::Message;
use crate::wire::record::{Claim, Key};
use std::net::Ipv6Addr;

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

/// The source of an IPv4 packet.
fn source_of(packet: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = packet[12..16].try_into().unwrap();
    octets.into()
}

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

#[test]
fn a_name_is_its_first_holder_s_until_that_one_leaves() {
    // Twenty that start at once had granted names far from where they are looked for later.
    for members in [5, 6, 14, 20] {
        inherit(43, members);
        inherit(44, members);
    }
}

/// The second holder of a name gets it when the first one leaves.
fn inherit(seed: u64, members: usize) {
    let mut net = Net::with_members(seed, members);
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
    // It tries every five seconds or so.
    let took = net.now - left;
    assert!(
        took < Duration::from_secs(8),
        "seed {seed}, {members} members: {took:?}"
    );
    let holder = look_up(&mut net, 4, key).unwrap();
    let address = net.members[second].node.addresses().v4;
    assert_eq!(holder.claim.value, address.octets());
}

#[test]
fn what_was_withdrawn_is_not_brought_back_by_an_old_copy() {
    let mut net = Net::with_members(49, 12);
    net.join_all();
    let key = Key::Service("store".into());
    let now = net.now;
    assert!(net.members[0].node.offer_service(now, "store", Vec::new()));
    net.run_until("the service is known", |net| {
        look_up(net, 5, key.clone()).is_ok()
    });
    let position = net.members[0].node.position_of(&key).unwrap();
    let mut by_distance: Vec<_> = (1..12).collect();
    by_distance.sort_by_key(|i| net.members[*i].node.id().distance(position));
    let (decider, neighbour) = (by_distance[0], by_distance[1]);
    let old = net.members[decider].node.dht.store.get(&key).unwrap();
    let old = old.verified.record.clone();
    let now = net.now;
    net.members[0].node.withdraw_service(now, "store");
    net.pass(Duration::from_secs(1));
    // A neighbour had been told of it, and not of its end; so had one that hands over what it has.
    let from = net.members[decider].node.id();
    net.members[neighbour].node.dht.store.forget_withdrawals();
    let now = net.now;
    net.members[neighbour]
        .node
        .handle_store(now, from, 0, old.clone(), 170);
    let from = net.members[neighbour].node.id();
    net.members[decider]
        .node
        .handle_store(now, from, 0, old, 170);
    assert!(look_up(&mut net, 5, key.clone()).is_err());
    let now = net.now;
    let heir = by_distance[5];
    assert!(
        net.members[heir]
            .node
            .offer_service(now, "store", Vec::new())
    );
    net.pass(Duration::from_secs(1));
    let found = look_up(&mut net, 5, key).unwrap();
    assert_eq!(found.owner.node_id(), net.members[heir].node.id());
}

#[test]
fn thousands_of_records_are_handed_over_whole() {
    const RECORDS: usize = 3000;
    let mut net = Net::with_members(50, 1);
    net.pass(Duration::from_secs(1));
    let before = net.members[0].node.records_kept();
    let now = net.now;
    let from = net.members[0].node.id();
    let mut owner = None;
    for n in 0..RECORDS {
        // Fifty of each owner.
        if n % 50 == 0 {
            let request = CertificateRequest {
                name: "owner".parse().unwrap(),
                roles: Roles::ROUTER,
                fixed_address: None,
                not_before: WALL,
                not_after: WALL + MONTH,
            };
            let identity = Identity::generate(&mut net.rng);
            let certificate = net.ticket.certify(&identity, &request).unwrap();
            owner = Some((identity, certificate));
        }
        let (identity, certificate) = owner.as_ref().unwrap();
        let mut claim = Vec::new();
        Claim {
            key: Key::V4(Ipv4Addr::from(0x0a81_0000 + n as u32)),
            sequence: 1,
            lifetime_s: 180,
            candidates: Vec::new(),
            value: Vec::new(),
        }
        .encode(&mut claim);
        let record = Record {
            certificate: certificate.bytes().to_vec(),
            signature: identity.sign_claim(&claim).to_vec(),
            claim,
        };
        net.members[0].node.handle_store(now, from, 0, record, 180);
    }
    assert_eq!(net.members[0].node.records_kept(), before + RECORDS);
    let newcomer = net.add(None);
    net.run_until("the newcomer has all records", |net| {
        net.members[newcomer].node.records_kept() >= before + RECORDS
    });
    assert!(net.now < now + Duration::from_secs(30), "{}", net.now);
    let dropped = |member: &Member| {
        let counters = member.node.counters();
        counters.drop_budget + counters.drop_full
    };
    assert_eq!(net.members.iter().map(dropped).sum::<u64>(), 0);
}

#[test]
fn copies_that_are_lost_are_sent_again() {
    let mut net = Net::with_members(52, 12);
    net.join_all();
    net.pass(Duration::from_secs(20));
    // Longer than until the claims are renewed for the first time.
    net.loss = 0.25;
    let mut keys = Vec::new();
    for (owner, n) in (0..12).flat_map(|owner| (0..4).map(move |n| (owner, n))) {
        let (now, name) = (net.now, format!("service-{owner}-{n}"));
        net.members[owner]
            .node
            .offer_service(now, &name, Vec::new());
        keys.push(Key::Service(name));
    }
    net.pass(Duration::from_secs(6));
    net.loss = 0.0;
    net.pass(Duration::from_secs(10));
    let keeps = |id: NodeId, key: &Key| {
        let mut members = net.members.iter();
        let member = members.find(|member| member.node.id() == id).unwrap();
        member.node.dht.store.get(key).is_some()
    };
    for key in keys {
        let position = net.members[0].node.position_of(&key).unwrap();
        let nodes = net.members.iter().map(|member| &member.node);
        let decider = nodes
            .min_by_key(|node| node.id().distance(position))
            .unwrap();
        for neighbour in decider.near_neighbours().iter() {
            assert!(keeps(neighbour, &key), "{key:?} at {neighbour}");
        }
    }
}

#[test]
fn a_key_that_newcomers_gave_away_goes_back_to_its_holder() {
    let mut net = Net::with_members(53, 6);
    net.join_all();
    let (first, second) = (net.add(None), net.add(None));
    net.cut = (0..6).flat_map(|a| [(a, first), (a, second)]).collect();
    let (now, itself) = (net.now, net.members[first].address);
    net.members[first].node.set_seeds(now, Vec::new());
    net.members[second].node.set_seeds(now, vec![itself]);
    // One that the newcomers are to decide on.
    let names = (0..).map(|n| format!("service-{n}"));
    let mut keys = names.map(Key::Service);
    let is_theirs = |key: &Key| {
        let position = net.members[0].node.position_of(key).unwrap();
        let closest = (0..8).min_by_key(|i| net.members[*i].node.id().distance(position));
        closest == Some(first)
    };
    let key = keys.find(is_theirs).unwrap();
    let Key::Service(name) = &key else {
        unreachable!("they are services");
    };
    let now = net.now;
    net.members[1]
        .node
        .offer_service(now, name, b"old".to_vec());
    net.pass(Duration::from_secs(20));
    let now = net.now;
    net.members[second]
        .node
        .offer_service(now, name, b"new".to_vec());
    net.run_until("the newcomers have given it away", |net| {
        look_up(net, first, key.clone()).is_ok()
    });
    net.cut.clear();
    let (now, seed) = (net.now, net.members[0].address);
    net.members[first].node.set_seeds(now, vec![seed]);
    net.run_until("one ring", |net| net.is_one_ring());
    net.pass(Duration::from_secs(20));
    assert_eq!(
        look_up(&mut net, 3, key.clone()).unwrap().claim.value,
        b"old"
    );
    let taken = |event: &Event| matches!(event, Event::NameTaken { .. });
    assert!(net.members[second].events.iter().any(taken));
    assert!(!net.members[1].events.iter().any(taken));
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
fn a_lease_is_for_the_address_that_a_guest_had_before_unless_somebody_has_it() {
    let mut net = Net::with_members(52, 6);
    net.join_all();
    let range = net.members[2].node.pool.range;
    let free = Ipv4Addr::from(u32::from(range.network()) + 77);
    let taken = net.members[4].node.addresses().v4;
    for (wish, given) in [(free, Some(free)), (free, None), (taken, None)] {
        let now = net.now;
        let lease = net.members[2]
            .node
            .lease_preferring(now, Some(wish))
            .unwrap();
        let mut address = None;
        net.run_until("it is leased", |net| {
            let leases = net.members[2].node.leases(net.now).into_iter();
            let mut held = leases
                .filter(|info| info.id == lease && info.remaining.is_some())
                .map(|info| info.address);
            address = held.next();
            address.is_some()
        });
        match given {
            Some(given) => assert_eq!(address, Some(given)),
            None => assert_ne!(address, Some(wish)),
        }
        assert!(are_distinct(&held(&net)));
    }
}

#[test]
fn a_guests_name_is_found_with_its_address_until_a_node_is_called_so() {
    let mut net = Net::with_members(53, 6);
    net.join_all();
    let name = |text: &str| crate::membership::NodeName::new(text).unwrap();
    let address = net.members[2].node.addresses().v4;
    let now = net.now;
    let claim = |net: &mut Net, text: &str| {
        net.members[2]
            .node
            .claim_guest_name(now, &name(text), address)
    };
    assert!(claim(&mut net, "printer") && claim(&mut net, "head") && claim(&mut net, "node-4"));
    let key = Key::Name("printer".into());
    net.run_until("the name is known", |net| {
        look_up(net, 5, key.clone()).is_ok()
    });
    let asked = net.members[5]
        .node
        .resolve(net.now, Target::Name("printer".into()));
    let mut found = None;
    net.run_until("the answer", |net| {
        found = net.members[5].events.iter().find_map(|event| match event {
            Event::Resolved { query, result } if *query == asked => result.clone().ok(),
            _ => None,
        });
        found.is_some()
    });
    let found = found.unwrap();
    assert_eq!(found.addresses.v4, address);
    let pool = net.members[2].node.pool.pool_id();
    assert_eq!(found.addresses.v6, twin_v6(pool, address));
    // A role's name is nobody's guest's, and a node's is its own.
    assert!(look_up(&mut net, 5, Key::Name("head".into())).is_err());
    let kept = look_up(&mut net, 5, Key::Name("node-4".into())).unwrap();
    assert_eq!(kept.owner.node_id(), net.members[4].node.id());

    let owner = net.add_named("printer", None);
    let id = net.members[owner].node.id();
    net.run_until("the node that is called so has the name", |net| {
        net.pass(Duration::from_secs(1));
        look_up(net, 5, key.clone()).is_ok_and(|found| found.owner.node_id() == id)
    });
    net.run_until("who claimed it for a guest is told", |net| {
        let told =
            |event: &Event| matches!(event, Event::NameTaken { name, .. } if name == "printer");
        net.members[2].events.iter().any(told)
    });
    let now = net.now;
    net.members[2]
        .node
        .withdraw_guest_name(now, &name("printer"));
    net.pass(Duration::from_secs(1));
    assert!(look_up(&mut net, 5, key).is_ok());
}

#[test]
fn the_ipv6_address_that_goes_with_a_lease_is_its_holders_alone() {
    let mut net = Net::with_members(54, 12);
    net.join_all();
    let pool = net.members[0].node.pool.pool_id();
    let twin = |net: &Net, member: usize| twin_v6(pool, net.members[member].node.addresses().v4);
    let packet = |source: Ipv6Addr, destination: Ipv6Addr| {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8..24].copy_from_slice(&source.octets());
        packet[24..40].copy_from_slice(&destination.octets());
        packet
    };
    // Between holders who did not know each other, and to a node's address by its id.
    let other = net.members[9].node.addresses().v6;
    for destination in [twin(&net, 7), other] {
        let sent = packet(twin(&net, 1), destination);
        let now = net.now;
        net.members[1].node.handle_guest_packet(now, &sent);
        net.run_until("it arrives", |net| {
            net.members
                .iter()
                .any(|member| member.received.contains(&sent))
        });
    }
    assert_eq!(net.members[7].received.len(), 1);
    assert_eq!(net.members[9].received.len(), 1);
    // From somebody else's it neither leaves nor is it let in.
    let forged = packet(twin(&net, 3), twin(&net, 7));
    let (now, victim) = (net.now, net.members[7].node.id());
    net.members[1].node.handle_guest_packet(now, &forged);
    assert_eq!(net.members[1].node.counters().drop_guest_invalid, 1);
    let frame: &[&[u8]] = &[&[crate::wire::frame::GUEST], &forged];
    net.members[1].node.send_traffic(now, victim, frame);
    net.run_until("it is refused", |net| {
        net.members[7].node.counters().drop_guest_invalid > 0
    });
    assert_eq!(net.members[7].received.len(), 1);
    // Whom it leads to is found by it.
    let target = Target::V6(twin(&net, 7));
    let asked = net.members[5].node.resolve(net.now, target);
    net.run_until("the answer", |net| {
        net.members[5].events.iter().any(|event| {
            matches!(event, Event::Resolved { query, result: Ok(found) }
                if *query == asked && found.certificate.node_id() == victim)
        })
    });
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
