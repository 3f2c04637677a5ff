//! The program as people meet it: pools, tickets, refusals. Needs no privilege.

mod support;

use std::path::Path;

use support::{Node, Pool, is_private, wow};

#[test]
fn a_pool_and_its_ticket_are_private_and_say_nothing_secret() {
    let pool = Pool::new(&["--seed", "seed.example.org:4001"]);
    let ticket = pool.ticket("n.ticket", &["--roles", "router", "--label", "first"]);
    let secret_pool = std::fs::read_to_string(pool.path("lab.pool")).unwrap();
    let secret_ticket = std::fs::read_to_string(&ticket).unwrap();
    assert!(is_private(Path::new(&ticket)));
    assert!(is_private(Path::new(&pool.path("lab.pool"))));

    let shown = wow(&["pool", "show", &pool.path("lab.pool"), "--json"]).ok();
    assert_eq!(shown.json()["range"], "10.128.0.0/9");
    assert_eq!(shown.json()["seeds"][0], "seed.example.org:4001");
    let json = wow(&["ticket", "show", &ticket, "--json"]).ok();
    assert_eq!(json.json()["label"], "first");
    assert_eq!(json.json()["usable"], true);
    let table = wow(&["ticket", "show", &ticket]).ok();
    assert!(table.out.contains("usable now") && table.out.contains("10.128.0.1"));
    assert!(
        !table.out.contains('\u{1b}'),
        "no colours outside terminals"
    );
    for said in [shown, json, table] {
        for secret in [&secret_pool, &secret_ticket] {
            // Any piece long enough to be key material.
            for start in (0..secret.len() - 24).step_by(8) {
                assert!(!said.out.contains(&secret[start..start + 24]));
            }
        }
    }
}

#[test]
fn files_are_never_overwritten() {
    let pool = Pool::new(&[]);
    let dir = pool.dir.path().to_str().unwrap();
    wow(&["pool", "new", "lab", "--dir", dir]).refused(1, &["lab.pool", "not overwritten"]);
    let ticket = pool.ticket("n.ticket", &[]);
    let again = ["pool", "ticket", &pool.path("lab.pool"), "--out", &ticket];
    wow(&again).refused(1, &["n.ticket", "not overwritten"]);
}

#[test]
fn bad_tickets_are_refused_with_the_reason_and_the_remedy() {
    let pool = Pool::new(&[]);
    let good = pool.ticket("good.ticket", &[]);
    let text = std::fs::read_to_string(&good).unwrap();
    let text = text.trim_end();
    let check = |content: &str, code: i32, parts: &[&str]| {
        std::fs::write(&good, content).unwrap();
        let state = pool.path("state");
        wow(&[
            "run", "--guest", "none", "--ticket", &good, "--state", &state,
        ])
        .refused(code, &[&["good.ticket"], parts].concat());
    };
    check(&text[..text.len() - 9], 3, &["cut off", "copy"]);
    let mut damaged = text.to_owned();
    let middle = text.len() / 2;
    let other = if &text[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    damaged.replace_range(middle..=middle, other);
    check(&damaged, 3, &["damaged"]);
    check("hello", 3, &["no ticket"]);
    let secret = std::fs::read_to_string(pool.path("lab.pool")).unwrap();
    check(&secret, 3, &["pool file, not a ticket"]);
    check("", 3, &["no ticket"]);

    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&good, open).unwrap();
    check(text, 1, &["0644", "chmod 600"]);
    wow(&["run", "--guest", "none", "--ticket", "/nonexistent"]).refused(1, &["/nonexistent"]);
    wow(&["run", "--guest", "none"]).refused(1, &["wow pool ticket"]);
}

#[test]
fn an_expired_ticket_is_refused_with_its_date() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("short.ticket", &["--expires", "1s"]);
    let state = pool.path("state");
    let deadline = std::time::Instant::now() + support::PATIENCE;
    let usable = || wow(&["ticket", "show", &ticket, "--json"]).ok().json()["usable"] == true;
    while usable() {
        assert!(std::time::Instant::now() < deadline, "never expires");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    wow(&[
        "run", "--guest", "none", "--ticket", &ticket, "--state", &state,
    ])
    .refused(3, &["expired on 2", "new one"]);
}

