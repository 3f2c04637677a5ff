//! IPv6 on a LAN of guests: neighbours, advertisements, and DHCP.

use smoltcp::wire::{
    Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};

use super::super::frame6::{self, To, group_mac, link_local};
use super::*;

const ANYBODY: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// What a node elsewhere has by its id.
const FAR: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 0x3456, 0x789a, 0, 0, 1);

fn twin(v4: Ipv4Addr) -> Ipv6Addr {
    config().twin(v4)
}

fn to_group(group: Ipv6Addr) -> To {
    (group_mac(group), group)
}

fn discovery(from: To, to: To, message: NdiscRepr<'_>) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(message);
    let length = message.buffer_len();
    frame6::frame(from, to, IpProtocol::Icmpv6, length, |payload| {
        message.emit(
            &from.1,
            &to.1,
            &mut Icmpv6Packet::new_unchecked(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// Asks who has an address; without an address of its own it probes whether it may take it.
fn solicit(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let own = (!source.is_unspecified()).then(|| RawHardwareAddress::from_bytes(&mac));
    let message = NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: own,
    };
    discovery((mac, source), to_group(group), message)
}

/// What an answer says: whose hardware address, the target, the flags, and to whom.
fn advert(frame: &[u8]) -> (Mac, Ipv6Addr, NdiscNeighborFlags, To) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!(ip.hop_limit(), 255);
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let checksums = ChecksumCapabilities::default();
    let message = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &checksums).unwrap();
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr,
        lladdr,
    }) = message
    else {
        panic!("{message:?}");
    };
    let mac = lladdr.unwrap().as_bytes().try_into().unwrap();
    (
        mac,
        target_addr,
        flags,
        (ethernet.dst_addr().0, ip.dst_addr()),
    )
}

impl Bed {
    fn finds(&mut self, from: Mac, source: Ipv6Addr, target: Ipv6Addr) -> bool {
        let frames = self.give(&solicit(from, source, target));
        let Some(frame) = frames.first() else {
            return false;
        };
        let (mac, told, flags, to) = advert(frame);
        assert_eq!((mac, told), (OURS, target));
        let is_own = [GATEWAY_V6, link_local(OURS)].contains(&target);
        assert_eq!(flags.contains(NdiscNeighborFlags::OVERRIDE), is_own);
        match source.is_unspecified() {
            true => assert_eq!(to, to_group(ANYBODY)),
            false => assert_eq!(to, (from, source)),
        }
        true
    }
}

#[test]
fn whoever_is_elsewhere_is_found_at_the_gateway_by_ipv6_too() {
    let mut bed = Bed::new();
    let (ann, bob) = (mac(1), mac(2));
    let (anns, bobs) = (twin(bed.boot(ann)), twin(bed.boot(bob)));
    for source in [anns, link_local(ann)] {
        assert!(bed.finds(ann, source, GATEWAY_V6));
        assert!(bed.finds(ann, source, link_local(OURS)));
        assert!(bed.finds(ann, source, FAR));
        assert!(bed.finds(ann, source, twin(address(250))));
        // Guests of the same LAN find each other.
        assert!(!bed.finds(ann, source, bobs));
        for outside in [
            "2001:db8::1",
            "fe80::1",
            "fd00:1:3::1",
            "fd00:1:2::",
            "fd00:1:2::7f00:1",
        ] {
            assert!(
                !bed.finds(ann, source, outside.parse().unwrap()),
                "{outside}"
            );
        }
    }
    // Who probes must not find its own address taken, and must find others'.
    assert!(!bed.finds(ann, Ipv6Addr::UNSPECIFIED, anns));
    assert!(!bed.finds(ann, Ipv6Addr::UNSPECIFIED, link_local(ann)));
    assert!(bed.finds(ann, Ipv6Addr::UNSPECIFIED, GATEWAY_V6));
    assert!(bed.finds(ann, Ipv6Addr::UNSPECIFIED, FAR));
    assert!(bed.finds(mac(3), Ipv6Addr::UNSPECIFIED, twin(address(9))));
    assert_eq!(bed.service.counters().spoofed, 0);
    // While its lease is looked for again it may probe as well.
    let key = bed.leased[0].0;
    bed.service.lost(bed.now, key);
    bed.events();
    assert!(!bed.finds(ann, Ipv6Addr::UNSPECIFIED, anns));
}

