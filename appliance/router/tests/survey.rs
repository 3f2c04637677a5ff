//! Real nodes asked about the overlay itself: the way to a node, the map of all. Needs no privilege.

mod support;

use support::{Node, Pool, wow};

/// So many nodes in one ring; the first is the others' seed.
fn ring(pool: &Pool, count: usize) -> Vec<Node> {
    let ticket = pool.ticket("n.ticket", &[]);
    let mut nodes = vec![Node::without_guest(pool, "n0", &ticket, None)];
    nodes[0].joined();
    let seed = nodes[0].listen();
    for index in 1..count {
        let name = format!("n{index}");
        nodes.push(Node::without_guest(pool, &name, &ticket, Some(&seed)));
    }
    for node in &nodes {
        node.joined();
    }
    nodes
}

#[test]
fn the_way_to_a_node_is_followed_to_its_end() {
    let pool = Pool::new(&[]);
    let mut nodes = ring(&pool, 3);
    let last = nodes.last_mut().unwrap();
    last.until("a way to the seed", |node| {
        node.ask(&["trace", "n0", "--json"]).code == 0
    });
    let way = last.ask(&["trace", "n0", "--json"]).ok().json();
    assert_eq!(
        (&way["name"], &way["reached"]),
        (&"n0".into(), &true.into())
    );
    let end = way["hops"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&end["node"]["id"], &end["node"]["name"]),
        (&way["id"], &"n0".into())
    );
    assert!(end["node"]["rtt_ms"].as_f64().unwrap() > 0.0);
    let table = last.ask(&["trace", "n0"]).ok().out;
    assert!(
        table.contains("HOP") && table.contains("127.0.0.1:"),
        "{table}"
    );
    last.ask(&["trace", "nobody"])
        .refused(1, &["nobody", "no such node"]);
}

#[test]
fn the_map_shows_every_node_and_draws_the_ring() {
    let pool = Pool::new(&[]);
    let mut nodes = ring(&pool, 4);
    let drawing = pool.path("ring.svg");
    let whole = |node: &Node| {
        let map = node.ask(&["map", "--json"]).ok().json();
        let nodes = map["nodes"].as_array().unwrap().clone();
        nodes.len() == 4
            && nodes
                .iter()
                .all(|n| n["in_place"] == true && !n["name"].is_null())
    };
    nodes[2].until("a whole ring on the map", whole);
    let text = nodes[2].ask(&["map", "--svg", &drawing]).ok().out;
    assert!(
        text.contains("lab: 4 nodes") && text.contains("the ring is whole"),
        "{text}"
    );
    for name in ["n0", "n1", "n2", "n3"] {
        assert!(text.contains(name), "no {name} in {text}");
    }
    let svg = std::fs::read_to_string(&drawing).unwrap();
    assert_eq!(svg.matches("<title>").count(), 4);
    let one = nodes[2].ask(&["map", "--max", "1", "--json"]).ok().json();
    assert_eq!(
        (one["nodes"].as_array().unwrap().len(), &one["left_out"]),
        (1, &3.into())
    );
}

#[test]
fn completions_name_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = wow(&["completions", shell]).ok().out;
        assert!(
            script.contains("resolve") && script.contains("trace"),
            "{shell}: {script}"
        );
    }
    wow(&["completions", "tcsh"]).refused(2, &["bash", "zsh"]);
}
