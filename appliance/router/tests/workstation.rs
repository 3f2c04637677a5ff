//! What other programs of a machine ask of its daemon: roles, services, who is who, and trouble.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::Uid;
use rustix::thread::set_thread_uid;
use support::{Node, Pool};

fn start(pool: &Pool, name: &str, ticket: &str, role: &str, seed: Option<&str>) -> Node {
    let guest = ["--guest", "none", "--listen", "127.0.0.1:0"];
    let mut arguments = [&guest[..], &["--ticket", ticket, "--role", role]].concat();
    if let Some(seed) = seed {
        arguments.extend(["--seed", seed]);
    }
    Node::start(pool, name, &[], &arguments)
}

#[test]
fn a_head_is_found_by_its_service_and_known_by_its_address() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &["--roles", "head,worker"]);
    let head = start(&pool, "a", &ticket, "head", None);
    let at = head.listen();
    let mut worker = start(&pool, "b", &ticket, "worker", Some(&at));
    let status = worker.joined();
    // For what it is, not for all that its ticket allows.
    assert_eq!(status["roles"], "worker");
    assert_eq!(status["role"], "worker");
    let of_head = head.joined();
    assert_eq!(of_head["roles"], "head");

    // A worker may not pass for a head: its claim is refused by whoever keeps the table.
    worker.ask(&["service", "offer", "head", "mine"]).ok();
    head.ask(&["service", "offer", "head", "816"]).ok();
    worker.until("the head's service", |node| {
        let said = node.ask(&["dht", "get", "service:head", "--json"]);
        said.code == 0 && said.json()["value"] == "816"
    });
    let record = worker
        .ask(&["dht", "get", "service:head", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&record["name"], &record["roles"]),
        (&"a".into(), &"head".into())
    );

    let v6 = of_head["addresses"]["v6"].as_str().unwrap();
    let known = worker.ask(&["whois", v6, "--json"]).ok().json();
    assert_eq!(
        (&known["id"], &known["roles"]),
        (&of_head["id"], &"head".into())
    );
    worker
        .ask(&["whois", "fd00::1"])
        .refused(1, &["fd00::1", "no session"]);
    // A leased address proves nothing.
    worker.ask(&["whois", "10.128.0.9"]).refused(2, &["IPv6"]);

    head.ask(&["service", "withdraw", "head"]).ok();
    worker.until("the end of the service", |node| {
        node.ask(&["dht", "get", "service:head"]).code != 0
    });
}

#[test]
fn trouble_of_other_programs_is_shown_until_it_is_over() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &["--roles", "worker"]);
    let node = start(&pool, "a", &ticket, "head", None);
    let trouble = || node.ask(&["status", "--json"]).ok().json()["trouble"].to_string();
    assert!(
        trouble().contains("the role head is refused"),
        "{}",
        trouble()
    );
    node.ask(&["trouble", "set", "disk", "the disk is full"])
        .ok();
    assert!(trouble().contains("the disk is full"));
    node.ask(&["trouble", "clear", "disk"]).ok();
    assert!(!trouble().contains("the disk is full"));
    node.ask(&["trouble", "set", "Not A Label", "x"])
        .refused(1, &["name"]);
    node.ask(&["trouble", "set", "disk"]).refused(2, &[]);
}

/// What a user without rights is answered.
fn ask_as_nobody(socket: PathBuf, request: &'static str) -> serde_json::Value {
    let asker = std::thread::spawn(move || {
        set_thread_uid(Uid::from_raw(65534)).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    });
    asker.join().unwrap()
}

#[test]
fn other_users_may_look_at_roots_node_and_change_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &["--roles", "worker"]);
    let node = start(&pool, "a", &ticket, "worker", None);
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(pool.dir.path(), open).unwrap();
    let status = ask_as_nobody(node.socket.clone(), r#"{"id":1,"op":"status"}"#);
    assert_eq!(status["ok"]["name"], "a");
    for change in [
        r#"{"id":1,"op":"trouble","from":"x","sentences":["y"]}"#,
        r#"{"id":1,"op":"offer","service":"x","value":"y"}"#,
        r#"{"id":1,"op":"withdraw","service":"x"}"#,
        r#"{"id":1,"op":"revoke","revocation":"x"}"#,
    ] {
        let answer = ask_as_nobody(node.socket.clone(), change);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("only root"), "{change}: {answer}");
    }
    node.ask(&["trouble", "set", "x", "y"]).ok();
}
