use std::net::Ipv4Addr;

use tracing::Level;

use super::*;

fn node(joined: bool) -> Status {
    let status = serde_json::json!({
        "id": "3f2a91c0aa", "name": "n1", "pool": "lab", "pool_id": "p", "range": "10.128.0.0/9",
        "addresses": {"v4": "10.128.3.4", "v6": "fd00::1"}, "roles": "router", "joined": joined,
        "joined_after_ms": 300, "boot_to_joined_ms": 1240, "uptime_ms": 1, "rss_bytes": 1,
        "neighbours": {"left": ["b"], "right": ["c", "b"]}, "peers": 3, "pool_size_estimate": 4.2,
        "listen": ["0.0.0.0:4001"], "guest": "tun wow0", "certificate_until": 1, "version": "0",
        "counters": {"drop_unknown": 3, "sent": 9}, "trouble": if joined { vec![] } else { vec!["no seed…\u{1b}[2J"] },
    });
    serde_json::from_value(status).unwrap()
}

fn peer(id: &str, name: &str, rtt_ms: Option<f64>) -> Peer {
    let nothing = serde_json::json!({"packets": 0, "bytes": 0});
    let peer = serde_json::json!({
        "id": id, "name": name, "v4": "10.128.0.9", "v6": "fd00::9", "roles": "router", "kind": "near",
        "path": {"kind": "udp", "remote": "192.0.2.1:4001"}, "rtt_ms": rtt_ms, "mtu_bytes": 1400,
        "age_ms": 1, "sent": nothing, "received": nothing,
    });
    serde_json::from_value(peer).unwrap()
}

fn facts(phase: Phase, status: Option<Status>) -> Facts {
    let underlay = network::Underlay {
        interface: "eth0".into(),
        index: 2,
        address: Ipv4Addr::new(192, 0, 2, 7),
        prefix: 24,
        gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        dns: vec![Ipv4Addr::new(192, 0, 2, 2)],
        lease: Some((Ipv4Addr::new(192, 0, 2, 1), Duration::from_secs(3600))),
    };
    Facts {
        phase,
        status,
        peers: vec![
            peer("a", "far-away", None),
            peer("b", "left", Some(1.25)),
            peer("c", "right", None),
        ],
        network: network::Status {
            underlay: Some(underlay),
            links_ready: true,
            interfaces: vec!["eth0".into()],
            announcements: 0,
        },
        problems: Vec::new(),
        last_trouble: None,
        shell: false,
        uptime: Duration::from_secs(3723),
    }
}

fn line(text: &str) -> LogLine {
    LogLine {
        number: 0,
        time_ms: 1_800_000_000_000,
        level: Level::WARN,
        text: text.to_owned(),
    }
}

#[test]
fn a_joined_node_is_shown_with_its_pool_addresses_and_neighbours() {
    let facts = facts(Phase::Running, Some(node(true)));
    let lines = page(&facts, Page::Status, &[], 80, 25);
    assert_eq!(lines.len(), 25);
    let text = lines.join("\n");
    for part in [
        "up 1h 2m 3s",
        "pool        lab (10.128.0.0/9)",
        "name        n1 (3f2a91c0)",
        "state       joined, 1.24 s after power-on",
        "addresses   10.128.3.4 fd00::1",
        "underlay    192.0.2.7/24 on eth0",
        "peers       3; the pool has about 4 nodes",
        "left                 10.128.0.9      udp 192.0.2.1:4001                1.25 ms",
        "keys:  l logs   n network   r restart",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("far-away"), "no neighbour in the ring");
}

#[test]
fn what_is_wrong_stands_on_the_screen_and_cannot_play_with_it() {
    let mut facts = facts(Phase::Running, Some(node(false)));
    facts.problems = vec![format!("disk sr0: {}", "is damaged ".repeat(20))];
    facts.last_trouble = Some(line("the seed does not answer"));
    let lines = page(&facts, Page::Status, &[], 80, 25);
    let text = lines.join("\n");
    assert!(text.contains("trouble     no seed...?[2J"), "{text}");
    assert!(text.contains("problem     disk sr0: is damaged"), "{text}");
    assert!(
        text.contains("last error  08:00:00 the seed does not answer"),
        "{text}"
    );
    for line in &lines {
        assert!(line.len() <= 80, "{line}");
        assert!(line.chars().all(|c| (' '..='~').contains(&c)), "{line:?}");
    }
}

#[test]
fn a_machine_that_waits_says_for_what_and_where_it_looks() {
    let what = "no ticket found; looked in, and give it in one of:\n  kernel command line: wow.ticket=…\n  a disk";
    let facts = facts(Phase::Waiting(what.into()), None);
    let text = page(&facts, Page::Status, &[], 80, 25).join("\n");
    assert!(
        text.contains("state       waiting for a configuration"),
        "{text}"
    );
    assert!(
        text.contains("  kernel command line: wow.ticket=..."),
        "{text}"
    );
}

#[test]
fn long_pages_are_cut_and_the_newest_messages_stay() {
    let logs: Vec<LogLine> = (0..100)
        .map(|number| line(&format!("message {number} {}", "x".repeat(70))))
        .collect();
    let facts = facts(Phase::Running, None);
    let lines = page(&facts, Page::Logs, &logs, 80, 25);
    assert_eq!(lines.len(), 25);
    let text = lines.join("\n");
    assert!(
        text.contains("message 99") && !text.contains("message 80 "),
        "{text}"
    );
    assert!(text.contains("08:00:00 WARN  message 99"), "{text}");
    let mut crowded = facts.clone();
    crowded.problems = vec!["problem".into(); 100];
    assert_eq!(page(&crowded, Page::Status, &[], 80, 25).len(), 25);
}

#[test]
fn network_facts_have_what_one_asks_for() {
    let facts = facts(Phase::Running, Some(node(true)));
    let text = printed(&facts, Page::Network, &[]).join("\n");
    for part in [
        "gateway     192.0.2.1",
        "dns         192.0.2.2",
        "lease       1h from",
        "dropped     3 drop_unknown",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_summary_changes_with_what_matters_alone() {
    let mut facts = facts(Phase::Running, Some(node(true)));
    let before = summary(&facts);
    assert_eq!(before[0], "n1 of the pool lab: joined, 10.128.3.4 fd00::1");
    assert_eq!(before[1], "neighbours: left (udp), right (udp)");
    facts.uptime += Duration::from_secs(1);
    facts.peers[1].rtt_ms = Some(99.0);
    facts.peers.reverse();
    assert_eq!(summary(&facts), before);
    facts.peers.pop();
    facts.peers.pop();
    assert_ne!(summary(&facts), before);
}

#[test]
fn words_are_broken_at_blanks_and_long_ones_anywhere() {
    assert_eq!(wrapped("one two three", 12, 2), ["one two", "  three"]);
    assert_eq!(wrapped("", 12, 2), [""]);
    assert_eq!(wrapped("wow.name=… or", 12, 2), ["wow.name=...", "  or"]);
    let long = wrapped(&"x".repeat(30), 12, 2);
    assert_eq!(
        long,
        [
            "x".repeat(12),
            format!("  {}", "x".repeat(10)),
            format!("  {}", "x".repeat(8))
        ]
    );
}
