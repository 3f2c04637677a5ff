use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::*;

mod v6;

const OURS: Mac = [2, 0, 0, 0, 0, 0xff];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 1);
const SECOND: Duration = Duration::from_secs(1);

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 128, 7, number)
}

fn config() -> LanConfig {
    LanConfig {
        mac: OURS,
        gateway: GATEWAY,
        prefix_length: 9,
        gateway_v6: GATEWAY_V6,
        prefix_length_v6: 48,
        mtu_bytes: 1419,
        domain: Some("lab".into()),
        gives_time: true,
    }
}

/// The services, with a router that leases what is preferred, else the next address.
struct Bed {
    service: LanService,
    now: Duration,
    leased: Vec<(LeaseKey, Ipv4Addr)>,
    /// Addresses that others hold.
    taken: Vec<Ipv4Addr>,
    room: usize,
    next: u8,
    neighbours: Vec<(Mac, Option<Ipv4Addr>)>,
    changes: usize,
    /// Frames that nobody had asked for.
    advertised: usize,
}

/// A DHCP message from or to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    kind: DhcpMessageType,
    current: Ipv4Addr,
    yours: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
    to: (Mac, Ipv4Addr),
}

impl Message {
    fn option(&self, kind: u8) -> Option<&[u8]> {
        let found = self.options.iter().find(|(found, _)| *found == kind);
        found.map(|(_, data)| &data[..])
    }
}

const DISCOVER: DhcpMessageType = DhcpMessageType::Discover;
const OFFER: DhcpMessageType = DhcpMessageType::Offer;
const REQUEST: DhcpMessageType = DhcpMessageType::Request;
const ACK: DhcpMessageType = DhcpMessageType::Ack;
const NAK: DhcpMessageType = DhcpMessageType::Nak;

/// What a guest may say beside the kind of message.
#[derive(Default, Clone)]
struct Says {
    current: Option<Ipv4Addr>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    broadcast: bool,
    options: Vec<(u8, Vec<u8>)>,
}

fn message(from: Mac, kind: DhcpMessageType, says: &Says) -> Vec<u8> {
    let options: Vec<_> = says
        .options
        .iter()
        .map(|(kind, data)| DhcpOption { kind: *kind, data })
        .collect();
    let message = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(from),
        client_ip: says.current.unwrap_or(Ipv4Addr::UNSPECIFIED),
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: says.broadcast,
        requested_ip: says.requested,
        client_identifier: None,
        server_identifier: says.server,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let udp = UdpRepr {
        src_port: 68,
        dst_port: 67,
    };
    let ip = Ipv4Repr {
        src_addr: says.current.unwrap_or(Ipv4Addr::UNSPECIFIED),
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.buffer_len(),
        hop_limit: 64,
    };
    let header = EthernetRepr {
        src_addr: EthernetAddress(from),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; 14 + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        message.buffer_len(),
        |payload| {
            message
                .emit(&mut DhcpPacket::new_unchecked(payload))
                .unwrap();
        },
        &checksums,
    );
    bytes
}

fn read(frame: &[u8]) -> Message {
    let checksums = ChecksumCapabilities::default();
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.src_addr(), EthernetAddress(OURS));
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
    assert_eq!(ip.src_addr, GATEWAY);
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    let ports = UdpRepr::parse(&udp, &from, &to, &checksums).unwrap();
    assert_eq!((ports.src_port, ports.dst_port), (67, 68));
    assert!(udp.payload().len() >= 300);
    let message = DhcpPacket::new_checked(udp.payload()).unwrap();
    assert_eq!(message.transaction_id(), 0x1234_5678);
    let options = message.options();
    let options: Vec<_> = options.map(|o| (o.kind, o.data.to_vec())).collect();
    Message {
        kind: DhcpRepr::parse(&message).unwrap().message_type,
        current: message.client_ip(),
        yours: message.your_ip(),
        options,
        to: (frame.dst_addr().0, ip.dst_addr),
    }
}

