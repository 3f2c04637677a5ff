//! Addresses and names of guests behind a node.

use super::super::*;
use super::{are_distinct, held, look_up};
use crate::membership::addresses::twin_v6;
use crate::wire::record::Key;
use std::net::Ipv6Addr;

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
