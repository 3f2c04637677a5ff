//! The client against a server in memory, on virtual time, over a wire that may lose frames.

use super::*;
use proptest::prelude::*;
use smoltcp::wire::{DhcpOption, Ipv4Address, Ipv4Repr, UdpRepr};
use std::net::Ipv4Addr;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

/// Answers requests with fixed terms, which a test bends.
#[derive(Clone)]
struct Server {
    answers: DhcpRepr<'static>,
    /// The terms of acknowledgements, where they differ from the offer's.
    nak: bool,
    silent: bool,
    asked: Vec<(Duration, DhcpMessageType, bool)>,
}

impl Server {
    fn new() -> Self {
        let answers = DhcpRepr {
            message_type: DhcpMessageType::Offer,
            transaction_id: 0,
            secs: 0,
            client_hardware_address: EthernetAddress(MAC),
            client_ip: Ipv4Address::UNSPECIFIED,
            your_ip: ADDRESS,
            server_ip: SERVER,
            router: Some(SERVER),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Address::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: Some([SERVER].into_iter().collect()),
            max_size: None,
            lease_duration: Some(600),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[] as &[DhcpOption<'static>],
        };
        Self {
            answers,
            nak: false,
            silent: false,
            asked: Vec::new(),
        }
    }

    fn answer(&mut self, now: Duration, frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() == EthernetProtocol::Arp {
            return (!self.silent).then(|| arp_reply(frame));
        }
        let bytes = message_of(frame, DHCP_CLIENT_PORT, DHCP_SERVER_PORT).unwrap();
        let packet = DhcpPacket::new_checked(bytes).unwrap();
        let asked = DhcpRepr::parse(&packet).unwrap();
        self.asked
            .push((now, asked.message_type, ethernet.dst_addr().is_broadcast()));
        if self.silent {
            return None;
        }
        let message_type = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request if self.nak => DhcpMessageType::Nak,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            other => panic!("{other:?}"),
        };
        let transaction_id = asked.transaction_id;
        Some(frame_of(&DhcpRepr {
            message_type,
            transaction_id,
            ..self.answers.clone()
        }))
    }
}

fn frame_of(answer: &DhcpRepr<'_>) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: DHCP_SERVER_PORT,
        dst_port: DHCP_CLIENT_PORT,
    };
    let length = 8 + answer.buffer_len();
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: length,
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + 20 + length];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_dst_addr(EthernetAddress(MAC));
    ethernet.set_src_addr(EthernetAddress(SERVER_MAC));
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    udp.emit(
        &mut datagram,
        &SERVER.into(),
        &Ipv4Addr::BROADCAST.into(),
        answer.buffer_len(),
        |bytes| answer.emit(&mut DhcpPacket::new_unchecked(bytes)).unwrap(),
        &ChecksumCapabilities::default(),
    );
    frame
}

fn arp_reply(request: &[u8]) -> Vec<u8> {
    let mut frame = request.to_vec();
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&SERVER_MAC);
    frame[21] = 2;
    let (own, theirs): ([u8; 10], [u8; 10]) = (
        request[22..32].try_into().unwrap(),
        request[32..42].try_into().unwrap(),
    );
    frame[32..42].copy_from_slice(&own);
    frame[22..32].copy_from_slice(&theirs);
    frame[22..28].copy_from_slice(&SERVER_MAC);
    frame
}

/// Runs both from `from` until `until` or `most` steps; returns the events with their times.
fn run(
    client: &mut Client,
    server: &mut Server,
    from: Duration,
    until: Duration,
) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let mut now = from;
    let mut steps = 0;
    while now <= until {
        client.handle_deadline(now);
        while let Some(frame) = client.poll_transmit() {
            if let Some(answer) = server.answer(now, &frame) {
                client.handle_frame(now, &answer);
            }
        }
        while let Some(event) = client.poll_event() {
            events.push((now, event));
        }
        now = client.next_deadline(now);
        steps += 1;
        assert!(steps < 10_000, "a busy loop at {now:?}");
    }
    events
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fresh() -> Client {
    Client::new(MAC, 7, Duration::ZERO)
}

#[test]
fn the_first_lease_takes_one_exchange_and_no_time() {
    let (mut client, mut server) = (fresh(), Server::new());
    let events = run(&mut client, &mut server, Duration::ZERO, secs(1));
    let [(at, Event::Acquired(lease))] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*at, Duration::ZERO);
    assert_eq!(
        (lease.address, lease.prefix, lease.gateway),
        (ADDRESS, 24, Some(SERVER))
    );
    assert_eq!((lease.server, lease.lifetime), (SERVER, secs(600)));
    assert_eq!(lease.dns, [SERVER]);
    assert!(client.is_settled());
    assert_eq!(server.asked.len(), 2);
}