fn arp(from: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(from),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let header = EthernetRepr {
        src_addr: EthernetAddress(from),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; 42];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

impl Bed {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(kept: Vec<Kept>) -> Self {
        let mut bed = Bed {
            service: LanService::new(config(), kept, Duration::ZERO),
            now: Duration::ZERO,
            leased: Vec::new(),
            taken: Vec::new(),
            room: 31,
            next: 100,
            neighbours: Vec::new(),
            changes: 0,
            advertised: 0,
        };
        bed.events();
        // It says who the gateway is: by ARP, and by IPv6 twice.
        assert_eq!(bed.frames().len(), 3);
        bed
    }

    fn events(&mut self) {
        while let Some(event) = self.service.poll_event() {
            match event {
                Event::Wanted { key, preferred } if self.leased.len() < self.room => {
                    let free = |v4: &Ipv4Addr| {
                        !self.taken.contains(v4) && !self.leased.iter().any(|(_, held)| held == v4)
                    };
                    let given = preferred.filter(free).unwrap_or_else(|| {
                        self.next += 1;
                        address(self.next)
                    });
                    self.leased.push((key, given));
                    self.service.leased(self.now, key, given);
                }
                Event::Wanted { key, .. } => self.service.refused(self.now, key),
                Event::Unwanted(key) => self.leased.retain(|(held, _)| *held != key),
                Event::Neighbour(mac, v4) => self.neighbours.push((mac, v4)),
                Event::Changed => self.changes += 1,
            }
        }
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.service.poll_frame()).collect()
    }

    /// Hands a frame in; what goes to the LAN.
    fn give(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.service.handle_frame(self.now, frame, false);
        self.events();
        self.frames()
    }

    fn says(&mut self, from: Mac, kind: DhcpMessageType, says: &Says) -> Option<Message> {
        let frames = self.give(&message(from, kind, says));
        assert!(frames.len() <= 1);
        frames.first().map(|frame| read(frame))
    }

    /// A guest gets its address as at its first boot.
    fn boot(&mut self, from: Mac) -> Ipv4Addr {
        let offer = self.says(from, DISCOVER, &Says::default()).unwrap();
        assert_eq!(offer.kind, OFFER);
        self.take(from, offer.yours)
    }

    fn take(&mut self, from: Mac, offered: Ipv4Addr) -> Ipv4Addr {
        let choice = Says {
            requested: Some(offered),
            server: Some(GATEWAY),
            ..Says::default()
        };
        let ack = self.says(from, REQUEST, &choice).unwrap();
        assert_eq!((ack.kind, ack.yours), (ACK, offered));
        offered
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((due, _)) = self.service.next_deadline()
            && due <= end
        {
            self.now = due;
            self.service.handle_deadline(due);
            self.events();
            // What is told to everybody now and then.
            self.advertised += self.frames().len();
        }
        self.now = end;
    }

    fn resolves(&mut self, from: Mac, source: Ipv4Addr, target: Ipv4Addr) -> bool {
        let frames = self.give(&arp(from, source, target));
        let Some(frame) = frames.first() else {
            return false;
        };
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        assert_eq!(frame.dst_addr(), EthernetAddress(from));
        let reply = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
        let expected = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(OURS),
            source_protocol_addr: target,
            target_hardware_addr: EthernetAddress(from),
            target_protocol_addr: source,
        };
        assert_eq!(reply, expected);
        true
    }
}

#[test]
fn a_guest_gets_an_address_with_all_that_it_needs_to_know() {
    let mut bed = Bed::new();
    let guest = mac(1);
    let says = Says {
        options: vec![(61, vec![0xff, 1, 2, 3]), (12, b"Ann.home\0".to_vec())],
        ..Says::default()
    };
    let offer = bed.says(guest, DISCOVER, &says).unwrap();
    assert_eq!((offer.kind, offer.to), (OFFER, (guest, offer.yours)));
    // Offered is not held yet.
    assert!(bed.neighbours.iter().all(|(_, held)| held.is_none()));
    let choice = Says {
        requested: Some(offer.yours),
        server: Some(GATEWAY),
        ..says
    };
    let ack = bed.says(guest, REQUEST, &choice).unwrap();
    assert_eq!((ack.kind, ack.yours), (ACK, offer.yours));
    assert_eq!(bed.neighbours.last(), Some(&(guest, Some(offer.yours))));
    for (option, expected) in [
        (1, &[255, 128, 0, 0][..]),
        (3, &GATEWAY.octets()),
        (6, &GATEWAY.octets()),
        (15, b"lab"),
        (42, &GATEWAY.octets()),
        (26, &1419u16.to_be_bytes()),
        (28, &[10, 255, 255, 255]),
        (51, &600u32.to_be_bytes()),
        (54, &GATEWAY.octets()),
        (58, &300u32.to_be_bytes()),
        (59, &525u32.to_be_bytes()),
        (61, &[0xff, 1, 2, 3]),
    ] {
        assert_eq!(ack.option(option), Some(expected), "option {option}");
    }
    let known = &bed.service.guests(bed.now)[0];
    assert_eq!(known.name.as_deref(), Some("ann"));
    assert_eq!(known.state, GuestState::Bound(SECOND * 600));
    assert_eq!(bed.changes, 1);
}