#[test]
fn whoever_uses_anothers_ipv6_address_is_named_and_not_answered() {
    let mut bed = Bed::new();
    let anns = twin(bed.boot(mac(1)));
    for false_source in [anns, FAR, twin(address(9))] {
        assert!(!bed.finds(mac(9), false_source, GATEWAY_V6));
        let told = bed.service.trouble(bed.now).join("\n");
        assert!(told.contains(&false_source.to_string()), "{told}");
        assert!(told.contains("02:00:00:00:00:09"), "{told}");
    }
    let claim = |address| {
        let message = NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::OVERRIDE,
            target_addr: address,
            lladdr: Some(RawHardwareAddress::from_bytes(&mac(9))),
        };
        discovery((mac(9), link_local(mac(9))), to_group(ANYBODY), message)
    };
    assert!(bed.give(&claim(anns)).is_empty());
    assert_eq!(bed.service.counters().spoofed, 4);
    // The gateway's is defended, but not as often as it is attacked.
    let defended: Vec<_> = (0..5).flat_map(|_| bed.give(&claim(GATEWAY_V6))).collect();
    let [frame] = &defended[..] else {
        panic!("{defended:?}");
    };
    assert_eq!(advert(frame).1, GATEWAY_V6);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains("the gateway's"), "{told}");
    // Of other networks on the same wire nothing is said.
    let other = "2001:db8::9".parse().unwrap();
    assert!(!bed.finds(mac(9), other, GATEWAY_V6));
    assert_eq!(bed.service.counters().spoofed, 9);
}

#[test]
fn a_flood_of_questions_about_neighbours_takes_nobody_elses_share() {
    let mut bed = Bed::new();
    let (ann, anns) = (mac(1), twin(bed.boot(mac(1))));
    for number in 1000..2000 {
        let stranger = mac(number);
        bed.finds(stranger, link_local(stranger), FAR);
        bed.resolves(stranger, Ipv4Addr::UNSPECIFIED, GATEWAY);
    }
    assert!(bed.service.counters().flooded_neighbours > 1900);
    let told = bed.service.trouble(bed.now).join("\n");
    assert!(told.contains("about neighbours"), "{told}");
    assert!(bed.finds(ann, anns, GATEWAY_V6));
    let heard = (0..200).filter(|_| bed.finds(ann, anns, FAR)).count();
    assert!(heard < 64, "{heard}");
    bed.pass(SECOND);
    assert!(bed.finds(ann, anns, FAR));
    assert!(bed.finds(mac(3000), link_local(mac(3000)), FAR));
}

/// An advertisement's prefix and whether it is on the link and for making up addresses, and the bytes of its options.
fn read_advertisement(frame: &[u8]) -> (To, Vec<u8>) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!((ip.hop_limit(), ip.src_addr()), (255, link_local(OURS)));
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let checksums = ChecksumCapabilities::default();
    let message = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &checksums).unwrap();
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        flags,
        router_lifetime,
        mtu,
        prefix_info,
        lladdr,
        ..
    }) = message
    else {
        panic!("{message:?}");
    };
    assert_eq!(flags, NdiscRouterFlags::MANAGED | NdiscRouterFlags::OTHER);
    // It leads nowhere but to the pool.
    assert_eq!(router_lifetime.total_millis(), 0);
    assert_eq!(mtu, Some(1419));
    assert_eq!(lladdr.unwrap().as_bytes(), OURS);
    let prefix = prefix_info.unwrap();
    assert_eq!(
        (prefix.prefix.to_string(), prefix.prefix_len),
        ("fd00:1:2::".into(), 48)
    );
    assert_eq!(prefix.flags.bits(), 0x80);
    let to = (ethernet.dst_addr().0, ip.dst_addr());
    (to, ip.payload()[16..].to_vec())
}

#[test]
fn routers_advertisements_lead_to_the_pool_to_its_names_and_to_dhcp() {
    let mut bed = Bed::new();
    let ask = |source| {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let message = NdiscRepr::RouterSolicit { lladdr: None };
        discovery((mac(1), source), to_group(group), message)
    };
    let told = bed.give(&ask(link_local(mac(1))));
    let (to, options) = read_advertisement(&told[0]);
    assert_eq!(to, (mac(1), link_local(mac(1))));
    let server = [&[25, 3, 0, 0, 0, 0, 7, 8][..], &GATEWAY_V6.octets()].concat();
    assert!(
        options.windows(24).any(|option| option == server),
        "{options:x?}"
    );
    let suffix = b"\x1f\x02\x00\x00\x00\x00\x07\x08\x03lab\x00\x00\x00\x00";
    assert!(options.ends_with(suffix), "{options:x?}");
    // Who has no address yet is told with everybody, and not as often as it asks.
    let told: Vec<_> = (0..5)
        .flat_map(|_| bed.give(&ask(Ipv6Addr::UNSPECIFIED)))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(read_advertisement(&told[0]).0, to_group(ANYBODY));
    // Everybody is told by and by.
    bed.pass(SECOND * 2000);
    assert!((10..16).contains(&bed.advertised), "{}", bed.advertised);
}