#[test]
fn a_state_directory_serves_one_pool_and_one_process() {
    let (pool, other) = (Pool::new(&[]), Pool::new(&[]));
    let ticket = pool.ticket("n.ticket", &[]);
    let guest = ["--guest", "none", "--listen", "127.0.0.1:0", "--ticket"];
    let node = Node::start(&pool, "n1", &[], &[&guest[..], &[&ticket]].concat());
    let state = pool.path("n1.state");
    for file in ["identity", "certificate", "pool"] {
        assert!(is_private(&Path::new(&state).join(file)), "{file}");
    }
    // Root's is everybody's to look by.
    assert!(rustix::process::geteuid().is_root() || is_private(&node.socket));

    let run = ["run", "--state", &state, "--socket", "/nonexistent/x"];
    let second = [&run[..], &guest[..], &[&ticket]].concat();
    wow(&second).refused(1, &["running node", "--state"]);
    let socket = node.socket.to_str().unwrap().to_owned();
    let elsewhere = pool.path("elsewhere");
    let run = ["run", "--state", &elsewhere, "--socket", &socket];
    wow(&[&run[..], &guest[..], &[&ticket]].concat()).refused(1, &["served", "--socket"]);

    assert!(node.terminate().success());
    assert!(!Path::new(&socket).exists(), "the socket is removed");
    let foreign = other.ticket("o.ticket", &[]);
    let run = ["run", "--state", &state, "--socket", &socket];
    wow(&[&run[..], &guest[..], &[&foreign]].concat()).refused(1, &["identity", "pool lab"]);
}

#[test]
fn whoever_waits_for_a_node_without_an_answering_seed_is_told_why() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    // Bound, so that nobody else answers there, and silent.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let seed = silent.local_addr().unwrap().to_string();
    let node = Node::without_guest(&pool, "lonely", &ticket, Some(&seed));
    let wait = node.ask(&["wait", "--timeout", "1s"]);
    wait.refused(1, &["not joined within 1s", &seed, "address", "firewalls"]);
    let status = node.ask(&["status"]).ok().out;
    assert!(
        status.contains(&seed) && status.contains("trouble"),
        "{status}"
    );
}

#[test]
fn two_nodes_without_privileges_join_and_hear_each_other() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let first = Node::without_guest(&pool, "n1", &ticket, None);
    let status = first.ask(&["status", "--json"]).ok().json();
    let seed = first.listen();
    let second = Node::without_guest(&pool, "n2", &ticket, Some(&seed));
    let joined = second.joined();
    assert!(joined["joined_after_ms"].is_u64());
    assert!(joined["rss_bytes"].as_u64().unwrap() > 0);

    let peers = second.ask(&["peers", "--json"]).ok().json();
    assert_eq!(peers[0]["name"], "n1");
    assert_eq!(peers[0]["path"]["kind"], "udp");
    assert_eq!(peers[0]["path"]["remote"], seed.as_str());
    let ping = second
        .ask(&["ping", "n1", "--count", "2", "--interval", "10ms", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&ping["received"], &ping["method"]),
        (&2.into(), &"overlay".into())
    );
    assert_eq!(ping["id"], status["id"]);
    let v4 = status["addresses"]["v4"].as_str().unwrap();
    let found = second.ask(&["resolve", v4, "--json"]).ok().json();
    assert_eq!(found["name"], "n1");
    second
        .ask(&["ping", "nobody"])
        .refused(1, &["no such node"]);
    assert!(second.ask(&["status"]).ok().out.contains("joined"));
    assert!(second.ask(&["peers"]).ok().out.contains("n1"));

    let leases = first.ask(&["leases", "--json"]).ok().json();
    assert_eq!(leases[0]["address"], v4);
    assert!(leases[0]["remaining_ms"].as_u64().unwrap() > 0);
    let record = second.ask(&["dht", "get", v4, "--json"]).ok().json();
    assert_eq!(record["owner"], status["id"]);
    let record = second.ask(&["dht", "get", "n1"]).ok();
    assert!(
        record.out.contains(v4) && record.out.contains("claimed by"),
        "{record:?}"
    );
    second
        .ask(&["dht", "get", "service:none"])
        .refused(1, &["service:none", "no record"]);

    // The port belongs to the first.
    let port = ["--guest", "none", "--listen", &seed, "--ticket", &ticket];
    let (state, socket) = (pool.path("n3.state"), pool.path("n3.sock"));
    let run = ["run", "--state", &state, "--socket", &socket];
    wow(&[&run[..], &port[..]].concat()).refused(1, &["in use", "another port"]);
}

