//! The DNS server, asked by the guest over UDP and TCP.

use super::*;
use domain::base::iana::{Opcode, OptRcode, Rcode};
use domain::base::{Message, MessageBuilder, Name, Rtype};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;

type DnsName = Name<Vec<u8>>;

fn query(name: &str, kind: Rtype, payload: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question
        .push((name.parse::<DnsName>().unwrap(), kind))
        .unwrap();
    let mut additional = question.additional();
    if let Some(payload) = payload {
        additional
            .opt(|options| {
                options.set_udp_payload_size(payload);
                Ok(())
            })
            .unwrap();
    }
    additional.finish()
}

/// What the router says to every question.
type Router<'a> = &'a mut dyn FnMut(Question);

fn knows_n1(question: Question) {
    let Question::LookUp(lookup, asker) = question else {
        panic!("not a lookup: {question:?}");
    };
    let mut own: (Ipv4Addr, Ipv6Addr) = (GUEST, "fd01:203:405::9".parse().unwrap());
    if let Lookup::Name(name) = &lookup
        && name == "printer"
    {
        own.1 = Ipv6Addr::UNSPECIFIED;
    }
    let known = match lookup {
        Lookup::Name(name) => matches!(&*name, "n1" | "printer").then_some(None),
        Lookup::V4(v4) => (v4 == own.0).then_some(None),
        Lookup::V6(v6) => (v6 == own.1).then_some(None),
        Lookup::Service(name) => match &*name {
            "web" => Some(Some(8080)),
            "portless" => Some(None),
            _ => None,
        },
    };
    let found = known.map_or(Found::Nothing, |port| Found::Node {
        name: "n1".into(),
        v4: own.0,
        v6: own.1,
        port,
    });
    asker.send(found).unwrap();
}

impl Bench {
    fn turn(&mut self, router: Router<'_>) -> bool {
        self.interface
            .poll(instant(self.now), &mut self.queues, &mut self.sockets);
        let mut busy = false;
        while let Some(packet) = self.queues.pop() {
            self.control.handle_packet(self.now, &packet);
            busy = true;
        }
        while let Some(question) = self.control.poll_question() {
            router(question);
            self.control.handle_deadline(self.now);
            busy = true;
        }
        while let Some(packet) = self.control.poll_packet() {
            assert!(packet.len() <= 1280);
            self.queues.push(&packet);
            busy = true;
        }
        busy
    }

    fn udp(&mut self) -> SocketHandle {
        let buffer = || {
            let packets = vec![udp::PacketMetadata::EMPTY; 128];
            udp::PacketBuffer::new(packets, vec![0; 65536])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        self.ports += 1;
        socket.bind(self.ports).unwrap();
        self.sockets.add(socket)
    }

    fn ask_udp(&mut self, query: &[u8], router: Router<'_>) -> Option<Vec<u8>> {
        let handle = self.udp();
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.send_slice(query, (CONTROL, 53)).unwrap();
        while self.turn(router) {}
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.recv().ok().map(|(answer, _)| answer.to_vec())
    }

    fn ask_tcp(&mut self, query: &[u8], router: Router<'_>) -> Vec<u8> {
        let handle = self.connect_to(53);
        while self.turn(router) {}
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        // In pieces, as TCP may deliver it.
        for piece in [&length[..1], &length[1..], &query[..5], &query[5..]] {
            self.socket(handle).send_slice(piece).unwrap();
            while self.turn(router) {}
        }
        let mut answer = Vec::new();
        loop {
            let socket = self.socket(handle);
            if !socket.can_recv() {
                break;
            }
            let taken = socket.recv(|data| {
                answer.extend_from_slice(data);
                (data.len(), ())
            });
            taken.unwrap();
            while self.turn(router) {}
        }
        assert_eq!(
            answer[..2],
            u16::try_from(answer.len() - 2).unwrap().to_be_bytes()
        );
        answer.split_off(2)
    }
}

/// The records of an answer and of its authority section, as text.
fn told(answer: &[u8]) -> (Rcode, Vec<String>, Vec<String>) {
    let message = Message::from_octets(answer).unwrap();
    assert_eq!(message.header().id(), 0x1234);
    assert!(message.header().qr() && message.header().rd() && !message.header().tc());
    let show = |section: domain::base::message::RecordSection<'_, &[u8]>| -> Vec<String> {
        let records = section
            .limit_to::<domain::rdata::AllRecordData<&[u8], domain::base::ParsedName<&[u8]>>>();
        records
            .map(|record| {
                let record = record.unwrap();
                format!("{} {} {}", record.owner(), record.rtype(), record.data())
            })
            .collect()
    };
    (
        message.header().rcode(),
        show(message.answer().unwrap()),
        show(message.authority().unwrap()),
    )
}