#[test]
fn a_guest_that_cannot_take_unicast_is_answered_by_broadcast() {
    let mut bed = Bed::new();
    let says = Says {
        broadcast: true,
        ..Says::default()
    };
    let offer = bed.says(mac(1), DISCOVER, &says).unwrap();
    assert_eq!(offer.to, ([0xff; 6], Ipv4Addr::BROADCAST));
}

#[test]
fn addresses_are_renewed_given_back_and_run_out() {
    let mut bed = Bed::new();
    let (ann, bob) = (mac(1), mac(2));
    let (anns, bobs) = (bed.boot(ann), bed.boot(bob));
    assert_ne!(anns, bobs);
    let renewal = |current| Says {
        current: Some(current),
        ..Says::default()
    };
    for _ in 0..3 {
        bed.pass(SECOND * 500);
        let ack = bed.says(ann, REQUEST, &renewal(anns)).unwrap();
        assert_eq!((ack.kind, ack.current, ack.yours), (ACK, anns, anns));
        assert_eq!(ack.to, (ann, anns));
    }
    // Bob was silent for longer than his lease.
    assert_eq!(
        bed.neighbours.iter().rfind(|(mac, _)| *mac == bob),
        Some(&(bob, None))
    );
    assert_eq!(bed.leased.len(), 1);
    let release = Says {
        current: Some(anns),
        server: Some(GATEWAY),
        ..Says::default()
    };
    assert_eq!(bed.says(ann, DhcpMessageType::Release, &release), None);
    assert!(bed.leased.is_empty());
    // Both come back to what they had.
    assert_eq!(bed.boot(bob), bobs);
    assert_eq!(bed.boot(ann), anns);
}

#[test]
fn an_address_that_a_guest_cannot_have_is_refused() {
    let mut bed = Bed::new();
    let (ann, bob) = (mac(1), mac(2));
    let anns = bed.boot(ann);
    let remembers = |requested| Says {
        requested: Some(requested),
        ..Says::default()
    };
    bed.taken.push(address(9));
    for wrong in [anns, Ipv4Addr::new(192, 168, 0, 9), GATEWAY, address(9)] {
        let nak = bed.says(bob, REQUEST, &remembers(wrong)).unwrap();
        assert_eq!(
            (nak.kind, nak.yours),
            (NAK, Ipv4Addr::UNSPECIFIED),
            "{wrong}"
        );
        assert_eq!(nak.to, ([0xff; 6], Ipv4Addr::BROADCAST));
    }
    assert_eq!(bed.service.counters().refused, 4);
    // One that nobody has is tried for, also by a router that never heard of the guest.
    let ack = bed.says(mac(3), REQUEST, &remembers(address(77))).unwrap();
    assert_eq!((ack.kind, ack.yours), (ACK, address(77)));
    let renews = Says {
        current: Some(address(78)),
        ..Says::default()
    };
    let ack = bed.says(mac(4), REQUEST, &renews).unwrap();
    assert_eq!((ack.kind, ack.yours), (ACK, address(78)));
}

#[test]
fn a_guest_that_chooses_another_server_is_let_go() {
    let mut bed = Bed::new();
    let offer = bed.says(mac(1), DISCOVER, &Says::default()).unwrap();
    let other = Says {
        requested: Some(offer.yours),
        server: Some(address(250)),
        ..Says::default()
    };
    assert_eq!(bed.says(mac(1), REQUEST, &other), None);
    assert!(bed.leased.is_empty() && bed.service.guests(bed.now).is_empty());
}