#[test]
fn two_nodes_meet_over_ipv6() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let guest = [
        "--guest", "none", "--listen", "[::1]:0", "--ticket", &ticket,
    ];
    let first = Node::start(&pool, "n1", &[], &guest);
    let status = first.ask(&["status", "--json"]).ok().json();
    let seed = status["listen"][0].as_str().unwrap().to_owned();
    let second = Node::start(&pool, "n2", &[], &[&guest[..], &["--seed", &seed]].concat());
    second.joined();
    let peers = second.ask(&["peers", "--json"]).ok().json();
    assert_eq!(peers[0]["path"]["kind"], "udp", "{peers}");
    assert_eq!(peers[0]["path"]["remote"], seed.as_str());
}

#[test]
fn a_node_that_udp_does_not_reach_joins_over_tcp() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let guest = ["--guest", "none", "--ticket", &ticket];
    let listen = ["--listen", "127.0.0.1:0", "--tcp-listen", "0"];
    let mut first = Node::start(&pool, "n1", &[], &[guest, listen].concat());
    let status = first.ask(&["status", "--json"]).ok().json();
    let tcp = status["tcp_listen"][0].as_str().unwrap().to_owned();
    // No datagram leads from a socket of one family to one of the other.
    let seed = format!("tcp:{tcp}");
    let apart = ["--listen", "[::1]:0", "--seed", &seed];
    let second = Node::start(&pool, "n2", &[], &[guest, apart].concat());
    second.joined();
    let peers = second.ask(&["peers", "--json"]).ok().json();
    assert_eq!(peers[0]["path"]["kind"], "tcp", "{peers}");
    assert_eq!(peers[0]["path"]["remote"], tcp.as_str());
    let ping = ["ping", "n2", "--count", "2", "--interval", "10ms", "--json"];
    first.until("an answer over the same connection", |node| {
        let said = node.ask(&ping);
        said.code == 0 && said.json()["path"]["kind"] == "tcp"
    });
    assert!(first.ask(&["peers"]).ok().out.contains("tcp 127.0.0.1:"));
}

#[test]
fn malformed_requests_get_an_error_and_the_conversation_goes_on() {
    use std::io::{BufRead, BufReader, Write};
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let node = Node::without_guest(&pool, "n1", &ticket, None);
    let mut stream = std::os::unix::net::UnixStream::connect(&node.socket).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let long = "x".repeat(100_000);
    let requests = format!(
        "\n{{}}\nrubbish\n{long}\n{{\"id\":5,\"op\":\"wait\",\"timeout_ms\":0}}\n{{\"id\":6,\"op\":\"status\"}}\n"
    );
    stream.write_all(requests.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut errors = 0;
    loop {
        let line = lines.next().expect("the conversation goes on").unwrap();
        let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
        if reply["id"] == 6 {
            assert_eq!(reply["ok"]["name"], "n1");
        } else {
            assert!(reply["error"].is_string(), "{reply}");
            errors += 1;
        }
        if errors == 4 {
            break;
        }
    }
}

#[test]
fn clients_without_a_node_are_told_what_to_do() {
    wow(&["--socket", "/nonexistent/wow.sock", "status"])
        .refused(1, &["/nonexistent/wow.sock", "wow run"]);
    wow(&["init"]).refused(1, &["process 1", "wow run"]);
    assert_eq!(wow(&["frobnicate"]).code, 2);
    assert_eq!(wow(&["status", "--log", "=!="]).code, 1);
}
