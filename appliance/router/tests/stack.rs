//! The stacks of two nodes, one with a TUN device and one without: DNS and HTTP at the control address,
//! and a guestless node's own address with its page, its SOCKS server and its forwards. Needs root.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use support::spaces::{Spaces, inside, pattern};
use support::{Node, PATIENCE, Pool};

const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);

/// Many windows of the stack.
const STREAM_BYTES: usize = 1 << 20;

struct Pair {
    a: Node,
    b: Node,
    v4: [Ipv4Addr; 2],
    v6: [IpAddr; 2],
    _pool: Pool,
}

/// `a` with a device, `b` without; the DNS server that `a` forwards to is at `b`'s underlay address.
fn pair(spaces: &Spaces) -> Pair {
    let pool = Pool::new(&["--seed", "192.0.2.1:4001"]);
    let ticket = pool.ticket("n.ticket", &[]);
    let start = |name, more: &[&str]| {
        let prefix = ["ip", "netns", "exec", spaces.name(name)];
        let run = ["--listen", "0.0.0.0:4001", "--no-lan", "--ticket", &ticket];
        Node::start(&pool, name, &prefix, &[&run[..], more].concat())
    };
    let a = start("a", &["--dns", "192.0.2.2:5353"]);
    let guestless = [
        "--guest",
        "none",
        "--socks",
        "127.0.0.1:1080",
        "--forward",
        "127.0.0.1:7000=a:7000",
        "--forward",
        "pool:7001=127.0.0.1:7001",
    ];
    let b = start("b", &guestless);
    let joined = [a.joined(), b.joined()];
    let address = |node: usize, family| {
        joined[node]["addresses"][family]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let v4 = [0, 1].map(|node| address(node, "v4").parse().unwrap());
    let v6 = [0, 1].map(|node| address(node, "v6").parse().unwrap());
    Pair {
        a,
        b,
        v4,
        v6,
        _pool: pool,
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Status line, headers and body.
fn get(space: &str, at: IpAddr, path: &str) -> (String, String) {
    let request = match at {
        IpAddr::V4(v4) => format!("GET {path} HTTP/1.1\r\nHost: {v4}\r\n\r\n"),
        IpAddr::V6(v6) => format!("GET {path} HTTP/1.1\r\nHost: [{v6}]\r\n\r\n"),
    };
    let asking = inside(space, move || {
        let mut stream = connect((at, 80).into());
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    });
    let response = asking.join().unwrap();
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    (head.to_owned(), body.to_owned())
}

fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind, 0, 1]);
    query
}

/// What the server at `at` answers: the code, and the data of its last record.
fn dig(space: &str, at: Ipv4Addr, name: &str, kind: u8) -> (u8, Vec<u8>) {
    let query = question(name, kind);
    let asking = inside(space, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&query, (at, 53)).unwrap();
        let mut answer = vec![0; 2000];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!(from, (at, 53).into());
        answer.truncate(length);
        answer
    });
    let answer = asking.join().unwrap();
    let code = answer[3] & 15;
    let data = match answer[7] {
        0 => Vec::new(),
        _ => {
            let rest = after_name(&answer[query_end(name)..]);
            // Type, class, time to live and length stand before the data.
            let length = usize::from(u16::from_be_bytes([rest[8], rest[9]]));
            rest[10..10 + length].to_vec()
        }
    };
    (code, data)
}

/// What follows a name, which ends with an empty label or with a pointer.
fn after_name(mut bytes: &[u8]) -> &[u8] {
    loop {
        match bytes[0] {
            0 => return &bytes[1..],
            pointer if pointer & 0xc0 == 0xc0 => return &bytes[2..],
            length => bytes = &bytes[1 + usize::from(length)..],
        }
    }
}

fn query_end(name: &str) -> usize {
    12 + name.len() + 2 + 4
}

/// Sends back whatever one client says, until it is done.
fn echo(space: &str, at: SocketAddr) -> std::thread::JoinHandle<()> {
    let (ready, listens) = std::sync::mpsc::channel();
    let serving = inside(space, move || {
        let listener = TcpListener::bind(at).unwrap();
        ready.send(()).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        client.write_all(&bytes).unwrap();
    });
    listens.recv_timeout(PATIENCE).unwrap();
    serving
}

/// Says a lot on a stream that [`echo`] is at the end of.
fn check_echo(mut stream: TcpStream) {
    let sent = pattern(STREAM_BYTES);
    let mut writer = stream.try_clone().unwrap();
    let said = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&said).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    writing.join().unwrap();
    assert!(came == sent, "{} bytes came back changed", came.len());
}

/// Asks a SOCKS server for a connection; its answer's number.
fn socks(host: &str, port: u16) -> (TcpStream, u8) {
    let mut stream = connect("127.0.0.1:1080".parse().unwrap());
    let length = u8::try_from(host.len()).unwrap();
    let mut hello = vec![5, 1, 0, 5, 1, 0, 3, length];
    hello.extend(host.as_bytes());
    hello.extend(port.to_be_bytes());
    stream.write_all(&hello).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..3], [5, 0, 5]);
    (stream, answer[3])
}

