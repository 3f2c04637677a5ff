//! Streams through two nodes over links of every width, and what the nodes find that passes. Needs root.

mod support;

use std::net::IpAddr;

use support::spaces::{Spaces, check_stream};
use support::{Node, Pool};

const LISTEN: &[&str] = &["--listen", "0.0.0.0:4001", "--no-lan"];

struct Pair {
    a: Node,
    b: Node,
    at_b: Vec<IpAddr>,
    /// Holds their sockets.
    _pool: Pool,
}

impl Pair {
    fn new(spaces: &Spaces, more: &[&str]) -> Pair {
        let pool = Pool::new(&["--seed", "192.0.2.1:4001"]);
        let ticket = pool.ticket("n.ticket", &[]);
        let start = |name| {
            let prefix = ["ip", "netns", "exec", spaces.name(name)];
            let run = [LISTEN, &["--ticket", &ticket], more].concat();
            Node::start(&pool, name, &prefix, &run)
        };
        let (a, b) = (start("a"), start("b"));
        let (at_b, _) = (b.joined(), a.joined());
        a.ask(&["ping", "b", "--count", "1"]).ok();
        let address = |family| at_b["addresses"][family].as_str().unwrap().parse().unwrap();
        let at_b = vec![address("v4"), address("v6")];
        Pair {
            a,
            b,
            at_b,
            _pool: pool,
        }
    }

    fn check_streams(&self, spaces: &Spaces) {
        for address in &self.at_b {
            check_stream(spaces, *address);
        }
    }

    /// The longest packet that goes whole from the first node to the second, and back.
    fn mtus(&self) -> [u64; 2] {
        [&self.a, &self.b].map(mtu_to_peer)
    }

    /// What both count of something.
    fn counted(&self, name: &str) -> u64 {
        let counters = [&self.a, &self.b].map(|node| {
            let status = node.ask(&["status", "--json"]).ok().json();
            status["counters"][name].as_u64().unwrap_or(0)
        });
        counters.iter().sum()
    }
}

/// The longest packet that goes whole from a node to its only peer.
fn mtu_to_peer(node: &Node) -> u64 {
    let peers = node.ask(&["peers", "--json"]).ok().json();
    peers[0]["mtu_bytes"].as_u64().unwrap()
}

/// Streams over a link; what passes then.
fn check(label: &str, mtu: u16, more: &[&str], found: [u64; 2]) {
    let Some(spaces) = Spaces::new(label, mtu) else {
        return;
    };
    let pair = Pair::new(&spaces, more);
    pair.check_streams(&spaces);
    let range = found[0]..=found[1];
    for mtu in pair.mtus() {
        assert!(range.contains(&mtu), "{mtu} is not in {range:?}");
    }
    assert_eq!(pair.counted("black_holes"), 0);
    assert!(!pair.a.log().contains("one by one"), "{}", pair.a.log());
}

#[test]
fn an_ethernet_carries_the_default() {
    check("ether", 1500, &[], [1419, 1419]);
}

#[test]
fn a_wide_link_carries_jumbo_frames() {
    check("jumbo", 9000, &["--mtu", "8939"], [8939, 8939]);
}

#[test]
fn a_jumbo_guest_keeps_to_what_an_ethernet_carries() {
    check("mixed", 1500, &["--mtu", "8939"], [1439, 1439]);
}

#[test]
fn the_narrowest_link_works_for_both_families() {
    check("narrow", 1280, &[], [1219, 1219]);
}

#[test]
fn a_link_between_the_usual_widths_is_used_as_it_is() {
    check("odd", 1400, &[], [1332, 1339]);
}

/// Neither end hears of what a router between them drops.
fn silence(spaces: &Spaces) {
    spaces.run("r", &["nft", "add", "table", "ip", "hole"]);
    let chain = "{ type filter hook output priority 0; }";
    spaces.run("r", &["nft", "add", "chain", "ip", "hole", "out", chain]);
    let rule = ["nft", "add", "rule", "ip", "hole", "out"];
    let drop = ["icmp", "type", "destination-unreachable", "counter", "drop"];
    spaces.run("r", &[&rule[..], &drop].concat());
}

#[test]
fn a_stream_passes_a_narrow_path_that_says_nothing() {
    let Some(spaces) = Spaces::routed("hole", 1280) else {
        return;
    };
    silence(&spaces);
    let pair = Pair::new(&spaces, &[]);
    pair.check_streams(&spaces);
    for mtu in pair.mtus() {
        assert!((1212..=1219).contains(&mtu), "{mtu}");
    }
}

#[test]
fn a_stream_passes_where_datagrams_that_travel_together_are_lost() {
    let Some(spaces) = Spaces::new("damage", 1500) else {
        return;
    };
    let pair = Pair::new(&spaces, &[]);
    for end in ["a", "b"] {
        // BBR would keep to what it has measured of the bad seconds, for most of a minute.
        let control = "echo reno > /proc/sys/net/ipv4/tcp_congestion_control";
        spaces.run(end, &["sh", "-c", control]);
        spaces.run(end, &["nft", "add", "table", "ip", "damage"]);
        let chain = "{ type filter hook prerouting priority 0; }";
        spaces.run(end, &["nft", "add", "chain", "ip", "damage", "in", chain]);
        let rule = ["nft", "add", "rule", "ip", "damage", "in"];
        // What a kernel has not cut yet is longer than any datagram.
        let drop = [
            "udp", "dport", "4001", "meta", "length", ">", "1600", "drop",
        ];
        spaces.run(end, &[&rule[..], &drop].concat());
    }
    pair.check_streams(&spaces);
    assert!(pair.counted("batches_given_up") > 0);
    let logs = [pair.a.log(), pair.b.log()].concat();
    assert!(logs.contains("one by one"), "{logs}");
}

#[test]
fn a_stream_goes_on_when_its_path_becomes_narrow_without_a_word() {
    let Some(spaces) = Spaces::routed("shrinks", 1500) else {
        return;
    };
    silence(&spaces);
    let mut pair = Pair::new(&spaces, &[]);
    pair.check_streams(&spaces);
    assert_eq!(pair.mtus(), [1419, 1419]);
    spaces.set_mtu("r", "eth-b", 1280);
    pair.check_streams(&spaces);
    assert!(pair.counted("black_holes") > 0);
    // Kernels let batches pass that are wider than the link they arrive by, so the way back may carry its
    // whole stream before the node has found the link narrow.
    let is_narrow = |node: &Node| mtu_to_peer(node) <= 1219;
    pair.a.until("narrow path from a", is_narrow);
    pair.b.until("narrow path from b", is_narrow);
}
