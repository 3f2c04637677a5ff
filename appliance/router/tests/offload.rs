//! Streams and datagrams through two nodes in namespaces, in every combination of offloads. Needs root.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::{Node, PATIENCE, Pool, finish};

/// Many superpackets.
const STREAM_BYTES: usize = 6 << 20;

/// Two namespaces with a veth pair between them, `mtu` bytes wide. Removed when dropped.
struct Spaces([String; 2]);

impl Spaces {
    /// `None`, with a message, where they cannot be made.
    fn new(label: &str, mtu: u16) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: namespaces with TUN devices need root and /dev/net/tun");
            return None;
        }
        let name = |end: &str| format!("wow-{end}-{label}-{}", std::process::id());
        let spaces = Spaces(["a", "b"].map(name));
        let [a, b] = &spaces.0;
        for space in [a, b] {
            ip(&["netns", "add", space]);
            ip(&["-n", space, "link", "set", "lo", "up"]);
        }
        ip(&[
            "-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b,
        ]);
        let mtu = mtu.to_string();
        for (space, address) in [(a, "192.0.2.1/24"), (b, "192.0.2.2/24")] {
            ip(&["-n", space, "addr", "add", address, "dev", "eth0"]);
            ip(&["-n", space, "link", "set", "eth0", "mtu", &mtu, "up"]);
        }
        Some(spaces)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in &self.0 {
            finish(Command::new("ip").args(["netns", "del", space]));
        }
    }
}

fn ip(arguments: &[&str]) {
    finish(Command::new("ip").args(arguments)).ok();
}

/// Runs `work` on a thread inside a namespace.
fn inside<T: Send + 'static>(
    space: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let space = std::fs::File::open(format!("/run/netns/{space}")).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
}

/// Bytes that tell where they belong.
fn pattern(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(4) as u32).map(|n| n.wrapping_mul(2_654_435_761));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// A stream there and back.
fn check_stream(spaces: &Spaces, to: IpAddr) {
    let (told, port) = std::sync::mpsc::channel();
    let server = inside(&spaces.0[1], move || {
        let listener = TcpListener::bind((to, 0)).unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = vec![0; STREAM_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let at: SocketAddr = port.recv_timeout(PATIENCE).unwrap();
    let client = inside(&spaces.0[0], move || {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = pattern(STREAM_BYTES);
        stream.write_all(&sent).unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).unwrap();
        assert!(came == sent, "{} bytes came back changed", came.len());
    });
    server.join().unwrap();
    client.join().unwrap();
}

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
        let bytes = pattern(1232);
        let mut room = [0; 2048];
        for length in [1, 2, 63, 64, 500, 1199, 1200, 1232] {
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

/// Everything through two nodes; what the first one logged.
fn check(label: &str, mtu: u16, options: [&[&str]; 2]) -> Option<String> {
    let spaces = Spaces::new(label, mtu)?;
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
    Some(a.log())
}

const OFF: &[&str] = &["--no-offload"];
const ON: &[&str] = &[];

#[test]
fn everything_arrives_unchanged_with_offloads() {
    check("on", 1500, [ON, ON]);
}

#[test]
fn everything_arrives_unchanged_without_offloads() {
    check("off", 1500, [OFF, OFF]);
}

#[test]
fn everything_arrives_unchanged_with_offloads_on_one_side() {
    check("mixed", 1500, [ON, OFF]);
}

#[test]
fn batches_that_a_link_is_too_narrow_for_go_one_by_one() {
    let Some(log) = check("narrow", 1320, [ON, ON]) else {
        return;
    };
    assert!(log.contains("one by one"), "{log}");
}
