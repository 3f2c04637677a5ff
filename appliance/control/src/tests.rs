//! The stack against a second smoltcp stack in the guest's place.

mod names;
mod streams;

use super::*;
use smoltcp::phy::{Device, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
};

const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 200, 3, 4);

fn config(v4: Ipv4Addr, forwards: bool) -> ControlConfig {
    ControlConfig {
        v4,
        v6: "fd01:203:405::1".parse().unwrap(),
        mtu_bytes: 1280,
        seed: 7,
        names: Names {
            suffix: "lab.internal".into(),
            v4: (CONTROL, 9),
            v6: ("fd01:203:405::".parse().unwrap(), 48),
            forwards,
        },
    }
}

/// A guest with one TCP socket per client, and the time of both stacks.
struct Bench {
    control: Control,
    interface: Interface,
    queues: Queues,
    sockets: SocketSet<'static>,
    now: Duration,
    ports: u16,
}

impl Bench {
    fn new() -> Self {
        let mut queues = Queues::new(1280);
        let mut interface = Interface::new(
            Config::new(HardwareAddress::Ip),
            &mut queues,
            Instant::from_micros(0),
        );
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(GUEST), 9))
                .unwrap();
        });
        Bench {
            control: Control::new(config(CONTROL, false), Duration::ZERO),
            interface,
            queues,
            sockets: SocketSet::new(Vec::new()),
            now: Duration::ZERO,
            ports: 40000,
        }
    }

    fn connect(&mut self) -> smoltcp::iface::SocketHandle {
        self.connect_to(80)
    }

    fn connect_to(&mut self, port: u16) -> smoltcp::iface::SocketHandle {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; 16384]),
            SocketBuffer::new(vec![0; 16384]),
        );
        // The bench's clock stands still while the stacks talk.
        socket.set_ack_delay(None);
        self.ports += 1;
        socket
            .connect(self.interface.context(), (CONTROL, port), self.ports)
            .unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: smoltcp::iface::SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Passes packets both ways until neither stack has any; answers every document with `body`.
    fn settle(&mut self, body: &[u8]) {
        for _ in 0..1000 {
            self.interface
                .poll(instant(self.now), &mut self.queues, &mut self.sockets);
            let mut idle = true;
            while let Some(packet) = self.queues.pop() {
                assert!(self.control.wants(&packet));
                self.control.handle_packet(self.now, &packet);
                idle = false;
            }
            while let Some(question) = self.control.poll_question() {
                let Question::Document(_, reply) = question else {
                    panic!("no document: {question:?}");
                };
                reply.send(Answer(body.to_vec())).unwrap();
                self.control.handle_deadline(self.now);
                idle = false;
            }
            while let Some(packet) = self.control.poll_packet() {
                assert!(packet.len() <= 1280);
                self.queues.push(&packet);
                idle = false;
            }
            if idle {
                return;
            }
        }
        panic!("the stacks never fall silent");
    }

    /// Lets the time pass deadline by deadline.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((due, _)) = self.control.next_deadline().filter(|(due, _)| *due <= end) {
            self.now = self.now.max(due);
            self.control.handle_deadline(self.now);
            self.settle(b"");
        }
        self.now = end;
        self.settle(b"");
    }

    fn get(&mut self, request: &[u8], body: &[u8]) -> String {
        let handle = self.connect();
        self.settle(body);
        self.socket(handle).send_slice(request).unwrap();
        let mut response = Vec::new();
        loop {
            self.settle(body);
            let before = response.len();
            let socket = self.socket(handle);
            while socket.can_recv() {
                socket
                    .recv(|data| {
                        response.extend_from_slice(data);
                        (data.len(), ())
                    })
                    .unwrap();
            }
            if response.len() == before {
                break;
            }
        }
        self.socket(handle).close();
        self.settle(body);
        String::from_utf8(response).unwrap()
    }
}

#[test]
fn status_is_served_as_json() {
    let mut bench = Bench::new();
    let response = bench.get(
        b"GET /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n",
        b"{\"joined\":true}",
    );
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-type: application/json"));
    assert!(
        response.ends_with("\r\n\r\n{\"joined\":true}"),
        "{response}"
    );
}

#[test]
fn a_body_beyond_every_buffer_arrives_whole() {
    let mut bench = Bench::new();
    let body = vec![b'x'; 100_000];
    let response = bench.get(
        b"GET /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n",
        &body,
    );
    assert!(response.ends_with(std::str::from_utf8(&body).unwrap()));
}

