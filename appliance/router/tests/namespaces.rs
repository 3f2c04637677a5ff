//! Two nodes with TUN devices in two network namespaces, joined by a veth pair. Needs root.

mod support;

use std::process::Command;

use support::{Node, Pool, Said, finish, wow};

/// Two namespaces, `a` at 192.0.2.1 and `b` at 192.0.2.2. Removed when dropped.
struct Spaces {
    a: String,
    b: String,
}

fn ip(arguments: &[&str]) -> Said {
    finish(Command::new("ip").args(arguments))
}

impl Spaces {
    /// `None`, with a message, where they cannot be made.
    fn new(label: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            eprintln!("skipped: the program `ip` is missing (package iproute2)");
            return None;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: this machine has no /dev/net/tun");
            return None;
        }
        let tag = format!("{label}-{}", std::process::id());
        let spaces = Spaces {
            a: format!("wow-a-{tag}"),
            b: format!("wow-b-{tag}"),
        };
        for space in [&spaces.a, &spaces.b] {
            ip(&["netns", "add", space]).ok();
            ip(&["-n", space, "link", "set", "lo", "up"]).ok();
        }
        let (a, b) = (&spaces.a, &spaces.b);
        let peer = ["peer", "name", "eth0", "netns", b];
        let link = ["-n", a, "link", "add", "eth0", "type", "veth"];
        ip(&[&link[..], &peer[..]].concat()).ok();
        for (space, address) in [(a, "192.0.2.1/24"), (b, "192.0.2.2/24")] {
            ip(&["-n", space, "addr", "add", address, "dev", "eth0"]).ok();
            ip(&["-n", space, "link", "set", "eth0", "up"]).ok();
        }
        Some(spaces)
    }

    fn devices(space: &str) -> String {
        ip(&["-n", space, "-o", "addr", "show"]).ok().out
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in [&self.a, &self.b] {
            // One may be missing when the other could not be made.
            ip(&["netns", "del", space]);
        }
    }
}