#[test]
fn names_addresses_and_services_of_the_pool_are_told() {
    let mut bench = Bench::new();
    let mut check = |name: &str, kind, expected: &[&str]| {
        let answer = bench.ask_udp(&query(name, kind, None), &mut knows_n1);
        let (code, records, _) = told(&answer.expect("an answer"));
        assert_eq!(code, Rcode::NOERROR, "{name}");
        assert_eq!(records, expected, "{name}");
    };
    check(
        "n1.lab.internal",
        Rtype::A,
        &["n1.lab.internal A 10.200.3.4"],
    );
    // As it was written by the asker.
    check(
        "N1.Lab.Internal",
        Rtype::A,
        &["N1.Lab.Internal A 10.200.3.4"],
    );
    check(
        "n1.lab.internal",
        Rtype::AAAA,
        &["n1.lab.internal AAAA fd01:203:405::9"],
    );
    check("lab.internal", Rtype::A, &["lab.internal A 10.128.0.1"]);
    check(
        "4.3.200.10.in-addr.arpa",
        Rtype::PTR,
        &["4.3.200.10.in-addr.arpa PTR n1.lab.internal."],
    );
    check(
        "1.0.128.10.in-addr.arpa",
        Rtype::PTR,
        &["1.0.128.10.in-addr.arpa PTR lab.internal."],
    );
    check(
        "_web._tcp.lab.internal",
        Rtype::SRV,
        &["_web._tcp.lab.internal SRV 0 0 8080 n1.lab.internal"],
    );
    let any = [
        "n1.lab.internal A 10.200.3.4",
        "n1.lab.internal AAAA fd01:203:405::9",
    ];
    check("n1.lab.internal", Rtype::ANY, &any);
    // A guest behind a node has no IPv6 address.
    for kind in [Rtype::A, Rtype::ANY] {
        check(
            "printer.lab.internal",
            kind,
            &["printer.lab.internal A 10.200.3.4"],
        );
    }
}

#[test]
fn what_is_missing_is_told_by_its_kind() {
    let mut bench = Bench::new();
    let mut check = |name: &str, kind, code, soa| {
        let answer = bench.ask_udp(&query(name, kind, Some(1232)), &mut knows_n1);
        let answer = answer.expect("an answer");
        let (found, records, authority) = told(&answer);
        assert_eq!((found, records.len()), (code, 0), "{name}");
        assert_eq!(authority.len(), usize::from(soa), "{name}: {authority:?}");
        let message = Message::from_octets(&answer[..]).unwrap();
        assert_eq!(message.opt().unwrap().udp_payload_size(), 1232);
    };
    check("n2.lab.internal", Rtype::A, Rcode::NXDOMAIN, true);
    check("a.n1.lab.internal", Rtype::A, Rcode::NXDOMAIN, true);
    check("n1.lab.internal", Rtype::MX, Rcode::NOERROR, true);
    check("printer.lab.internal", Rtype::AAAA, Rcode::NOERROR, true);
    check(
        "n1.lab.internal",
        Rtype::from_int(65000),
        Rcode::NOERROR,
        true,
    );
    check("_tcp.lab.internal", Rtype::SRV, Rcode::NOERROR, true);
    check(
        "_portless._tcp.lab.internal",
        Rtype::SRV,
        Rcode::NOERROR,
        true,
    );
    check("_none._udp.lab.internal", Rtype::SRV, Rcode::NXDOMAIN, true);
    check("lab.internal", Rtype::MX, Rcode::NOERROR, true);
    check(
        "9.9.200.10.in-addr.arpa",
        Rtype::PTR,
        Rcode::NXDOMAIN,
        false,
    );
    check("example.org", Rtype::A, Rcode::REFUSED, false);
    check("1.1.1.1.in-addr.arpa", Rtype::PTR, Rcode::REFUSED, false);
    check("lab.internal", Rtype::AXFR, Rcode::REFUSED, false);
}

#[test]
fn the_pools_silence_is_a_failure_and_not_a_denial() {
    let mut bench = Bench::new();
    let asked = query("n1.lab.internal", Rtype::A, None);
    let answer = bench.ask_udp(&asked, &mut |question| drop(question));
    assert_eq!(told(&answer.unwrap()).0, Rcode::SERVFAIL);
}