#[test]
fn a_silent_server_is_asked_soon_again_and_then_ever_less_often() {
    let (mut client, mut server) = (fresh(), Server::new());
    server.silent = true;
    assert_eq!(run(&mut client, &mut server, Duration::ZERO, secs(120)), []);
    let times: Vec<Duration> = server.asked.iter().map(|asked| asked.0).collect();
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(times[0], Duration::ZERO);
    assert_eq!(pauses[0], FIRST_PAUSE);
    assert!(
        pauses.is_sorted() && pauses.last() == Some(&LONGEST_PAUSE),
        "{pauses:?}"
    );
    server.silent = false;
    let events = run(&mut client, &mut server, secs(120), secs(140));
    assert!(
        matches!(&events[..], [(_, Event::Acquired(_))]),
        "{events:?}"
    );
}

#[test]
fn a_lease_is_renewed_at_half_time_with_its_server_alone() {
    let (mut client, mut server) = (fresh(), Server::new());
    run(&mut client, &mut server, Duration::ZERO, secs(1));
    server.asked.clear();
    let events = run(&mut client, &mut server, secs(1), secs(310));
    assert!(
        matches!(&events[..], [(_, Event::Renewed(_))]),
        "{events:?}"
    );
    assert_eq!(events[0].0, secs(300));
    assert_eq!(server.asked, [(secs(300), DhcpMessageType::Request, false)]);
    assert!(client.is_settled());
}

#[test]
fn changed_terms_are_a_new_lease() {
    let (mut client, mut server) = (fresh(), Server::new());
    run(&mut client, &mut server, Duration::ZERO, secs(1));
    server.answers.router = Some(Ipv4Addr::new(192, 168, 7, 2));
    let events = run(&mut client, &mut server, secs(1), secs(310));
    let [(_, Event::Acquired(lease))] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(lease.gateway, Some(Ipv4Addr::new(192, 168, 7, 2)));
}

#[test]
fn a_lease_that_nobody_renews_is_lost_when_it_ends_and_asked_for_anew() {
    let (mut client, mut server) = (fresh(), Server::new());
    run(&mut client, &mut server, Duration::ZERO, secs(1));
    server.silent = true;
    let events = run(&mut client, &mut server, secs(1), secs(650));
    assert_eq!(events, [(secs(600), Event::Lost)]);
    assert!(
        server
            .asked
            .iter()
            .any(|asked| asked.0 >= secs(525) && asked.2),
        "rebinding broadcasts"
    );
    server.silent = false;
    let events = run(&mut client, &mut server, secs(650), secs(700));
    assert!(
        matches!(&events[..], [(_, Event::Acquired(_))]),
        "{events:?}"
    );
}

#[test]
fn a_lease_taken_back_is_lost() {
    let (mut client, mut server) = (fresh(), Server::new());
    run(&mut client, &mut server, Duration::ZERO, secs(1));
    server.nak = true;
    let events = run(&mut client, &mut server, secs(1), secs(301));
    assert_eq!(events[0], (secs(300), Event::Lost));
}

#[test]
fn a_server_that_only_says_no_does_not_set_the_pace() {
    let (mut client, mut server) = (fresh(), Server::new());
    server.nak = true;
    assert_eq!(run(&mut client, &mut server, Duration::ZERO, secs(60)), []);
    assert!(
        server.asked.len() < 150,
        "{} messages a minute",
        server.asked.len()
    );
}