#[test]
fn other_requests_get_an_explanation() {
    let mut bench = Bench::new();
    let missing = bench.get(b"GET /x HTTP/1.1\r\nHost: lab.internal\r\n\r\n", b"");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let post = bench.get(
        b"POST /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\ncontent-length: 0\r\n\r\n",
        b"",
    );
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let garbage = bench.get(b"\x16\x03\x01 no http\r\n\r\n", b"");
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

#[test]
fn the_page_brings_its_data_and_a_policy_along() {
    let mut bench = Bench::new();
    let page = bench.get(
        b"GET / HTTP/1.1\r\nHost: n1.lab.internal\r\n\r\n",
        b"{\"name\":\"<b>\"}",
    );
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; connect-src 'self'"));
    assert!(page.contains(r#"id="overview">{"name":"\u003cb>"}</script>"#));
}

#[test]
fn another_sites_name_gets_nothing() {
    let mut bench = Bench::new();
    for host in ["evil.example", "lab.internal.evil.example"] {
        let request = format!("GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = bench.get(request.as_bytes(), b"{\"secret\":1}");
        assert!(response.starts_with("HTTP/1.1 421"), "{response}");
        assert!(!response.contains("secret"), "{response}");
    }
}

#[test]
fn a_question_without_an_answer_is_told_as_unavailable() {
    let mut bench = Bench::new();
    let handle = bench.connect();
    bench.settle(b"");
    let request = b"GET /metrics HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n";
    bench.socket(handle).send_slice(request).unwrap();
    bench
        .interface
        .poll(instant(bench.now), &mut bench.queues, &mut bench.sockets);
    while let Some(packet) = bench.queues.pop() {
        bench.control.handle_packet(bench.now, &packet);
    }
    let question = bench.control.poll_question();
    assert!(matches!(
        question,
        Some(Question::Document(Document::Metrics, _))
    ));
    drop(question);
    bench.control.handle_deadline(bench.now);
    bench.settle(b"");
    let mut response = Vec::new();
    while bench.socket(handle).can_recv() {
        let taken = bench.socket(handle).recv(|data| {
            response.extend_from_slice(data);
            (data.len(), ())
        });
        taken.unwrap();
    }
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 503"), "{response}");
}

#[test]
fn clients_in_a_row_reuse_the_slots() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        let response = bench.get(
            b"GET /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n",
            b"{}",
        );
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
}

#[test]
fn silent_clients_are_cut_off_and_make_room() {
    let mut bench = Bench::new();
    let silent: Vec<_> = (0..8).map(|_| bench.connect()).collect();
    bench.settle(b"");
    for &handle in &silent {
        assert_eq!(bench.socket(handle).state(), State::Established);
    }
    let refused = bench.connect();
    bench.settle(b"");
    assert_eq!(bench.socket(refused).state(), State::Closed);
    let losses = bench.control.losses();
    assert!(losses.contains(&("drop_control_http", 1)), "{losses:?}");

    bench.pass(Duration::from_secs(11));
    for &handle in &silent {
        assert_ne!(bench.socket(handle).state(), State::Established);
    }
    let response = bench.get(
        b"GET /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n",
        b"{}",
    );
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[test]
fn an_idle_stack_has_no_deadline() {
    let mut bench = Bench::new();
    bench.get(
        b"GET /api/v1/status HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n",
        b"{}",
    );
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.control.next_deadline(), None);
}

#[test]
fn echo_requests_are_answered() {
    let mut bench = Bench::new();
    let echo = Icmpv4Repr::EchoRequest {
        ident: 77,
        seq_no: 5,
        data: b"are you there",
    };
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: CONTROL,
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let checksums = bench.queues.capabilities().checksum;
    let token = bench.queues.transmit(Instant::from_micros(0)).unwrap();
    token.consume(ip.buffer_len() + echo.buffer_len(), |buffer| {
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut *buffer), &checksums);
        let mut icmp = Icmpv4Packet::new_unchecked(&mut buffer[ip.buffer_len()..]);
        echo.emit(&mut icmp, &checksums);
    });
    let request = bench.queues.pop().unwrap();
    assert!(bench.control.wants(&request));
    bench.control.handle_packet(Duration::ZERO, &request);

    let reply = bench.control.poll_packet().expect("a reply");
    let ip = Ipv4Packet::new_checked(&reply).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (CONTROL, GUEST));
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(icmp.msg_type(), Icmpv4Message::EchoReply);
    assert_eq!((icmp.echo_ident(), icmp.echo_seq_no()), (77, 5));
    assert_eq!(icmp.data(), b"are you there");
}

#[test]
fn packets_to_others_are_not_wanted() {
    let bench = Bench::new();
    assert!(!bench.control.wants(b""));
    assert!(!bench.control.wants(&[0x60; 40]));
    let mut packet = [0; 20];
    packet[0] = 0x45;
    packet[16..].copy_from_slice(&[10, 128, 0, 2]);
    assert!(!bench.control.wants(&packet));
}
