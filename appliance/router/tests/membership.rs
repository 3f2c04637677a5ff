//! Ending a membership, with real nodes on the loopback.

mod support;

use std::path::Path;

use support::{Node, Pool, is_private, wow};

fn knows(node: &Node, name: &str) -> bool {
    let peers = node.ask(&["peers", "--json"]).ok().json();
    peers
        .as_array()
        .unwrap()
        .iter()
        .any(|peer| peer["name"] == name)
}

#[test]
fn a_revoked_node_is_cut_off_for_good() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let mut first = Node::without_guest(&pool, "n1", &ticket, None);
    let seed = first.listen();
    let mut second = Node::without_guest(&pool, "n2", &ticket, Some(&seed));
    let third = Node::without_guest(&pool, "n3", &ticket, Some(&seed));
    third.joined();
    second.joined();

    let file = pool.path("lab.pool");
    first
        .ask(&["pool", "revoke", &file, "nobody"])
        .refused(1, &["nobody", "no such node"]);
    let said = first.ask(&["pool", "revoke", &file, "n3"]).ok();
    assert!(said.out.contains("2 nodes told"), "{said:?}");
    assert!(said.err.contains("new identity"), "{said:?}");
    for node in [&mut first, &mut second] {
        node.until("the cut", |node| !knows(node, "n3"));
    }
    assert!(third.log().contains("ended this node's membership"));
    let kept = pool.path("n2.state/revocations");
    second.until("the revocation is kept", |_| Path::new(&kept).exists());
    assert!(is_private(Path::new(&kept)));

    // Alone with the revoked node, one that was restarted still refuses it.
    assert!(second.terminate().success());
    assert!(first.terminate().success());
    let mut second = Node::without_guest(&pool, "n2", &ticket, Some(&third.listen()));
    second.until("the refusal", |node| {
        node.log().contains("refused a revoked node")
    });
    assert!(!knows(&second, "n3"));
}

#[test]
fn a_revocation_travels_as_a_file() {
    let (pool, other) = (Pool::new(&[]), Pool::new(&[]));
    let ticket = pool.ticket("n.ticket", &[]);
    let node = Node::without_guest(&pool, "n1", &ticket, None);
    let out = pool.path("stolen.revocation");
    let stolen = pool.ticket("stolen.ticket", &[]);
    let file = pool.path("lab.pool");
    wow(&["pool", "revoke", &file, &stolen, "--out", &out]).ok();
    let report = node.ask(&["revoke", &out, "--json"]).ok().json();
    assert_eq!(report["news"], true);
    let again = node.ask(&["revoke", &out]).ok();
    assert!(again.out.contains("was revoked already"), "{again:?}");

    let foreign = other.path("lab.pool");
    let strange = pool.path("strange.revocation");
    wow(&[
        "pool",
        "revoke",
        &foreign,
        &"0".repeat(40),
        "--out",
        &strange,
    ])
    .ok();
    node.ask(&["revoke", &strange]).refused(1, &["of the pool"]);
    node.ask(&["revoke", &ticket])
        .refused(1, &["no revocation"]);
    wow(&["pool", "revoke", &foreign, &stolen, "--out", &strange]).refused(3, &["for the pool"]);
}