/// A message of a guest's DHCP client.
fn dhcp(from: Mac, kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![kind, 7, 8, 9];
    for (number, data) in options {
        message.extend(number.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(*data);
    }
    let udp = UdpRepr {
        src_port: 546,
        dst_port: 547,
    };
    let (from, to) = ((from, link_local(from)), to_group(DHCP_SERVERS));
    let length = udp.header_len() + message.len();
    frame6::frame(from, to, IpProtocol::Udp, length, |payload| {
        udp.emit(
            &mut UdpPacket::new_unchecked(payload),
            &from.1.into(),
            &to.1.into(),
            message.len(),
            |payload| payload.copy_from_slice(&message),
            &ChecksumCapabilities::default(),
        );
    })
}

const CLIENT: (u16, &[u8]) = (1, &[0, 1, 0, 1, 1, 2, 3, 4]);
const SERVER: (u16, &[u8]) = (2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 0xff]);

/// An association that names this address.
fn association(address: Option<Ipv6Addr>) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(address) = address {
        bytes.extend([0, 5, 0, 24]);
        bytes.extend(address.octets());
        bytes.extend([0; 8]);
    }
    bytes
}

/// What the server said: the kind of message, and its options.
type Said = (u8, Vec<(u16, Vec<u8>)>);

impl Bed {
    fn dhcp(&mut self, from: Mac, kind: u8, options: &[(u16, &[u8])]) -> Option<Said> {
        let frames = self.give(&dhcp(from, kind, options));
        assert!(frames.len() <= 1);
        let ethernet = EthernetFrame::new_checked(frames.first()?).unwrap();
        assert_eq!(ethernet.dst_addr().0, from);
        let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
        assert_eq!(
            (ip.src_addr(), ip.dst_addr()),
            (link_local(OURS), link_local(from))
        );
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert_eq!((udp.src_port(), udp.dst_port()), (547, 546));
        assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        let (head, mut rest) = udp.payload().split_at(4);
        assert_eq!(head[1..], [7, 8, 9]);
        let mut options = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
            let (number, end) = (word(0), 4 + usize::from(word(2)));
            options.push((number, rest[4..end].to_vec()));
            rest = &rest[end..];
        }
        Some((head[0], options))
    }
}

fn option(said: &Said, number: u16) -> Option<&[u8]> {
    let found = said.1.iter().find(|(found, _)| *found == number);
    found.map(|(_, data)| &data[..])
}

/// The addresses in the answer's association, with how long each is good.
fn addresses(said: &Said) -> Vec<(Ipv6Addr, u32)> {
    let association = option(said, 3).expect("an association");
    assert_eq!(association[..4], [0, 0, 0, 42]);
    let one = |bytes: &[u8]| {
        assert_eq!(bytes[..4], [0, 5, 0, 24]);
        let address: [u8; 16] = bytes[4..20].try_into().unwrap();
        let valid = u32::from_be_bytes(bytes[24..28].try_into().unwrap());
        (address.into(), valid)
    };
    association[12..].chunks(28).map(one).collect()
}

#[test]
fn by_dhcp_a_guest_gets_the_address_that_goes_with_its_lease() {
    let mut bed = Bed::new();
    let ann = mac(1);
    let none = association(None);
    let name = (39, &b"\x00\x03Ann\x04home\x00"[..]);
    let wants = [CLIENT, (3, &none[..]), name];
    // Before an address is leased nothing can be said.
    assert_eq!(bed.dhcp(ann, 1, &wants), None);
    let said = bed.dhcp(ann, 1, &wants).unwrap();
    assert_eq!(said.0, 2);
    let v4 = bed.leased[0].1;
    assert_eq!(addresses(&said), [(twin(v4), 600)]);
    assert_eq!(option(&said, 1), Some(CLIENT.1));
    assert_eq!(option(&said, 2), Some(SERVER.1));
    assert_eq!(option(&said, 23), Some(&GATEWAY_V6.octets()[..]));
    let time = [&[0, 1, 0, 16], &GATEWAY_V6.octets()[..]].concat();
    assert_eq!(option(&said, 56), Some(&time[..]));
    assert_eq!(option(&said, 24), Some(&b"\x03lab\x00"[..]));
    assert!(bed.neighbours.iter().all(|(_, held)| held.is_none()));
    let said = bed.dhcp(ann, 3, &[&wants[..], &[SERVER]].concat()).unwrap();
    assert_eq!((said.0, addresses(&said)), (7, vec![(twin(v4), 600)]));
    assert_eq!(bed.neighbours.last(), Some(&(ann, Some(v4))));
    assert_eq!(bed.service.guests(bed.now)[0].name.as_deref(), Some("ann"));
    // By IPv4 it is the same lease.
    assert_eq!(bed.boot(ann), v4);
    assert_eq!(bed.leased.len(), 1);
    // Renewed by either it stays.
    let held = association(Some(twin(v4)));
    for _ in 0..3 {
        bed.pass(SECOND * 500);
        let said = bed.dhcp(ann, 5, &[CLIENT, SERVER, (3, &held)]).unwrap();
        assert_eq!(addresses(&said), [(twin(v4), 600)]);
    }
    let said = bed.dhcp(ann, 4, &[CLIENT, (3, &held)]).unwrap();
    assert_eq!(option(&said, 13), Some(&[0, 0][..]));
    let said = bed.dhcp(ann, 8, &[CLIENT, SERVER, (3, &held)]).unwrap();
    assert_eq!(option(&said, 13), Some(&[0, 0][..]));
    assert!(bed.leased.is_empty());
    // Back it has what it had; facts alone are told to anybody.
    assert_eq!(bed.dhcp(ann, 1, &wants), None);
    assert_eq!(
        addresses(&bed.dhcp(ann, 1, &wants).unwrap()),
        [(twin(v4), 600)]
    );
    let said = bed.dhcp(mac(7), 11, &[]).unwrap();
    assert_eq!((said.0, option(&said, 3)), (7, None));
    assert_eq!(bed.service.counters().malformed, 0);
}

