//! The real program: a machine on a stream socket as QEMU speaks it, and, when root, two network
//! namespaces on TAP devices, pinged and sent TCP through the NAT. Programs inside namespaces are
//! threads of this test that have moved there.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::{AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketType, ipproto},
    process::{Pid, Signal},
    thread::LinkNameSpaceType,
};
use wow_wan::{
    config::{Config, Domain, Port},
    nat::Behaviour,
    wire::{self, icmp},
};

/// Long enough for any step on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

fn domains(latency: [u64; 2]) -> Vec<Domain> {
    let private = "192.168.10.0/24".parse().unwrap();
    vec![
        Domain::nat("a", private, NAT, Behaviour::PORT_RESTRICTED)
            .with_latency(Duration::from_millis(latency[0])),
        Domain::public("net", "203.0.113.0/24".parse().unwrap())
            .with_latency(Duration::from_millis(latency[1])),
    ]
}

/// A running emulator; killed when dropped.
struct Emulator {
    child: Child,
    stdin: Option<ChildStdin>,
    ready: serde_json::Value,
    directory: tempfile::TempDir,
}

impl Emulator {
    fn start(config: &Config) -> Emulator {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wan.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_wow-wan"))
            .arg("run")
            .arg(&path)
            .arg("--report")
            .arg(directory.path().join("report.json"))
            .arg("--control")
            .arg(directory.path().join("control"))
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).expect("a ready line, not an early end");
        Emulator {
            child,
            stdin,
            ready,
            directory,
        }
    }

    /// Waits for the end and reads the report.
    fn report(mut self) -> serde_json::Value {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => {
                    assert!(begun.elapsed() < DEADLINE, "the emulator does not end");
                    thread::yield_now();
                }
            }
        };
        assert!(status.success(), "{status}");
        let text = std::fs::read_to_string(self.directory.path().join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the gateway for its MAC address over a stream socket and checks the answer.
fn ask_gateway(machine: &mut UnixStream) {
    let mut arp = vec![0xff; 6];
    arp.extend_from_slice(&[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend_from_slice(&[
        2, 0, 0, 0, 0, 9, 203, 0, 113, 9, 0, 0, 0, 0, 0, 0, 203, 0, 113, 1,
    ]);
    machine
        .write_all(&(arp.len() as u32).to_be_bytes())
        .unwrap();
    machine.write_all(&arp).unwrap();
    let mut length = [0; 4];
    machine.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    machine.read_exact(&mut reply).unwrap();
    assert_eq!(
        (wire::be16(&reply, 20), &reply[28..32]),
        (2, &[203, 0, 113, 1][..])
    );
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (machine, _) = listener.accept().unwrap();
    machine.set_read_timeout(Some(DEADLINE)).unwrap();
    machine
}

#[test]
fn a_machine_on_a_stream_socket_may_come_late_go_away_talk_nonsense_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nic");
    let config = Config::new(
        1,
        domains([10, 5]),
        vec![Port::unix("net", &path).named("vm")],
    );
    let mut emulator = Emulator::start(&config.unwrap());
    assert_eq!(emulator.ready["event"], "ready");
    assert_eq!(emulator.ready["ports"][0]["name"], "vm");
    assert_eq!(emulator.ready["ports"][0]["unix"], path.to_str().unwrap());
    // The machine appears only now.
    let listener = UnixListener::bind(&path).unwrap();
    let mut machine = accept(&listener);
    ask_gateway(&mut machine);
    machine.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert_eq!(
        machine.read(&mut [0; 16]).unwrap_or(0),
        0,
        "nonsense ends the connection"
    );
    let mut machine = accept(&listener);
    ask_gateway(&mut machine);
    drop(machine);
    let mut machine = accept(&listener);
    ask_gateway(&mut machine);
    // It ends with its parent, here by the closing of standard input.
    drop(emulator.stdin.take());
    let report = emulator.report();
    assert_eq!(report["ports"][0]["connects"], 3);
    assert_eq!(report["domains"][1]["arp_replies"], 3);
}

/// Sends a line to the control socket and reads the answer.
fn order(emulator: &Emulator, line: &str) -> serde_json::Value {
    let mut client = UnixStream::connect(emulator.directory.path().join("control")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client.write_all(b"\n").unwrap();
    let mut reply = String::new();
    BufReader::new(client).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap()
}

#[test]
fn the_control_socket_is_private_obeys_and_refuses_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let ports = vec![Port::unix("net", directory.path().join("nic")).named("vm")];
    let mut emulator = Emulator::start(&Config::new(1, domains([10, 5]), ports).unwrap());
    let mode = std::fs::metadata(emulator.directory.path().join("control"))
        .unwrap()
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let done = order(
        &emulator,
        r#"{"id":7,"op":"move","port":"vm","domain":"a"}"#,
    );
    assert_eq!(done, serde_json::json!({"id": 7, "ok": {}}));
    let set = r#"{"id":8,"op":"domain","name":"a","set":{"loss_percent":200}}"#;
    let refused = order(&emulator, set);
    assert_eq!(refused["id"], 8);
    assert!(refused["error"].as_str().unwrap().contains("loss"));
    let endless = order(&emulator, &"x".repeat(100_000));
    assert!(endless["error"].as_str().unwrap().contains("at most"));
    let report = order(&emulator, r#"{"id":9,"op":"report"}"#);
    assert_eq!(report["ok"]["ports"][0]["domain"], "a");
    drop(emulator.stdin.take());
    assert_eq!(emulator.report()["ports"][0]["domain"], "a");
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wan.toml");
    std::fs::write(
        &path,
        "[[domain]]\nname = \"a\"\nnat = \"conical\"\nsubnet = \"10.0.0.0/24\"\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wow-wan"))
        .arg("run")
        .arg(&path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("wan.toml:3:") && text.contains("port-restricted"),
        "{text}"
    );
}

/// A network namespace; removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Namespace {
        ip(&["netns", "add", &name]);
        Namespace(name)
    }

    /// Moves a TAP in, and gives it a static address and a default route.
    fn adopt(&self, tap: &str, address: &str, gateway: &str) {
        ip(&["link", "set", tap, "netns", &self.0]);
        ip(&["-n", &self.0, "link", "set", "lo", "up"]);
        ip(&["-n", &self.0, "addr", "add", address, "dev", tap]);
        ip(&["-n", &self.0, "link", "set", tap, "up"]);
        ip(&["-n", &self.0, "route", "add", "default", "via", gateway]);
    }

    /// Runs `work` on a thread inside.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            work()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {}: {output:?}",
        arguments.join(" ")
    );
}