#[test]
fn an_address_found_in_use_is_kept_from_everybody_for_a_while_and_told() {
    let mut bed = Bed::new();
    let guest = mac(1);
    let first = bed.boot(guest);
    let decline = |v4| Says {
        requested: Some(v4),
        server: Some(GATEWAY),
        ..Says::default()
    };
    assert_eq!(
        bed.says(guest, DhcpMessageType::Decline, &decline(first)),
        None
    );
    let second = bed.boot(guest);
    assert_ne!(first, second);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains(&first.to_string()), "{told}");
    // Whoever declines again and again holds a few of them.
    for _ in 0..20 {
        bed.now += SECOND * 10;
        let held = bed.boot(guest);
        bed.says(guest, DhcpMessageType::Decline, &decline(held));
    }
    assert_eq!(bed.leased.len(), 4);
    bed.pass(SECOND * 700);
    assert!(bed.leased.is_empty() && bed.service.trouble(bed.now).is_empty());
}

#[test]
fn facts_alone_are_told_without_a_lease() {
    let mut bed = Bed::new();
    let inform = Says {
        current: Some(address(5)),
        ..Says::default()
    };
    let ack = bed.says(mac(1), DhcpMessageType::Inform, &inform).unwrap();
    assert_eq!((ack.kind, ack.to), (ACK, (mac(1), address(5))));
    assert_eq!(ack.option(51), None);
    assert_eq!(ack.option(6), Some(&GATEWAY.octets()[..]));
    assert!(bed.leased.is_empty());
}

#[test]
fn a_flood_takes_its_share_and_nobody_elses() {
    let mut bed = Bed::new();
    let (ann, anns) = (mac(1), bed.boot(mac(1)));
    for number in 1000..3000 {
        bed.says(mac(number), DISCOVER, &Says::default());
        bed.now += SECOND / 100;
    }
    // Eight at once are promised something, and nobody is remembered who took nothing.
    assert!(bed.leased.len() <= 9, "{}", bed.leased.len());
    assert!(bed.service.guests(bed.now).len() <= 9);
    assert!(bed.service.counters().flooded > 1500);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains("too many DHCP requests"), "{told}");
    let renewal = Says {
        current: Some(anns),
        ..Says::default()
    };
    let ack = bed.says(ann, REQUEST, &renewal).unwrap();
    assert_eq!((ack.kind, ack.yours), (ACK, anns));
    // One that shouts is not heard more often than it may.
    let heard = (0..100).filter(|_| bed.says(ann, REQUEST, &renewal).is_some());
    assert!(heard.count() <= 8);
    // When it is over everybody is served.
    bed.pass(SECOND * 40);
    bed.boot(mac(2));
    // In another's name nobody asks.
    let frame = message(mac(9), DISCOVER, &Says::default());
    let mut lie = frame;
    lie[11] ^= 1;
    assert!(bed.give(&lie).is_empty());
    assert_eq!(bed.service.counters().malformed, 1);
}

#[test]
fn when_no_address_is_left_that_is_told_and_those_who_have_one_keep_it() {
    let mut bed = Bed::new();
    bed.room = 2;
    let (anns, _) = (bed.boot(mac(1)), bed.boot(mac(2)));
    assert_eq!(bed.says(mac(3), DISCOVER, &Says::default()), None);
    assert_eq!(bed.service.counters().exhausted, 1);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains("no address is left"), "{told}");
    assert!(bed.resolves(mac(1), anns, GATEWAY));
}

#[test]
fn guests_known_before_go_on_without_asking() {
    let mut bed = Bed::new();
    let (anns, bobs) = (bed.boot(mac(1)), bed.boot(mac(2)));
    let release = Says {
        current: Some(bobs),
        server: Some(GATEWAY),
        ..Says::default()
    };
    bed.says(mac(2), DhcpMessageType::Release, &release);
    let kept = bed.service.kept();
    assert_eq!(kept.len(), 2);

    let mut bed = Bed::with(kept.clone());
    assert_eq!(bed.neighbours, [(mac(1), Some(anns))]);
    assert_eq!(bed.service.kept(), kept);
    assert_eq!(bed.boot(mac(2)), bobs);
    // What is of another pool is forgotten.
    let strange = Kept {
        address: Ipv4Addr::new(192, 0, 2, 1),
        ..kept[0].clone()
    };
    assert!(Bed::with(vec![strange]).service.guests(SECOND).is_empty());
}