#[test]
fn nonsense_is_refused_said_once_and_asked_again() {
    type Bend = fn(&mut DhcpRepr<'static>);
    let check = |what: &str, bend: Bend| {
        let (mut client, mut server) = (fresh(), Server::new());
        bend(&mut server.answers);
        let events = run(&mut client, &mut server, Duration::ZERO, secs(60));
        assert!(
            matches!(&events[..], [(_, Event::Refused(_))]),
            "{what}: {events:?}"
        );
        assert!(
            server.asked.len() < 100,
            "{what}: {} messages a minute",
            server.asked.len()
        );
        server.answers = Server::new().answers;
        let events = run(&mut client, &mut server, secs(60), secs(80));
        assert!(
            matches!(&events[..], [(_, Event::Acquired(_))]),
            "{what}: {events:?}"
        );
    };
    check("no mask", |answer| answer.subnet_mask = None);
    check("a torn mask", |answer| {
        answer.subnet_mask = Some(Ipv4Addr::new(255, 0, 255, 0))
    });
    check("mask 0", |answer| {
        answer.subnet_mask = Some(Ipv4Addr::UNSPECIFIED)
    });
    check("address 0", |answer| answer.your_ip = Ipv4Addr::UNSPECIFIED);
    check("loopback", |answer| answer.your_ip = Ipv4Addr::LOCALHOST);
    check("multicast", |answer| {
        answer.your_ip = Ipv4Addr::new(224, 0, 0, 1)
    });
    check("broadcast", |answer| answer.your_ip = Ipv4Addr::BROADCAST);
    check("network", |answer| {
        answer.your_ip = Ipv4Addr::new(192, 168, 7, 0)
    });
    check("its broadcast", |answer| {
        answer.your_ip = Ipv4Addr::new(192, 168, 7, 255)
    });
    check("no time", |answer| answer.lease_duration = Some(0));
    check("renewal at once", |answer| {
        // smoltcp parses T1 and T2 but does not write them itself.
        answer.additional_options = &[
            DhcpOption {
                kind: 58,
                data: &[0; 4],
            },
            DhcpOption {
                kind: 59,
                data: &[0, 0, 0, 60],
            },
        ];
    });
    check("no server", |answer| answer.server_identifier = None);
}

#[test]
fn an_unreachable_gateway_and_impossible_name_servers_are_left_out() {
    let check = |router: [u8; 4], mask: [u8; 4], expected: Option<[u8; 4]>| {
        let (mut client, mut server) = (fresh(), Server::new());
        server.answers.router = Some(router.into());
        server.answers.subnet_mask = Some(mask.into());
        server.answers.dns_servers = Some(
            [Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, SERVER]
                .into_iter()
                .collect(),
        );
        let events = run(&mut client, &mut server, Duration::ZERO, secs(1));
        let [(_, Event::Acquired(lease))] = &events[..] else {
            panic!("{router:?} {events:?}")
        };
        assert_eq!(lease.gateway, expected.map(Ipv4Addr::from), "{router:?}");
        assert_eq!(lease.dns, [SERVER]);
    };
    let wide = [255, 255, 255, 0];
    check([192, 168, 7, 1], wide, Some([192, 168, 7, 1]));
    check([10, 0, 0, 1], wide, None);
    check([192, 168, 7, 20], wide, None);
    check([192, 168, 7, 255], wide, None);
    check([0, 0, 0, 0], wide, None);
    check([10, 0, 0, 1], [255; 4], Some([10, 0, 0, 1]));
    check([127, 0, 0, 1], [255; 4], None);
}

#[test]
fn answers_to_others_are_ignored() {
    let (mut client, mut server) = (fresh(), Server::new());
    client.handle_deadline(Duration::ZERO);
    let discover = client.poll_transmit().unwrap();
    server.answers.client_hardware_address = EthernetAddress([2, 0, 0, 0, 0, 2]);
    client.handle_frame(
        Duration::ZERO,
        &server.answer(Duration::ZERO, &discover).unwrap(),
    );
    assert!(client.poll_transmit().is_none(), "another machine's offer");
    let stray = frame_of(&DhcpRepr {
        transaction_id: 1,
        ..Server::new().answers
    });
    client.handle_frame(Duration::ZERO, &stray);
    assert!(
        client.poll_transmit().is_none(),
        "another transaction's offer"
    );
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic_or_hold_nonsense(
        edits in proptest::collection::vec((0usize..600, any::<u8>()), 0..40),
        cut in 0usize..600,
        acknowledged in any::<bool>(),
    ) {
        let (mut client, mut server) = (fresh(), Server::new());
        client.handle_deadline(Duration::ZERO);
        let mut frame = client.poll_transmit().unwrap();
        if acknowledged {
            client.handle_frame(Duration::ZERO, &server.answer(Duration::ZERO, &frame).unwrap());
            frame = client.poll_transmit().unwrap();
        }
        let mut answer = server.answer(Duration::ZERO, &frame).unwrap();
        for (at, value) in edits {
            // Past the checksummed header, so that most edits get through to the options.
            if let Some(byte) = answer.get_mut(34 + at) {
                *byte = value;
            }
        }
        answer.truncate(cut.max(answer.len().saturating_sub(cut)));
        client.handle_frame(Duration::ZERO, &answer);
        while let Some(event) = client.poll_event() {
            if let Event::Acquired(lease) = event {
                prop_assert!(crate::network::plan::is_host(lease.address, lease.prefix));
                prop_assert!(lease.lifetime >= secs(10));
            }
        }
        server.silent = true;
        run(&mut client, &mut server, Duration::ZERO, secs(30));
    }
}