#[test]
fn the_control_address_tells_names_and_documents() {
    let Some(spaces) = Spaces::new("names", 1500) else {
        return;
    };
    let pair = pair(&spaces);
    let space = spaces.name("a");
    for (name, v4) in [("a", pair.v4[0]), ("b", pair.v4[1]), ("B", pair.v4[1])] {
        let (code, data) = dig(space, CONTROL, &format!("{name}.lab.internal"), 1);
        assert_eq!((code, &data[..]), (0, &v4.octets()[..]), "{name}");
    }
    let IpAddr::V6(v6) = pair.v6[1] else {
        panic!("no IPv6 address");
    };
    let (code, data) = dig(space, CONTROL, "b.lab.internal", 28);
    assert_eq!((code, &data[..]), (0, &v6.octets()[..]));
    let [x, y, z, w] = pair.v4[1].octets();
    let (code, data) = dig(space, CONTROL, &format!("{w}.{z}.{y}.{x}.in-addr.arpa"), 12);
    assert_eq!((code, &data[..]), (0, &b"\x01b\x03lab\x08internal\0"[..]));
    pair.b.ask(&["service", "offer", "web", "8080"]).ok();
    let (code, data) = dig(space, CONTROL, "_web._tcp.lab.internal", 33);
    assert_eq!(code, 0);
    assert_eq!(data, b"\0\0\0\0\x1f\x90\x01b\x03lab\x08internal\0");
    let (code, data) = dig(space, CONTROL, "nobody.lab.internal", 1);
    assert_eq!((code, data.len()), (3, 0));

    // Another name goes to the configured server, with another id.
    let forwarded = {
        let (ready, listens) = std::sync::mpsc::channel();
        let server = inside(spaces.name("b"), move || {
            let socket = UdpSocket::bind("192.0.2.2:5353").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            ready.send(()).unwrap();
            let mut query = vec![0; 2000];
            let (length, from) = socket.recv_from(&mut query).unwrap();
            query.truncate(length);
            let mut answer = query;
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x63");
            socket.send_to(&answer, from).unwrap();
        });
        listens.recv_timeout(PATIENCE).unwrap();
        let answer = dig(space, CONTROL, "www.example.org", 1);
        server.join().unwrap();
        answer
    };
    assert_eq!(forwarded, (0, vec![192, 0, 2, 99]));

    let (head, body) = get(space, CONTROL.into(), "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("\nwow_joined 1\n"), "{body}");
    let (head, page) = get(space, CONTROL.into(), "/");
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(page.starts_with("<!doctype html>") && page.contains("\"name\":\"b\""));
    let (head, _) = get(space, CONTROL.into(), "/x");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let overview = get(space, CONTROL.into(), "/api/v1/overview").1;
    let overview: serde_json::Value = serde_json::from_str(&overview).unwrap();
    assert_eq!(overview["status"]["name"], "a");
    let log = overview["log"]["lines"].as_array().unwrap();
    let joined = |line: &serde_json::Value| line["text"].as_str().unwrap().starts_with("joined");
    assert!(log.iter().any(joined), "{log:?}");
}

#[test]
fn a_guestless_node_is_there_and_leads_into_the_pool() {
    let Some(spaces) = Spaces::new("stack", 1500) else {
        return;
    };
    let pair = pair(&spaces);
    let (a, b) = (spaces.name("a").to_owned(), spaces.name("b").to_owned());
    let ping = pair
        .a
        .ask(&["ping", "b", "--count", "3", "--interval", "50ms", "--json"]);
    let ping = ping.ok().json();
    assert_eq!(
        (&ping["received"], &ping["method"]),
        (&3.into(), &"icmp".into())
    );
    for at in [pair.v4[1].into(), pair.v6[1]] {
        let (head, body) = get(&a, at, "/api/v1/status");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&status["name"], &status["guest"]),
            (&"b".into(), &"none".into())
        );
    }
    let (code, data) = dig(&a, pair.v4[1], "a.lab.internal", 1);
    assert_eq!((code, &data[..]), (0, &pair.v4[0].octets()[..]));
    // For the pool it is no resolver.
    assert_eq!(dig(&a, pair.v4[1], "www.example.org", 1).0, 5);

    // A program of the host, by SOCKS and by a forward, to a server behind the device of `a`.
    let server = SocketAddr::from((pair.v4[0], 7000));
    for name in ["a", "A.lab.internal", &*pair.v4[0].to_string()] {
        let serving = echo(&a, server);
        let host = name.to_owned();
        let asking = inside(&b, move || {
            let (stream, code) = socks(&host, 7000);
            assert_eq!(code, 0, "{host}");
            check_echo(stream);
        });
        asking.join().unwrap();
        serving.join().unwrap();
    }
    let serving = echo(&a, server);
    let asking = inside(&b, || {
        check_echo(connect("127.0.0.1:7000".parse().unwrap()))
    });
    asking.join().unwrap();
    serving.join().unwrap();
    let refused = inside(&b, || {
        ["192.0.2.1", "www.example.org", "nobody", "a"].map(|host| socks(host, 7009).1)
    });
    assert_eq!(refused.join().unwrap(), [2, 2, 4, 5]);

    // A server of the host, by the node's own port.
    let serving = echo(&b, "127.0.0.1:7001".parse().unwrap());
    let at = SocketAddr::from((pair.v4[1], 7001));
    let asking = inside(&a, move || check_echo(connect(at)));
    asking.join().unwrap();
    serving.join().unwrap();
}

#[test]
fn a_gateway_needs_a_guestless_node_and_stays_at_home() {
    let pool = Pool::new(&[]);
    let ticket = pool.ticket("n.ticket", &[]);
    let refuse = |more: &[&str], part: &str| {
        let state = pool.path("state");
        let run = ["run", "--ticket", &ticket, "--state", &state];
        support::wow(&[&run[..], more].concat()).refused(1, &[part]);
    };
    refuse(&["--socks", "127.0.0.1:0"], "are for guest none");
    refuse(
        &["--guest", "none", "--socks", "0.0.0.0:0"],
        "allow it by gateway-for-all",
    );
    refuse(
        &["--guest", "none", "--dns", "10.128.0.1"],
        "this node itself",
    );
}