#[test]
fn a_lost_address_is_refused_at_the_next_renewal() {
    let mut bed = Bed::new();
    let anns = bed.boot(mac(1));
    let key = bed.leased[0].0;
    bed.service.lost(bed.now, key);
    bed.events();
    assert_eq!(bed.neighbours.last(), Some(&(mac(1), None)));
    bed.service.leased(bed.now, key, address(200));
    bed.events();
    let renewal = Says {
        current: Some(anns),
        ..Says::default()
    };
    assert_eq!(bed.says(mac(1), REQUEST, &renewal).unwrap().kind, NAK);
    assert_eq!(bed.boot(mac(1)), address(200));
}

#[test]
fn whoever_is_elsewhere_is_found_at_the_gateway() {
    let mut bed = Bed::new();
    let (ann, bob) = (mac(1), mac(2));
    let (anns, bobs) = (bed.boot(ann), bed.boot(bob));
    assert!(bed.resolves(ann, anns, GATEWAY));
    assert!(bed.resolves(ann, anns, address(250)));
    // Guests of the same LAN find each other; and one that looks whether its own address is free
    // must not find it taken.
    assert!(!bed.resolves(ann, anns, bobs));
    assert!(!bed.resolves(ann, Ipv4Addr::UNSPECIFIED, anns));
    assert!(bed.resolves(mac(3), Ipv4Addr::UNSPECIFIED, GATEWAY));
    for outside in [
        Ipv4Addr::new(192, 0, 2, 1),
        Ipv4Addr::new(10, 128, 0, 0),
        Ipv4Addr::new(10, 255, 255, 255),
        Ipv4Addr::BROADCAST,
    ] {
        assert!(!bed.resolves(ann, anns, outside), "{outside}");
    }
    assert_eq!(bed.service.counters().spoofed, 0);
}

#[test]
fn another_card_is_announced_and_speaks_with_its_own_address() {
    let mut bed = Bed::new();
    let other = [2, 0, 0, 0, 9, 9];
    bed.service.set_mac(other);
    bed.service.set_mac(other);
    let sources = |frames: Vec<Vec<u8>>| -> Vec<Mac> {
        let source = |frame: &Vec<u8>| frame[6..12].try_into().unwrap();
        frames.iter().map(source).collect()
    };
    assert_eq!(sources(bed.frames()), [other; 3]);
    let offer = bed.give(&message(mac(1), DISCOVER, &Says::default()));
    assert_eq!(sources(offer), [other]);
}

#[test]
fn whoever_uses_an_address_without_a_lease_is_named_and_not_answered() {
    let mut bed = Bed::new();
    let anns = bed.boot(mac(1));
    assert!(!bed.resolves(mac(9), anns, GATEWAY));
    assert!(!bed.resolves(mac(9), address(9), GATEWAY));
    assert_eq!(bed.service.counters().spoofed, 2);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(
        told.contains("02:00:00:00:00:09") && told.contains("10.128.7.9"),
        "{told}"
    );
    // The gateway's is defended, but not as often as it is attacked.
    let defended: usize = (0..5)
        .map(|_| bed.give(&arp(mac(9), GATEWAY, GATEWAY)).len())
        .sum();
    assert_eq!(defended, 1);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains("the gateway's"), "{told}");
    // Networks of other machines on the same wire are nobody's business.
    let other = Ipv4Addr::new(192, 168, 0, 3);
    assert!(!bed.resolves(mac(9), other, Ipv4Addr::new(192, 168, 0, 1)));
    assert_eq!(bed.service.counters().spoofed, 7);
}

#[test]
fn messages_cut_anywhere_do_no_harm() {
    let whole = message(
        mac(1),
        REQUEST,
        &Says {
            requested: Some(address(1)),
            server: Some(GATEWAY),
            options: vec![(12, vec![0xff; 80]), (61, vec![7; 200]), (53, vec![])],
            ..Says::default()
        },
    );
    let probe = arp(mac(1), address(1), GATEWAY);
    for frame in [whole, probe] {
        for length in 0..frame.len() {
            let mut bed = Bed::new();
            bed.give(&frame[..length]);
            let mut flipped = frame.clone();
            flipped[length] ^= 0xff;
            bed.service.handle_frame(SECOND, &flipped, true);
            bed.events();
        }
    }
}