#[test]
fn messages_that_make_no_sense_get_what_they_deserve() {
    let mut bench = Bench::new();
    let mut code = |bytes: &[u8]| {
        let answer = bench.ask_udp(bytes, &mut |question| panic!("{question:?}"))?;
        let message = Message::from_octets(answer).unwrap();
        let code = message.opt().map(|opt| opt.rcode(message.header()));
        Some(code.unwrap_or(message.header().rcode().into()))
    };
    assert_eq!(code(b""), None);
    assert_eq!(code(b"too short"), None);
    let good = query("n1.lab.internal", Rtype::A, None);
    assert_eq!(code(&good[..20]), Some(OptRcode::FORMERR));
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(code(&answer), None, "an answer is no query");
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(code(&two), Some(OptRcode::FORMERR));
    let mut update = good.clone();
    update[2] |= Opcode::UPDATE.to_int() << 3;
    assert_eq!(code(&update), Some(OptRcode::NOTIMP));
    let mut chaos = good.clone();
    let last = chaos.len() - 1;
    chaos[last] = 3;
    assert_eq!(code(&chaos), Some(OptRcode::REFUSED));
    // EDNS version 1: the second byte of what is the record's TTL.
    let mut newer = query("n1.lab.internal", Rtype::A, Some(4096));
    let version = newer.len() - 5;
    newer[version] = 1;
    assert_eq!(code(&newer), Some(OptRcode::BADVERS));
    let mut twice = query("n1.lab.internal", Rtype::A, Some(4096));
    let options = twice[twice.len() - 11..].to_vec();
    twice.extend(options);
    twice[11] = 2;
    assert_eq!(code(&twice), Some(OptRcode::FORMERR));
}

#[test]
fn other_names_are_forwarded_and_long_answers_asked_for_over_tcp() {
    let mut bench = Bench::new();
    bench.control = Control::new(config(CONTROL, true), Duration::ZERO);
    let mut ways = Vec::new();
    let mut router = |question: Question| {
        let Question::Forward(query, tcp, asker) = question else {
            panic!("not to be forwarded: {question:?}");
        };
        ways.push(tcp);
        let mut answer = query;
        answer[2] |= 0x80;
        answer.resize(3000, 0);
        asker.send(answer).unwrap();
    };
    let asked = query("example.org", Rtype::TXT, Some(4096));
    let cut = bench.ask_udp(&asked, &mut router).unwrap();
    let message = Message::from_octets(&cut[..]).unwrap();
    assert!(message.header().tc() && message.header().ra());
    assert!(cut.len() < 100, "{} bytes", cut.len());
    let whole = bench.ask_tcp(&asked, &mut router);
    assert_eq!((whole.len(), &whole[..2]), (3000, &[0x12, 0x34][..]));
    // An answer to something else is none.
    let mut liar = |question| {
        if let Question::Forward(_, _, asker) = question {
            let mut other = query("other.example", Rtype::TXT, None);
            other[2] |= 0x80;
            asker.send(other).unwrap();
        }
    };
    let answer = bench.ask_udp(&asked, &mut liar).unwrap();
    assert_eq!(told(&answer).0, Rcode::SERVFAIL);
    assert_eq!(ways, [false, true]);
}

#[test]
fn a_flood_is_bounded_and_the_server_answers_afterwards() {
    let mut bench = Bench::new();
    let handle = bench.udp();
    let asked = query("n1.lab.internal", Rtype::A, None);
    let mut waiting = Vec::new();
    for _ in 0..50 {
        for _ in 0..10 {
            let socket = bench.sockets.get_mut::<udp::Socket<'_>>(handle);
            socket.send_slice(&asked, (CONTROL, 53)).unwrap();
        }
        // Nobody answers meanwhile.
        while bench.turn(&mut |question| waiting.push(question)) {}
    }
    assert_eq!(waiting.len(), 64);
    let dropped = |bench: &Bench| bench.control.losses()[2];
    assert_eq!(dropped(&bench), ("drop_control_dns", 500 - 64));
    bench.pass_by(Duration::from_secs(11));
    assert_eq!(dropped(&bench), ("drop_control_dns", 500));
    let answer = bench.ask_udp(&asked, &mut knows_n1).unwrap();
    assert_eq!(told(&answer).0, Rcode::NOERROR);
    bench.pass_by(Duration::from_secs(60));
    assert_eq!(bench.control.next_deadline(), None);
}

impl Bench {
    /// Lets time pass without anybody to ask or answer.
    fn pass_by(&mut self, span: Duration) {
        self.now += span;
        self.control.handle_deadline(self.now);
        while self.turn(&mut |question| panic!("{question:?}")) {}
    }
}