/// Whether namespaces and TAP devices can be had; says why not.
fn can_use_taps() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "no ip program (install iproute2)"
    } else {
        return true;
    };
    eprintln!("skipped: {missing}");
    false
}

/// Two namespaces behind an emulator: one in the NATed domain, one in the public.
fn two_namespaces(tag: &str, latency: [u64; 2]) -> (Emulator, Namespace, Namespace) {
    let id = std::process::id();
    let name = |end: &str| format!("w{tag}{end}{id}");
    let ports = vec![Port::tap("a", name("a")), Port::tap("net", name("b"))];
    let emulator = Emulator::start(&Config::new(1, domains(latency), ports).unwrap());
    let a = Namespace::new(name("a"));
    let b = Namespace::new(name("b"));
    a.adopt(&name("a"), "192.168.10.20/24", "192.168.10.1");
    b.adopt(&name("b"), &format!("{PUBLIC}/24"), "203.0.113.1");
    (emulator, a, b)
}

/// Sends an echo request each 200 ms until one is answered, and gives that one's round trip.
fn ping(to: Ipv4Addr) -> Duration {
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
    let timeout = Some(Duration::from_millis(200));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)
        .unwrap();
    let begun = Instant::now();
    let mut sent = Vec::new();
    while begun.elapsed() < DEADLINE {
        let sequence = sent.len() as u16;
        let mut request = vec![icmp::ECHO_REQUEST, 0, 0, 0, 0x12, 0x34];
        request.extend_from_slice(&sequence.to_be_bytes());
        request.extend_from_slice(&[0x5a; 48]);
        icmp::refresh_checksum(&mut request);
        sent.push(Instant::now());
        let address = SocketAddrV4::new(to, 0);
        rustix::net::sendto(&socket, &request, SendFlags::empty(), &address).unwrap();
        let mut packet = [0; 2048];
        while let Ok((bytes, _)) = rustix::net::recv(&socket, &mut packet, RecvFlags::empty()) {
            let header = wire::Ipv4Header::parse_quoted(&packet[..bytes]).unwrap();
            let message = &packet[header.header_bytes..bytes];
            if header.source == to
                && message[..2] == [icmp::ECHO_REPLY, 0]
                && message[4..6] == [0x12, 0x34]
            {
                let sequence = usize::from(wire::be16(message, 6));
                return sent[sequence].elapsed();
            }
        }
    }
    panic!("{to} did not answer {} pings", sent.len());
}

#[test]
fn namespaces_ping_through_the_nat_not_faster_than_configured() {
    if !can_use_taps() {
        return;
    }
    let (emulator, a, _b) = two_namespaces("p", [10, 5]);
    let round_trip = a.run(|| ping(PUBLIC)).join().unwrap();
    println!("round trip {round_trip:?}, configured 30 ms");
    assert!(round_trip >= Duration::from_millis(30), "{round_trip:?}");
    let pid = Pid::from_child(&emulator.child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let report = emulator.report();
    assert_eq!(report["domains"][0]["nat_mappings"], 1, "{report:#}");
    assert!(
        report["domains"][1]["from_core"]["packets"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn a_tcp_stream_crosses_the_nat_unharmed() {
    const BYTES: usize = 64 << 20;
    if !can_use_taps() {
        return;
    }
    let (_emulator, a, b) = two_namespaces("t", [0, 0]);
    let (port_tx, port_rx) = std::sync::mpsc::channel();
    let server = b.run(move || {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        port_tx.send(listener.local_addr().unwrap().port()).unwrap();
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut position = 0;
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                bytes => {
                    for (offset, byte) in buffer[..bytes].iter().enumerate() {
                        assert_eq!(
                            *byte,
                            pattern(position + offset),
                            "byte {}",
                            position + offset
                        );
                    }
                    position += bytes;
                }
            }
        }
        stream.write_all(b"done").unwrap();
        (position, peer.ip())
    });
    let port = port_rx.recv_timeout(DEADLINE).unwrap();
    let elapsed = a
        .run(move || {
            let mut stream = TcpStream::connect_timeout(&(PUBLIC, port).into(), DEADLINE).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let begun = Instant::now();
            let chunk: Vec<u8> = (0..BYTES).map(pattern).collect();
            stream.write_all(&chunk).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut done = [0; 4];
            stream.read_exact(&mut done).unwrap();
            begun.elapsed()
        })
        .join()
        .unwrap();
    assert_eq!(server.join().unwrap(), (BYTES, NAT.into()));
    println!("{:.0} Mbit/s", BYTES as f64 * 8e-6 / elapsed.as_secs_f64());
}

fn pattern(position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8
}
