//! Who is cut off, and who is not.

use super::*;
use crate::membership::{Revocation, Revoked};

fn revocation(net: &Net, struck: usize) -> Revocation {
    let id = net.members[struck].node.id();
    net.authority.revoke(Revoked::Node(id))
}

/// Whether any living member but the struck one has a session with it.
fn is_linked(net: &Net, struck: usize) -> bool {
    let id = net.members[struck].node.id();
    let others = net.members.iter().enumerate();
    let mut others = others.filter(|(index, member)| *index != struck && member.alive);
    others.any(|(_, member)| member.node.peers().iter().any(|peer| peer.id == id))
}

#[test]
fn a_revoked_node_is_cut_off_everywhere_and_told() {
    let mut net = Net::with_members(30, 12);
    net.join_all();
    let struck = 5;
    let word = revocation(&net, struck);
    let now = net.now;
    assert_eq!(net.members[9].node.revoke(now, word.bytes()), Ok(true));
    assert_eq!(net.members[9].node.revoke(now, word.bytes()), Ok(false));
    net.run_until("everybody knows", |net| {
        net.members
            .iter()
            .all(|member| member.node.revocations().count() == 1)
    });
    assert!(net.now < now + Duration::from_secs(1), "{}", net.now);
    assert!(!is_linked(&net, struck));
    let told = |event: &Event| matches!(event, Event::Revoked);
    assert!(net.members[struck].events.iter().any(told));
    net.pass(Duration::from_secs(60));
    assert!(!is_linked(&net, struck), "it does not come back");
    net.members[struck].alive = false;
    net.run_until("the others are one ring", |net| net.is_one_ring());
}

#[test]
fn all_nodes_of_a_revoked_ticket_are_cut_off() {
    let mut net = Net::with_members(31, 3);
    let good = net.ticket.clone();
    net.ticket = net.issue();
    let stolen = net.ticket.id();
    let struck: Vec<_> = (0..3).map(|_| net.add(None)).collect();
    net.ticket = good;
    net.add(None);
    net.join_all();
    let word = net.authority.revoke(Revoked::Ticket(stolen));
    let now = net.now;
    net.members[0].node.revoke(now, word.bytes()).unwrap();
    net.run_until("all are cut off", |net| {
        struck.iter().all(|struck| {
            let id = net.members[*struck].node.id();
            let mut good = [0, 1, 2, 6].iter().map(|good| &net.members[*good].node);
            good.all(|node| node.peers().iter().all(|peer| peer.id != id))
        })
    });
    for struck in struck {
        net.members[struck].alive = false;
    }
    net.run_until("the others are one ring", |net| net.is_one_ring());
}

#[test]
fn who_was_away_learns_of_a_revocation_when_it_comes_back() {
    let mut net = Net::with_members(32, 6);
    net.join_all();
    net.cut = (0..6)
        .filter(|other| *other != 3)
        .map(|other| (3, other))
        .collect();
    net.pass(Duration::from_secs(30));
    let word = revocation(&net, 4);
    let now = net.now;
    net.members[0].node.revoke(now, word.bytes()).unwrap();
    net.members[4].alive = false;
    net.pass(Duration::from_secs(5));
    net.cut.clear();
    net.run_until("the news arrive", |net| {
        net.members[3].node.revocations().count() == 1
    });
}

#[test]
fn a_newcomer_is_told_of_what_was_revoked_before() {
    let mut net = Net::with_members(33, 3);
    net.join_all();
    let word = revocation(&net, 2);
    let now = net.now;
    net.members[1].node.revoke(now, word.bytes()).unwrap();
    net.members[2].alive = false;
    net.pass(Duration::from_secs(1));
    let newcomer = net.add(None);
    net.run_until("the newcomer knows", |net| {
        net.members[newcomer].node.revocations().count() == 1
    });
}

#[test]
fn a_renewed_certificate_replaces_the_old_one_everywhere_without_a_new_session() {
    let mut net = Net::with_members(36, 4);
    net.join_all();
    net.pass(Duration::from_secs(10));
    let handshakes = |net: &Net| net.members[1].node.counters().handshakes;
    let before = handshakes(&net);
    let old = net.members[1].node.certificate().clone();
    let renewed = net.renewed(1, MONTH - Duration::from_secs(3600));
    let now = net.now;
    assert!(net.members[1].node.set_certificate(now, renewed.clone()));
    let packet = net.send(1, 2, b"meanwhile");
    net.run_until("all know the new certificate", |net| {
        let others = net.members.iter().enumerate().filter(|(i, _)| *i != 1);
        others.into_iter().all(|(_, member)| {
            let peer = member.node.peers.get(&old.node_id());
            peer.is_some_and(|peer| peer.certificate == renewed)
        })
    });
    assert_eq!(handshakes(&net), before);
    assert_eq!(net.members[2].received, [packet]);
    let stranger = net.members[0].node.certificate().clone();
    assert!(!net.members[1].node.set_certificate(net.now, stranger));
}

#[test]
fn nobody_but_the_authority_revokes() {
    let mut net = Net::with_members(34, 2);
    net.join_all();
    let stranger = Net::new(35);
    let forged = stranger
        .authority
        .revoke(Revoked::Node(net.members[1].node.id()));
    let now = net.now;
    assert!(net.members[0].node.revoke(now, forged.bytes()).is_err());
    assert!(is_linked(&net, 1));
}
