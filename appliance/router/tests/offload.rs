//! Streams and datagrams through two nodes in namespaces, in every combination of offloads. Needs root.

mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;

use support::spaces::{Spaces, check_stream, inside, pattern};
use support::{Node, PATIENCE, Pool};

/// Datagrams of all sizes, in bursts that may travel together; each is sent until it comes back.
fn check_datagrams(spaces: &Spaces, to: IpAddr) {
    let (told, port) = std::sync::mpsc::channel();
    let server = inside(&spaces.0[1], move || {
        let socket = UdpSocket::bind((to, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        told.send(socket.local_addr().unwrap()).unwrap();
        let mut room = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut room).unwrap();
            if length == 0 {
                return;
            }
            socket.send_to(&room[..length], from).unwrap();
        }
    });
    let at: SocketAddr = port.recv_timeout(PATIENCE).unwrap();
    let client = inside(&spaces.0[0], move || {
        let any: SocketAddr = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
            .parse()
            .unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(at).unwrap();
        let span = std::time::Duration::from_millis(500);
        socket.set_read_timeout(Some(span)).unwrap();
        let bytes = pattern(1371);
        let mut room = [0; 2048];
        for length in [1, 2, 63, 64, 500, 1199, 1200, 1232, 1371] {
            let mut missing: std::collections::BTreeSet<u8> = (0..40).collect();
            let deadline = std::time::Instant::now() + PATIENCE;
            while !missing.is_empty() {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{length}: {missing:?}"
                );
                for number in &missing {
                    let mut datagram = bytes[..length].to_vec();
                    datagram[0] = *number;
                    socket.send(&datagram).unwrap();
                }
                for _ in 0..missing.len() {
                    let Ok(came) = socket.recv(&mut room) else {
                        break;
                    };
                    // What was sent twice may still come when the next length is tried.
                    if came == length {
                        assert_eq!(room[1..came], bytes[1..length]);
                        missing.remove(&room[0]);
                    }
                }
            }
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while !server.is_finished() {
            assert!(std::time::Instant::now() < deadline, "it never ends");
            socket.send(&[]).unwrap();
            thread::sleep(std::time::Duration::from_millis(20));
        }
        server.join().unwrap();
    });
    client.join().unwrap();
}

/// Everything through two nodes.
fn check(label: &str, options: [&[&str]; 2]) {
    let Some(spaces) = Spaces::new(label, 1500) else {
        return;
    };
    let pool = Pool::new(&["--seed", "192.0.2.1:4001"]);
    let ticket = pool.ticket("n.ticket", &[]);
    let start = |name, space: &String, more: &[&str]| {
        let run = ["--listen", "0.0.0.0:4001", "--ticket", &ticket, "--no-lan"];
        let prefix = ["ip", "netns", "exec", space];
        Node::start(&pool, name, &prefix, &[&run[..], more].concat())
    };
    let a = start("a", &spaces.0[0], options[0]);
    let b = start("b", &spaces.0[1], options[1]);
    let (at_b, _) = (b.joined(), a.joined());
    a.ask(&["ping", "b", "--count", "1"]).ok();
    for family in ["v4", "v6"] {
        let address = at_b["addresses"][family].as_str().unwrap();
        check_stream(&spaces, address.parse().unwrap());
        check_datagrams(&spaces, address.parse().unwrap());
    }
}

const OFF: &[&str] = &["--no-offload"];
const ON: &[&str] = &[];

#[test]
fn everything_arrives_unchanged_with_offloads() {
    check("on", [ON, ON]);
}

#[test]
fn everything_arrives_unchanged_without_offloads() {
    check("off", [OFF, OFF]);
}

#[test]
fn everything_arrives_unchanged_with_offloads_on_one_side() {
    check("mixed", [ON, OFF]);
}
