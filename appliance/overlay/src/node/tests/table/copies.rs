//! Copies of records, while their keepers come and go.

use super::super::*;
use super::look_up;
use crate::wire::message::Message;
use crate::wire::record::{Claim, Key};

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