#[test]
fn an_ipv6_address_that_a_guest_cannot_have_is_taken_from_it() {
    let mut bed = Bed::new();
    let (ann, bob) = (mac(1), mac(2));
    let anns = bed.boot(ann);
    let bobs = bed.boot(bob);
    let wrong = association(Some(twin(anns)));
    let said = bed.dhcp(bob, 5, &[CLIENT, SERVER, (3, &wrong)]).unwrap();
    assert_eq!(addresses(&said), [(twin(bobs), 600), (twin(anns), 0)]);
    let said = bed.dhcp(bob, 4, &[CLIENT, (3, &wrong)]).unwrap();
    assert_eq!(option(&said, 13), Some(&[0, 4][..]));
    // Who is not known is told to begin again, or, if the address is free, is had by it again.
    let strange = association(Some(FAR));
    for (held, status) in [
        (&wrong, Some(&[0, 13, 0, 2, 0, 3][..])),
        (&strange, Some(&[0, 13, 0, 2, 0, 3])),
    ] {
        let said = bed.dhcp(mac(3), 6, &[CLIENT, (3, held)]).unwrap();
        assert_eq!(option(&said, 3).map(|ia| &ia[12..]), status);
    }
    let free = association(Some(twin(address(77))));
    assert_eq!(bed.dhcp(mac(4), 6, &[CLIENT, (3, &free)]), None);
    let said = bed.dhcp(mac(4), 6, &[CLIENT, (3, &free)]).unwrap();
    assert_eq!(addresses(&said), [(twin(address(77)), 600)]);
    // An address found in use is nobody's for a while.
    let said = bed.dhcp(mac(4), 9, &[CLIENT, SERVER, (3, &free)]).unwrap();
    assert_eq!(option(&said, 13), Some(&[0, 0][..]));
    assert_eq!(bed.service.counters().declined, 1);
    // What goes to another server is not for this one.
    let other = (2, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9][..]);
    let count = bed.leased.len();
    assert_eq!(
        bed.dhcp(
            ann,
            8,
            &[CLIENT, other, (3, &association(Some(twin(anns))))]
        ),
        None
    );
    assert_eq!(bed.leased.len(), count);
}

#[test]
fn ipv6_frames_cut_or_changed_anywhere_do_no_harm() {
    let held = association(Some(twin(address(1))));
    let frames = [
        dhcp(
            mac(1),
            3,
            &[CLIENT, SERVER, (3, &held), (39, b"\x00\x03ann\x00")],
        ),
        solicit(mac(1), link_local(mac(1)), FAR),
    ];
    for frame in frames {
        for length in 0..frame.len() {
            let mut bed = Bed::new();
            bed.give(&frame[..length]);
            let mut flipped = frame.clone();
            flipped[length] ^= 0xff;
            bed.service.handle_frame(SECOND, &flipped, true);
            bed.events();
        }
    }
    // From a distance nobody speaks of neighbours.
    let mut bed = Bed::new();
    let mut far = solicit(mac(1), link_local(mac(1)), FAR);
    far[14 + 7] = 254;
    assert!(bed.give(&far).is_empty());
    assert_eq!(bed.service.counters().malformed, 1);
}