#[test]
fn nodes_with_tun_devices_join_and_answer_pings_and_http() {
    let Some(spaces) = Spaces::new("tun") else {
        return;
    };
    let pool = Pool::new(&["--seed", "192.0.2.1:4001"]);
    let ticket = pool.ticket("n.ticket", &[]);
    let run = ["--listen", "0.0.0.0:4001", "--ticket", &ticket];
    let a = Node::start(&pool, "a", &["ip", "netns", "exec", &spaces.a], &run);
    let b = Node::start(&pool, "b", &["ip", "netns", "exec", &spaces.b], &run);
    let (at_b, at_a) = (b.joined(), a.joined());

    for (node, other, status) in [(&a, "b", &at_b), (&b, "a", &at_a)] {
        let said = node.ask(&[
            "ping",
            other,
            "--count",
            "3",
            "--interval",
            "50ms",
            "--json",
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        let ping = said.json();
        assert_eq!((&ping["sent"], &ping["received"]), (&3.into(), &3.into()));
        assert_eq!(ping["method"], "icmp");
        assert_eq!(ping["v4"], status["addresses"]["v4"]);
        assert_eq!(ping["path"]["kind"], "udp");
    }
    // By address, one by one, as people do; the control address; the node itself.
    let v4 = at_b["addresses"]["v4"].as_str().unwrap();
    let table = a.ask(&["ping", v4, "--count", "1"]).ok();
    assert!(table.out.contains("1 received"), "{table:?}");
    for target in ["10.128.0.1", "a"] {
        let ping = a
            .ask(&["ping", target, "--count", "1", "--json"])
            .ok()
            .json();
        assert_eq!(ping["path"]["kind"], "self", "{ping}");
    }

    // HTTP by the machine's own TCP stack.
    let request = "exec 3<>/dev/tcp/10.128.0.1/80 && \
                   printf 'GET /api/v1/status HTTP/1.1\\r\\nHost: 10.128.0.1\\r\\n\\r\\n' >&3 && cat <&3";
    let exec = [
        "netns", "exec", &spaces.a, "timeout", "30", "bash", "-c", request,
    ];
    let page = ip(&exec).ok().out;
    let (head, body) = page.split_once("\r\n\r\n").expect("a response");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["id"], at_a["id"]);

    let devices = Spaces::devices(&spaces.a);
    let v6 = at_a["addresses"]["v6"].as_str().unwrap();
    assert!(
        devices.contains("wow0") && devices.contains(v6),
        "{devices}"
    );

    // The second device of that name, and a range that leads elsewhere.
    let refuse = |name: &str, parts: &[&str]| {
        let state = pool.path(&format!("{name}.state"));
        let socket = pool.path(&format!("{name}.sock"));
        let wow = env!("CARGO_BIN_EXE_wow");
        let mut words = vec!["netns", "exec", &spaces.a, wow, "run", "--ticket", &ticket];
        words.extend(["--state", &state, "--socket", &socket]);
        ip(&words).refused(1, parts);
    };
    refuse("second", &["wow0", "in use"]);
    ip(&[
        "-n",
        &spaces.a,
        "route",
        "add",
        "10.200.0.0/16",
        "dev",
        "eth0",
    ])
    .ok();
    refuse(
        "overlap",
        &["10.200.0.0/16", "eth0", "--range", "--guest none"],
    );

    // One that comes while the node runs.
    ip(&[
        "-n",
        &spaces.a,
        "addr",
        "add",
        "10.201.0.9/16",
        "dev",
        "eth0",
    ])
    .ok();
    let mut a = a;
    a.until("trouble with its range", |node| {
        let trouble = &node.ask(&["status", "--json"]).ok().json()["trouble"];
        let told = trouble.to_string();
        ["10.201.0.0/16", "eth0", "--range"]
            .iter()
            .all(|part| told.contains(part))
    });

    let socket = a.socket.clone();
    assert!(a.terminate().success());
    assert!(!socket.exists());
    assert!(
        !Spaces::devices(&spaces.a).contains("wow0"),
        "the device is gone"
    );
    // The goodbye reached the neighbour.
    let mut b = b;
    b.until("goodbye of its neighbour", |node| {
        node.ask(&["peers", "--json"]).ok().json() == serde_json::json!([])
    });
    let silent = b.ask(&["ping", "a", "--count", "1", "--timeout", "1s"]);
    assert_ne!(silent.code, 0, "{silent:?}");
    assert!(
        wow(&["--socket", b.socket.to_str().unwrap(), "status"])
            .ok()
            .out
            .contains("lab")
    );
}

#[test]
fn nodes_of_one_network_find_each_other_without_a_seed() {
    let Some(spaces) = Spaces::new("lan") else {
        return;
    };
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let other = Pool::new(&[]);
    let foreign = other.ticket("o.ticket", &[]);
    let start = |pool: &Pool, name, space: &String, ticket: &str, more: &[&str]| {
        let prefix = ["ip", "netns", "exec", space];
        let run = ["--guest", "none", "--ticket", ticket];
        let node = Node::start(pool, name, &prefix, &[&run[..], more].concat());
        // Its loop runs, so it listens.
        node.ask(&["status"]).ok();
        node
    };
    let mut stranger = start(&other, "x", &spaces.a, &foreign, &[]);
    let deaf = start(&pool, "d", &spaces.a, &ticket, &["--no-lan"]);
    let mut a = start(&pool, "a", &spaces.a, &ticket, &[]);
    let b = start(&pool, "b", &spaces.b, &ticket, &[]);
    let peers = |node: &Node| node.ask(&["peers", "--json"]).ok().json();
    a.until("its neighbour", |node| {
        let peers = peers(node);
        peers[0]["name"] == "b" && peers[0]["path"]["kind"] == "udp"
    });
    assert_eq!(b.joined()["peers"], 1);
    stranger.until("the announcements of the others", |node| {
        let status = node.ask(&["status", "--json"]).ok().json();
        status["counters"]["drop_announcement"].as_u64() > Some(0)
    });
    for lonely in [&stranger, &deaf] {
        assert_eq!(peers(lonely), serde_json::json!([]));
    }
}
