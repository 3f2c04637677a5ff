//! Names and services.

use super::super::*;
use super::look_up;
use crate::wire::record::Key;

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
fn a_service_that_is_called_like_a_role_needs_the_role() {
    let mut net = Net::with_members(46, 3);
    net.join_all();
    let now = net.now;
    assert!(net.members[1].node.offer_service(now, "head", Vec::new()));
    net.pass(Duration::from_secs(5));
    assert!(look_up(&mut net, 0, Key::Service("head".into())).is_err());
}
